//! `cmdline.resume-stale`

use crate::{Check, Rule};

/// The kernel command line names a device to resume from that is not there.
pub static RULE: Rule = Rule {
    id: "cmdline.resume-stale",
    summary: "the kernel command line names a swap device that is not there",
    manual: "\
# cmdline.resume-stale

## What happens
`A start job is running for /dev/disk/by-uuid/… (6min 40s / no limit)`: the boot waits for ever, without a shell.

## Why
`resume=` names the device that a hibernated system lies on: a swap device that was removed or made anew. dracut itself gives
up on it, and the generator `systemd-hibernate-resume-generator`, if the initramfs has it, lets the root file system wait for
the device without a limit (measured with dracut 059 and systemd 252). initramfs-tools goes on after half a minute.

## Fix
Nothing is proposed. Take `resume=` out of the command line (`grubby --update-kernel=ALL --remove-args=resume=…`) and of
`/etc/default/grub`, or name the present swap device there; `noresume` at GRUB's menu lets the boot go on once.

## References
systemd-hibernate-resume-generator(8); dracut.cmdline(7); dracut `modules.d/95resume`.
",
    check: Check::Boot(None),
};
