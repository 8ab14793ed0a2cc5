//! Hostile logs: whatever a log says, recovery ends soon, without a panic, and what it makes can be opened.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use blockdev::{BlockDeviceMut, MemoryDevice, Overlay};
use filesystem::FileKind;
use filesystem_xfs::FORMAT;

use crate::common::{Random, unpack};

/// No mutation of these small logs may keep recovery busy for longer, on a slow machine without optimisation.
const LIMIT: Duration = Duration::from_secs(10);
/// Basic blocks of the logs here.
const BLOCKS: usize = 640;

/// A record in the short log: its first block and bytes of header and data.
#[derive(Clone, Copy)]
struct Record {
    start: usize,
    headers: usize,
    data: usize,
}

fn word(bytes: &[u8], at: usize) -> usize {
    u32::from_be_bytes(*bytes[at..].first_chunk().unwrap()) as usize
}

/// An image whose log is short and holds only the last records of the original, at its start.
struct Small {
    image: Arc<MemoryDevice>,
    /// First byte of the log.
    at: u64,
    log: Vec<u8>,
    records: Vec<Record>,
}

impl Small {
    fn new(name: &str, most: usize) -> Self {
        let dirty = unpack(&format!("{name}.img.zst"));
        // Earlier records have reached their places, and the ones here are newer than everything.
        let recovered = (FORMAT.replay)(dirty.clone()).unwrap().device;
        let mut image = vec![0; recovered.size() as usize];
        recovered.read_exact_at(&mut image, 0).unwrap();
        let start = u64::from_be_bytes(*image[0x30..].first_chunk().unwrap()) as usize;
        let (block, ag_blocks, ag_log) = (word(&image, 4), word(&image, 0x54), image[0x7c]);
        let at = ((start >> ag_log) * ag_blocks + (start & ((1 << ag_log) - 1))) * block;
        let old = dirty.to_vec()[at..at + word(&image, 0x60) * block].to_vec();
        let is_record =
            |at: &usize| old[*at..].starts_with(&[0xfe, 0xed, 0xba, 0xbe]) && word(&old, at + 12) > 0;
        let lsn = |at: &usize| u64::from_be_bytes(*old[at + 16..].first_chunk().unwrap());
        let mut found: Vec<usize> = (0..old.len()).step_by(512).filter(is_record).collect();
        found.sort_by_key(lsn);
        let cycle = word(&old, found.last().unwrap() + 4);
        let mut log = Vec::new();
        let mut records = Vec::new();
        let mut chosen = Vec::new();
        for record in found.into_iter().rev() {
            let headers =
                if word(&old, record + 8) & 2 == 0 { 1 } else { word(&old, record + 320).div_ceil(32768) }
                    * 512;
            let data = word(&old, record + 12);
            let all: usize = chosen.iter().map(|(_, headers, data)| headers + data).sum();
            let is_enough = !chosen.is_empty() && all + headers + data > most;
            if is_enough || word(&old, record + 4) != cycle || record + headers + data > old.len() {
                break;
            }
            chosen.push((record, headers, data));
        }
        assert!(!chosen.is_empty(), "{name}: the last record is cut in two");
        for (record, headers, data) in chosen.into_iter().rev() {
            let start = log.len();
            log.extend_from_slice(&old[record..record + headers + data]);
            for (number, block) in log[start..].chunks_mut(512).enumerate() {
                let at = if number == 0 { 4 } else { 0 };
                block[at..at + 4].copy_from_slice(&(cycle as u32 + 5).to_be_bytes());
            }
            let lsn = (cycle as u64 + 5) << 32 | (start / 512) as u64;
            log[start + 16..start + 24].copy_from_slice(&lsn.to_be_bytes());
            log[start + 24..start + 32].copy_from_slice(&((cycle as u64 + 5) << 32).to_be_bytes());
            records.push(Record { start, headers, data });
        }
        while log.len() < BLOCKS * 512 {
            log.extend_from_slice(&(cycle as u32 + 4).to_be_bytes());
            log.resize(log.len() + 508, 0);
        }
        image[0x60..0x64].copy_from_slice(&((BLOCKS * 512 / block) as u32).to_be_bytes());
        if image[0x65] & 15 == 5 {
            image[224..228].fill(0);
            let crc = ondisk::crc32c(&image[..512]);
            image[224..228].copy_from_slice(&crc.to_le_bytes());
        }
        let mut small = Self { image: Arc::new(MemoryDevice::new(image)), at: at as u64, log, records };
        for record in small.records.clone() {
            checksum(&mut small.log, record);
        }
        small
    }

