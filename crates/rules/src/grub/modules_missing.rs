//! `grub.modules-missing`

use crate::{Check, Rule};

/// A module that GRUB cannot do without is not there.
pub static RULE: Rule = Rule {
    id: "grub.modules-missing",
    summary: "GRUB's modules are missing",
    manual: "\
# grub.modules-missing

## What happens
GRUB says `error: file `/boot/grub/i386-pc/normal.mod' not found.` and stops at `grub rescue>`.

## Why
The core image only finds the folder with the modules; the menu itself is one of them, `normal.mod`. The folder was
emptied, or `/boot` was moved or restored without it.

## Fix
Nothing is proposed. Copy the modules from `/usr/lib/grub/i386-pc` of the guest, if GRUB's version is the one that
was installed; else install GRUB anew with `grub-install`.

## References
GRUB manual, \"GRUB only offers a rescue shell\".
",
    check: Check::Boot(None),
};
