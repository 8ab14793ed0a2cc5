//! `fs.wrong-type-or-missing`

use crate::{Check, Rule};

/// The partition that is to hold GRUB's files holds no file system that is known.
pub static RULE: Rule = Rule {
    id: "fs.wrong-type-or-missing",
    summary: "where GRUB looks for its files there is no file system that is known",
    manual: "\
# fs.wrong-type-or-missing

## What happens
GRUB says `error: unknown filesystem.` and stops at `grub rescue>`.

## Why
The start of the file system was overwritten: by `mkswap`, `pvcreate` or `dd` on the wrong partition, or by a table
that moved. GRUB itself is where it should be.

## Fix
Nothing is proposed. `guestmend inspect` says what is there. ext4 and XFS keep copies of their superblock further
behind (`e2fsck -b 32768`, `xfs_repair`); work on a copy of the image.

## References
e2fsck(8); xfs_repair(8); GRUB manual, \"GRUB only offers a rescue shell\".
",
    check: Check::Boot(None),
};
