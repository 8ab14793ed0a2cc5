//! Rules that speak of what stops a boot, on the founding guest with another boot loader configuration and with
//! boots that end as written here.

use std::sync::Arc;

use blockdev::{Device, Overlay};
use boot::{BootTrace, Cause, Outcome, Stage, StageName, Verdict};
use filesystem::Timestamp;
use filesystem::path::resolve;
use guestmend::machine::Machine;
use guestmend::{Examination, examine};
use image::{FolderGate, Options};
use rules::{Check, Finding, RULES, Severity, Spot};

const BOOT: &str = "6f1c77a0-0b2d-4c3e-9a51-0c7de1000001";
const ROOT: &str = "6f1c77a0-0b2d-4c3e-9a51-0c7de1000002";
const GONE: &str = "0000dead-0b2d-4c3e-9a51-0c7de1000009";

/// The ext4 sample with files of its `/boot` replaced.
fn guest(files: &[(&str, &[u8])]) -> Examination {
    let sample = crate::support::sample("centos7-vda-ext4.qcow2");
    let opened = image::open(&sample, &Options::default(), &FolderGate::new()).unwrap();
    let disk: Device = Arc::new(Overlay::new(opened.device));
    let storage = storage::discover(std::slice::from_ref(&disk), &luks::Keyring::default());
    let node = storage.nodes.iter().find(|node| node.path == "disk0/p1").unwrap();
    let fs = node.open_bare().unwrap().value;
    for (path, content) in files {
        let inode = resolve(fs.as_ref(), path.as_bytes()).unwrap();
        fs.writable().unwrap().replace(inode, content, Timestamp::default()).unwrap();
    }
    examine(&[disk], &luks::Keyring::default(), &[Machine::as_is(), Machine::reordered()])
}

/// The same boot, ended by a cause.
fn ended(boot: &BootTrace, cause: Option<Cause>) -> BootTrace {
    let mut boot = boot.clone();
    boot.outcome = if cause.is_some() { Outcome::GrubError } else { Outcome::Login };
    boot.stages = vec![Stage {
        name: StageName::LoaderConfig,
        verdict: if cause.is_some() { Verdict::Fail } else { Verdict::Pass },
        summary: "it stops here".into(),
        evidence: Vec::new(),
    }];
    boot.cause = cause;
    boot
}

fn cause(rule: &'static str, place: Option<(&str, usize)>, symptom: &str) -> Cause {
    Cause {
        rule,
        file: place.map_or_else(String::new, |(file, _)| file.to_owned()),
        line: place.map(|(_, line)| line),
        unit: None,
        symptom: symptom.into(),
    }
}

/// What is found of `rule` when the machine as it stands and the one with an extra disk first end so.
fn found(guest: &Examination, rule: &str, causes: [Option<Cause>; 2]) -> Vec<Finding> {
    let boots: Vec<BootTrace> =
        guest.boots.iter().zip(causes).map(|(boot, cause)| ended(boot, cause)).collect();
    let findings = rules::judge(&guest.storage, &guest.guests, &boots);
    findings.into_iter().filter(|finding| finding.rule.id == rule).collect()
}

