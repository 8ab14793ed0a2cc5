//! `grub.default-unresolved`

use crate::{Check, Rule};

/// GRUB waits, or ends, in the place of starting an entry.
pub static RULE: Rule = Rule {
    id: "grub.default-unresolved",
    summary: "GRUB starts no entry by itself",
    manual: "\
# grub.default-unresolved

## What happens
The machine stays in GRUB: at its menu, at a question for a password, or switched off.

## Why
The timeout is -1 or there is none, the default entry asks for a user, or it halts the machine. On a machine without
a screen nobody presses the key.

## Fix
Nothing is proposed. Set `GRUB_TIMEOUT` and `GRUB_DEFAULT` in `/etc/default/grub` and run `grub-mkconfig`;
`grub-set-default` chooses an entry.

## References
GRUB manual, \"Simple configuration\".
",
    check: Check::Boot(None),
};
