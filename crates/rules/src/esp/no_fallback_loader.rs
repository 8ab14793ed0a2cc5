//! `esp.no-fallback-loader`

use crate::{Check, Rule};

/// UEFI without memory of boot entries finds no loader.
pub static RULE: Rule = Rule {
    id: "esp.no-fallback-loader",
    summary: "the EFI system partition has no loader in the fallback place",
    manual: "\
# esp.no-fallback-loader

## What happens
UEFI says `BdsDxe: failed to load Boot0001: Not Found`. On the machine on which the guest was installed it may still
start.

## Why
The loader lies in the folder of its vendor, such as `/EFI/debian`, and the firmware knows that from a boot entry in
its own memory. That memory is not on the disk: a clone, an import or a new machine has none, and then only
`/EFI/BOOT/BOOTX64.EFI` is tried.

## Fix
Nothing is proposed. Copy the vendor's `shimx64.efi` to `/EFI/BOOT/BOOTX64.EFI` with `grubx64.efi` beside it, or run
`grub-install --force-extra-removable` in the guest (Debian), or add a boot entry to the machine.

## References
UEFI 2.10 §3.5.1.1; shim `README.fallback`; Debian wiki, \"UEFI\".
",
    check: Check::Boot(None),
};
