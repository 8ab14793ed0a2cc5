//! Logs that must be replayed: how we see the file, and how QEMU sees it once it has replayed the log itself.

use std::sync::Arc;

use crate::support::{Folder, assert_reads, assert_same, has_qemu, read_all};
use crate::vhdx_support::{
    HEADERS, LogEntry, MIB, REGION_TABLES, SECTOR, Step, activate_log, bat, current_header, log_place,
    new_image, open, put, qemu_check, qemu_io, region, test_image, u32_at, u64_at, update_header,
};
use blockdev::{BlockDevice, Device, MemoryDevice};
use image::vhdx::CreateOptions;
use image::{Mode, Options};

const GUID: [u8; 16] = *b"one log's number";
const OLDER: [u8; 16] = *b"another log's no";

/// An image of QEMU with blocks of 1 MiB, of which some hold data.
fn base(folder: &Folder) -> Vec<u8> {
    folder.must("qemu-img create -q -f vhdx -o block_size=1M base.vhdx 24M");
    let writes: Vec<String> =
        (0..12).map(|number| format!("write -P {} {}k 700k", number + 1, number * 2000)).collect();
    qemu_io(folder, "base.vhdx", &writes.iter().map(String::as_str).collect::<Vec<_>>());
    folder.read("base.vhdx")
}

fn entry(bytes: &[u8], sequence: u64, tail: usize, steps: Vec<Step>) -> LogEntry {
    LogEntry { guid: GUID, sequence, tail, steps, flushed: bytes.len(), last: bytes.len() }
}

/// The first 4 KiB of the table with all entries from `from` on gone.
fn table(bytes: &[u8], from: usize) -> Step {
    let at = bat(bytes);
    let mut sector = bytes[at..at + SECTOR].to_vec();
    sector[from * 8..].fill(0);
    Step::Data(at, sector)
}

fn without_table(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let at = bat(&bytes);
    bytes[at..at + SECTOR].fill(0);
    bytes
}

/// The disk as we see it, read-only; the file is not touched.
fn ours(bytes: &[u8]) -> Vec<u8> {
    let device = Arc::new(MemoryDevice::new(bytes));
    let image = open(device.clone(), Mode::ReadOnly).unwrap();
    assert!(image.problems.is_empty(), "{:?}", image.problems);
    assert_eq!(image.chain[0].notes.len(), 1, "{:?}", image.chain[0].notes);
    assert!(image.chain[0].notes[0].contains("of its log are replayed in memory"));
    let disk = read_all(&*image.device);
    assert_reads(&*image.device, &disk, "replayed");
    assert!(image.device.writable().is_none());
    assert_same(&device.to_vec(), bytes, "the file");
    disk
}

/// The disk as QEMU sees it after it has replayed the log.
fn qemus(folder: &Folder, bytes: &[u8]) -> Vec<u8> {
    folder.write("copy.vhdx", bytes);
    let said = folder.run("qemu-img convert -f vhdx -O raw copy.vhdx refused.raw");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("contains a log that needs to be replayed"), "{said}");
    let said = folder.run("qemu-img check -f vhdx -r all copy.vhdx");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    folder.content("copy.vhdx")
}

/// Replays in both ways, and in a third: our own writer, which brings the log into the file first.
fn both(folder: &Folder, bytes: &[u8], expected: &[u8], what: &str) {
    assert_same(&ours(bytes), expected, what);
    assert_same(&qemus(folder, bytes), expected, &format!("{what}, QEMU"));
    written(folder, bytes, expected, what);
}

fn written(folder: &Folder, bytes: &[u8], expected: &[u8], what: &str) {
    let device = Arc::new(MemoryDevice::new(bytes));
    let image = open(device.clone(), Mode::ReadWrite).unwrap();
    assert_same(&device.to_vec(), bytes, "opening writes nothing");
    assert_same(&read_all(&*image.device), expected, &format!("{what}, before the first write"));
    let disk = image.device.writable().unwrap();
    disk.write_all_at(&[0xee; 1024], 5000).unwrap();
    let mut expected = expected.to_vec();
    put(&mut expected, 5000, &[0xee; 1024]);
    assert_same(&read_all(&*image.device), &expected, &format!("{what}, after the first write"));
    disk.flush().unwrap();
    folder.write("written.vhdx", &device.to_vec());
    assert_eq!(qemu_check(folder, "written.vhdx").0, 0, "{what}");
    assert_same(&folder.content("written.vhdx"), &expected, &format!("{what}, written"));
    let reopened = open(device, Mode::ReadOnly).unwrap();
    assert!(reopened.chain[0].notes.is_empty(), "{what}");
}

