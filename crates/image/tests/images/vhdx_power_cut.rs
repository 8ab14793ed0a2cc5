//! The power fails at every single write, growth and flush, and what survives is chosen in four ways.
//!
//! Afterwards the file must open, its check may find leaks but no errors, and each sector of the disk must read
//! as it was at the last flush, or as any write since then left it. QEMU, which must replay what we would,
//! judges some of the files.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::support::{Folder, Random, assert_same, has_qemu, read_all};
use crate::vhdx_chain::{make_child, make_parent};
use crate::vhdx_support::{LogEntry, MIB, Step, activate_log, bat};
use blockdev::{BlockDevice, BlockDeviceMut, Device, FileDevice, MemoryDevice, PowerCut, Survivors};
use image::vhdx::{CreateOptions, create};
use image::{FolderGate, Image, Mode, Options, Severity};

const SECTOR: usize = 512;

const CHOICES: [Survivors; 4] =
    [Survivors::All, Survivors::None, Survivors::EveryOther, Survivors::TheOthers];

/// What the disk may hold after a cut.
struct Model {
    /// At the last completed flush.
    settled: Vec<u8>,
    /// After the last write, completed or not.
    current: Vec<u8>,
    /// Every content that a sector had since the last completed flush, by its number.
    versions: BTreeMap<usize, Vec<Vec<u8>>>,
}

impl Model {
    fn new(content: Vec<u8>) -> Self {
        Self { settled: content.clone(), current: content, versions: BTreeMap::new() }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let sectors = offset / SECTOR..(offset + bytes.len()).div_ceil(SECTOR);
        for number in sectors.clone() {
            let old = self.current[number * SECTOR..][..SECTOR].to_vec();
            self.versions.entry(number).or_insert_with(|| vec![old]);
        }
        self.current[offset..offset + bytes.len()].copy_from_slice(bytes);
        for number in sectors {
            let new = self.current[number * SECTOR..][..SECTOR].to_vec();
            self.versions.get_mut(&number).unwrap().push(new);
        }
    }

    fn flush(&mut self) {
        self.settled.clone_from(&self.current);
        self.versions.clear();
    }

    fn check(&self, found: &[u8], what: &str) {
        assert_eq!(found.len(), self.settled.len());
        for (number, sector) in found.chunks(SECTOR).enumerate() {
            let is_known = self.versions.get(&number).map_or_else(
                || sector == &self.settled[number * SECTOR..][..SECTOR],
                |versions| versions.iter().any(|version| version == sector),
            );
            assert!(is_known, "{what}: sector {number} is neither old nor new");
        }
    }
}

/// Writes with a flush now and then; the first error ends it.
fn work(disk: &dyn BlockDeviceMut, model: &mut Model, seed: u64, rounds: usize) -> std::io::Result<()> {
    let mut random = Random::new(seed);
    let size = model.current.len();
    // A few places that are hit again and again, and some that are not.
    let places: Vec<usize> = (0..3).map(|_| random.below((size / SECTOR) as u64) as usize * SECTOR).collect();
    for _ in 0..rounds {
        for _ in 0..4 {
            let offset = match random.below(3) {
                0 => places[random.below(3) as usize],
                _ => random.below((size / SECTOR) as u64) as usize * SECTOR,
            };
            // An even count, so that a write torn in the middle is torn between sectors; and now and then bytes
            // that are no whole sectors.
            let length = match random.below(6) {
                0 => 100,
                1 => 700_160,
                _ => 1024 * (1 + random.below(6) as usize),
            };
            let mut bytes = vec![0; length.min(size - offset)];
            random.fill(&mut bytes);
            model.write(offset, &bytes);
            disk.write_all_at(&bytes, offset as u64)?;
        }
        disk.flush()?;
        model.flush();
    }
    Ok(())
}

fn open(folder: &Folder, device: Device, mode: Mode) -> Image {
    image::open_device(
        device,
        Some(&folder.path("disk.vhdx")),
        &Options { format: Some("vhdx"), mode, ..Options::default() },
        &FolderGate::new(),
    )
    .unwrap()
}

/// How the images that survived are judged.
#[derive(Default)]
struct Tally {
    cuts: u64,
    /// Different files.
    files: u64,
    /// Of those, files whose log had to be replayed.
    dirty: u64,
    by_qemu: u64,
}

