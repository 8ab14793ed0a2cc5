//! `lvm.filter-excludes`

use crate::{Check, Rule};

/// The filter in lvm.conf does not let LVM see a physical volume that a file system needs.
pub static RULE: Rule = Rule {
    id: "lvm.filter-excludes",
    summary: "LVM's filter passes over a disk that is needed",
    manual: "\
# lvm.filter-excludes

## What happens
`ALERT!  /dev/mapper/… does not exist.  Dropping to a shell!` or dracut's `Warning: \"/dev/mapper/…\" does not exist`.
`lvm pvs` there is empty, though the disk is there.

## Why
The filter accepts devices by name, such as `a|^/dev/sda|`, and the disk has another name on this machine. For the root
file system the copy of lvm.conf in the initramfs counts; for what is mounted later the one in `/etc/lvm`.

## Fix
Nothing is proposed. Take the filter out of `/etc/lvm/lvm.conf`, or let it accept names that do not change, and make
the initramfs anew.

## References
lvm.conf(5), `devices/filter`; lvmdevices(8).
",
    check: Check::Boot(None),
};
