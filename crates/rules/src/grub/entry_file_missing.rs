//! `grub.entry-file-missing`

use crate::{Check, Rule};

/// The kernel or the initramfs that the default entry names is not there.
pub static RULE: Rule = Rule {
    id: "grub.entry-file-missing",
    summary: "the default entry of GRUB names a file that is not there",
    manual: "\
# grub.entry-file-missing

## What happens
GRUB says `error: file `/boot/vmlinuz-…' not found.` and comes back to its menu. Without its initramfs the kernel
starts, and panics: `VFS: Unable to mount root fs on unknown-block(0,0)`.

## Why
The kernel was removed or its update was interrupted, `/boot` was full, or a `/boot` of its own came or went, so
that `/boot/vmlinuz` had to become `/vmlinuz`.

## Fix
Nothing is proposed. Another entry of the menu may still start. In the guest, install the kernel again or make its
initramfs (`update-initramfs -c`, `dracut`), then `grub-mkconfig`.

## References
GRUB manual, \"linux\" and \"initrd\"; Linux `init/do_mounts.c`.
",
    check: Check::Boot(None),
};