/// Cuts the power at every step of the work on `disk.vhdx`.
fn cut_everywhere(folder: &Folder, rounds: usize, with_qemu: bool) -> Tally {
    let original = folder.read("disk.vhdx");
    let content = read_all(&*folder.open("disk.vhdx").unwrap().device);
    let mut tally = Tally::default();
    for survivors in CHOICES {
        let mut judged = Vec::new();
        for steps in 0.. {
            let disk = Arc::new(MemoryDevice::new(original.clone()));
            let power = Arc::new(PowerCut::new(disk.clone(), steps, survivors));
            let image = open(folder, power.clone(), Mode::ReadWrite);
            let mut model = Model::new(content.clone());
            let outcome = work(image.device.writable().unwrap(), &mut model, 11, rounds);
            assert_eq!(outcome.is_err(), power.is_cut());
            drop(image);
            let what = format!("{survivors:?} after {steps} steps");
            let after = disk.to_vec();
            let image = open(folder, disk, Mode::ReadOnly);
            let found = read_all(&*image.device);
            model.check(&found, &what);
            tally.cuts += 1;
            // Where nothing more survived than at the step before, the verdict stands.
            if after != judged {
                tally.files += 1;
                tally.dirty += u64::from(!image.chain[0].notes.is_empty());
                judge(folder, &after, &found, with_qemu && tally.files % 5 == 0, &mut tally, &what);
                judged = after;
            }
            if !power.is_cut() {
                assert!(image.chain[0].notes.is_empty(), "{what}: clean at the end");
                assert_same(&found, &model.current, &what);
                break;
            }
        }
    }
    println!(
        "{} cuts, {} files, {} with a log to replay, {} judged by QEMU",
        tally.cuts, tally.files, tally.dirty, tally.by_qemu
    );
    tally
}

fn judge(folder: &Folder, after: &[u8], found: &[u8], by_qemu: bool, tally: &mut Tally, what: &str) {
    folder.write("after.vhdx", after);
    let options = Options { format: Some("vhdx"), ..Options::default() };
    let report = image::check(&folder.path("after.vhdx"), &options, &FolderGate::new()).unwrap();
    // A header that was just being written is torn, and has the other one.
    let errors: Vec<_> = report
        .problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error && problem.structure != "VHDX header")
        .collect();
    assert!(errors.is_empty(), "{what}: {errors:?}");
    assert!(report.count(Severity::Error) <= 1, "{what}: {:?}", report.problems);
    if by_qemu {
        tally.by_qemu += 1;
        let said = folder.run("qemu-img check -f vhdx -r all after.vhdx");
        assert!(said.status.success(), "{what}: {}", String::from_utf8_lossy(&said.stderr));
        assert_same(&folder.content("after.vhdx"), found, &format!("{what}, QEMU"));
    }
}

fn new_disk(folder: &Folder, options: &CreateOptions) {
    create(&FileDevice::create_new(&folder.path("disk.vhdx")).unwrap(), options).unwrap();
}

#[test]
fn dynamic_images() {
    let folder = Folder::new();
    new_disk(&folder, &CreateOptions { block_size: 1 << 20, ..CreateOptions::new(5 << 20) });
    let tally = cut_everywhere(&folder, 4, has_qemu());
    assert!(tally.dirty > 10 && tally.cuts > 150, "{} of {}", tally.dirty, tally.cuts);
}

#[test]
fn fixed_images() {
    let folder = Folder::new();
    new_disk(&folder, &CreateOptions { block_size: 1 << 20, is_fixed: true, ..CreateOptions::new(3 << 20) });
    let tally = cut_everywhere(&folder, 4, has_qemu());
    assert_eq!(tally.dirty, 0, "nothing goes through the log");
}

#[test]
fn images_of_qemu() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    folder.must("qemu-img create -q -f vhdx -o block_size=1M disk.vhdx 6M");
    crate::vhdx_support::qemu_io(&folder, "disk.vhdx", &["write -P 9 1M 2M"]);
    cut_everywhere(&folder, 3, true);
}

