//! VHDX files that lie: more than 20,000 of them, damaged at random, many with checksums that fit again.

use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{Folder, Random};
use crate::vhdx_support::{
    HEADERS, LogEntry, MIB, REGION_TABLES, SECTOR, Step, activate_log, bat, log_place, new_image, open, put,
    region, seal,
};
use blockdev::{BlockDeviceMut, Counter, Device, MemoryDevice, Overlay, Slice};
use image::vhdx::{CreateOptions, Parent};
use image::{FolderGate, Image, Mode, Options};

const GUID: [u8; 16] = *b"a log to be lied";

/// Bytes of a file that one mutation may make us read: opening, looking around and writing a little.
const MAX_READ: u64 = 150 << 20;

/// Places worth damaging, each with the length that is.
type Places = Vec<(usize, usize)>;

/// The structures of any image.
fn places(bytes: &[u8]) -> Places {
    let (metadata, bat) = (region(bytes, 0x06), bat(bytes));
    let mut places =
        vec![(metadata, 256), (metadata + (64 << 10), 400), (bat, 48), (bat, 48), (bat + 4096 * 8, 8)];
    places.extend(HEADERS.map(|at| (at, 80)));
    places.extend(REGION_TABLES.map(|at| (at, 96)));
    places
}

fn written(options: &CreateOptions) -> Vec<u8> {
    let device = new_image(options);
    let below: Device = Arc::new(MemoryDevice::new(vec![0xaa; 3 << 20]));
    let options = Options { mode: Mode::ReadWrite, below: Some(&below), ..Options::default() };
    let image = image::open_device(device.clone(), None, &options, &FolderGate::new()).unwrap();
    let disk = image.device.writable().unwrap();
    for (offset, length) in [(0, 900), (3 << 19, 5000), ((2 << 20) - 700, 1400), ((4 << 20) - 512, 512)] {
        disk.write_all_at(&vec![0xa5; length], offset).unwrap();
    }
    disk.flush().unwrap();
    device.to_vec()
}

fn small(sector_size: u32, is_fixed: bool) -> CreateOptions {
    CreateOptions { block_size: 1 << 20, sector_size, is_fixed, ..CreateOptions::new(4 << 20) }
}

fn child() -> CreateOptions {
    let identity = "DataWriteGuid 00112233-4455-6677-8899-aabbccddeeff".to_owned();
    let absolute_path = Some("C:\\disks\\parent.vhdx".to_owned());
    let parent = Parent { identity, relative_path: ".\\parent.vhdx".to_owned(), absolute_path };
    CreateOptions { parent: Some(parent), ..small(512, false) }
}

/// An image whose table is only in its log, in three entries, the last of which goes on at the start of the ring.
fn dirty() -> (Vec<u8>, Places) {
    let mut bytes = written(&small(512, false));
    let (log, length) = log_place(&bytes);
    let at = bat(&bytes);
    let table = bytes[at..at + SECTOR].to_vec();
    bytes[at..at + SECTOR].fill(0);
    activate_log(&mut bytes, GUID);
    let tail = length - 4 * SECTOR;
    let (flushed, last) = (bytes.len(), bytes.len() + MIB);
    let entry = |sequence, steps| LogEntry { guid: GUID, sequence, tail, steps, flushed, last };
    let second = entry(8, vec![Step::Zero(at, 2 * SECTOR)]).put(&mut bytes, tail);
    let third = entry(9, vec![Step::Data(at, table.clone())]).put(&mut bytes, second);
    let last_steps = vec![
        Step::Data(at + SECTOR, vec![0; SECTOR]),
        Step::Data(at, table),
        Step::Zero(at + 2 * SECTOR, SECTOR),
    ];
    entry(10, last_steps).put(&mut bytes, third);
    let entries = [tail, second, third].map(|at| (log + at, 176));
    let data = [third + SECTOR, 0].map(|at| (log + at % length, SECTOR));
    let places =
        [entries.to_vec(), entries.to_vec(), data.to_vec(), vec![(log, length)], places(&bytes)].concat();
    (bytes, places)
}

