//! `systemd.offline-update-loop`

use crate::{Check, Rule};

/// An update that was put off to the next boot never ends.
pub static RULE: Rule = Rule {
    id: "systemd.offline-update-loop",
    summary: "an update at boot does not end",
    manual: "\
# systemd.offline-update-loop

## What happens
The system reaches `system-update.target` and stays there without a login prompt, or starts again and again.

## Why
`/system-update` makes every boot one that updates, until somebody takes it away. `system-update-cleanup.service` does so at the end; it
is not reached where it is masked, or where what makes the update fails and has `FailureAction=reboot`.

## Fix
Nothing is proposed. Remove the link `/system-update`: the next boot is an ordinary one. Then see why the update failed.

## References
systemd.offline-updates(7); systemd-system-update-generator(8).
",
    check: Check::Boot(None),
};
