//! `lvm.activation-disabled`

use crate::{Check, Rule};

/// The configuration of LVM keeps volumes from being activated.
pub static RULE: Rule = Rule {
    id: "lvm.activation-disabled",
    summary: "the LVM configuration leaves a volume inactive that is needed",
    manual: "\
# lvm.activation-disabled

## What happens
dracut's `Warning: \"/dev/mapper/…\" does not exist`; `lvm lvs` there lists the volume, and it is not active.

## Why
`activation/volume_list` in lvm.conf names other groups, volumes or tags, or `auto_activation_volume_list` does, or
`event_activation` is off. For the root file system the copy in the initramfs counts; for what is mounted later, and was not
activated by the initramfs, the one in `/etc/lvm`. Then systemd waits for the device and ends in emergency mode.

## Fix
Nothing is proposed. Add the group to the list, and make the initramfs anew.

## References
lvm.conf(5), `activation/volume_list`.
",
    check: Check::Boot(None),
};