/// Bytes that tend to hurt.
const NASTY: [u8; 8] = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff, 0x40];

/// A file with changes, and how long it is.
struct Mutant {
    /// Each with its place; later ones win.
    changes: Vec<(usize, Vec<u8>)>,
    length: usize,
}

fn mutant(bytes: &[u8], places: &Places, random: &mut Random) -> Mutant {
    let mut changes: Vec<(usize, Vec<u8>)> = Vec::new();
    let current = |changes: &[(usize, Vec<u8>)], at: usize, length: usize| {
        let mut now = bytes[at..at + length].to_vec();
        for (place, change) in changes {
            for (number, byte) in change.iter().enumerate() {
                if let Some(to) = (place + number).checked_sub(at).and_then(|within| now.get_mut(within)) {
                    *to = *byte;
                }
            }
        }
        now
    };
    for _ in 0..=random.below(3) {
        let (start, length) = places[random.below(places.len() as u64) as usize];
        let at = (start + random.below(length as u64) as usize).min(bytes.len() - 16);
        let change = match random.below(5) {
            0 => vec![current(&changes, at, 1)[0] ^ 1 << random.below(8)],
            1 => vec![NASTY[random.below(8) as usize]],
            2 => ((random.next() >> random.below(64)) as u32).to_le_bytes().to_vec(),
            // A place in the file, or near one, where one is expected.
            3 => ((random.below(12) << 20 | random.below(8)) + random.below(2) * 4096).to_le_bytes().to_vec(),
            _ => (random.next() >> random.below(64)).to_le_bytes().to_vec(),
        };
        let at = if change.len() > 1 { at & !(change.len() - 1) } else { at };
        changes.push((at, change));
    }
    // Half of the time the checksums fit again, so that what lies behind them is met.
    if random.below(2) == 0 {
        let mut sealed: Vec<(usize, usize)> = HEADERS.map(|at| (at, SECTOR)).to_vec();
        sealed.extend(REGION_TABLES.map(|at| (at, 64 << 10)));
        let (log, length) = log_place(bytes);
        for at in (log..log + length).step_by(SECTOR).filter(|at| bytes[*at..].starts_with(b"loge")) {
            let header = current(&changes, at, 16);
            let claimed = u32::from_le_bytes(header[8..12].try_into().unwrap()) as usize;
            sealed.push((at, claimed.min(length)));
        }
        let touched: Vec<(usize, usize)> = changes.iter().map(|(at, change)| (*at, change.len())).collect();
        for (at, size) in sealed {
            let is_touched = |(place, count): &(usize, usize)| *place < at + size && at < place + count;
            if size < 8 || (at < log && !touched.iter().any(is_touched)) {
                continue;
            }
            let mut now = if at >= log && at + size > log + length {
                let first = log + length - at;
                [current(&changes, at, first), current(&changes, log, size - first)].concat()
            } else {
                current(&changes, at, size)
            };
            seal(&mut now, 0, size);
            changes.push((at + 4, now[4..8].to_vec()));
        }
    }
    let is_cut = random.below(12) == 0;
    Mutant {
        changes,
        length: if is_cut { 1 + random.below(bytes.len() as u64) as usize } else { bytes.len() },
    }
}

/// Reads here and there, walks extents and runs; every outcome but a panic or a hang is right.
fn read_around(image: &Image) {
    let disk = &*image.device;
    let size = disk.size();
    let mut buffer = vec![0; 5000];
    for offset in [0, 2000, 3 << 19, (2 << 20) - 1000, size / 2, size.saturating_sub(5000)] {
        let _ = disk.read_exact_at(&mut buffer, offset);
    }
    let mut offset = 0;
    for _ in 0..12 {
        if offset >= size {
            break;
        }
        match disk.extent_at(offset) {
            Ok(extent) => {
                assert!(extent.length > 0 && extent.length <= size - offset);
                offset += extent.length;
            }
            Err(_) => offset += 65_536,
        }
    }
    let layer = image.chain[0].disk.as_ref().unwrap();
    offset = 0;
    for _ in 0..12 {
        if offset >= size {
            break;
        }
        match layer.own_run_at(offset) {
            Ok(run) => {
                assert!(run.length > 0 && run.length <= size - offset);
                offset += run.length;
            }
            Err(_) => offset += 65_536,
        }
    }
    let _ = image.take_read_problems();
}

