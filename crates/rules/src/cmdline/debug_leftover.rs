//! `cmdline.debug-leftover`

use crate::{Check, Rule};

/// A word that was meant for one boot is left on the kernel command line.
pub static RULE: Rule = Rule {
    id: "cmdline.debug-leftover",
    summary: "the kernel command line asks for emergency or rescue mode",
    manual: "\
# cmdline.debug-leftover

## What happens
`You are in emergency mode` or `You are in rescue mode` at every boot, though nothing failed.

## Why
`single`, `emergency`, `systemd.unit=rescue.target` and the like were added for a repair, and saved.

## Fix
Nothing is proposed. Take the word out of the command line (`grubby --update-kernel=ALL --remove-args=…`, or
`/etc/default/grub` and `grub-mkconfig`).

## References
systemd(1), \"Kernel command line\"; kernel-command-line(7).
",
    check: Check::Boot(None),
};