#[test]
fn the_fixture_is_read_as_qemu_reads_it_after_its_replay() {
    let folder = Folder::new();
    folder.write("dirty.vhdx", &test_image("dirty.vhdx"));
    let image = folder.open("dirty.vhdx").unwrap();
    folder.write("disk.raw", &read_all(&*image.device));
    assert_eq!(
        image.chain[0].notes,
        ["was not closed cleanly: 1 change in 1 entry of its log are replayed in memory"]
    );
    let sum = folder.must("sha256sum disk.raw");
    assert!(sum.starts_with("034c92eaa672d5a683c36d937aad900117f7ff709225fff6da5b5ab76a4f4299"), "{sum}");
    if has_qemu() {
        let expected = folder.read("disk.raw");
        both(&folder, &folder.read("dirty.vhdx"), &expected, "fixture");
    }
}

#[test]
fn several_entries_are_replayed_in_order() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    let good = base(&folder);
    let expected = folder.content("base.vhdx");
    let mut bytes = without_table(&good);
    let mut at = 0;
    for (sequence, from) in [(100, 3), (101, 9), (102, 20), (103, 512)] {
        at = entry(&good, sequence, 0, vec![table(&good, from)]).put(&mut bytes, at);
    }
    activate_log(&mut bytes, GUID);
    both(&folder, &bytes, &expected, "four entries");
}

#[test]
fn entries_may_have_many_descriptors() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    let good = base(&folder);
    let expected = folder.content("base.vhdx");
    for count in [126, 127, 200] {
        let mut bytes = without_table(&good);
        // Behind the table's first sector all is zero; the last one of these says so again.
        let mut steps: Vec<Step> = (1..count)
            .map(|number| Step::Data(bat(&good) + (number % 200 + 1) * SECTOR, vec![0; SECTOR]))
            .collect();
        steps.push(table(&good, 512));
        entry(&good, 7, 0, steps).put(&mut bytes, 0);
        activate_log(&mut bytes, GUID);
        if count <= 126 {
            both(&folder, &bytes, &expected, &format!("{count} descriptors"));
            continue;
        }
        // QEMU 10 reads all sectors of descriptors into the space of the first.
        assert_same(&ours(&bytes), &expected, &format!("{count} descriptors"));
        written(&folder, &bytes, &expected, &format!("{count} descriptors"));
        folder.write("many.vhdx", &bytes);
        assert_ne!(qemu_check(&folder, "many.vhdx").0, 0, "QEMU has learned it: use it as a judge here too");
    }
}

#[test]
fn an_entry_may_wrap() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    let good = base(&folder);
    let expected = folder.content("base.vhdx");
    let (_, length) = log_place(&good);
    for sectors in [1, 2, 3] {
        let mut bytes = without_table(&good);
        let tail = length - sectors * SECTOR;
        let steps = vec![
            Step::Data(bat(&good) + SECTOR, vec![0; SECTOR]),
            Step::Zero(bat(&good) + 2 * SECTOR, 3 * SECTOR),
            table(&good, 512),
        ];
        entry(&good, 9, tail, steps).put(&mut bytes, tail);
        activate_log(&mut bytes, GUID);
        both(&folder, &bytes, &expected, &format!("{sectors} sectors before the end"));
    }
}

