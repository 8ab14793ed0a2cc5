//! `md.degraded-or-missing`

use crate::{Check, Rule};

/// An array cannot be assembled from its members.
pub static RULE: Rule = Rule {
    id: "md.degraded-or-missing",
    summary: "an array is not there",
    manual: "\
# md.degraded-or-missing

## What happens
GRUB's prompt `grub rescue>` with `disk … not found`, or an initramfs that waits for the root file system in vain.

## Why
Too few members with a superblock are left: disks are missing, or their superblocks were overwritten.

## Fix
Nothing is proposed. Give all disks of the machine to guestmend; never make an array anew over members that hold data.

## References
md(4), mdadm(8).
",
    check: Check::Boot(None),
};
