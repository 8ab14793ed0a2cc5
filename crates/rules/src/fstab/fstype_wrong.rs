//! `fstab.fstype-wrong`

use boot::fstab::is_mountable_as;
use repair::{Applicability, Fix};
use storage::{NodeId, Target};

use crate::{Case, Check, Finding, Rule, Severity};

/// A mount names another file system type than its device holds.
pub static RULE: Rule = Rule {
    id: "fstab.fstype-wrong",
    summary: "a mount names another type than its file system has",
    manual: "\
# fstab.fstype-wrong

## What happens
The device is there and the mount fails: `mount: /data: wrong fs type, bad option, bad superblock on /dev/vdb1`, or
`unknown filesystem type`. If the mount is required, the guest stops: `You are in emergency mode`. With `nofail`
or `noauto` it goes on without it.

## Why
The third field of the line is the type that the kernel is asked for, and it takes no other. The file system was made
anew as another type, the line was copied, or the word is misspelt.

## Fix
The type becomes the one that the device holds; nothing else in the line changes. Options that the old type had and the
new one does not know are not looked at.

## References
fstab(5); mount(8); systemd.mount(5).
",
    check: Check::System(check),
};

fn check(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for (file, entry, unit) in case.fstab_units() {
        let is_swap = entry.kind.value == b"swap";
        let Some(Target::Node(node)) = case.resolve(&entry.source.value).filter(|_| unit.is_started()) else {
            continue;
        };
        let kind = entry.kind.text();
        let Some(content) = mountable(case, node).filter(|_| !is_swap) else { continue };
        if is_other_layer(&kind) || entry.has_option("bind") || is_mountable_as(&kind, content) {
            continue;
        }
        let early = case.ends_early(file, entry);
        let blocks = early.is_some() || unit.blocks_boot();
        let end = if blocks { "fails, and the boot stops: \"You are in emergency mode\"" } else { "fails" };
        let edit = file.document.set_kind(entry, content);
        let fix = Fix {
            applicability: if case.is_writable(file.node) {
                Applicability::Safe
            } else {
                Applicability::Manual
            },
            title: format!("mount it as {content}"),
            edits: vec![repair::FileEdit {
                node: file.node,
                inode: file.inode,
                path: file.path.clone(),
                edit,
            }],
        };
        findings.push(Finding {
            rule: &RULE,
            severity: if blocks { Severity::Error } else { Severity::Warning },
            place: case.place(file, entry, &entry.kind),
            label: format!("{} holds {content}", case.storage.node(node).path),
            notes: vec![early.unwrap_or_else(|| format!("boot: the mount of {} {end}", unit.target))],
            fix: Some(fix),
        });
    }
}

/// The type of the file system on a node, if it is one that Linux has by this very name.
fn mountable<'a>(case: &Case<'a>, node: NodeId) -> Option<&'a str> {
    let content = case.storage.node(node).content_type()?;
    matches!(content, "ext2" | "ext3" | "ext4" | "xfs" | "btrfs" | "vfat" | "f2fs" | "exfat" | "iso9660")
        .then_some(content)
}

/// Types that say how to mount, not what is there; a helper or the kernel finds that out.
fn is_other_layer(kind: &str) -> bool {
    kind.contains('.') || matches!(kind, "none" | "fuse" | "fuseblk" | "bind" | "ecryptfs" | "overlay")
}
