//! `lvm.pv-missing`

use crate::{Check, Rule};

/// The volume of the root file system cannot be put together from the disks of the machine.
pub static RULE: Rule = Rule {
    id: "lvm.pv-missing",
    summary: "a part of the volume that holds the root file system is not there",
    manual: "\
# lvm.pv-missing

## What happens
The initramfs waits for the root file system, then gives up: `ALERT!  /dev/mapper/… does not exist.  Dropping to a
shell!` or dracut's emergency shell.

## Why
The volume lies on several physical volumes or members, and one of them is on no disk that was given.

## Fix
Nothing is proposed. If the machine has further disks, give them too. `guestmend inspect` names what is missing.

## References
lvm(8); vgreduce(8) and why not to use it here.
",
    check: Check::Boot(None),
};
