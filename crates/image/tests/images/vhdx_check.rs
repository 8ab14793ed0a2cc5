//! What is wrong with a file: named, placed, with what it means for the guest, and mended where one way is certain.

use std::path::Path;
use std::sync::Arc;

use crate::support::{Folder, assert_same, disk_content, has_qemu, read_all};
use crate::vhdx_chain::{make_child, make_parent};
use crate::vhdx_support::{
    HEADERS, LogEntry, MIB, REGION_TABLES, SECTOR, Step, activate_log, bat, current_header, new_image, open,
    put, qemu_check, region, sample, seal, test_image, update_header,
};
use image::vhdx::CreateOptions;
use image::{FolderGate, Mode, Options, Problem, Report, Severity};

fn check(path: &Path) -> Report {
    image::check(path, &Options { format: Some("vhdx"), ..Options::default() }, &FolderGate::new()).unwrap()
}

/// An image of ours with four blocks of 1 MiB, all written, and a fifth that is not.
fn full() -> Vec<u8> {
    let device = new_image(&CreateOptions { block_size: 1 << 20, ..CreateOptions::new((9 << 19) + 512) });
    let image = open(device.clone(), Mode::ReadWrite).unwrap();
    image.device.writable().unwrap().write_all_at(&disk_content(4 << 20, 40), 0).unwrap();
    image.device.writable().unwrap().flush().unwrap();
    device.to_vec()
}

fn report_of(folder: &Folder, bytes: &[u8]) -> Report {
    folder.write("checked.vhdx", bytes);
    let report = check(&folder.path("checked.vhdx"));
    assert_eq!((report.format, report.files.len()), ("vhdx", 1));
    report
}

/// Applies all repairs to the bytes, in order.
fn mend(bytes: &mut Vec<u8>, report: &Report) {
    for patch in report.problems.iter().filter_map(|problem| problem.repair.as_ref()).flat_map(|r| &r.patches)
    {
        let end = patch.offset as usize + patch.bytes.len();
        bytes.resize(bytes.len().max(end), 0);
        put(bytes, patch.offset as usize, &patch.bytes);
    }
}

fn said(problem: &Problem) -> String {
    let Problem { severity, structure, offset, summary, effect, guest, .. } = problem;
    format!("{severity:?}: {structure} at {offset}: {summary}; {effect} {guest:?}")
}

#[test]
fn healthy_images_have_no_problems() {
    let folder = Folder::new();
    let report = report_of(&folder, &full());
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!((report.allocated, report.end), (4 << 20, 8 << 20));
    let fixed = CreateOptions { is_fixed: true, block_size: 2 << 20, ..CreateOptions::new((5 << 20) + 512) };
    let report = report_of(&folder, &new_image(&fixed).to_vec());
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(report.allocated, (5 << 20) + 512);
}

#[test]
fn samples_are_healthy() {
    let folder = Folder::new();
    for (path, allocated) in [
        ("dfvfs/ntfs-dynamic.vhdx.xz", 4 << 20),
        ("dfvfs/ntfs-fixed.vhdx.xz", 4 << 20),
        ("dfvfs/ntfs-parent.vhdx.xz", 4 << 20),
        ("dfvfs/fat-parent.vhdx.xz", 4 << 20),
        ("qemu/sample_images/iotest-dynamic-1G.vhdx.bz2", 96 << 20),
        ("qemu/sample_images/test-disk2vhd.vhdx.bz2", 256 << 20),
    ] {
        if sample(&folder, path, "sample.vhdx").is_none() {
            return;
        }
        let report = check(&folder.path("sample.vhdx"));
        assert_eq!(report.count(Severity::Error), 0, "{path}: {:?}", report.problems);
        assert_eq!(report.allocated, allocated, "{path}");
    }
    for (path, name) in [
        ("dfvfs/ntfs-differential.vhdx.xz", "ntfs-parent.vhdx"),
        ("dissect/dissect.hypervisor/disk/vhdx/differencing.avhdx.gz", ".avhdx"),
    ] {
        sample(&folder, path, "sample.vhdx").unwrap();
        let report = check(&folder.path("sample.vhdx"));
        assert_eq!(report.count(Severity::Error), 0, "{path}: {:?}", report.problems);
        assert!(report.allocated > 0 && !report.allocated.is_multiple_of(1 << 20), "{name}: some sectors");
    }
}

