//! `grub.core-damaged`

use crate::{Check, Rule};

/// GRUB's core image cannot be unpacked.
pub static RULE: Rule = Rule {
    id: "grub.core-damaged",
    summary: "GRUB's core image is damaged",
    manual: "\
# grub.core-damaged

## What happens
The BIOS starts GRUB, which prints `GRUB`, or `GRUB loading.`, and hangs.

## Why
The core image lies outside of all partitions, in the sectors behind the boot sector or in a BIOS boot partition. No
file system protects it: partitioning tools, other boot loaders and licence managers write there.

## Fix
Nothing is proposed. Install GRUB anew: `grub-install /dev/…` (`grub2-install` on Red Hat) from a rescue system.

## References
GRUB manual, \"Images\"; `grub-core/lib/xzembed` and `lzma_decompress.img`.
",
    check: Check::Boot(None),
};
