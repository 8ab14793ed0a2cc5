//! `luks.crypttab-unresolved`

use crate::{Check, Rule};

/// A mount waits for an encrypted device whose container no disk has.
pub static RULE: Rule = Rule {
    id: "luks.crypttab-unresolved",
    summary: "/etc/crypttab opens a device that no disk provides",
    manual: "\
# luks.crypttab-unresolved

## What happens
systemd waits 90 seconds: `Timed out waiting for device dev-mapper-….device`, fails `local-fs.target`, and says `You
are in emergency mode`.

## Why
A line of /etc/crypttab names its container by a UUID or a name that belongs to nothing on the disks: it was made
anew, its disk was detached, or the disk was not given here. The mount behind it then waits in vain.

## Fix
Nothing is proposed. Correct the line, or add `nofail` to it and to the line of /etc/fstab that mounts what it
opens.

## References
crypttab(5); systemd-cryptsetup-generator(8).
",
    check: Check::Boot(None),
};
