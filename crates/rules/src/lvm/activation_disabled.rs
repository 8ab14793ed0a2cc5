//! `lvm.activation-disabled`

use crate::{Check, Rule};

/// The configuration of LVM in the initramfs keeps volumes from being activated.
pub static RULE: Rule = Rule {
    id: "lvm.activation-disabled",
    summary: "the LVM configuration leaves the root volume inactive",
    manual: "\
# lvm.activation-disabled

## What happens
dracut's `Warning: \"/dev/mapper/…\" does not exist`; `lvm lvs` there lists the volume, and it is not active.

## Why
`activation/volume_list` in lvm.conf names other groups, volumes or tags. The copy in the initramfs counts.

## Fix
Nothing is proposed. Add the group to the list, and make the initramfs anew.

## References
lvm.conf(5), `activation/volume_list`.
",
    check: Check::Boot(None),
};
