//! `grub.cfg-search-stale`

use crate::kernel_arguments::cure_search;
use crate::{Check, Rule};

/// The default entry looks for the kernel on a device that is not there.
pub static RULE: Rule = Rule {
    id: "grub.cfg-search-stale",
    summary: "GRUB's configuration looks for a file system that no disk has",
    manual: "\
# grub.cfg-search-stale

## What happens
GRUB says `error: no such device: …`, cannot find the kernel then, and comes back to its menu after `Press any key
to continue...`

## Why
An entry names the file system of the kernel by UUID. The file system was made anew or has got another UUID, or the
disk was replaced. Beside it stands a hint such as `hd0,msdos1`: while that is right, the entry works though the
UUID is wrong; once the disks change places, it does not.

## Fix
Where exactly one file system holds the kernels of the entries, and the old UUID names nothing, it is put in the
place of the old one in every entry of the file.

## References
GRUB manual, \"search\"; `util/grub-mkconfig_lib.in`.
",
    check: Check::Boot(Some(cure_search)),
};