/// QEMU takes the part of a sequence at the start of the ring for all of it, and so loses what is at its end.
#[test]
fn a_sequence_may_wrap() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    let good = base(&folder);
    let expected = folder.content("base.vhdx");
    let (_, length) = log_place(&good);
    let mut bytes = without_table(&good);
    let tail = length - 2 * SECTOR;
    let at = entry(&good, 50, tail, vec![table(&good, 512)]).put(&mut bytes, tail);
    assert_eq!(at, 0);
    let at =
        entry(&good, 51, tail, vec![Step::Data(bat(&good) + SECTOR, vec![0; SECTOR])]).put(&mut bytes, at);
    entry(&good, 52, tail, vec![Step::Zero(bat(&good) + 2 * SECTOR, SECTOR)]).put(&mut bytes, at);
    activate_log(&mut bytes, GUID);
    assert_same(&ours(&bytes), &expected, "wrapped");
    written(&folder, &bytes, &expected, "wrapped");
    assert_ne!(qemus(&folder, &bytes), expected, "QEMU has learned it: use it as a judge here too");
}

#[test]
fn a_torn_last_entry_did_not_happen() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    let good = base(&folder);
    let expected = folder.content("base.vhdx");
    let zero = |sequence| entry(&good, sequence, 0, vec![Step::Zero(bat(&good), SECTOR), table(&good, 2)]);
    type Tear = fn(&mut [u8]);
    let tears: [Tear; 5] = [
        |last| last[SECTOR + 100] ^= 1,
        |last| last[SECTOR..].fill(0),
        |last| last[..512].fill(0),
        |last| last[70] ^= 1,
        |last| last[4] ^= 1,
    ];
    for (number, tear) in tears.iter().enumerate() {
        let mut bytes = without_table(&good);
        let at = entry(&good, 20, 0, vec![table(&good, 5)]).put(&mut bytes, 0);
        let at = entry(&good, 21, 0, vec![table(&good, 512)]).put(&mut bytes, at);
        let start = log_place(&bytes).0 + at;
        let behind = log_place(&bytes).0 + zero(22).put(&mut bytes, at);
        tear(&mut bytes[start..behind]);
        activate_log(&mut bytes, GUID);
        both(&folder, &bytes, &expected, &format!("tear {number}"));
    }
}

#[test]
fn zeros_are_written_too() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    let good = base(&folder);
    let size = folder.content("base.vhdx").len();
    let mut bytes = good.clone();
    entry(&good, 1, 0, vec![Step::Zero(bat(&good), 16 * SECTOR)]).put(&mut bytes, 0);
    activate_log(&mut bytes, GUID);
    both(&folder, &bytes, &vec![0; size], "all blocks gone");
    // Zeros first, and then some again.
    let mut bytes = good.clone();
    entry(&good, 1, 0, vec![Step::Zero(bat(&good), 16 * SECTOR), table(&good, 512)]).put(&mut bytes, 0);
    activate_log(&mut bytes, GUID);
    both(&folder, &bytes, &folder.content("base.vhdx"), "zeros and back");
}

#[test]
fn old_sequences_and_old_logs_are_left_alone() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    let good = base(&folder);
    let expected = folder.content("base.vhdx");
    for newest_at in [0, 40 * SECTOR] {
        let stale_at = 40 * SECTOR - newest_at;
        let mut bytes = without_table(&good);
        let wrong = || vec![Step::Zero(bat(&good), SECTOR)];
        // Of this log, but older; and of another log, with a higher number.
        let at = entry(&good, 10, stale_at, wrong()).put(&mut bytes, stale_at);
        entry(&good, 11, stale_at, wrong()).put(&mut bytes, at);
        let other = LogEntry { guid: OLDER, ..entry(&good, 900, 20 * SECTOR, wrong()) };
        other.put(&mut bytes, 20 * SECTOR);
        let at = entry(&good, 70, newest_at, vec![table(&good, 4)]).put(&mut bytes, newest_at);
        entry(&good, 71, newest_at, vec![table(&good, 512)]).put(&mut bytes, at);
        activate_log(&mut bytes, GUID);
        both(&folder, &bytes, &expected, &format!("newest at {newest_at}"));
    }
}

