//! `kernel.modules-missing`

use crate::{Check, Rule};

/// The modules of the kernel that starts are not on the root file system.
pub static RULE: Rule = Rule {
    id: "kernel.modules-missing",
    summary: "the kernel's modules are not there",
    manual: "\
# kernel.modules-missing

## What happens
The root file system is mounted, and what comes after fails: `Failed to mount /boot/efi`, no network, emergency mode.

## Why
`/lib/modules` has no directory for the kernel that the boot loader starts, or files in it are missing: a package was removed
by half, or `/boot` belongs to another installation.

## Fix
Nothing is proposed: install the kernel's package again, or start the kernel whose modules are there.

## References
modules.dep(5), modprobe(8).
",
    check: Check::Boot(None),
};
