//! `initramfs.missing-driver`

use crate::{Check, Rule};

/// The initramfs has no driver for the bus of the machine's disks.
pub static RULE: Rule = Rule {
    id: "initramfs.missing-driver",
    summary: "the initramfs lacks the driver for the bus of the disks",
    manual: "\
# initramfs.missing-driver

## What happens
The kernel starts and sees no disk: `ALERT!  UUID=… does not exist.  Dropping to a shell!` or dracut's `Warning:
\"/dev/…\" does not exist`. On the hypervisor that the guest comes from it starts.

## Why
The initramfs was made with only the drivers of the machine that made it (`hostonly` of dracut, `MODULES=dep` of
initramfs-tools), and that machine had its disks on another bus.

## Fix
Nothing is proposed. Attach the disks by a bus whose driver is there, and make the initramfs anew in the guest:
`dracut --force --no-hostonly`, or `MODULES=most` and `update-initramfs -u`. The `0-rescue` entry of Red Hat holds
all drivers.

## References
dracut(8), \"hostonly\"; initramfs.conf(5).
",
    check: Check::Boot(None),
};
