//! `fstab.mountpoint-or-bind-invalid`

use crate::{Check, Rule};

/// A bind mount names a directory that cannot be there.
pub static RULE: Rule = Rule {
    id: "fstab.mountpoint-or-bind-invalid",
    summary: "a bind mount has nothing to bind",
    manual: "\
# fstab.mountpoint-or-bind-invalid

## What happens
`Failed to mount`, and the guest stops in emergency mode.

## Why
systemd makes the directory that a bind mount is to show, where it is not there (booted: an empty one). It cannot where a part
of the path is a file.

## Fix
Nothing is proposed: correct the path, or add `nofail` where the system does not need it.

## References
fstab(5); systemd.mount(5).
",
    check: Check::Boot(None),
};
