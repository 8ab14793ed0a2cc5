//! Rules on the founding guest with another fstab.

use std::sync::Arc;

use blockdev::{Device, Overlay};
use filesystem::Timestamp;
use filesystem::path::resolve;
use guestmend::machine::Machine;
use guestmend::{Wanted, examine, mend};
use image::{FolderGate, Options};
use repair::Applicability;

const BOOT: &str = "6f1c77a0-0b2d-4c3e-9a51-0c7de1000001";
const SWAP: &str = "6f1c77a0-0b2d-4c3e-9a51-0c7de1000003";
const ROOT: &str = "/dev/mapper/centos-root / ext4 defaults 0 0\n";

/// The ext4 sample with this fstab.
fn guest(fstab: &str) -> Device {
    let opened = image::open(
        &crate::support::sample("centos7-vda-ext4.qcow2"),
        &Options::default(),
        &FolderGate::new(),
    )
    .unwrap();
    let disk: Device = Arc::new(Overlay::new(opened.device));
    let storage = storage::discover(std::slice::from_ref(&disk), &luks::Keyring::default());
    let root =
        storage.nodes.iter().find(|node| node.path == "centos/root").unwrap().open_bare().unwrap().value;
    let inode = resolve(root.as_ref(), b"/etc/fstab").unwrap();
    root.writable().unwrap().replace(inode, fstab.as_bytes(), Timestamp::default()).unwrap();
    disk
}

/// `rule:line severity → the line after every proposed fix`, for each finding.
fn found(fstab: &str) -> Vec<String> {
    let machines = [Machine::as_is(), Machine::reordered()];
    let examination = examine(&[guest(fstab)], &luks::Keyring::default(), &machines);
    assert_eq!(examination.guests.len(), 1, "{fstab}");
    examination
        .findings
        .iter()
        .map(|finding| {
            let fix = finding.fix.as_ref().map_or_else(
                || "no fix".to_owned(),
                |fix| {
                    let edits: Vec<_> = fix.edits.iter().map(|edit| edit.edit.clone()).collect();
                    let after = guest_files::apply(fstab.as_bytes(), &edits).unwrap();
                    let text = String::from_utf8(after).unwrap();
                    let line = text.lines().nth(finding.place.line().unwrap().number - 1).unwrap().to_owned();
                    format!("{}: {line}", fix.applicability.as_str())
                },
            );
            format!(
                "{}:{} {} → {fix}",
                finding.rule.id,
                finding.place.line().unwrap().number,
                finding.severity.as_str()
            )
        })
        .collect()
}

#[test]
fn what_is_found_and_what_is_left_alone() {
    let none: &[&str] = &[];
    let cases: &[(&str, &[&str])] = &[
        // Names that do not change are left alone.
        ("/dev/mapper/centos-swap swap swap defaults 0 0", none),
        ("/dev/centos/swap swap swap defaults 0 0", none),
        (&format!("UUID={BOOT} /boot ext4 defaults 0 0"), none),
        ("tmpfs /tmp tmpfs defaults 0 0", none),
        ("/dev/sr0 /media iso9660 ro,noauto 0 0", none),
        ("server:/export /data nfs defaults 0 0", none),
        ("# /dev/vda1 /boot ext4 defaults 0 0", none),
        ("/dev/vda1 /boot ext4 noauto 0 0", none),
        // The founding fault, and its milder forms.
        (
            "/dev/vda1\t/boot  ext4 defaults 0 2 # x",
            &[&format!("fstab.unstable-device:2 error → safe: UUID={BOOT}\t/boot  ext4 defaults 0 2 # x")],
        ),
        (
            "/dev/vda1 /boot ext4 nofail 0 0",
            &[&format!("fstab.unstable-device:2 warning → safe: UUID={BOOT} /boot ext4 nofail 0 0")],
        ),
        (
            "/dev/disk/by-path/pci-0000:00:05.0-part1 /boot ext4 defaults 0 0",
            &["fstab.unstable-device:2 error → no fix"],
        ),
        // What no disk provides.
        ("/dev/vdb1 /boot ext4 defaults 0 0", &["fstab.unresolved-source:2 error → no fix"]),
        (
            "UUID=dead-beef /data ext4 defaults 0 0",
            &["fstab.unresolved-source:2 error → suggested: UUID=dead-beef /data ext4 defaults,nofail 0 0"],
        ),
        ("UUID=dead-beef /data ext4 nofail 0 0", &["fstab.unresolved-source:2 warning → no fix"]),
        (
            &format!("UUID={} /boot ext4 defaults 0 0", BOOT.to_uppercase()),
            &[&format!("fstab.unresolved-source:2 error → safe: UUID={BOOT} /boot ext4 defaults 0 0")],
        ),
        (&format!("UUID={SWAP} none swap sw 0 0"), none),
        ("UUID=0 none swap sw 0 0", &["fstab.unresolved-source:2 warning → no fix"]),
    ];
    for (line, expected) in cases {
        assert_eq!(found(&format!("{ROOT}{line}\n")), *expected, "{line}");
    }
}

#[test]
fn every_fix_makes_its_own_finding_disappear() {
    let fstab = format!("{ROOT}/dev/vda1 /boot ext4 defaults 0 0\nUUID=gone /srv ext4 defaults 0 0\n");
    let machines = [Machine::as_is(), Machine::reordered()];
    let disk = guest(&fstab);
    for (least, left) in [(Applicability::Safe, 1), (Applicability::Suggested, 1)] {
        let wanted = Wanted { rule: None, least };
        let mended = mend(
            std::slice::from_ref(&disk),
            &luks::Keyring::default(),
            &machines,
            &wanted,
            Timestamp::default(),
        )
        .unwrap();
        // `nofail` turns the error into a warning about the same line, which is not the finding that was cured.
        assert_eq!(mended.after.findings.len(), left, "{least:?}: {:?}", mended.after.findings);
    }
}

#[test]
fn only_the_wanted_rule_is_mended() {
    let disk = guest(&format!("{ROOT}/dev/vda1 /boot ext4 defaults 0 0\n"));
    let wanted = Wanted { rule: Some("fstab.unresolved-source".into()), least: Applicability::Safe };
    let mended =
        mend(&[disk], &luks::Keyring::default(), &[Machine::as_is()], &wanted, Timestamp::default()).unwrap();
    assert!(mended.changes.is_empty() && mended.cured.is_empty());
}
