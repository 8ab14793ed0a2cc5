//! `fs.btrfs-incomplete`

use crate::{Check, Rule};

/// The file system is there, and the subvolume of it that the command line names is not.
pub static RULE: Rule = Rule {
    id: "fs.btrfs-incomplete",
    summary: "the subvolume that is to be the root is not there",
    manual: "\
# fs.btrfs-incomplete

## What happens
`mounting UUID=… on the root directory fails`: the kernel says `mount: … No such file or directory`, and the
initramfs ends in its shell.

## Why
`rootflags=subvol=` names a subvolume that was renamed or deleted, for instance after a snapshot was put in its
place.

## Fix
Nothing is proposed. `guestmend inspect` lists the subvolumes. Correct the name in the command line, or rename the
subvolume.

## References
btrfs(5), `subvol`; btrfs-subvolume(8).
",
    check: Check::Boot(None),
};
