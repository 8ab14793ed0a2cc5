//! `mbr.signature-missing`

use crate::{Check, Rule};

/// No disk has the mark of a boot sector.
pub static RULE: Rule = Rule {
    id: "mbr.signature-missing",
    summary: "no disk has the mark of a boot sector",
    manual: "\
# mbr.signature-missing

## What happens
A BIOS says `Boot failed: not a bootable disk`, then `No bootable device`, and goes no further. The disk is there
and whole otherwise.

## Why
The last two bytes of the first sector are not `55 aa`. A BIOS starts no disk without them. They are lost when
something writes over the first sector: a tool that was given the disk in the place of a partition, or a table that
was wiped. A disk without them is as good as empty to the firmware, whatever its partitions hold.

## Fix
Nothing is proposed. Where the boot code before the mark is still there, writing the two bytes is enough; where the
whole sector is gone, the boot loader has to be installed anew (`grub-install /dev/…` from a rescue system).

## References
SeaBIOS `src/boot.c`; GRUB manual, \"BIOS installation\".
",
    check: Check::Boot(None),
};
