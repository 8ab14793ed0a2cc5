//! `fw.no-boot-path`

use crate::{Check, Rule};

/// The disks hold nothing that the firmware of the machine can start.
pub static RULE: Rule = Rule {
    id: "fw.no-boot-path",
    summary: "there is nothing that this firmware can start",
    manual: "\
# fw.no-boot-path

## What happens
UEFI says `BdsDxe: failed to load Boot0001: Not Found`, then goes to the network, its shell or its setup screen.

## Why
UEFI starts programs on a FAT file system, a BIOS starts boot sectors. The disks were made for one and the machine
has the other, or the EFI system partition is gone, or empty.

## Fix
Nothing is proposed. Give the machine the firmware that its disks are made for. For a machine that must have UEFI,
make an EFI system partition and install the boot loader into it.

## References
UEFI 2.10 §3.5.1.1, \"Removable Media Boot Behavior\".
",
    check: Check::Boot(None),
};