/// Entries before the tail are in place already; QEMU replays them again, which changes nothing.
#[test]
fn replay_starts_at_the_tail_of_the_head() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    let good = base(&folder);
    let expected = folder.content("base.vhdx");
    let mut bytes = good.clone();
    let done = entry(&good, 30, 0, vec![table(&good, 1)]).put(&mut bytes, 0);
    let at = entry(&good, 31, 0, vec![table(&good, 512)]).put(&mut bytes, done);
    let head = entry(&good, 32, at, vec![Step::Zero(bat(&good) + SECTOR, SECTOR)]);
    head.put(&mut bytes, at);
    activate_log(&mut bytes, GUID);
    let device: Device = Arc::new(MemoryDevice::new(bytes.clone()));
    let notes = &open(device, Mode::ReadOnly).unwrap().chain[0].notes;
    assert!(notes[0].contains("1 change in 1 entry"), "{notes:?}");
    both(&folder, &bytes, &expected, "tail in the middle");
}

#[test]
fn a_log_may_rewrite_the_metadata_and_the_region_tables() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    let good = base(&folder);
    let expected = folder.content("base.vhdx");
    let mut bytes = good.clone();
    let metadata = region(&good, 0x06);
    let places = [REGION_TABLES[0], REGION_TABLES[1], metadata, metadata + (64 << 10), bat(&good)];
    let steps = places.map(|at| Step::Data(at, good[at..at + SECTOR].to_vec())).to_vec();
    for at in places {
        bytes[at..at + SECTOR].fill(0xdd);
    }
    entry(&good, 1, 0, steps).put(&mut bytes, 0);
    activate_log(&mut bytes, GUID);
    both(&folder, &bytes, &expected, "everything in the log");
}

#[test]
fn an_empty_first_entry_is_a_sequence() {
    if !has_qemu() {
        return;
    }
    // As Windows writes it, when it opens a file.
    let folder = Folder::new();
    let good = base(&folder);
    let mut bytes = good.clone();
    entry(&good, 5, 0, Vec::new()).put(&mut bytes, 0);
    activate_log(&mut bytes, GUID);
    both(&folder, &bytes, &folder.content("base.vhdx"), "empty entry");
}

#[test]
fn an_active_log_without_a_valid_sequence_is_an_error() {
    let device = new_image(&CreateOptions { block_size: 1 << 20, ..CreateOptions::new(4 << 20) });
    let good = device.to_vec();
    let refused = |bytes: &[u8]| {
        let error = open(Arc::new(MemoryDevice::new(bytes)), Mode::ReadOnly).unwrap_err();
        std::error::Error::source(&error).unwrap().to_string()
    };
    let mut bytes = good.clone();
    activate_log(&mut bytes, GUID);
    let said = refused(&bytes);
    assert!(
        said.starts_with("VHDX log at byte 1048576: active sequence is none, expected a valid sequence"),
        "{said}"
    );
    // A tail outside of the sequence.
    entry(&good, 5, 8192, vec![Step::Zero(3 << 20, SECTOR)]).put(&mut bytes, 0);
    assert_eq!(refused(&bytes), said);
    entry(&good, 6, 8192, vec![Step::Zero(3 << 20, SECTOR)]).put(&mut bytes, SECTOR);
    assert_eq!(refused(&bytes), said);
    // A log of another version is none that we know; an empty one does not matter.
    entry(&good, 7, 8192, vec![Step::Zero(3 << 20, SECTOR)]).put(&mut bytes, 8192);
    open(Arc::new(MemoryDevice::new(bytes.clone())), Mode::ReadOnly).unwrap();
    update_header(&mut bytes, |header| header[64] = 1);
    assert_eq!(refused(&bytes), "VHDX log: version 1 of an active log is not supported");
    update_header(&mut bytes, |header| header[48..64].fill(0));
    open(Arc::new(MemoryDevice::new(bytes.clone())), Mode::ReadOnly).unwrap();
    // A log that is not in the file.
    activate_log(&mut bytes, GUID);
    update_header(&mut bytes, |header| put(header, 64, &[0, 0, 1, 0, 0, 0, 0, 0x10]));
    assert!(refused(&bytes).contains("LogLength is 0x10000000"), "{}", refused(&bytes));
}

