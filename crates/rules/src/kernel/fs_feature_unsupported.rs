//! `kernel.fs-feature-unsupported`

use crate::{Check, Rule};

/// A file system uses a feature that the guest's kernel does not know.
pub static RULE: Rule = Rule {
    id: "kernel.fs-feature-unsupported",
    summary: "a file system uses a feature that this kernel does not know",
    manual: "\
# kernel.fs-feature-unsupported

## What happens
The kernel says `couldn't mount because of unsupported optional features` or `Superblock has unknown incompatible features`, and the
mount fails. Where the feature only forbids writing, `/` stays read-only.

## Why
The file system was made or changed by newer tools than the guest's kernel, for instance on a rescue host: e2fsprogs 1.47 turns
`metadata_csum_seed` and `orphan_file` on by itself. What distributors carry to older kernels is not known here, and not judged.

## Fix
Nothing is proposed. `tune2fs -O ^FEATURE` takes some features of ext4 off again; else boot a newer kernel, or make the file system anew.

## References
ext4(5); Linux `fs/ext4/super.c`, `fs/xfs/libxfs/xfs_sb.c`.
",
    check: Check::Boot(None),
};
