//! `esp.fs-damaged-or-full`

use crate::{Check, Rule};

/// The EFI system partition holds no file system that the firmware reads.
pub static RULE: Rule = Rule {
    id: "esp.fs-damaged-or-full",
    summary: "the file system of the EFI system partition is damaged",
    manual: "\
# esp.fs-damaged-or-full

## What happens
The firmware finds nothing to start: `BdsDxe: failed to load Boot0001 … Not Found`, then the network or its shell.

## Why
The partition table has an EFI system partition, and what lies on it is no FAT file system: its boot sector was overwritten,
or a copy of the disk ended before it.

## Fix
Nothing is proposed. FAT32 keeps a copy of its boot sector in sector 6; `fsck.fat` restores it. Never make the file system anew
where the loaders are still on it.

## References
UEFI 2.10 §13.3; fsck.fat(8).
",
    check: Check::Boot(None),
};
