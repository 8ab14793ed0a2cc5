//! `img.chain-broken`

use crate::{Check, Rule};

/// A file that an image names is not there.
pub static RULE: Rule = Rule {
    id: "img.chain-broken",
    summary: "a file that the image needs is not there",
    manual: "\
# img.chain-broken

## What happens
QEMU does not start: `Could not open backing file`. Nothing of the guest can be read here either.

## Why
A backing file or an extent was moved, renamed or deleted, or not copied with the image; or the files name each other.

## Fix
`guestmend image chain` names what is missing and proposes files that could be it; `guestmend image rebase` writes another name into
the image.

## References
qemu-img(1), `rebase -u`.
",
    check: Check::Boot(None),
};
