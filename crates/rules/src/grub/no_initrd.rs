//! `grub.no-initrd`

use crate::{Check, Rule};

/// The default entry loads no initramfs, and the kernel cannot find the root file system without.
pub static RULE: Rule = Rule {
    id: "grub.no-initrd",
    summary: "the kernel is started without the initramfs that it needs",
    manual: "\
# grub.no-initrd

## What happens
`Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)`

## Why
By itself a kernel knows neither `root=UUID=` nor `LABEL=`, assembles no LVM, RAID or LUKS, and has only the drivers
that are built in. The entry has no `initrd` line: the initramfs did not exist when the menu was made.

## Fix
Nothing is proposed. Make the initramfs in the guest (`update-initramfs -c -k all`, `dracut --regenerate-all`), then
`grub-mkconfig`.

## References
Linux `init/do_mounts.c`, `Documentation/admin-guide/initrd.rst`.
",
    check: Check::Boot(None),
};
