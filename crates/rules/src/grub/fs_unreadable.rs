//! `grub.fs-unreadable`

use crate::{Check, Rule};

/// GRUB cannot read the file system that holds its files, though Linux can.
pub static RULE: Rule = Rule {
    id: "grub.fs-unreadable",
    summary: "GRUB cannot read the file system of its own files",
    manual: "\
# grub.fs-unreadable

## What happens
GRUB says `error: unknown filesystem.` and stops at `grub rescue>`. A rescue system mounts the same file system
without a word.

## Why
The file system has a feature that this build of GRUB does not know, for instance `metadata_csum_seed` of ext4 or
`bigtime` of XFS. Tools of a newer host turn such features on when they make a file system, or `tune2fs` and
`xfs_admin` did.

## Fix
Nothing is proposed. Turn the feature off where the tool allows it (`tune2fs -O ^metadata_csum_seed`), or make
`/boot` anew with a tool of the guest's age.

## References
GRUB `grub-core/fs/ext2.c`, `grub-core/fs/xfs.c`; ext4(5); mkfs.xfs(8).
",
    check: Check::Boot(None),
};
