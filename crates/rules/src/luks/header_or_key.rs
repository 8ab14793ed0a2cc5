//! `luks.header-or-key`

use crate::{Check, Rule};

/// An encrypted device cannot be opened: no passphrase, or no header.
pub static RULE: Rule = Rule {
    id: "luks.header-or-key",
    summary: "an encrypted device stays closed",
    manual: "\
# luks.header-or-key

## What happens
`Please unlock disk` waits for a passphrase; or, without a header, `Waiting for encrypted source device`, and the initramfs
gives up.

## Why
The device asks for its passphrase, which was not given to guestmend; or nothing has the UUID that crypttab names, as its header
was overwritten.

## Fix
Nothing is proposed. Give the passphrase with `--passphrase-file` to see further. LUKS2 has a second header; `cryptsetup repair`
restores the first from it.

## References
crypttab(5), cryptsetup(8).
",
    check: Check::Boot(None),
};
