//! `fs.ext4-errors`

use crate::{Check, Rule};

/// A check at boot leaves errors of an ext4 for a person.
pub static RULE: Rule = Rule {
    id: "fs.ext4-errors",
    summary: "the check at boot cannot repair this file system by itself",
    manual: "\
# fs.ext4-errors

## What happens
initramfs-tools says `The root filesystem on /dev/vda1 requires a manual fsck`, and ends in its shell. Of other file systems, and with
dracut, systemd says `Failed to start systemd-fsck@…` and `Dependency failed for …`, and the system ends in emergency mode.

## Why
`e2fsck -a` repairs what it can without losing data, and leaves the rest: its exit status has bit 4 then. It only looks where the file
system is marked: as one in which the kernel met errors, as not unmounted, by its count of mounts, or by `fsck.mode=force`. An ext4
whose superblock fits no checksum is not mounted at all.

## Fix
Nothing is proposed. On a copy of the image: `e2fsck -f DEVICE`, which asks before each repair, and look into `lost+found` after it.
`fsck.mode=skip` on the command line lets a system start that may damage itself further.

## References
e2fsck(8), \"EXIT CODE\"; systemd-fsck@.service(8); initramfs-tools `scripts/functions`.
",
    check: Check::Boot(None),
};
