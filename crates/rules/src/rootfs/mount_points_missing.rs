//! `rootfs.mount-points-missing`

use crate::{Check, Rule};

/// A directory is missing on which the kernel's own file systems are mounted.
pub static RULE: Rule = Rule {
    id: "rootfs.mount-points-missing",
    summary: "a directory is missing that the kernel's file systems are mounted on",
    manual: "\
# rootfs.mount-points-missing

## What happens
`mount: mounting /dev on /root/dev failed: No such file or directory`, then `Kernel panic - not syncing: Attempted to kill init!`

## Why
The tree was copied without `/dev`, `/proc`, `/sys` and `/run`: `rsync --exclude` or `tar --exclude` with the directories
themselves left out, not only what is in them.

## Fix
Nothing is proposed. Make the four directories, owned by root, with mode 0755 (`/proc` and `/sys` 0555).

## References
initramfs-tools `init`; file-hierarchy(7).
",
    check: Check::Boot(None),
};
