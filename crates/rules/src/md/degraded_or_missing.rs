//! `md.degraded-or-missing`

use crate::{Check, Rule};

/// An array cannot be assembled from its members, or runs without some.
pub static RULE: Rule = Rule {
    id: "md.degraded-or-missing",
    summary: "an array is not there, or lacks members",
    manual: "\
# md.degraded-or-missing

## What happens
GRUB's prompt `grub rescue>` with `disk … not found`, or an initramfs that waits for the root file system in vain. An array
with enough members left runs without the others: the system comes up, and the next disk that fails takes the data along.

## Why
Members with a superblock are missing: disks are not there, or their superblocks were overwritten.

## Fix
Nothing is proposed. `mdadm --add` in the running system takes a member back. Give all disks of the machine to guestmend; never make an array anew over members that hold data.

## References
md(4), mdadm(8).
",
    check: Check::Boot(None),
};