#[test]
fn what_stops_a_boot_is_a_finding_once_a_place() {
    let guest = guest(&[]);
    let mut count = 0;
    for rule in RULES.iter().filter(|rule| matches!(rule.check, Check::Boot(_))) {
        count += 1;
        let at = |line| Some(cause(rule.id, Some(("/boot/grub2/grub.cfg", line)), "error: it is so."));
        for (causes, expected) in [
            ([at(8), at(8)], vec![Severity::Error]),
            ([None, at(8)], vec![Severity::Warning]),
            ([at(8), at(5)], vec![Severity::Error, Severity::Warning]),
            ([None, None], vec![]),
        ] {
            let findings = found(&guest, rule.id, causes);
            assert_eq!(findings.iter().map(|f| f.severity).collect::<Vec<_>>(), expected, "{}", rule.id);
            for finding in findings {
                assert_eq!(finding.label, "it stops here");
                assert_eq!(finding.notes.len(), 1);
                assert!(finding.notes[0].contains("grub-error, \"error: it is so.\""), "{:?}", finding.notes);
                assert_eq!(finding.place.file(), Some("/boot/grub2/grub.cfg"));
            }
        }
        // Outside of files, and in a file that is not there.
        let nowhere = found(&guest, rule.id, [Some(cause(rule.id, None, "x")), None]).remove(0);
        let expected = match rule.id.split('.').next().unwrap() {
            "mbr" => Spot::Sector(0),
            "gpt" => Spot::Sector(1),
            _ if rule.id == "grub.boot-to-core" => Spot::Sector(0),
            _ => Spot::Device,
        };
        assert_eq!(nowhere.place.spot, expected, "{}", rule.id);
        let missing = cause(rule.id, Some(("/boot/grub2/no.cfg", 3)), "x");
        let missing = found(&guest, rule.id, [Some(missing), None]).remove(0);
        assert_eq!(missing.place.spot, Spot::File("/boot/grub2/no.cfg".into()));
        assert_eq!(guest.storage.node(missing.place.node).path, "disk0/p1");
    }
    assert!(count > 30);
    let both = Some(cause("fs.btrfs-incomplete", None, "x"));
    let note = &found(&guest, "fs.btrfs-incomplete", [both.clone(), both])[0].notes[0];
    assert_eq!(note, "boot: as it stands, and on virtio-blk: vda=extra, vdb=disk0: grub-error, \"x\"");
}

/// The file after the fix, and how sure it is; `None` without one.
fn fixed(path: &str, content: &str, cause: Cause) -> Option<(&'static str, String)> {
    let guest = guest(&[(path.trim_start_matches("/boot"), content.as_bytes())]);
    let finding = found(&guest, cause.rule, [Some(cause.clone()), None]).remove(0);
    let fix = finding.fix?;
    assert!(fix.edits.iter().all(|edit| edit.path == path));
    let edits: Vec<_> = fix.edits.into_iter().map(|edit| edit.edit).collect();
    let after = guest_files::apply(content.as_bytes(), &edits).unwrap();
    Some((fix.applicability.as_str(), String::from_utf8(after).unwrap()))
}

const CFG: &str = "set root='hd0,msdos1'
search --no-floppy --fs-uuid --set=root --hint-bios=hd0,msdos1 SEARCH
menuentry 'one' --id 'x-VALUE' {
\tlinux16\t/vmlinuz-3.10.0-1160.el7.x86_64 root=VALUE ro quiet
\tinitrd16 /initramfs.img
}
submenu 'more' {
  menuentry 'two' {
    search --fs-uuid --set=root \"SEARCH\"
    linux16 /vmlinuz-3.10.0-1160.el7.x86_64 ro 'root=VALUE'
    initrd16 /initramfs.img
  }
  menuentry 'without' { linux16 /vmlinuz-0 root=VALUE ro; }
  menuentry 'another' { linux16 /vmlinuz-0 root=VALUES ro; initrd16 /i; }
}
";

fn cfg(value: &str) -> String {
    CFG.replace("root=VALUE", &format!("root={value}")).replace("SEARCH", BOOT)
}

#[test]
fn a_root_that_names_nothing_becomes_the_only_one_there_is() {
    let path = "/boot/grub2/grub.cfg";
    let cases: &[(&str, &str, Option<(&str, &str)>)] = &[
        ("cmdline.root-unresolved", &format!("UUID={GONE}"), Some(("safe", &format!("UUID={ROOT}")))),
        ("cmdline.root-unresolved", "PARTUUID=0dead000-01", Some(("safe", &format!("UUID={ROOT}")))),
        ("cmdline.root-unresolved", "/dev/mapper/centos-gone", Some(("safe", "/dev/mapper/centos-root"))),
        ("cmdline.root-bare-device", "/dev/vda9", Some(("suggested", &format!("UUID={ROOT}")))),
        // What names something is left alone: another file system, or the right one, so that the fault is elsewhere.
        ("cmdline.root-unresolved", &format!("UUID={BOOT}"), None),
        ("cmdline.root-unresolved", &format!("UUID={ROOT}"), None),
        ("cmdline.root-unresolved", "/dev/centos/root", None),
        ("cmdline.root-unresolved", "gpt-auto", None),
    ];
    for (rule, old, expected) in cases {
        let result = fixed(path, &cfg(old), cause(rule, Some((path, 4)), "it does not exist"));
        let expected = expected.map(|(sure, new)| {
            let without = format!("vmlinuz-0 root={new} ro; }}");
            let other = format!("root={new}S");
            let text = cfg(new).replace(&without, &format!("vmlinuz-0 root={old} ro; }}"));
            (sure, text.replace(&other, &format!("root={old}S")))
        });
        assert_eq!(result, expected, "{old}");
    }
    // Without an initramfs a kernel knows no UUID.
    let lone = cause("cmdline.root-unresolved", Some((path, 13)), "x");
    assert!(
        fixed(path, &cfg(&format!("UUID={GONE}")), lone)
            .is_some_and(|(_, text)| { text.contains(&format!("vmlinuz-0 root=UUID={GONE} ro; }}")) })
    );
}

