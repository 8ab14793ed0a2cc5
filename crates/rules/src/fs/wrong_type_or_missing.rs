//! `fs.wrong-type-or-missing`

use crate::{Check, Rule};

/// Where GRUB, an initramfs or systemd is to read a file system there is none that is known.
pub static RULE: Rule = Rule {
    id: "fs.wrong-type-or-missing",
    summary: "where a file system is looked for there is none that is known",
    manual: "\
# fs.wrong-type-or-missing

## What happens
GRUB says `error: unknown filesystem.` and stops at `grub rescue>`; an initramfs does not find the root file system and ends in its
shell; systemd fails to mount.

## Why
The start of the file system was overwritten: by `mkswap`, `pvcreate` or `dd` on the wrong partition, or by a table
that moved.

## Fix
Nothing is proposed. `guestmend inspect` says what is there. ext4 and XFS keep copies of their superblock further
behind (`e2fsck -b 32768`, `xfs_repair`); work on a copy of the image.

## References
e2fsck(8); xfs_repair(8); GRUB manual, \"GRUB only offers a rescue shell\".
",
    check: Check::Boot(None),
};
