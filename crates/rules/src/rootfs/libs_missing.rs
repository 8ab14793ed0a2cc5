//! `rootfs.libs-missing`

use crate::{Check, Rule};

/// The program that the kernel starts needs a file that is not there.
pub static RULE: Rule = Rule {
    id: "rootfs.libs-missing",
    summary: "init cannot be run: its loader is missing",
    manual: "\
# rootfs.libs-missing

## What happens
`Kernel panic - not syncing: Attempted to kill init!`, though `/sbin/init` is there.

## Why
A program names the dynamic loader that starts it (`/lib64/ld-linux-x86-64.so.2`). The loader or the links that lead to it are
gone: a C library that was updated by half, or a link of a merged `/usr` that was removed.

## Fix
Nothing is proposed: bring the link or the package of the C library back.

## References
elf(5), ld.so(8).
",
    check: Check::Boot(None),
};