/// The log of the last session is brought into the file first.
#[test]
fn images_with_a_dirty_log() {
    let folder = Folder::new();
    new_disk(&folder, &CreateOptions { block_size: 1 << 20, ..CreateOptions::new(5 << 20) });
    let image = folder.open_for_writing("disk.vhdx").unwrap();
    image.device.writable().unwrap().write_all_at(&[5; 3 << 20], 1 << 20).unwrap();
    image.device.writable().unwrap().flush().unwrap();
    drop(image);
    let good = folder.read("disk.vhdx");
    // The table is in the log only; then the file also ends before it should, which QEMU does not mend.
    for is_short in [false, true] {
        let mut bytes = good.clone();
        let at = bat(&bytes);
        let steps = vec![Step::Data(at, bytes[at..at + 4096].to_vec()), Step::Zero(at + 4096, 8192)];
        let last = bytes.len();
        let flushed = if is_short { last - MIB } else { last };
        let entry = LogEntry { guid: [3; 16], sequence: 9, tail: 4096, steps, flushed, last };
        entry.put(&mut bytes, 4096);
        bytes[at..at + 4096].fill(0);
        activate_log(&mut bytes, [3; 16]);
        bytes.truncate(flushed);
        folder.write("disk.vhdx", &bytes);
        let content = read_all(&*folder.open("disk.vhdx").unwrap().device);
        assert!(content[2 << 20] == 5, "the log matters");
        let tally = cut_everywhere(&folder, 2, !is_short && has_qemu());
        assert!(tally.dirty > 10, "{}", tally.dirty);
    }
}

#[test]
fn children() {
    for (sector_size, block_size) in [(512, 1 << 20), (4096, 2 << 20)] {
        let folder = Folder::new();
        let size = 5 << 20;
        make_parent(&folder, "parent.vhdx", size, sector_size, 30);
        let options = CreateOptions { sector_size, block_size, ..CreateOptions::new(size as u64) };
        make_child(&folder, "disk.vhdx", "parent.vhdx", &options);
        // Once with a sector bitmap that is there already.
        if sector_size == 4096 {
            let image = folder.open_for_writing("disk.vhdx").unwrap();
            image.device.writable().unwrap().write_all_at(&[7; 10_000], 50_000).unwrap();
            image.device.writable().unwrap().flush().unwrap();
        }
        let tally = cut_everywhere(&folder, 3, false);
        assert!(tally.dirty > 10, "{}", tally.dirty);
    }
}

/// While one entry of the log is not enough for everything that waits.
#[test]
fn many_changes_at_once() {
    let folder = Folder::new();
    // The disk is long, so that each write changes another sector of the table.
    new_disk(&folder, &CreateOptions { block_size: 1 << 20, ..CreateOptions::new(200 << 30) });
    let place = |number: u64| number * (600 << 20);
    // From a little before the first portion of the log is full to a little behind it.
    let table = bat(&folder.read("disk.vhdx")) as u64;
    let (mut old, mut new) = (0, 0);
    for survivors in CHOICES {
        for steps in 205..240 {
            // A sparse file: the disk in memory would cost a second for each cut.
            let _ = std::fs::remove_file(folder.path("cut.vhdx"));
            std::fs::copy(folder.path("disk.vhdx"), folder.path("cut.vhdx")).unwrap();
            let disk = Arc::new(FileDevice::open_writable(&folder.path("cut.vhdx")).unwrap());
            let power = Arc::new(PowerCut::new(disk.clone(), steps, survivors));
            let image = open(&folder, power.clone(), Mode::ReadWrite);
            let writer = image.device.writable().unwrap();
            let outcome =
                (0..112).try_for_each(|number| writer.write_all_at(&[number as u8 + 1; 512], place(number)));
            assert_eq!(outcome.is_err(), power.is_cut());
            drop(image);
            let image = open(&folder, disk.clone(), Mode::ReadOnly);
            let mut states = [0; 2];
            for number in 0..112 {
                let mut bytes = [0; 512];
                image.device.read_exact_at(&mut bytes, place(number)).unwrap();
                let is_new = bytes == [number as u8 + 1; 512];
                assert!(is_new || bytes == [0; 512], "{survivors:?} after {steps} steps: {number}");
                states[usize::from(is_new)] += 1;
            }
            let mut first = [0; 8];
            disk.read_exact_at(&mut first, table).unwrap();
            let is_applied = first != [0; 8];
            assert!(states[1] == 0 || states[1] >= 100, "{states:?}: a portion happens as a whole");
            assert!(!is_applied || states[1] > 0);
            old += usize::from(states[1] == 0);
            new += usize::from(states[1] > 0);
        }
    }
    assert!(old > 20 && new > 20, "{old} cuts before the portion, {new} behind");
}
