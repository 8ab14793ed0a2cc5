//! `grub.core-prefix-unresolvable`

use crate::{Check, Rule};

/// The device that the core image looks for GRUB's files on is not there.
pub static RULE: Rule = Rule {
    id: "grub.core-prefix-unresolvable",
    summary: "GRUB's core image looks for its files on a device that is not there",
    manual: "\
# grub.core-prefix-unresolvable

## What happens
GRUB says `error: no such device: …`, `error: no such partition` or `error: disk `…' not found`, and stops at `grub
rescue>`.

## Why
The core image has the place of `/boot/grub` built in: a partition of the drive it was started from, or a UUID. The
partition has another number now, the table is gone or of another kind, the file system was made anew, or the drives
changed places.

## Fix
Nothing is proposed. At `grub rescue>` the boot can go on by hand (`set prefix=(hd0,msdos1)/boot/grub`, `insmod
normal`, `normal`). For good, install GRUB anew with `grub-install`.

## References
GRUB manual, \"Images\" (grub-mkimage `--prefix`) and \"GRUB only offers a rescue shell\".
",
    check: Check::Boot(None),
};
