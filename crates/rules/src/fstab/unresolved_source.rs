//! `fstab.unresolved-source`

use boot::fstab::Unit;
use guest::ConfigFile;
use guest_files::fstab::{Entry, Fstab};
use repair::{Applicability, FileEdit, Fix};

use crate::{Case, Check, Finding, Rule, Severity};

/// A mount needs a device that no disk provides.
pub static RULE: Rule = Rule {
    id: "fstab.unresolved-source",
    summary: "a mount needs a device that no disk provides",
    manual: "\
# fstab.unresolved-source

## What happens
systemd waits 90 seconds for the device, then fails the mount. If the mount is required, the guest stops in
emergency mode; with `nofail`, `noauto`, `_netdev` or an automount it goes on.

## Why
The UUID, label or name in the line belongs to nothing on the disks that were given: a typing error, a file system
that was made anew, a disk that was detached, or a disk of the same machine that was not given here.

## Fix
Where the UUID exists in another letter case, its spelling is corrected. The line for `/` gets the UUID of the root file
system, if these disks hold exactly one system. Else, for a mount that the system does not need to start, `nofail` is
suggested, which lets the boot go on without it. For `/usr`, `/var` and `/boot` nothing is proposed.

## References
fstab(5); systemd.mount(5), \"fstab\"; systemd `src/fstab-generator`.
",
    check: Check::System(check),
};

fn check(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for (file, entry, unit) in case.fstab_units() {
        let is_unknowable = storage::depends_on_machine(&unit.what) || unit.device.is_none();
        if is_unknowable || !unit.is_started() || case.names.get(&unit.what).is_some() {
            continue;
        }
        let mut notes = Vec::new();
        let wait = unit.device_timeout.unwrap_or(case.guest.device_timeout).as_secs();
        let device = unit.device.as_deref().unwrap_or_default();
        let is_root = unit.target == "/";
        let early = case.ends_early(file, entry);
        let stops = early.is_some() || unit.blocks_boot() && !is_root;
        if let Some(early) = early {
            notes.push(early);
        } else if is_root && entry.source.text().contains('=') {
            notes.push(
                "boot: the initramfs mounts /, and it stays read-only: mount(8) finds nothing by this tag"
                    .into(),
            );
        } else if is_root {
            notes.push(
                "boot: goes on: the initramfs mounts /, and mount(8) does not look at this path again".into(),
            );
        } else if stops {
            notes.push(format!(
                "boot: systemd waits {wait} s for {device}, then stops: \"You are in emergency mode\""
            ));
        } else {
            notes.push(format!("boot: waits up to {wait} s for {device}, then goes on without it"));
        }
        notes.push("if the machine has further disks, give them too".into());
        findings.push(Finding {
            rule: &RULE,
            severity: if stops { Severity::Error } else { Severity::Warning },
            place: case.place(file, entry, &entry.source),
            label: format!("no disk provides {}", unit.what),
            notes,
            fix: correct_case(case, file, entry, &unit)
                .or_else(|| name_root(case, file, entry, &unit))
                .or_else(|| make_optional(file, entry, &unit)),
        });
    }
}

/// The same UUID in another letter case can only be meant.
fn correct_case(case: &Case<'_>, file: &ConfigFile<Fstab>, entry: &Entry, unit: &Unit) -> Option<Fix> {
    let wanted = unit.what.strip_prefix("/dev/disk/by-uuid/")?;
    let mut found = case
        .names
        .iter()
        .filter_map(|(name, _)| name.strip_prefix("/dev/disk/by-uuid/"))
        .filter(|uuid| uuid.eq_ignore_ascii_case(wanted));
    let uuid = found.next().filter(|_| found.next().is_none())?;
    let edit = file.document.set_source(entry, &format!("UUID={uuid}"));
    Some(fix(Applicability::Safe, "spell the UUID as the file system does", file, edit))
}

/// `/` can only be the root file system of the system whose fstab this is.
fn name_root(case: &Case<'_>, file: &ConfigFile<Fstab>, entry: &Entry, unit: &Unit) -> Option<Fix> {
    let uuid = case.own_uuid(case.guest.root).filter(|_| unit.target == "/" && case.is_only_system)?;
    let edit = file.document.set_source(entry, &format!("UUID={uuid}"));
    Some(fix(Applicability::Safe, "name the root file system by its UUID", file, edit))
}

fn make_optional(file: &ConfigFile<Fstab>, entry: &Entry, unit: &Unit) -> Option<Fix> {
    const NEEDED: [&str; 4] = ["/", "/usr", "/var", "/boot"];
    if !unit.blocks_boot() || NEEDED.contains(&unit.target.as_str()) {
        return None;
    }
    let edit = file.document.add_option(entry, "nofail")?;
    Some(fix(Applicability::Suggested, "add `nofail`", file, edit))
}

fn fix(applicability: Applicability, title: &str, file: &ConfigFile<Fstab>, edit: guest_files::Edit) -> Fix {
    let edit = FileEdit { node: file.node, inode: file.inode, path: file.path.clone(), edit };
    Fix { applicability, title: title.into(), edits: vec![edit] }
}
