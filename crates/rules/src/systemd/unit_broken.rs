//! `systemd.unit-broken`

use crate::{Check, Rule};

/// A unit that systemd starts cannot run.
pub static RULE: Rule = Rule {
    id: "systemd.unit-broken",
    summary: "a unit that the boot starts cannot run",
    manual: "\
# systemd.unit-broken

## What happens
`Failed to start …`, and what requires the unit is not started either. Where `local-fs.target` requires it, emergency mode;
where `sysinit.target` does, no login prompt ever comes; else the system comes up `degraded`.

## Why
The unit's program is not there or cannot be run, its user does not exist, or what a mount unit of the administrator's mounts
is on no disk. Units stay enabled when a package is removed by hand, a partition is not copied, an agent of another
platform is taken away.

## Fix
Nothing is proposed. Put the program back, or disable the unit: `systemctl --root=DIR disable UNIT`.

## References
systemd.unit(5), `Requires=` and `OnFailure=`; systemd.service(5), `ExecStart=`; systemd.exec(5), `User=` and \"Process Exit
Codes\": 203, 217.
",
    check: Check::Boot(None),
};
