//! `mbr.boot-code-unusable`

use crate::{Check, Rule};

/// The boot sector that the BIOS starts holds no code.
pub static RULE: Rule = Rule {
    id: "mbr.boot-code-unusable",
    summary: "the boot sector holds no code",
    manual: "\
# mbr.boot-code-unusable

## What happens
A BIOS says `Booting from Hard Disk...` and then nothing more, for ever. No menu, no error, a black screen with a
cursor.

## Why
The first sector has the mark of a boot sector, so that the BIOS starts it, and its code is nothing but zeros. This
happens when a partition table is written by a tool that brings no boot code, or when a disk that was made for UEFI
is started by a BIOS.

## Fix
Nothing is proposed. On a machine that is to use UEFI, switch its firmware. Else install the boot loader anew:
`grub-install /dev/…` writes the code and leaves the table.

## References
GRUB manual, \"BIOS installation\"; `boot.img` in GRUB's `grub-core/boot/i386/pc/boot.S`.
",
    check: Check::Boot(None),
};
