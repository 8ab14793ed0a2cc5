//! What our examination finds, against what `qemu-img check` finds, and what is left after a repair.

use std::path::Path;

use crate::support::{Folder, Random, disk_content, has_qemu};
use blockdev::BlockDeviceMut;
use image::{DenyAll, FolderGate, Options, Report, Severity, Staging};

fn check(path: &Path) -> Report {
    image::check(path, &Options::default(), &FolderGate::new()).unwrap()
}

/// Errors and leaks.
fn counts(report: &Report) -> (u64, u64) {
    let errors = report.count(Severity::Error);
    (errors, report.count(Severity::Leak) - errors)
}

/// Corruptions and leaks as QEMU counts them; `None` when it refuses to look.
fn theirs(folder: &Folder, name: &str) -> Option<(u64, u64)> {
    let output = folder.run(&format!("qemu-img check --output=json -f qcow2 {name}"));
    let said = String::from_utf8(output.stdout).unwrap();
    let field = |key: &str| {
        let rest = said.split(&format!("\"{key}\": ")).nth(1)?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    field("check-errors")?;
    Some((field("corruptions").unwrap_or(0), field("leaks").unwrap_or(0)))
}

/// Applies every repair of the image and of what is left, and returns the last report.
fn repair(path: &Path) -> Report {
    let staging = Staging::preview();
    let options = Options { staging: Some(&staging), ..Options::default() };
    let mut report = image::check(path, &options, &DenyAll).unwrap();
    for _ in 0..4 {
        let patches = report.problems.iter().filter_map(|problem| problem.repair.as_ref());
        let patches: Vec<_> = patches.flat_map(|repair| repair.patches.clone()).collect();
        if patches.is_empty() {
            break;
        }
        let overlay = staging.files()[0].overlay.clone();
        for patch in patches {
            overlay.grow(patch.offset + patch.bytes.len() as u64).unwrap();
            overlay.write_all_at(&patch.bytes, patch.offset).unwrap();
        }
        report = image::check(path, &options, &DenyAll).unwrap();
    }
    let overlay = staging.files()[0].overlay.clone();
    std::fs::write(path, crate::support::read_all(&*overlay)).unwrap();
    report
}

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("base.raw", &disk_content(3_000_320, 17));
    folder
}

const VARIANTS: [&str; 10] = [
    "-o compat=0.10",
    "-o cluster_size=512",
    "-o cluster_size=2M",
    "-o refcount_bits=1",
    "-o refcount_bits=64,cluster_size=1k",
    "-o extended_l2=on,cluster_size=16k",
    "-o preallocation=metadata",
    "-c -o cluster_size=4k",
    "-c -o compression_type=zstd",
    "-o data_file=data.raw",
];

#[test]
fn every_variant_is_sound() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    for options in VARIANTS {
        folder.must(&format!("qemu-img convert -f raw -O qcow2 {options} base.raw disk.qcow2"));
        let report = check(&folder.path("disk.qcow2"));
        assert_eq!(counts(&report), (0, 0), "{options}: {:?}", report.problems);
        assert_eq!(theirs(&folder, "disk.qcow2"), Some((0, 0)), "{options}");
        let bits = report.end;
        let said = folder.must("qemu-img check --output=json disk.qcow2");
        assert!(said.contains(&format!("\"image-end-offset\": {bits},")), "{options}: {bits}, {said}");
    }
    folder.must("qemu-img convert -f raw -O qcow2 -o cluster_size=4k base.raw snap.qcow2");
    folder.must("qemu-img snapshot -c first snap.qcow2");
    folder.qemu_io("snap.qcow2", &["write -P 3 1M 64k"]);
    folder.must("qemu-img snapshot -c second snap.qcow2");
    folder.must("qemu-img bitmap --add snap.qcow2 backup");
    let report = check(&folder.path("snap.qcow2"));
    assert_eq!(counts(&report), (0, 0), "{:?}", report.problems);
}

