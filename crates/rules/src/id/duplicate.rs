//! `id.duplicate`

use crate::{Check, Rule};

/// Two disks claim one identity.
pub static RULE: Rule = Rule {
    id: "id.duplicate",
    summary: "two disks of this machine claim the same identity",
    manual: "\
# id.duplicate

## What happens
LVM refuses to activate the volumes, `PVs appear on duplicate devices`; btrfs and XFS refuse the second file system; or it is
chance which of the two is the root.

## Why
A copy of the disk is attached beside it, as for a repair, or a restored image beside the original.

## Fix
Nothing is proposed. Detach one of them. Never give a root file system another UUID only to have both.

## References
lvm2 `lib/cache/lvmcache.c`; vgimportclone(8).
",
    check: Check::Boot(None),
};
