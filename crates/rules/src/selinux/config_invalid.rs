//! `selinux.config-invalid`

use crate::{Check, Rule};

/// SELinux runs, and there is no policy.
pub static RULE: Rule = Rule {
    id: "selinux.config-invalid",
    summary: "SELinux runs without a policy",
    manual: "\
# selinux.config-invalid

## What happens
`systemd[1]: Failed to load SELinux policy.` and `Freezing execution.`: the machine stands still. Where SELinux is permissive,
the guest comes up, and sockets (`dbus.socket`) and services fail.

## Why
The folder of `SELINUXTYPE=` in `/etc/selinux/config` holds no `policy/policy.NN`: the type is
misspelt, or the package of the policy is gone or half installed.

## Fix
Nothing is proposed. Name a type that is installed (`ls /etc/selinux`), or reinstall the package (`selinux-policy-targeted`).
`enforcing=0` on the kernel's command line lets the boot go on once.

## References
selinux(8); selinux_init_load_policy(3); systemd `src/core/selinux-setup.c`.
",
    check: Check::Boot(None),
};
