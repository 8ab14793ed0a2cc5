//! `md.conf-stale`

use crate::{Check, Rule};

/// An array has another number than the one that the system calls it by.
pub static RULE: Rule = Rule {
    id: "md.conf-stale",
    summary: "mdadm.conf does not give an array the name that it is called by",
    manual: "\
# md.conf-stale

## What happens
`ALERT!  /dev/md0 does not exist.  Dropping to a shell!`, or systemd waits for `/dev/md0`; `/proc/mdstat` shows the array as
`md127`.

## Why
An array gets the number that its `ARRAY` line in mdadm.conf asks for. Without such a line, or with the UUID of another array,
it is `md127`. The copy in the initramfs counts.

## Fix
Nothing is proposed. Call the file system by its UUID in fstab and in `root=`; or write the line anew (`mdadm --detail --scan`)
and make the initramfs anew.

## References
mdadm.conf(5), ARRAY and HOMEHOST; md(4).
",
    check: Check::Boot(None),
};