#[test]
fn a_log_must_not_write_to_headers_or_to_itself() {
    let device = new_image(&CreateOptions { block_size: 1 << 20, ..CreateOptions::new(4 << 20) });
    let good = device.to_vec();
    for (step, is_allowed) in [
        (Step::Zero(0, SECTOR), false),
        (Step::Zero(HEADERS[0], SECTOR), false),
        (Step::Data(HEADERS[1], vec![1; SECTOR]), false),
        (Step::Data(REGION_TABLES[0] - SECTOR, vec![1; SECTOR]), false),
        (Step::Data(MIB, vec![1; SECTOR]), false),
        (Step::Zero(0, 8 * MIB), false),
        (Step::Data(2 * MIB - SECTOR, vec![1; SECTOR]), false),
        (Step::Zero(MIB / 2, MIB), false),
        (Step::Zero(1 << 50, SECTOR), false),
        (Step::Zero(2 * MIB, 1 << 50), false),
        (Step::Zero(0, 0), true),
        (Step::Data(4 * MIB, vec![1; SECTOR]), true),
        (Step::Zero(3 * MIB, 1 << 40), true),
    ] {
        let mut bytes = good.clone();
        entry(&good, 1, 0, vec![step]).put(&mut bytes, 0);
        activate_log(&mut bytes, GUID);
        let outcome = open(Arc::new(MemoryDevice::new(bytes)), Mode::ReadOnly);
        match outcome {
            Ok(_) => assert!(is_allowed),
            Err(error) => {
                let said = std::error::Error::source(&error).unwrap().to_string();
                assert!(!is_allowed && said.contains("VHDX log entry at byte 1048576: FileOffset"), "{said}");
            }
        }
    }
}

/// What zeros there were already is not kept; what there was else is, up to a bound.
#[test]
fn a_replay_is_bounded() {
    let device = new_image(&CreateOptions { block_size: 1 << 20, ..CreateOptions::new(4 << 20) });
    let mut bytes = device.to_vec();
    bytes.resize(300 << 20, 0xaa);
    let good = bytes.clone();
    entry(&good, 1, 0, vec![Step::Zero(4 * MIB, 296 * MIB)]).put(&mut bytes, 0);
    activate_log(&mut bytes, GUID);
    let error = open(Arc::new(MemoryDevice::new(bytes)), Mode::ReadOnly).unwrap_err();
    let said = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(said, "VHDX log: a log that changes more than 256 MiB is not supported");
}

/// Entries that claim each other's sectors would cost a square of the log's length.
#[test]
fn overlapping_entries_cost_no_more_than_the_log_is_long() {
    let device = new_image(&CreateOptions { block_size: 1 << 20, ..CreateOptions::new(4 << 20) });
    let mut bytes = device.to_vec();
    // A longer log, in the place of everything that follows.
    let length = 64 << 20;
    bytes.resize(MIB + length, 0);
    update_header(&mut bytes, |header| put(header, 68, &(length as u32).to_le_bytes()));
    activate_log(&mut bytes, GUID);
    let header =
        LogEntry { guid: GUID, sequence: 1, tail: 0, steps: Vec::new(), flushed: 0, last: 0 }.encode();
    for at in (MIB..MIB + length).step_by(SECTOR) {
        put(&mut bytes, at, &header);
        put(&mut bytes, at + 8, &(length as u32).to_le_bytes());
    }
    let start = std::time::Instant::now();
    let error = open(Arc::new(MemoryDevice::new(bytes)), Mode::ReadOnly).unwrap_err();
    let said = std::error::Error::source(&error).unwrap().to_string();
    assert!(said.contains("entries is many that overlap"), "{said}");
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}

#[test]
fn a_file_shorter_than_its_log_says_is_told() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    let good = base(&folder);
    let mut bytes = good.clone();
    let flushed = good.len() + 5 * MIB;
    LogEntry { flushed, ..entry(&good, 1, 0, vec![table(&good, 512)]) }.put(&mut bytes, 0);
    activate_log(&mut bytes, GUID);
    let device: Device = Arc::new(MemoryDevice::new(bytes.clone()));
    let image = open(device.clone(), Mode::ReadOnly).unwrap();
    let said = image.problems[0].to_string();
    assert!(
        said.contains(&format!("FlushedFileOffset is {flushed}, expected at most {}", good.len())),
        "{said}"
    );
    assert_same(&read_all(&*image.device), &folder.content("base.vhdx"), "what is there");
    let refused = open(device, Mode::ReadWrite).unwrap_err().to_string();
    assert!(refused.contains("must not be written") && refused.contains("FlushedFileOffset"), "{refused}");
    folder.write("short.vhdx", &bytes);
    assert_ne!(qemu_check(&folder, "short.vhdx").0, 0, "QEMU refuses it");
}

