//! `fstab.syntax`

use crate::{Check, Rule};

/// A line of fstab that one reader takes and another does not.
pub static RULE: Rule = Rule {
    id: "fstab.syntax",
    summary: "a line of fstab is not read as it was meant",
    manual: "\
# fstab.syntax

## What happens
`No init found. Try passing init= bootarg.`, and the initramfs ends in its shell.

## Why
initramfs-tools looks in fstab for the very word `/usr`. Another spelling that systemd takes, such as `/usr/`, is passed over: the
root file system is left without `/usr`, where init lies.

## Fix
Nothing is proposed. Write `/usr`.

## References
fstab(5); initramfs-tools `init`, `scripts/functions`.
",
    check: Check::Boot(None),
};
