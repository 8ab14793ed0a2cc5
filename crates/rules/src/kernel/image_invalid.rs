//! `kernel.image-invalid`

use crate::{Check, Rule};

/// The file of the kernel is empty, cut off, or no kernel.
pub static RULE: Rule = Rule {
    id: "kernel.image-invalid",
    summary: "the kernel is not whole",
    manual: "\
# kernel.image-invalid

## What happens
GRUB says `error: invalid magic number.` or `error: premature end of file /boot/vmlinuz-….`; a kernel that is cut
off starts the machine anew, again and again.

## Why
The kernel's package was not written completely: `/boot` was full, or the machine was switched off during an update.

## Fix
Nothing is proposed. Start another kernel from the menu and install the package again.

## References
Linux `Documentation/arch/x86/boot.rst`.
",
    check: Check::Boot(None),
};