#[test]
fn the_file_becomes_as_long_as_its_log_says() {
    // QEMU extends only to lengths that are no whole MiB, so it is no judge here.
    let device = new_image(&CreateOptions { block_size: 1 << 20, ..CreateOptions::new(4 << 20) });
    let good = device.to_vec();
    let mut bytes = good.clone();
    let at = bat(&good);
    let mut sector = good[at..at + SECTOR].to_vec();
    put(&mut sector, 8, &(good.len() as u64 | 6).to_le_bytes());
    let last = good.len() + MIB;
    LogEntry { last, ..entry(&good, 1, 0, vec![Step::Data(at, sector)]) }.put(&mut bytes, 0);
    activate_log(&mut bytes, GUID);
    let device = Arc::new(MemoryDevice::new(bytes.clone()));
    let image = open(device.clone(), Mode::ReadWrite).unwrap();
    assert_eq!(read_all(&*image.device), vec![0; 4 << 20]);
    image.device.writable().unwrap().write_all_at(&[3; 700], 1 << 20).unwrap();
    image.device.writable().unwrap().flush().unwrap();
    assert_eq!(device.size(), last as u64);
    assert!(image.take_read_problems().is_empty());
    let mut expected = vec![0; 4 << 20];
    expected[1 << 20..][..700].fill(3);
    assert_same(&read_all(&*open(device, Mode::ReadOnly).unwrap().device), &expected, "grown");
}

#[test]
fn both_headers_say_so_when_the_log_is_in_place() {
    let bytes = test_image("dirty.vhdx");
    let device = Arc::new(MemoryDevice::new(bytes.clone()));
    let image = open(device.clone(), Mode::ReadWrite).unwrap();
    let disk = image.device.writable().unwrap();
    disk.flush().unwrap();
    assert_same(&device.to_vec(), &bytes, "without a write nothing changes");
    disk.write_all_at(&[1; 512], 0).unwrap();
    disk.flush().unwrap();
    let after = device.to_vec();
    let before = current_header(&bytes);
    for at in HEADERS {
        assert!(after[at + 48..at + 64].iter().all(|byte| *byte == 0), "the log is empty");
        assert!(u64_at(&after, at + 8) > u64_at(&bytes, before + 8));
        for guid in [16, 32] {
            assert_ne!(after[at + guid..at + guid + 16], bytes[before + guid..before + guid + 16]);
        }
        assert_eq!(u32_at(&after, at + 68), u32_at(&bytes, before + 68));
    }
}

/// A preview of changes: the log goes into the overlay, and the file stays as it is.
#[test]
fn a_staged_write_replays_into_the_overlay() {
    let folder = Folder::new();
    let bytes = test_image("dirty.vhdx");
    folder.write("dirty.vhdx", &bytes);
    let staging = image::Staging::preview();
    let options = Options { staging: Some(&staging), ..Options::default() };
    let image = image::open(&folder.path("dirty.vhdx"), &options, &image::DenyAll).unwrap();
    let mut expected = read_all(&*image.device);
    image.device.writable().unwrap().write_all_at(&[9; 4096], 1 << 20).unwrap();
    image.device.writable().unwrap().flush().unwrap();
    put(&mut expected, 1 << 20, &[9; 4096]);
    let again = image::open(&folder.path("dirty.vhdx"), &options, &image::DenyAll).unwrap();
    assert!(again.chain[0].notes.is_empty());
    assert_same(&read_all(&*again.device), &expected, "staged");
    assert_same(&folder.read("dirty.vhdx"), &bytes, "the file");
}
