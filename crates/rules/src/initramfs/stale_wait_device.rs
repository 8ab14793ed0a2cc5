//! `initramfs.stale-wait-device`

use crate::{Check, Rule};

/// The initramfs has a device built in that it waits for, and no disk has it.
pub static RULE: Rule = Rule {
    id: "initramfs.stale-wait-device",
    summary: "the initramfs waits for a device that is not there",
    manual: "\
# initramfs.stale-wait-device

## What happens
dracut: `Warning: dracut-initqueue: timeout, still waiting for following initqueue hooks`, `Warning:
\"/dev/disk/by-uuid/…\" does not exist`, and its emergency shell, whatever the command line says.

## Why
dracut in its `hostonly` mode writes the devices of the machine that made the image into it. One of them has got
another UUID since, or was removed: a swap partition made anew is enough.

## Fix
Nothing is proposed. Add `rd.hostonly=0` to the command line for one boot, then make the initramfs anew with `dracut
--force`.

## References
dracut(8), \"hostonly\"; dracut.cmdline(7).
",
    check: Check::Boot(None),
};
