//! `img.format-vs-definition`

use crate::{Check, Rule};

/// The file is taken for a raw disk, and is a container.
pub static RULE: Rule = Rule {
    id: "img.format-vs-definition",
    summary: "an image is taken for a raw disk, and is none",
    manual: "\
# img.format-vs-definition

## What happens
`Boot failed: not a bootable disk`: the guest sees the header of the container as the first sectors of its disk.

## Why
The definition of the machine calls a qcow2 image raw. Or the first four bytes of the file, its magic number, were overwritten, so
that what looks for them takes it for a raw disk; the rest of the header is that of a qcow2 image.

## Fix
Nothing is proposed. Correct the format in the definition. Where the magic number is lost, on a copy: `printf 'QFI\\xfb' | dd of=IMAGE conv=notrunc`, then `guestmend image check IMAGE`.

## References
QEMU `docs/interop/qcow2.txt`, \"Header\".
",
    check: Check::Boot(None),
};
