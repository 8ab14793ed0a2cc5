//! `cmdline.root-bare-device`

use crate::kernel_arguments::cure_root;
use crate::{Check, Rule};

/// `root=` is a name that the order of enumeration decides.
pub static RULE: Rule = Rule {
    id: "cmdline.root-bare-device",
    summary: "the kernel command line names the root disk by the order of enumeration",
    manual: "\
# cmdline.root-bare-device

## What happens
After a disk was added or its bus changed: `ALERT!  /dev/vda1 does not exist.  Dropping to a shell!` or dracut's
`Warning: \"/dev/vda1\" does not exist`.

## Why
`vda` is the first virtio disk that the kernel finds, `sda` the first SCSI disk. A further disk, another bus or
another hypervisor changes which disk that is. The boot loader wrote the name because `GRUB_DISABLE_LINUX_UUID` was
set, or somebody did by hand.

## Fix
`root=` becomes `UUID=` of the root file system in every entry with the same value that loads an initramfs. This is
certain where the name leads to the root file system on the machine as it stands; else it is a suggestion. Where
`GRUB_DISABLE_LINUX_UUID=true` stands in `/etc/default/grub`, the next `grub-mkconfig` writes the old name again:
take that out in the guest.

## References
bootparam(7); Linux `Documentation/admin-guide/devices.txt`.
",
    check: Check::Boot(Some(cure_root)),
};
