//! `fstab.unstable-device`

use guest::ConfigFile;
use guest_files::fstab::{Entry, Fstab};
use repair::{Applicability, FileEdit, Fix};
use storage::{NodeId, NodeKind, Target};

use crate::{Case, Check, Finding, Rule, Severity};

/// A mount names its device by something that enumeration order, bus or slot decides.
pub static RULE: Rule = Rule {
    id: "fstab.unstable-device",
    summary: "a mount names its disk by the order of enumeration",
    manual: "\
# fstab.unstable-device

## What happens
One day after a reboot the guest stops in emergency mode. systemd waits 90 seconds for a device such as
`/dev/vda1`, says `Timed out waiting for device`, fails `local-fs.target` and starts the emergency shell. Nothing
in the guest has changed. If another disk now answers to the old name, the guest may even mount the wrong one.

## Why
`vda` is the first virtio disk that the kernel finds, `sda` the first SCSI disk, `nvme0n1` the first NVMe disk. A
further disk, another slot, another host kernel or another bus changes which disk that is. Links below
`/dev/disk/by-path`, and those below `by-id` that start with the name of a bus, change with the slot or the bus. Names
of logical volumes, and links by UUID or label, do not.

## Fix
The source becomes `UUID=` of the file system (or swap area) that the name leads to on the machine as it stands; nothing
else in the line changes. Where the device has no UUID, or another has the same, there is no certain fix and none
is proposed.

## References
fstab(5); systemd.mount(5), \"fstab\"; Linux `Documentation/admin-guide/devices.txt`; Red Hat Enterprise Linux 9,
Managing file systems, \"Overview of persistent naming attributes\".
",
    check: Check::System(check),
};

fn check(case: &Case<'_>, findings: &mut Vec<Finding>) {
    for (file, entry, unit) in case.fstab_units() {
        if !storage::is_unstable_name(&unit.what) || !unit.is_started() {
            continue;
        }
        // Where the name resolves to nothing today, the boot fails today: another rule's business, unless what
        // it would resolve to is a matter of what only the machine knows.
        let target = case.resolve(&entry.source.value);
        if target.is_none() && !storage::depends_on_machine(&unit.what) {
            continue;
        }
        let breaks = case.boots.iter().find(|boot| {
            boot.cause.as_ref().is_some_and(|cause| cause.line == Some(entry.line) && cause.file == file.path)
        });
        let mut notes = Vec::new();
        if let Some(early) = case.ends_early(file, entry) {
            notes.push(early);
        } else if unit.blocks_boot() {
            let device = unit.device.as_deref().unwrap_or_default();
            let seen = match breaks {
                Some(boot) => format!("on {}", boot.hardware),
                None => "when the disk gets another name".into(),
            };
            let wait = wait_in_words(unit.device_timeout.unwrap_or(case.guest.device_timeout));
            notes.push(format!(
                "boot: {seen}, systemd waits {wait} for {device}, then stops: \"You are in emergency mode\""
            ));
        } else {
            notes.push("boot: goes on without it when the name changes, after a wait".into());
        }
        let (label, fix) = match target {
            Some(Target::Node(node)) => propose(case, file, entry, node),
            _ => ("what this name leads to is decided by slot or bus".to_owned(), None),
        };
        if fix.is_none() {
            notes.push("no certain fix: the file system cannot be named by a UUID of its own".into());
        }
        findings.push(Finding {
            rule: &RULE,
            severity: if unit.blocks_boot() { Severity::Error } else { Severity::Warning },
            place: case.place(file, entry, &entry.source),
            label,
            notes,
            fix,
        });
    }
}

fn wait_in_words(wait: std::time::Duration) -> String {
    if wait == std::time::Duration::MAX { "for ever".into() } else { format!("{} s", wait.as_secs()) }
}

fn propose(case: &Case<'_>, file: &ConfigFile<Fstab>, entry: &Entry, node: NodeId) -> (String, Option<Fix>) {
    let found = case.storage.node(node);
    let name = entry.source.text();
    let name = name.trim_start_matches("/dev/");
    let disk: &str = match &found.kind {
        NodeKind::Partition(partition) => {
            name.strip_suffix(&partition.number.to_string()).unwrap_or(name).trim_end_matches('p')
        }
        _ => name,
    };
    let label = format!("the disk that is {disk} today may be {} tomorrow", next_name(disk));
    let is_mountable =
        !matches!(found.content_type(), None | Some("LVM2_member" | "dos" | "gpt" | "linux_raid_member"));
    let Some(uuid) = found.uuid().filter(|_| is_mountable && case.same_uuid(node).is_empty()) else {
        return (label, None);
    };
    let edit = file.document.set_source(entry, &format!("UUID={uuid}"));
    let fix = Fix {
        applicability: Applicability::Safe,
        title: "name it by UUID".into(),
        edits: vec![FileEdit { node: file.node, inode: file.inode, path: file.path.clone(), edit }],
    };
    (label, Some(fix))
}

/// `vdb` for `vda`, `nvme1n1` for `nvme0n1`: an example of what the disk may be called next.
fn next_name(disk: &str) -> String {
    if let Some(rest) = disk.strip_prefix("nvme") {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        return format!("nvme{}{tail}", number.parse::<u32>().map_or(1, |number| number.saturating_add(1)));
    }
    match disk.as_bytes().split_last() {
        Some((last, head)) if last.is_ascii_lowercase() && *last != b'z' => {
            format!("{}{}", String::from_utf8_lossy(head), char::from(last + 1))
        }
        _ => "another".into(),
    }
}
