//! `cmdline.rd-device-missing`

use crate::{Check, Rule};

/// dracut waits for a volume that its command line names, or does not name the one it needs.
pub static RULE: Rule = Rule {
    id: "cmdline.rd-device-missing",
    summary: "the kernel command line asks dracut for a device that is not there",
    manual: "\
# cmdline.rd-device-missing

## What happens
dracut: `Warning: \"/dev/centos/swap\" does not exist`, then `Warning: dracut-initqueue: timeout, still waiting for
following initqueue hooks`, and its emergency shell. The root file system itself may be there.

## Why
Every `rd.lvm.lv=`, `rd.md.uuid=` and `rd.luks.uuid=` must be there before dracut goes on, the swap volume as well
as the root. One of them was removed or renamed. Volumes that no `rd.lvm.lv=` names stay inactive where another is named; without
`rd.md.uuid=` and `rd.auto` no array is started.

## Fix
Nothing is proposed. If the volume is gone for good, take its word out of the command line (`grubby
--update-kernel=ALL --remove-args=rd.lvm.lv=…`) and of `/etc/default/grub`. If its disk was not given here, give it
too.

## References
dracut.cmdline(7); dracut `modules.d/90lvm`.
",
    check: Check::Boot(None),
};
