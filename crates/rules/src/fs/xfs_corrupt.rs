//! `fs.xfs-corrupt`

use crate::{Check, Rule};

/// The kernel refuses to mount an XFS that is damaged.
pub static RULE: Rule = Rule {
    id: "fs.xfs-corrupt",
    summary: "the kernel does not mount this XFS",
    manual: "\
# fs.xfs-corrupt

## What happens
The kernel says `XFS (…): SB validate failed`, `Metadata CRC error detected` or `Filesystem needs repair. Please run xfs_repair.`, and
the initramfs or systemd ends in its emergency shell. Nothing repairs it at boot: `fsck.xfs` does nothing.

## Why
A superblock whose checksum does not fit, or one that `xfs_repair` or `xfs_admin` has marked until a repair is complete.

## Fix
Nothing is proposed. On a copy of the image: mount it once, so that its log is replayed, then `xfs_repair`.

## References
xfs_repair(8); Linux `fs/xfs/libxfs/xfs_sb.c`.
",
    check: Check::Boot(None),
};
