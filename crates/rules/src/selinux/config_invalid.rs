//! `selinux.config-invalid`

use crate::{Check, Rule};

/// SELinux is to be enforced, and there is no policy to enforce.
pub static RULE: Rule = Rule {
    id: "selinux.config-invalid",
    summary: "SELinux is to be enforced without a policy",
    manual: "\
# selinux.config-invalid

## What happens
`systemd[1]: Failed to load SELinux policy.` and `Freezing execution.`: the machine stands still.

## Why
`/etc/selinux/config` says `SELINUX=enforcing`, and the folder of its `SELINUXTYPE=` holds no `policy/policy.NN`: the type is
misspelt, or the package of the policy is gone or half installed.

## Fix
Nothing is proposed. Name a type that is installed (`ls /etc/selinux`), or reinstall the package (`selinux-policy-targeted`).
`enforcing=0` on the kernel's command line lets the boot go on once.

## References
selinux(8); selinux_init_load_policy(3); systemd `src/core/selinux-setup.c`.
",
    check: Check::Boot(None),
};
