//! `img.corrupt-flag`

use crate::{Check, Rule};

/// The image is marked corrupt.
pub static RULE: Rule = Rule {
    id: "img.corrupt-flag",
    summary: "the image is marked corrupt, and no machine starts with it",
    manual: "\
# img.corrupt-flag

## What happens
QEMU does not start: `Image is corrupt; cannot be opened read/write`. `qemu-img info` and other readers still open it.

## Why
QEMU met tables that cannot be, such as two clusters in one place, and set the corrupt bit of the qcow2 header, so that nothing is
written any more.

## Fix
`guestmend image check --repair all` examines every table, repairs reference counts and takes the bit off where all is well after it;
`qemu-img check -r all` does so too. Work on a copy.

## References
QEMU `docs/interop/qcow2.txt`, incompatible feature bit 1.
",
    check: Check::Boot(None),
};
