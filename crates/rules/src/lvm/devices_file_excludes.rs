//! `lvm.devices-file-excludes`

use crate::{Check, Rule};

/// LVM's devices file does not list a physical volume that a file system needs.
pub static RULE: Rule = Rule {
    id: "lvm.devices-file-excludes",
    summary: "LVM's devices file leaves out a disk that is needed",
    manual: "\
# lvm.devices-file-excludes

## What happens
dracut's `Warning: \"/dev/mapper/…\" does not exist`, or `ALERT!  /dev/mapper/… does not exist.` `lvm pvs` there is empty,
though the disk is there.

## Why
Where `/etc/lvm/devices/system.devices` exists and lvm2 goes by it (RHEL 9 and later do unless told otherwise), only the
devices in it are physical volumes. It knows a device by a number that the disk has; a copy of a machine, or another bus,
has other numbers. For the root file system the copy in the initramfs counts.

## Fix
Nothing is proposed. Take the file away (`virt-v2v` and `virt-sysprep` do that), or list the devices anew with
`vgimportdevices -a`, and make the initramfs anew.

## References
lvmdevices(8); lvm.conf(5), `devices/use_devicesfile`.
",
    check: Check::Boot(None),
};