    /// An overlay with this log.
    fn with(&self, log: &[u8]) -> Arc<Overlay> {
        let overlay = Arc::new(Overlay::new(self.image.clone()));
        overlay.write_all_at(log, self.at).unwrap();
        overlay
    }
}

/// Makes the checksum of a record right; records whose header no longer says how long they are stay as they are.
fn checksum(log: &mut [u8], record: Record) {
    let Record { start, headers, data } = record;
    log[start + 32..start + 36].fill(0);
    let mut state = ondisk::crc32c_raw(!0, &log[start..start + 328]);
    for header in 1..data.div_ceil(32768).min(headers / 512) {
        state = ondisk::crc32c_raw(state, &log[start + header * 512..][..260]);
    }
    let crc = !ondisk::crc32c_raw(state, &log[start + headers..start + headers + data]);
    log[start + 32..start + 36].copy_from_slice(&crc.to_le_bytes());
}

/// Changes a few bytes; the checksum is made right again in half of all cases.
fn mutate(random: &mut Random, log: &mut [u8], records: &[Record]) {
    let record = records[random.below(records.len())];
    for _ in 0..=random.below(3) {
        let in_header = random.below(6) == 0;
        let length = record.headers + record.data;
        let at = record.start + if in_header { random.below(48) } else { random.below(length) };
        match random.below(5) {
            0 => log[at] ^= 1 << random.below(8),
            1 => log[at] = random.next() as u8,
            2 => log[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            3 => log[at] = log[at].wrapping_add([1, 0xff][random.below(2)]),
            _ => {
                let value = [0_u32, 1, 0x7fff_ffff, 0x8000_0000, u32::MAX][random.below(5)];
                let at = at & !3;
                log[at..at + 4].copy_from_slice(&value.to_be_bytes());
            }
        }
    }
    if random.below(2) == 0 {
        checksum(log, record);
    }
}

/// Recovers and looks at the result; whether it was recovered.
fn exercise(overlay: Arc<Overlay>) -> bool {
    drop((FORMAT.open)(overlay.clone()));
    let Ok(replayed) = (FORMAT.replay)(overlay) else { return false };
    let Ok(opened) = (FORMAT.open)(replayed.device) else { return true };
    let fs = &*opened.value;
    let mut todo = vec![fs.root()];
    let mut seen = 0;
    while let Some(inode) = todo.pop().filter(|_| seen < 12) {
        seen += 1;
        drop(fs.xattrs(inode));
        match fs.metadata(inode).map(|metadata| metadata.kind) {
            Ok(FileKind::Directory) => {
                todo.extend(fs.read_dir(inode).unwrap_or_default().iter().rev().map(|entry| entry.inode));
            }
            Ok(FileKind::Regular) => drop(fs.read_at(inode, &mut [0; 5000], 0)),
            _ => drop(fs.read_link(inode)),
        }
    }
    true
}

fn survive(name: &str, most: usize, rounds: u32) {
    let small = Small::new(name, most);
    (FORMAT.replay)(small.with(&small.log)).unwrap();
    let (mut recovered, start) = (0, Instant::now());
    for round in 0..rounds {
        let mut log = small.log.clone();
        mutate(&mut Random(u64::from(round)), &mut log, &small.records);
        let overlay = small.with(&log);
        let started = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| exercise(overlay)));
        assert!(outcome.is_ok(), "{name}: mutation {round} panics");
        assert!(started.elapsed() < LIMIT, "{name}: mutation {round} takes {:?}", started.elapsed());
        recovered += u32::from(outcome.is_ok_and(|recovered| recovered));
    }
    println!(
        "{name}: {} records, {recovered} of {rounds} recovered, {:?}",
        small.records.len(),
        start.elapsed()
    );
    // Both ends are reached: changes that stay unseen until the metadata is read, and refusals.
    assert!(recovered > rounds / 20 && recovered < rounds - rounds / 20, "{name}: {recovered} of {rounds}");
}

#[test]
fn hostile_logs_of_version_5() {
    survive("xfs-log-v5", 24_000, 6000);
}

#[test]
fn hostile_logs_of_open_files() {
    survive("xfs-log-open", 40_000, 6000);
}

#[test]
fn hostile_logs_of_version_4() {
    survive("xfs-log-v4", 40_000, 6000);
}

#[test]
fn hostile_logs_with_long_headers() {
    survive("xfs-log-1k", 40_000, 2000);
}