/// Changes the 8-byte word at `at`.
fn change(bytes: &mut [u8], at: usize, change: impl FnOnce(u64) -> u64) {
    let word = u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    bytes[at..at + 8].copy_from_slice(&change(word).to_be_bytes());
}

fn word(bytes: &[u8], at: usize) -> usize {
    (u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap()) & 0x00ff_ffff_ffff_fe00) as usize
}

/// A fault: its name, what it does to a sound image with clusters of 4 KiB, and whether a repair is certain.
type Fault = (&'static str, fn(&mut Vec<u8>), bool);

const FAULTS: [Fault; 11] = [
    (
        "a count too low",
        |b| {
            let at = word(b, word(b, 48)) + 2 * 20;
            b[at + 1] = 0;
        },
        true,
    ),
    (
        "a count too high",
        |b| {
            let at = word(b, word(b, 48)) + 2 * 20;
            b[at + 1] = 3;
        },
        true,
    ),
    (
        "a leak behind the end",
        |b| {
            let end = b.len() / 4096;
            let at = word(b, word(b, 48)) + 2 * end;
            b[at + 1] = 1;
            b.resize(b.len() + 4096, 7);
        },
        true,
    ),
    (
        "COPIED lost in L1",
        |b| {
            let at = word(b, 40);
            change(b, at, |entry| entry & !(1 << 63));
        },
        true,
    ),
    (
        "COPIED lost in L2",
        |b| {
            let at = word(b, word(b, 40));
            change(b, at, |entry| entry & !(1 << 63));
        },
        true,
    ),
    (
        "refcount table entry lost",
        |b| {
            let at = word(b, 48);
            change(b, at, |_| 0);
        },
        true,
    ),
    (
        "refcount block out of the file",
        |b| {
            let at = word(b, 48);
            change(b, at, |_| 1 << 40);
        },
        true,
    ),
    ("dirty", |b| b[79] |= 1, true),
    (
        "two clusters in one place",
        |b| {
            let table = word(b, word(b, 40));
            let second = u64::from_be_bytes(b[table + 8..table + 16].try_into().unwrap());
            change(b, table, |_| second);
        },
        false,
    ),
    (
        "an L2 entry out of the file",
        |b| {
            let at = word(b, word(b, 40));
            change(b, at, |_| 1 << 63 | 1 << 40);
        },
        false,
    ),
    (
        "an L2 table out of the file",
        |b| {
            let at = word(b, 40);
            change(b, at, |_| 1 << 63 | 1 << 40);
        },
        false,
    ),
];

#[test]
fn faults_are_found_and_repaired_as_far_as_is_certain() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O qcow2 -o cluster_size=4k -S 0 base.raw sound.qcow2");
    let sound = folder.read("sound.qcow2");
    for (name, fault, is_certain) in FAULTS {
        let mut bytes = sound.clone();
        fault(&mut bytes);
        folder.write("disk.qcow2", &bytes);
        let report = check(&folder.path("disk.qcow2"));
        let (errors, leaks) = counts(&report);
        assert!(errors + leaks > 0, "{name}");
        if let Some((corruptions, their_leaks)) = theirs(&folder, "disk.qcow2") {
            // To QEMU, COPIED contradicts a count that is too high; to us the count is the fault, and harmless.
            let expected = corruptions > 0 && name != "a count too high" || name == "dirty";
            assert_eq!(errors > 0, expected, "{name}: {:?}", report.problems);
            assert!(leaks > 0 || their_leaks == 0 || errors > 0, "{name}");
        }
        let names_guest = report.problems.iter().any(|problem| !problem.guest.is_empty());
        assert_eq!(names_guest, !is_certain, "{name}: {:?}", report.problems);
        let after = repair(&folder.path("disk.qcow2"));
        if is_certain {
            assert_eq!(counts(&after), (0, 0), "{name}: {:?}", after.problems);
            folder.must_be_clean("disk.qcow2");
            let content = folder.content("disk.qcow2");
            crate::support::assert_same(&content, &folder.read("base.raw"), name);
        } else {
            assert!(counts(&after).0 > 0, "{name}");
        }
    }
}

