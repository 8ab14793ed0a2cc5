//! `kernel.bus-driver-unavailable`

use crate::{Check, Rule};

/// The kernel has no driver for the bus of the machine's disks, and none can be loaded.
pub static RULE: Rule = Rule {
    id: "kernel.bus-driver-unavailable",
    summary: "this kernel has no driver for the bus of its disks",
    manual: "\
# kernel.bus-driver-unavailable

## What happens
The kernel starts and sees no disk: `ALERT!  UUID=… does not exist.  Dropping to a shell!` or dracut's emergency
shell. `lsblk` there is empty.

## Why
The driver is neither built in nor among the modules of this kernel. Kernels for clouds leave most of them out:
Debian's has no AHCI and none of the controllers of LSI. No initramfs can help.

## Fix
Nothing is proposed. Attach the disks by a bus that the kernel knows (virtio, NVMe), or install the distribution's
general kernel.

## References
`modules.builtin` and `modules.dep` of the kernel; modules.dep(5).
",
    check: Check::Boot(None),
};
