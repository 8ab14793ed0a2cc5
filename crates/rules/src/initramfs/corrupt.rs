//! `initramfs.corrupt`

use crate::{Check, Rule};

/// The initramfs is damaged, or holds no program to start.
pub static RULE: Rule = Rule {
    id: "initramfs.corrupt",
    summary: "the initramfs cannot be unpacked",
    manual: "\
# initramfs.corrupt

## What happens
`Initramfs unpacking failed: …`, then `Kernel panic - not syncing: VFS: Unable to mount root fs on
unknown-block(0,0)`.

## Why
The file is empty, cut off or overwritten: `/boot` was full when it was made, or the machine was switched off then.

## Fix
Nothing is proposed. Start another kernel from the menu, make room in `/boot`, and make the initramfs anew
(`update-initramfs -u`, `dracut --force`).

## References
Linux `init/initramfs.c`, `Documentation/driver-api/early-userspace/buffer-format.rst`.
",
    check: Check::Boot(None),
};
