//! `part.out-of-bounds`

use crate::{Check, Rule};

/// A partition ends behind the end of its disk.
pub static RULE: Rule = Rule {
    id: "part.out-of-bounds",
    summary: "a partition ends behind the end of its disk",
    manual: "\
# part.out-of-bounds

## What happens
The kernel cuts the partition, and the file system in it refuses: `bad geometry: block count … exceeds size of device`.

## Why
The image was shrunk, or copied onto a smaller disk, or cut while it was copied.

## Fix
Nothing is proposed. Grow the image to its old size: `qemu-img resize`. What lay behind the end is lost unless the original is
still there.

## References
Linux `block/partitions/`; ext4 `ext4_check_geometry`.
",
    check: Check::Boot(None),
};
