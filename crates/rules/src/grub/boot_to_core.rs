//! `grub.boot-to-core`

use crate::{Check, Rule};

/// GRUB's boot sector points to a place that holds no core image.
pub static RULE: Rule = Rule {
    id: "grub.boot-to-core",
    summary: "the boot sector does not lead to GRUB's core image",
    manual: "\
# grub.boot-to-core

## What happens
The BIOS starts GRUB's boot sector, which prints `GRUB` and hangs, or says `GRUB Read Error` or `GRUB Hard Disk
Error`.

## Why
The boot sector holds the number of the sector in which the rest of GRUB starts. What is there is something else:
the gap before the first partition was overwritten, the image was copied to another offset, the disk was cut off, or
GRUB was installed on a drive that is not there any more.

## Fix
Nothing is proposed. Install GRUB anew: `grub-install /dev/…` (`grub2-install` on Red Hat) from a rescue system. The
partitions stay as they are.

## References
GRUB manual, \"Images\" and \"BIOS installation\"; `grub-core/boot/i386/pc/diskboot.S`.
",
    check: Check::Boot(None),
};