/// Opens, reads, writes; says how far it came.
fn exercise(file: &Device, below: &Device) -> usize {
    let counter: Arc<Counter> = Arc::new(Counter::new(file.clone()));
    let options = |mode| Options { format: Some("vhdx"), mode, below: Some(below), ..Options::default() };
    let open = |device, mode| image::open_device(device, None, &options(mode), &FolderGate::new());
    let Ok(image) = open(counter.clone(), Mode::ReadOnly) else { return 0 };
    read_around(&image);
    let overlay: Device = Arc::new(Overlay::new(counter.clone()));
    let Ok(image) = open(overlay.clone(), Mode::ReadWrite) else { return 1 };
    let disk = image.device.writable().unwrap();
    for offset in [0, 800, (3 << 19) + 300, (3 << 20) - 100, disk.size().saturating_sub(600)] {
        let _ = disk.write_all_at(&[1; 600], offset);
    }
    let flushed = disk.flush();
    read_around(&image);
    drop(image);
    assert!(counter.bytes() < MAX_READ, "{} bytes read", counter.bytes());
    if flushed.is_ok() {
        // What a writer was let near must still be an image.
        open(overlay, Mode::ReadOnly).unwrap();
    }
    2
}

fn mutations(name: &str, bytes: &[u8], places: &Places, count: usize) {
    let folder = Folder::new();
    folder.write("checked.vhdx", bytes);
    let file = std::fs::File::options().write(true).open(folder.path("checked.vhdx")).unwrap();
    let base: Device = Arc::new(MemoryDevice::new(bytes));
    let below: Device = Arc::new(MemoryDevice::new(vec![0xaa; 3 << 20]));
    let seed = name.bytes().fold(7, |seed: u64, byte| seed * 31 + u64::from(byte)) << 20;
    // For a longer run: MUTATIONS=100 makes it a hundred times as many.
    let factor = std::env::var("MUTATIONS").map_or(1, |factor| factor.parse().unwrap());
    let (mut reached, mut checked) = ([0_usize; 3], 0_usize);
    let mut slowest = Duration::ZERO;
    for number in 0..count * factor {
        let mut random = Random::new(seed + number as u64);
        let Mutant { changes, length } = mutant(bytes, places, &mut random);
        let overlay = Overlay::new(base.clone());
        for (at, change) in &changes {
            overlay.write_all_at(change, *at as u64).unwrap();
        }
        let device: Device = Arc::new(overlay);
        let device: Device = Arc::new(Slice::new(device, 0, length as u64).unwrap());
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| exercise(&device, &below)));
        assert!(outcome.is_ok(), "mutation {number} of {name} panics: {changes:x?}, {length} bytes");
        reached[outcome.unwrap()] += 1;
        for (at, change) in &changes {
            file.write_all_at(change, *at as u64).unwrap();
        }
        if length < bytes.len() {
            file.set_len(length as u64).unwrap();
        }
        let options = Options { format: Some("vhdx"), ..Options::default() };
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            image::check(&folder.path("checked.vhdx"), &options, &FolderGate::new())
        }));
        assert!(outcome.is_ok(), "checking mutation {number} of {name} panics: {changes:x?}, {length} bytes");
        checked += usize::from(outcome.unwrap().is_ok());
        slowest = slowest.max(start.elapsed());
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "mutation {number} of {name} hangs: {changes:x?}, {length} bytes"
        );
        for (at, change) in &changes {
            file.write_all_at(&bytes[*at..*at + change.len()], *at as u64).unwrap();
        }
        if length < bytes.len() {
            file.set_len(bytes.len() as u64).unwrap();
            file.write_all_at(&bytes[length..], length as u64).unwrap();
        }
    }
    let [refused, read, written] = reached;
    println!(
        "{name}: {} mutations, {refused} refused, {read} only read, {written} written, {checked} checked, slowest {slowest:?}",
        count * factor
    );
    // A mutator whose files are all refused at the door tests the door only.
    assert!(refused > count / 20 && read > count / 20 && written > count / 20, "{reached:?}");
}

