//! `fstab.mountpoint-or-bind-invalid`

use crate::{Check, Rule};

/// A bind mount names a directory that is not there.
pub static RULE: Rule = Rule {
    id: "fstab.mountpoint-or-bind-invalid",
    summary: "a bind mount has nothing to bind",
    manual: "\
# fstab.mountpoint-or-bind-invalid

## What happens
`Failed to mount`, and the guest stops in emergency mode.

## Why
mount(8) cannot bind what does not exist. The directory was removed, or lies on a file system that is not mounted yet.

## Fix
Nothing is proposed: make the directory, or add `nofail` where the system does not need it.

## References
fstab(5); systemd.mount(5).
",
    check: Check::Boot(None),
};
