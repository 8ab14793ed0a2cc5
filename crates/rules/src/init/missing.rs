//! `init.missing`

use crate::{Check, Rule};

/// `/sbin/init`, or what `init=` names, is not there or cannot be run.
pub static RULE: Rule = Rule {
    id: "init.missing",
    summary: "there is no program that the kernel could hand over to",
    manual: "\
# init.missing

## What happens
initramfs-tools: `run-init: /sbin/init: No such file or directory`, then a shell or a panic. dracut: `Cannot find
init! Please check to make sure you passed a valid root filesystem!` Else: `Kernel panic - not syncing: Attempted to
kill init!`

## Why
systemd's package is broken or half removed, the link `/sbin` to `/usr/sbin` was lost, `/usr` is a file system of
its own that is not mounted, or `init=` was left on the command line.

## Fix
Nothing is proposed. Restore the link or the package from a rescue system; take a wrong `init=` out of the command
line.

## References
init(1); Linux `init/main.c`; file-hierarchy(7).
",
    check: Check::Boot(None),
};