#[test]
fn each_copy_is_mended_from_the_other() {
    let good = full();
    let folder = Folder::new();
    let current = current_header(&good);
    for (at, length, title) in [
        (HEADERS[0], SECTOR, "write the damaged header anew from the other one"),
        (HEADERS[1], SECTOR, "write the damaged header anew from the other one"),
        (REGION_TABLES[0], 64 << 10, "write the damaged region table anew from the other one"),
        (REGION_TABLES[1], 64 << 10, "write the damaged region table anew from the other one"),
    ] {
        for damaged in [at, at + 8, at + length - 1] {
            let mut bytes = good.clone();
            bytes[damaged] ^= 0x20;
            let report = report_of(&folder, &bytes);
            let [problem] = report.problems.as_slice() else { panic!("{:?}", report.problems) };
            assert_eq!((problem.severity, problem.offset), (Severity::Error, at as u64));
            assert!(problem.guest.is_empty() && problem.effect.contains("other copy is whole"));
            assert_eq!(problem.repair.as_ref().unwrap().title, title);
            assert_eq!(report.allocated, 4 << 20, "the rest is looked at all the same");
            mend(&mut bytes, &report);
            let report = report_of(&folder, &bytes);
            assert!(report.problems.is_empty(), "{:?}", report.problems);
            if at >= REGION_TABLES[0] || at != current {
                assert_same(&bytes[256 << 10..], &good[256 << 10..], "nothing else");
            }
            let disk = read_all(&*folder.open("checked.vhdx").unwrap().device);
            assert_same(&disk[..4 << 20], &disk_content(4 << 20, 40), "mended");
            if has_qemu() {
                assert_eq!(qemu_check(&folder, "checked.vhdx").0, 0);
            }
        }
    }
}

