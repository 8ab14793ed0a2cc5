//! `grub.cfg-missing`

use crate::{Check, Rule};

/// GRUB finds no `grub.cfg`.
pub static RULE: Rule = Rule {
    id: "grub.cfg-missing",
    summary: "GRUB's configuration is not there",
    manual: "\
# grub.cfg-missing

## What happens
GRUB starts, shows no menu, and waits at its prompt `grub>`.

## Why
The file `grub.cfg` is not in the folder in which GRUB looks for it: it was deleted, `/boot` is another file system
than before, or an update of GRUB was interrupted.

## Fix
Nothing is proposed. Make it anew in the guest (`grub-mkconfig -o /boot/grub/grub.cfg`, `grub2-mkconfig -o
/boot/grub2/grub.cfg`), or copy a backup over it. At the prompt, `linux` and `initrd` by hand start the kernel.

## References
GRUB manual, \"Configuration\" and \"The command line\".
",
    check: Check::Boot(None),
};
