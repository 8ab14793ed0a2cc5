//! `gpt.primary-invalid`

use crate::{Check, Rule};

/// Linux does not accept the primary GPT, and looks at no other.
pub static RULE: Rule = Rule {
    id: "gpt.primary-invalid",
    summary: "the primary partition table is not one that Linux accepts",
    manual: "\
# gpt.primary-invalid

## What happens
GRUB finds no partition and stops at `grub rescue>`, or the kernel finds none and the initramfs waits for a root
file system that never appears: `ALERT!  UUID=… does not exist.  Dropping to a shell!`

## Why
Linux and GRUB read the header in sector 1, and neither turns to the copy at the end of the disk by itself. The
header is bad when its checksum is wrong, when it was overwritten, or when the image was made smaller than the table
says. UEFI firmware writes the copy over it, so that the same disk may start there.

## Fix
Nothing is proposed. `guestmend inspect` shows both tables and what is wrong with each. `sgdisk -e` and `gdisk`'s
recovery menu rebuild the first table from the second.

## References
UEFI 2.10 §5.3.2; Linux `block/partitions/efi.c`; gdisk(8).
",
    check: Check::Boot(None),
};