#[test]
fn what_hides_the_disk_is_told() {
    let good = full();
    let folder = Folder::new();
    let metadata = region(&good, 0x06);
    type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
    let cases: [(Change<'_>, &str); 7] = [
        (&|bytes| HEADERS.iter().for_each(|at| bytes[*at] = 0), "VHDX header at 65536: copies is"),
        (
            &|bytes| REGION_TABLES.iter().for_each(|at| bytes[*at] = 0),
            "VHDX region table at 196608: copies is",
        ),
        (&|bytes| bytes[metadata] = 0, "VHDX metadata table at"),
        (&|bytes| bytes[metadata + (64 << 10) + 2] = 0x30, "File Parameters is 3145728"),
        (&|bytes| bytes.truncate(metadata + 100), "length is 100"),
        (&|bytes| bytes.truncate(bat(&good)), "VHDX BAT at"),
        (&|bytes| bytes.truncate(100_000), "VHDX header at 131072: length"),
    ];
    for (change, expected) in cases {
        let mut bytes = good.clone();
        change(&mut bytes);
        let report = report_of(&folder, &bytes);
        let all: Vec<String> = report.problems.iter().map(said).collect();
        assert!(all.iter().any(|said| said.contains(expected)), "{expected}: {all:?}");
        assert!(all.iter().any(|said| said.contains("the disk cannot be read")), "{all:?}");
        assert!(folder.open("checked.vhdx").is_err());
    }
}

#[test]
fn every_kind_of_damaged_entry_is_found() {
    let good = full();
    let folder = Folder::new();
    let entry = |block: usize| bat(&good) + 8 * block;
    let block = |number: u64| number << 20..(number + 1) << 20;
    for (number, word, expected, guest) in [
        (
            1,
            4_u64,
            "State of block 1 is 4, expected 0 to 3, 6 or 7; the block cannot be read",
            vec![block(1)],
        ),
        (1, 7 | 5 << 20, "State of block 1 is 7", vec![block(1)]),
        (4, 4, "State of block 4 is 4", vec![4 << 20..(9 << 19) + 512]),
        (2, 6, "FileOffsetMB of block 2 is 0x0 bytes, expected a place behind the header", vec![block(2)]),
        (2, 6 | 1 << 20, "expected a place outside of the log and the regions", vec![block(2)]),
        (2, 6 | 2 << 20, "expected a place outside of the log and the regions", vec![block(2)]),
        (
            3,
            6 | 8 << 20,
            "block 3 ends at 0x900000, behind the end of the file at 0x800000; what is missing reads as zeros",
            vec![block(3)],
        ),
        (3, 6 | 4 << 20, "block 3 at 0x400000 shares bytes of the file with another block", vec![block(3)]),
        (0, 6 | 5 << 20, "block 1 at 0x500000 shares bytes of the file with another block", vec![block(1)]),
    ] {
        let mut bytes = good.clone();
        put(&mut bytes, entry(number), &word.to_le_bytes());
        let report = report_of(&folder, &bytes);
        let problem = report.problems.iter().find(|problem| said(problem).contains(expected));
        let problem = problem.unwrap_or_else(|| panic!("{expected}: {:?}", report.problems));
        assert_eq!((problem.severity, &problem.guest), (Severity::Error, &guest), "{expected}");
        assert!(problem.repair.is_none());
        assert!(problem.offset >= bat(&good) as u64);
        // QEMU 10 knows places that are taken or behind the end of the file, and nothing of the rest.
        if has_qemu() {
            let (code, words) = qemu_check(&folder, "checked.vhdx");
            let is_known = expected.contains("outside of the log") || expected.contains("behind the end");
            assert_eq!(code, if is_known { 2 } else { 0 }, "{expected}: {words}");
        }
    }
}

#[test]
fn what_must_be_zero_is_cleared() {
    let good = full();
    let folder = Folder::new();
    for (index, word, severity, expected) in [
        (1, 6 | 5 << 20 | 0x8008, Severity::Error, "reserved bits 0x8008 of block 1 are set"),
        (4, 2 | 77 << 20, Severity::Error, "block 4 has the place 0x4d00000, though none in state 2"),
        (4, 77 << 20, Severity::Note, "block 4 has the place 0x4d00000, though none in state 0"),
    ] {
        let mut bytes = good.clone();
        put(&mut bytes, bat(&good) + 8 * index, &u64::to_le_bytes(word));
        let report = report_of(&folder, &bytes);
        let [problem] = report.problems.as_slice() else { panic!("{:?}", report.problems) };
        assert_eq!((problem.severity, problem.summary.as_str()), (severity, expected));
        mend(&mut bytes, &report);
        assert!(report_of(&folder, &bytes).problems.is_empty());
        let state = word & 7;
        assert_eq!(u64::from(bytes[bat(&good) + 8 * index]), state, "the state stays");
    }
    // A block that was unmapped may keep its place, which is then in use.
    let mut bytes = good.clone();
    bytes[bat(&good) + 8] = 3;
    let report = report_of(&folder, &bytes);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(report.allocated, 3 << 20);
    // Whether another block took it since is nobody's concern.
    for block in [0, 2] {
        let mut bytes = bytes.clone();
        put(&mut bytes, bat(&good) + 8, &(u64::from(block + 4_u32) << 20 | 3).to_le_bytes());
        let report = report_of(&folder, &bytes);
        assert_eq!(report.count(Severity::Error), 0, "{:?}", report.problems);
    }
    // What QEMU before 8.0 left in entries of sector bitmaps.
    let options = CreateOptions { block_size: 256 << 20, ..CreateOptions::new(5 << 30) };
    let mut bytes = new_image(&options).to_vec();
    let at = bat(&bytes) + 16 * 8;
    put(&mut bytes, at, &[6, 0, 0x50]);
    let report = report_of(&folder, &bytes);
    let [problem] = report.problems.as_slice() else { panic!("{:?}", report.problems) };
    assert_eq!(problem.severity, Severity::Note);
    assert!(problem.summary.contains("for a sector bitmap, of which this disk has none"));
    mend(&mut bytes, &report);
    assert!(report_of(&folder, &bytes).problems.is_empty());
}

#[test]
fn a_copy_of_another_version_is_left_alone() {
    let mut bytes = full();
    let other = HEADERS[usize::from(current_header(&bytes) == HEADERS[0])];
    bytes[other + 66] = 2;
    seal(&mut bytes, other, SECTOR);
    let report = report_of(&Folder::new(), &bytes);
    let [problem] = report.problems.as_slice() else { panic!("{:?}", report.problems) };
    assert!(
        problem.summary.contains("version 2 is not supported") && problem.repair.is_none(),
        "{problem:?}"
    );
}

#[test]
fn space_that_nothing_uses_is_a_leak() {
    let mut bytes = full();
    let folder = Folder::new();
    let at = bat(&bytes) + 8;
    put(&mut bytes, at, &[0; 8]);
    bytes.resize(11 * MIB + 100, 0);
    let report = report_of(&folder, &bytes);
    let leaks: Vec<_> = report.problems.iter().map(|problem| (problem.severity, problem.offset)).collect();
    assert_eq!(leaks, [(Severity::Leak, 5 << 20), (Severity::Leak, 8 << 20)]);
    assert!(report.problems[1].summary.starts_with(&format!("{} bytes", 3 * MIB + 100)));
    assert_eq!((report.end, report.allocated), (8 << 20, 3 << 20));
}

#[test]
fn regions_that_overlap_are_found() {
    let good = full();
    let folder = Folder::new();
    for (entry, place, expected) in [
        (0, 2_u64, "0x200000, within the VHDX"),
        (1, 3, "0x300000, within the VHDX"),
        (0, 1, "0x100000, within the VHDX"),
    ] {
        let mut bytes = good.clone();
        for table in REGION_TABLES {
            // The table lists the block allocation table first.
            put(&mut bytes, table + 16 + 32 * entry + 16, &(place << 20).to_le_bytes());
            seal(&mut bytes, table, 64 << 10);
        }
        let report = report_of(&folder, &bytes);
        let all: Vec<String> = report.problems.iter().map(said).collect();
        assert!(all.iter().any(|said| said.contains(expected)), "{expected}: {all:?}");
        let refused = open(Arc::new(blockdev::MemoryDevice::new(bytes)), Mode::ReadWrite);
        assert!(refused.is_err());
    }
    // Two tables that are valid and differ.
    let mut bytes = good.clone();
    put(&mut bytes, REGION_TABLES[1] + 32, &(7_u64 << 20).to_le_bytes());
    seal(&mut bytes, REGION_TABLES[1], 64 << 10);
    let report = report_of(&folder, &bytes);
    let [problem] = report.problems.as_slice() else { panic!("{:?}", report.problems) };
    assert!(problem.summary.contains("BAT at 0x700000") && problem.repair.is_none(), "{problem:?}");
}

#[test]
fn children_and_their_bitmaps_are_examined() {
    let folder = Folder::new();
    let size = 6 << 20;
    make_parent(&folder, "parent.vhdx", size, 512, 41);
    let options = CreateOptions { block_size: 1 << 20, ..CreateOptions::new(size as u64) };
    make_child(&folder, "child.vhdx", "parent.vhdx", &options);
    let image = folder.open_for_writing("child.vhdx").unwrap();
    image.device.writable().unwrap().write_all_at(&[1; 5120], (1 << 20) + 512).unwrap();
    image.device.writable().unwrap().write_all_at(&vec![2; 1 << 20], 3 << 20).unwrap();
    image.device.writable().unwrap().flush().unwrap();
    drop(image);
    let good = folder.read("child.vhdx");
    let report = report_of(&folder, &good);
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(report.allocated, 5120 + (1 << 20));
    let (block, bitmap) = (bat(&good) + 8, bat(&good) + 4096 * 8);
    for (at, word, expected, guest) in [
        (bitmap, 0_u64, "block 1 is in state 7, but its chunk 0 has no sector bitmap", 1 << 20..2 << 20),
        (bitmap, 7 | 4 << 20, "State of the sector bitmap of chunk 0 is 7", 0..6 << 20),
        (bitmap, 6 | 3 << 20, "FileOffsetMB of the sector bitmap of chunk 0", 0..6 << 20),
        (bitmap, 6 | 40 << 20, "the sector bitmap of chunk 0 ends at", 0..6 << 20),
        (bitmap, 6 | 5 << 20, "the sector bitmap of chunk 0 at 0x500000 shares bytes", 0..6 << 20),
        (block, 7 | 6 << 20, "block 1 at 0x600000 shares bytes", 1 << 20..2 << 20),
    ] {
        let mut bytes = good.clone();
        put(&mut bytes, at, &word.to_le_bytes());
        let report = report_of(&folder, &bytes);
        let problem = report.problems.iter().find(|problem| said(problem).contains(expected));
        let problem = problem.unwrap_or_else(|| panic!("{expected}: {:?}", report.problems));
        assert_eq!(
            (problem.severity, problem.guest.as_slice()),
            (Severity::Error, &[guest][..]),
            "{expected}"
        );
    }
    // A block that needs its bitmap cannot be read without one.
    let mut bytes = good.clone();
    put(&mut bytes, bitmap, &[0; 8]);
    folder.write("child.vhdx", &bytes);
    let image = folder.open("child.vhdx").unwrap();
    let error = image.device.read_exact_at(&mut [0; 512], 1 << 20).unwrap_err().to_string();
    assert!(error.contains("State is 0 for the sector bitmap of chunk 0"), "{error}");
    image.device.read_exact_at(&mut [0; 512], 3 << 20).unwrap();
}

#[test]
fn a_dirty_log_is_replayed_as_a_repair() {
    let folder = Folder::new();
    let mut bytes = test_image("dirty.vhdx");
    folder.write("dirty.vhdx", &bytes);
    let expected = read_all(&*folder.open("dirty.vhdx").unwrap().device);
    let report = report_of(&folder, &bytes);
    assert_eq!(report.count(Severity::Error), 0, "{:?}", report.problems);
    let problem = &report.problems[0];
    assert_eq!((problem.severity, problem.structure), (Severity::Note, "VHDX log"));
    assert_eq!(problem.summary, "the log holds 1 change that may not be in place yet");
    assert_eq!(problem.repair.as_ref().unwrap().title, "replay the log into the file");
    assert!(report.allocated > 0, "blocks are those of the replayed table");
    mend(&mut bytes, &report);
    let after = report_of(&folder, &bytes);
    assert!(after.problems.iter().all(|problem| problem.severity == Severity::Leak), "{:?}", after.problems);
    assert_eq!(after.allocated, report.allocated);
    assert!(folder.open("checked.vhdx").unwrap().chain[0].notes.is_empty());
    assert_same(&read_all(&*folder.open("checked.vhdx").unwrap().device), &expected, "mended");
    if has_qemu() {
        assert_eq!(qemu_check(&folder, "checked.vhdx").0, 0);
        assert_same(&folder.content("checked.vhdx"), &expected, "mended, QEMU");
    }
}

/// A log to replay and a header that is torn: both repairs together, in any order.
#[test]
fn repairs_go_together() {
    let folder = Folder::new();
    let dirty = test_image("dirty.vhdx");
    folder.write("dirty.vhdx", &dirty);
    let expected = read_all(&*folder.open("dirty.vhdx").unwrap().device);
    let other = HEADERS[usize::from(current_header(&dirty) == HEADERS[0])];
    for is_reversed in [false, true] {
        let mut bytes = dirty.clone();
        bytes[other + 100] ^= 1;
        bytes[REGION_TABLES[0] + 5] ^= 1;
        let mut report = report_of(&folder, &bytes);
        assert_eq!(report.problems.iter().filter(|problem| problem.repair.is_some()).count(), 3);
        if is_reversed {
            report.problems.reverse();
        }
        mend(&mut bytes, &report);
        let after = report_of(&folder, &bytes);
        assert!(
            after.problems.iter().all(|problem| problem.severity == Severity::Leak),
            "{:?}",
            after.problems
        );
        assert_same(&read_all(&*folder.open("checked.vhdx").unwrap().device), &expected, "mended");
    }
}

#[test]
fn logs_that_cannot_be_replayed_are_errors() {
    let folder = Folder::new();
    let good = full();
    let entry = |flushed: usize| LogEntry {
        guid: [9; 16],
        sequence: 3,
        tail: 0,
        steps: vec![Step::Zero(bat(&good) + SECTOR, SECTOR)],
        flushed,
        last: good.len(),
    };
    let mut bytes = good.clone();
    activate_log(&mut bytes, [9; 16]);
    let report = report_of(&folder, &bytes);
    let [problem] = report.problems.as_slice() else { panic!("{:?}", report.problems) };
    assert!(problem.summary.starts_with("active sequence is none"), "{problem:?}");
    assert!(problem.severity == Severity::Error && problem.repair.is_none());
    assert_eq!(report.allocated, 4 << 20, "the rest is looked at as it is");
    entry(good.len() + MIB).put(&mut bytes, 0);
    let report = report_of(&folder, &bytes);
    let [note, error] = report.problems.as_slice() else { panic!("{:?}", report.problems) };
    assert!(note.severity == Severity::Note && note.repair.is_none());
    assert!(error.summary.starts_with("FlushedFileOffset"), "{error:?}");
    // A log that is empty and nowhere forbids writing only.
    let mut bytes = good;
    update_header(&mut bytes, |header| header[68..72].fill(0));
    let report = report_of(&folder, &bytes);
    assert!(report.problems[0].effect.contains("cannot be written"), "{:?}", report.problems);
    assert!(folder.open("checked.vhdx").is_ok());
}

/// 1000 problems are kept, the others counted; memory does not grow with the damage.
#[test]
fn many_problems_are_counted() {
    let folder = Folder::new();
    let mut bytes = new_image(&CreateOptions { block_size: 1 << 20, ..CreateOptions::new(8 << 30) }).to_vec();
    let at = bat(&bytes);
    for index in 0..4096 {
        put(&mut bytes, at + 8 * index, &[4]);
    }
    let report = report_of(&folder, &bytes);
    assert_eq!((report.problems.len(), report.count(Severity::Error)), (1000, 4096));
    let refused = open(Arc::new(blockdev::MemoryDevice::new(bytes)), Mode::ReadWrite).unwrap_err();
    assert!(refused.to_string().contains("must not be written"));
}
