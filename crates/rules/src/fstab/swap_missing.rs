//! `fstab.swap-missing`

use crate::{Check, Rule};

/// A swap file of fstab is not there.
pub static RULE: Rule = Rule {
    id: "fstab.swap-missing",
    summary: "a swap file of fstab is not there",
    manual: "\
# fstab.swap-missing

## What happens
`Failed to activate swap …`; the system comes up, and is `degraded`.

## Why
The file was not copied, or was removed to save space, and its line stayed. A swap device that is missing costs a wait and
fails nothing.

## Fix
Nothing is proposed. Make the file anew (`fallocate`, `mkswap`), or take the line out.

## References
systemd.swap(5); fstab(5).
",
    check: Check::Boot(None),
};
