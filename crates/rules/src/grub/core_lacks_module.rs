//! `grub.core-lacks-module`

use crate::{Check, Rule};

/// GRUB's core image has no driver for the file system that holds its other files.
pub static RULE: Rule = Rule {
    id: "grub.core-lacks-module",
    summary: "GRUB's core image has no driver for the file system of its own files",
    manual: "\
# grub.core-lacks-module

## What happens
GRUB says `error: unknown filesystem.` and stops at `grub rescue>`.

## Why
Modules lie on a file system that the core image must be able to read by itself. `/boot` was moved to another kind
of file system, or onto LVM or RAID, after GRUB was installed.

## Fix
Nothing is proposed. Install GRUB anew with `grub-install`, which puts the drivers that `/boot` needs into the core
image.

## References
GRUB manual, \"Images\" and \"Invoking grub-install\".
",
    check: Check::Boot(None),
};
