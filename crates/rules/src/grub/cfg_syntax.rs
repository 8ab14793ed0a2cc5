//! `grub.cfg-syntax`

use crate::{Check, Rule};

/// `grub.cfg` is there, and what it says starts no kernel.
pub static RULE: Rule = Rule {
    id: "grub.cfg-syntax",
    summary: "GRUB's configuration does not lead to a kernel",
    manual: "\
# grub.cfg-syntax

## What happens
GRUB shows no menu and waits at its prompt `grub>`, or says `error: syntax error.`, `error: can't find command `…'.`
or `error: you need to load the kernel first.` and comes back to its menu.

## Why
The file is empty or cut off, a block in it is not closed, or the default entry uses a command that this GRUB does
not have. GRUB drops the block with the error and goes on with what stands behind it.

## Fix
Nothing is proposed. Make the file anew in the guest with `grub-mkconfig`; `grub-script-check` names the line of a
syntax error.

## References
GRUB manual, \"Shell-like scripting\"; grub-script-check(1).
",
    check: Check::Boot(None),
};
