//! `fstab.option-hazard`

use crate::{Check, Rule};

/// An option in fstab keeps the file system from being mounted.
pub static RULE: Rule = Rule {
    id: "fstab.option-hazard",
    summary: "an option of a mount cannot be granted",
    manual: "\
# fstab.option-hazard

## What happens
`Failed to mount`, and the guest stops in emergency mode.

## Why
The option asks for something that is not there, as `subvol=` for a subvolume that was renamed or removed; or the driver of
this file system has no such option, as when it was meant for another kind or is misspelt. Where it is the root, that stays
read-only.

## Fix
Nothing is proposed: the options are the person's choice. `inspect` lists the subvolumes that are there.

## References
fstab(5); btrfs(5).
",
    check: Check::Boot(None),
};