#[test]
fn no_mutation_of_a_dynamic_image_panics_or_hangs() {
    let bytes = written(&small(512, false));
    mutations("dynamic", &bytes, &places(&bytes), 8000);
}

#[test]
fn no_mutation_of_a_fixed_image_panics_or_hangs() {
    let bytes = written(&small(4096, true));
    mutations("fixed", &bytes, &places(&bytes), 5000);
}

#[test]
fn no_mutation_of_a_child_panics_or_hangs() {
    let bytes = written(&child());
    // The sector bitmap is the first block behind the table.
    let places =
        [places(&bytes), vec![(bat(&bytes) + MIB, 1024), (region(&bytes, 0x06) + (64 << 10) + 40, 64)]];
    mutations("child", &bytes, &places.concat(), 8000);
}

#[test]
fn no_mutation_of_a_dirty_log_panics_or_hangs() {
    let (bytes, places) = dirty();
    let image = open(Arc::new(MemoryDevice::new(bytes.clone())), Mode::ReadOnly).unwrap();
    assert!(image.chain[0].notes[0].contains("5 changes in 3 entries"), "{:?}", image.chain[0].notes);
    let mut sector = [0; 512];
    image.device.read_exact_at(&mut sector, 0).unwrap();
    assert_eq!(sector, [0xa5; 512]);
    mutations("dirty", &bytes, &places, 7500);
}

/// Numbers that would make a careless reader allocate or walk without end.
#[test]
fn lengths_are_held_against_the_file() {
    let good = new_image(&small(512, false)).to_vec();
    let metadata = region(&good, 0x06);
    let mut bytes = good.clone();
    // 64 TiB in blocks of 1 MiB need a table of 512 MiB, which is not there.
    put(&mut bytes, metadata + (64 << 10) + 8, &(64_u64 << 40).to_le_bytes());
    let error = open(Arc::new(MemoryDevice::new(bytes.clone())), Mode::ReadOnly).unwrap_err();
    let said = std::error::Error::source(&error).unwrap().to_string();
    assert!(said.contains("VHDX BAT at byte 3145728: Length is 1048576, expected at least 537"), "{said}");
    for table in REGION_TABLES {
        put(&mut bytes, table + 16 + 24, &(2047_u32 << 20).to_le_bytes());
        seal(&mut bytes, table, 64 << 10);
    }
    let error = open(Arc::new(MemoryDevice::new(bytes)), Mode::ReadOnly).unwrap_err();
    let said = std::error::Error::source(&error).unwrap().to_string();
    assert!(said.contains("expected entries before 0x400000, the end of the file"), "{said}");
}

#[test]
fn names_that_lead_out_stay_closed() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("vm")).unwrap();
    for (relative, expected) in [
        ("..\\secret.vhdx", "lies outside the folder of the image"),
        ("\\..\\..\\etc\\passwd", "cannot open"),
        ("json:{}", "this cannot be the name of a file"),
        ("child.vhdx", "the chain is a loop"),
    ] {
        folder.write("secret.vhdx", &new_image(&small(512, false)).to_vec());
        let parent = Parent {
            identity: "DataWriteGuid 00112233-4455-6677-8899-aabbccddeeff".to_owned(),
            relative_path: relative.to_owned(),
            absolute_path: None,
        };
        let options = CreateOptions { parent: Some(parent), ..small(512, false) };
        folder.write("vm/child.vhdx", &new_image(&options).to_vec());
        let error = folder.open("vm/child.vhdx").unwrap_err();
        let below = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        let said = format!("{error}: {below}");
        assert!(said.contains(expected), "{relative}: {said}");
    }
}
