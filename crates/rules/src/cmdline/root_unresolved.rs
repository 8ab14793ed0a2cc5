//! `cmdline.root-unresolved`

use crate::kernel_arguments::cure_root;
use crate::{Check, Rule};

/// `root=` names nothing, or what cannot be mounted as it asks.
pub static RULE: Rule = Rule {
    id: "cmdline.root-unresolved",
    summary: "the kernel command line names a root file system that no disk has",
    manual: "\
# cmdline.root-unresolved

## What happens
initramfs-tools (Debian, Ubuntu): `ALERT!  UUID=… does not exist.  Dropping to a shell!` dracut (Red Hat, SUSE):
`Warning: \"/dev/…\" does not exist`, then its emergency shell. Without an initramfs the kernel panics.

## Why
The root file system was made anew or restored with another UUID, its logical volume was renamed, or the line was
copied from another machine. `rootfstype=` may also name another type than the file system has.

## Fix
Where the value names nothing and the disks hold exactly one system, `root=` becomes that system's root file system
in every entry with the same value: by its UUID, or by the name of its logical volume if it was named so. A wrong
`rootfstype=` becomes the type that the file system has. Where another kind of name stood there, or /etc/fstab says
otherwise, nothing is proposed.

## References
bootparam(7); initramfs-tools(7); dracut.cmdline(7).
",
    check: Check::Boot(Some(cure_root)),
};
