//! `systemd.default-target-broken`

use crate::{Check, Rule};

/// `default.target` leads to nothing, or to rescue or emergency mode.
pub static RULE: Rule = Rule {
    id: "systemd.default-target-broken",
    summary: "the target that systemd starts by default is not a usual one",
    manual: "\
# systemd.default-target-broken

## What happens
`Failed to load default target, falling back to rescue.target`, or `You are in rescue mode` at every boot, though
nothing failed.

## Why
The link `/etc/systemd/system/default.target` points to a unit that is not there any more, such as a graphical
target whose package was removed, or `systemctl set-default rescue.target` was meant for one boot.

## Fix
Nothing is proposed. `systemctl set-default multi-user.target` in the guest, or that link set by hand.

## References
systemd.special(7), \"default.target\"; systemctl(1).
",
    check: Check::Boot(None),
};
