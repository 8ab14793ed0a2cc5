//! `modprobe.storage-blacklisted`

use crate::{Check, Rule};

/// The driver of the root's disk is there and is kept from being loaded.
pub static RULE: Rule = Rule {
    id: "modprobe.storage-blacklisted",
    summary: "the driver of a disk is kept from being loaded",
    manual: "\
# modprobe.storage-blacklisted

## What happens
`ALERT!  /dev/… does not exist.`, or dracut's `Warning: \"/dev/…\" does not exist`: the disk is there, its driver is in the
initramfs, and nobody loads it.

## Why
`modprobe.blacklist=`, `module_blacklist=` or `rd.driver.blacklist=` on the command line, or a `blacklist` or `install` line of
`modprobe.d` in the initramfs, names the driver. Such a line comes from hardening guides, and from work-arounds on other
hardware.

## Fix
Nothing is proposed. Take the word off the command line; a line of `modprobe.d` counts by its copy in the initramfs, which is
to be made anew.

## References
modprobe.d(5); kernel-command-line(7); dracut.cmdline(7).
",
    check: Check::Boot(None),
};
