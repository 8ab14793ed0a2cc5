//! `lvm.metadata-damaged`

use crate::{Check, Rule};

/// A physical volume has lost the metadata of its group.
pub static RULE: Rule = Rule {
    id: "lvm.metadata-damaged",
    summary: "the metadata of a volume group cannot be read",
    manual: "\
# lvm.metadata-damaged

## What happens
dracut waits, then `Warning: \"/dev/mapper/…\" does not exist` and its emergency shell; lvm2 says `wrong checksum in mda header`.

## Why
The header of the metadata area, or the text that it points to, is damaged. The older texts are often still in the ring behind
it, and in `/etc/lvm/backup` of the guest.

## Fix
Nothing is proposed. `inspect --metadata-history` shows the texts that are still there; `vgcfgrestore` writes one back.

## References
lvm2 `lib/format_text`; vgcfgrestore(8).
",
    check: Check::Boot(None),
};
