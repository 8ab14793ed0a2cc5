//! `fstab.root-mismatch`

use crate::{Check, Rule};

/// fstab does not speak of the root file system, which then stays as the kernel mounted it.
pub static RULE: Rule = Rule {
    id: "fstab.root-mismatch",
    summary: "fstab has no line for the root file system",
    manual: "\
# fstab.root-mismatch

## What happens
The guest comes up, and `/` is read-only: `Failed to start systemd-logind.service - User Login Management`.

## Why
The kernel's command line says `ro`, and `systemd-remount-fs.service` makes the root writable by its line in fstab. There is
no such line: fstab is empty, or the line was lost.

## Fix
Nothing is proposed. Write the line: `UUID=… / ext4 defaults 0 1`, with the UUID that `inspect` shows.

## References
fstab(5); systemd-remount-fs.service(8).
",
    check: Check::Boot(None),
};
