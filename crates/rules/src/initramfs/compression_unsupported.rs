//! `initramfs.compression-unsupported`

use crate::{Check, Rule};

/// The initramfs is compressed in a way that the kernel was not built for.
pub static RULE: Rule = Rule {
    id: "initramfs.compression-unsupported",
    summary: "the kernel cannot unpack this kind of initramfs",
    manual: "\
# initramfs.compression-unsupported

## What happens
`Initramfs unpacking failed: compression method … not configured`, then `Kernel panic - not syncing: VFS: Unable to
mount root fs on unknown-block(0,0)`.

## Why
The tool that makes the initramfs was told to use, or by default uses, a compression that this kernel lacks: zstd
before Linux 5.9, or `CONFIG_RD_…` is off.

## Fix
Nothing is proposed. Make the initramfs anew with a compression that the kernel has (`COMPRESS=gzip` in
initramfs.conf, `compress=\"gzip\"` in dracut.conf).

## References
Linux `usr/Kconfig`; initramfs.conf(5); dracut.conf(5).
",
    check: Check::Boot(None),
};
