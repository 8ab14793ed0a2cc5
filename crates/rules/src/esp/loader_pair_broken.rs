//! `esp.loader-pair-broken`

use crate::{Check, Rule};

/// The loader that UEFI starts, or the one that it hands over to, is missing or no program.
pub static RULE: Rule = Rule {
    id: "esp.loader-pair-broken",
    summary: "a program on the EFI system partition is missing or damaged",
    manual: "\
# esp.loader-pair-broken

## What happens
UEFI says `BdsDxe: failed to load Boot0001: Not Found`, or shim says `Failed to open \\EFI\\BOOT\\grubx64.efi - Not
Found`, and the next boot entry is tried.

## Why
shim starts `grubx64.efi` in its own folder. The file is not there, empty, or cut off: a full EFI system partition
during an update, or files of two installations that were mixed.

## Fix
Nothing is proposed. Copy the missing program from the vendor's folder on the same partition, or reinstall the
packages of shim and GRUB.

## References
shim `shim.c`; UEFI 2.10 §3.5.1.1.
",
    check: Check::Boot(None),
};
