//! `initramfs.root-stack-missing`

use crate::{Check, Rule};

/// The initramfs has no module or program for a layer between the disks and the root file system.
pub static RULE: Rule = Rule {
    id: "initramfs.root-stack-missing",
    summary: "the initramfs lacks what the root file system lies on",
    manual: "\
# initramfs.root-stack-missing

## What happens
The disks are seen, and the root file system is not mounted: `ALERT!  /dev/mapper/… does not exist.  Dropping to a
shell!`, `mount: unknown filesystem type`, or dracut's emergency shell.

## Why
The root file system is on LVM, RAID or LUKS, or of a type, that was not in use, or not recognised, when the
initramfs was made. A guest that was moved into a new layout and not made ready for it looks like this.

## Fix
Nothing is proposed. Install the tools in the guest (`lvm2`, `mdadm`, `cryptsetup-initramfs`) and make the initramfs
anew, in a chroot from a rescue system.

## References
initramfs-tools(7); dracut(8), \"modules\".
",
    check: Check::Boot(None),
};