#[test]
fn a_type_that_the_root_has_not() {
    let path = "/boot/grub2/grub.cfg";
    let text = cfg("/dev/mapper/centos-root").replace("quiet", "rootfstype=xfs");
    let (sure, after) =
        fixed(path, &text, cause("cmdline.root-unresolved", Some((path, 4)), "mounting fails")).unwrap();
    assert_eq!((sure, after), ("safe", text.replace("rootfstype=xfs", "rootfstype=ext4")));
}

#[test]
fn a_renamed_volume_is_renamed_everywhere() {
    let path = "/boot/grub2/grub.cfg";
    let text = cfg("/dev/mapper/centos-old").replace("quiet", "rd.lvm.lv=centos/old rd.lvm.lv=centos/swap");
    let (_, after) = fixed(path, &text, cause("cmdline.root-unresolved", Some((path, 4)), "x")).unwrap();
    let line = "root=/dev/mapper/centos-root ro rd.lvm.lv=centos/root rd.lvm.lv=centos/swap\n";
    assert!(after.contains(line), "{after}");
}

#[test]
fn kernelopts_keep_the_size_of_the_block() {
    let path = "/boot/grub2/grubenv";
    let mut block = format!("# GRUB Environment Block\nsaved_entry=0\nkernelopts=root=UUID={GONE} ro\n");
    block.push_str(&"#".repeat(1024 - block.len()));
    let (sure, after) = fixed(path, &block, cause("cmdline.root-unresolved", Some((path, 3)), "x")).unwrap();
    assert_eq!((sure, after.len()), ("safe", 1024));
    assert!(after.contains(&format!("\nkernelopts=root=UUID={ROOT} ro\n###")), "{after}");
    // In grub.cfg, for want of a block.
    let path = "/boot/grub2/grub.cfg";
    let text = format!("if [ -z \"${{kernelopts}}\" ]; then\n  set kernelopts=\"root=UUID={GONE} ro\"\nfi\n");
    let (_, after) = fixed(path, &text, cause("cmdline.root-unresolved", Some((path, 2)), "x")).unwrap();
    assert_eq!(after, text.replace(GONE, ROOT));
}

#[test]
fn a_search_finds_the_file_system_with_the_kernel() {
    let path = "/boot/grub2/grub.cfg";
    let text = CFG.replace("VALUE", "/dev/mapper/centos-root");
    let stale =
        |line| cause("grub.cfg-search-stale", Some((path, line)), &format!("error: no such device: {GONE}."));
    let (sure, after) = fixed(path, &text.replace("SEARCH", GONE), stale(2)).unwrap();
    assert_eq!((sure, after), ("safe", text.replace("\"SEARCH\"", BOOT).replace("SEARCH", BOOT)));
    // No file system with such a kernel: nothing is certain.
    let elsewhere = text.replace("SEARCH", GONE).replace("/vmlinuz-", "/kernels/vmlinuz-");
    assert_eq!(fixed(path, &elsewhere, stale(2)), None);
    // The line does not search.
    assert_eq!(fixed(path, &text.replace("SEARCH", GONE), stale(4)), None);
}