#[test]
fn a_killed_writer_leaves_what_is_repaired() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O qcow2 -o lazy_refcounts=on,cluster_size=4k base.raw disk.qcow2");
    // The writer dies without updating refcounts.
    folder.run("qemu-io -f qcow2 disk.qcow2 -c write\u{20}-P\u{20}9\u{20}1M\u{20}200k");
    let path = folder.path("disk.qcow2");
    let mut command = std::process::Command::new("qemu-io");
    command.args(["-f", "qcow2"]).arg(&path);
    command.args([
        "-c",
        "write -P 9 1M 200k",
        "-c",
        "write -P 8 2900000 512",
        "-c",
        "flush",
        "-c",
        "sigraise 9",
    ]);
    drop(command.output().unwrap());
    let report = check(&path);
    assert!(report.problems.iter().any(|problem| problem.summary.contains("dirty")), "{:?}", report.problems);
    let after = repair(&path);
    assert_eq!(counts(&after), (0, 0), "{:?}", after.problems);
    folder.must_be_clean("disk.qcow2");
}

#[test]
fn random_damage_gets_the_verdict_that_qemu_gives() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -c -f raw -O qcow2 -o cluster_size=4k base.raw packed.qcow2");
    folder.must("qemu-img convert -f raw -O qcow2 -o cluster_size=4k base.raw snap.qcow2");
    folder.must("qemu-img snapshot -c first snap.qcow2");
    folder.qemu_io("snap.qcow2", &["write -P 3 1M 64k"]);
    let mut compared = 0;
    for name in ["packed.qcow2", "snap.qcow2"] {
        let original = folder.read(name);
        let (l1, refcounts) = (word(&original, 40), word(&original, 48));
        let tables = [l1, refcounts, word(&original, l1), word(&original, refcounts)];
        for number in 0..150 {
            let mut random = Random::new(number);
            let mut bytes = original.clone();
            let table = tables[random.below(4) as usize];
            let at =
                table + 8 * random.below(if table == l1 || table == refcounts { 2 } else { 512 }) as usize;
            match random.below(3) {
                0 => change(&mut bytes, at, |entry| entry ^ 1 << random.below(64)),
                1 => change(&mut bytes, at, |_| 0),
                _ => change(&mut bytes, at, |entry| entry.wrapping_add(random.below(8) << 12)),
            }
            folder.write("disk.qcow2", &bytes);
            let report = check(&folder.path("disk.qcow2"));
            let (errors, leaks) = counts(&report);
            // What QEMU refuses to look at must not be sound to us.
            let Some((corruptions, their_leaks)) = theirs(&folder, "disk.qcow2") else {
                assert!(errors > 0, "{name}, damage {number}: QEMU refuses");
                continue;
            };
            compared += 1;
            let said = folder.check("disk.qcow2").1;
            let said: Vec<_> = said.lines().filter(|line| line.starts_with("ERROR")).take(5).collect();
            let summaries: Vec<_> = report.problems.iter().map(|problem| &problem.summary).collect();
            let what = format!("{name}, damage {number}: {summaries:#?}; QEMU: {said:#?}");
            // To QEMU, COPIED contradicts a count that is too high; to us the count is the fault, and harmless.
            let is_count = said.iter().all(|line| line.contains("OFLAG_COPIED")) && leaks > 0;
            assert!(errors > 0 || corruptions == 0 || is_count, "{what}");
            assert!(leaks + errors > 0 || their_leaks == 0, "{what}");
            // We also look at reserved bits and flags of compressed clusters, which QEMU passes over.
            let is_more = report.problems.iter().any(|problem| {
                [
                    "reserved bits",
                    "COPIED is set for a compressed",
                    "used as",
                    "places of the disk",
                    "past the end",
                ]
                .iter()
                .any(|more| problem.summary.contains(more))
            });
            assert!(errors == 0 || corruptions > 0 || is_more, "{what}");
            assert!(leaks == 0 || their_leaks > 0 || corruptions > 0 || is_more, "{what}");
        }
    }
    assert!(compared > 100);
}
