//! The power fails at every single write, growth and flush, and what survives is chosen in four ways.
//!
//! Afterwards `qemu-img check` may find leaks but no corruption, and the disk must read as before or after
//! the writes that were not flushed: a cluster that moved as a whole, one written in place sector by sector.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::support::{Folder, Random, assert_same, disk_content, has_qemu, read_all};
use blockdev::{BlockDeviceMut, Device, MemoryDevice, PowerCut, Survivors};
use image::{FolderGate, Image, Mode, Options};

pub(crate) const SECTOR: usize = 512;

/// What the disk may hold after a cut.
pub(crate) struct Model {
    cluster: usize,
    /// At the last completed flush.
    settled: Vec<u8>,
    /// After the last completed write.
    current: Vec<u8>,
    /// Clusters that were in the image's own hands at the last completed flush: written in place since.
    pub(crate) own: BTreeSet<usize>,
    /// Every content that a sector had since the last completed flush, by its number.
    versions: BTreeMap<usize, Vec<Vec<u8>>>,
}

impl Model {
    pub(crate) fn new(content: Vec<u8>, cluster: usize) -> Self {
        let settled = content.clone();
        Self { cluster, settled, current: content, own: BTreeSet::new(), versions: BTreeMap::new() }
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        for (number, sector) in (offset / SECTOR..).zip(bytes.chunks(SECTOR)) {
            let old = self.current[number * SECTOR..(number + 1) * SECTOR].to_vec();
            let versions = self.versions.entry(number).or_insert_with(|| vec![old]);
            versions.push(sector.to_vec());
        }
        self.current[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn flush(&mut self) {
        self.settled = self.current.clone();
        self.own.extend(self.versions.keys().map(|sector| sector * SECTOR / self.cluster));
        self.versions.clear();
    }

    pub(crate) fn check(&self, found: &[u8], what: &str) {
        for (number, cluster) in found.chunks(self.cluster).enumerate() {
            let range = number * self.cluster..number * self.cluster + cluster.len();
            if cluster == &self.settled[range.clone()] || cluster == &self.current[range.clone()] {
                continue;
            }
            assert!(self.own.contains(&number), "{what}: cluster {number} is neither old nor new");
            for (within, sector) in cluster.chunks(SECTOR).enumerate() {
                let sector_number = range.start / SECTOR + within;
                let is_known = self.versions.get(&sector_number).map_or_else(
                    || sector == &self.settled[sector_number * SECTOR..][..SECTOR],
                    |versions| versions.iter().any(|version| version == sector),
                );
                assert!(is_known, "{what}: sector {sector_number} is neither old nor new");
            }
        }
    }
}

/// Writes of whole sectors with a flush now and then; the first error ends it.
pub(crate) fn work(
    disk: &dyn BlockDeviceMut,
    model: &mut Model,
    seed: u64,
    rounds: usize,
) -> std::io::Result<()> {
    let mut random = Random::new(seed);
    let sectors = (model.current.len() / SECTOR) as u64;
    // A few places that are hit again and again, and some that are not.
    let places: Vec<u64> = (0..4).map(|_| random.below(sectors)).collect();
    for round in 0..rounds {
        for _ in 0..5 {
            let start =
                if random.below(2) == 0 { places[random.below(4) as usize] } else { random.below(sectors) };
            // An even count, so that a write torn in the middle is torn between sectors.
            let count = (2 * (1 + random.below(9))).min(sectors - start) & !1;
            let mut bytes = vec![0; count as usize * SECTOR];
            let offset = start as usize * SECTOR;
            if random.below(4) == 0 {
                model.write(offset, &bytes);
                disk.write_zeros_at(offset as u64, bytes.len() as u64)?;
            } else {
                random.fill(&mut bytes);
                model.write(offset, &bytes);
                disk.write_all_at(&bytes, offset as u64)?;
            }
        }
        if round + 1 < rounds {
            disk.flush()?;
            model.flush();
        }
    }
    disk.flush()?;
    model.flush();
    Ok(())
}

fn open(folder: &Folder, device: Device, mode: Mode) -> Image {
    let path = folder.path("disk.qcow2");
    image::open_device(
        device,
        Some(&path),
        &Options { format: Some("qcow2"), mode, ..Options::default() },
        &FolderGate::new(),
    )
    .unwrap()
}

/// Cuts the power at every step of the work on `disk.qcow2`; `also` judges the surviving file too.
fn cut_everywhere(folder: &Folder, cluster: usize, rounds: usize, also: impl Fn(&str)) {
    let original = folder.read("disk.qcow2");
    let content = folder.content("disk.qcow2");
    let mut cuts = 0;
    let mut judged = Vec::new();
    let mut verdict = (0, String::new());
    let choices = [Survivors::All, Survivors::None, Survivors::EveryOther, Survivors::TheOthers];
    for survivors in choices {
        for steps in 0.. {
            let disk = Arc::new(MemoryDevice::new(original.clone()));
            let power = Arc::new(PowerCut::new(disk.clone(), steps, survivors));
            let image = open(folder, power.clone(), Mode::ReadWrite);
            let mut model = Model::new(content.clone(), cluster);
            let outcome = work(image.device.writable().unwrap(), &mut model, 11, rounds);
            assert_eq!(outcome.is_err(), power.is_cut());
            let what = format!("{survivors:?} after {steps} steps");
            let after = disk.to_vec();
            // Where nothing more survived than at the step before, the verdict stands.
            if after != judged || !power.is_cut() {
                folder.write("after.qcow2", &after);
                verdict = folder.check("after.qcow2");
                judged = after;
            }
            let (code, said) = &verdict;
            assert!(*code == 0 || *code == 3, "{what}: {said}");
            model.check(&read_all(&*open(folder, disk, Mode::ReadOnly).device), &what);
            also(&what);
            if !power.is_cut() {
                // QEMU counts the clusters of bitmaps that became invalid as leaked.
                assert!(
                    *code == 0 || said.contains("bitmaps are now considered inconsistent"),
                    "{what}: {said}"
                );
                cuts += steps;
                break;
            }
        }
    }
    println!("{cuts} cuts");
}

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("base.raw", &disk_content(1 << 20, 4));
    folder
}

#[test]
fn over_a_backing_file() {
    if !has_qemu() {
        return;
    }
    for (cluster, options) in [(65_536, "cluster_size=64k"), (4096, "cluster_size=4k,compat=0.10")] {
        let folder = folder();
        folder.must(&format!("qemu-img create -q -f qcow2 -o {options} -b base.raw -F raw disk.qcow2"));
        cut_everywhere(&folder, cluster, 3, |_| {});
    }
}

#[test]
fn extended_l2_entries_over_a_backing_file() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder
        .must("qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=16k -b base.raw -F raw disk.qcow2");
    folder.qemu_io("disk.qcow2", &["write -P 1 3k 2k", "write -z 20k 1k", "write -P 2 100k 7k"]);
    cut_everywhere(&folder, 16_384, 2, |_| {});
}

#[test]
fn compressed_clusters() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    // Noise would be stored uncompressed, in clusters that are written in place.
    let lines = (0..).flat_map(|number| format!("line {number} of the disk\n").into_bytes());
    folder.write("base.raw", &lines.take(1 << 20).collect::<Vec<u8>>());
    folder.must("qemu-img convert -c -f raw -O qcow2 -o cluster_size=4k base.raw disk.qcow2");
    cut_everywhere(&folder, 4096, 2, |_| {});
}

#[test]
fn with_a_snapshot() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O qcow2 -o cluster_size=4k base.raw disk.qcow2");
    folder.must("qemu-img snapshot -c first disk.qcow2");
    // Autoclear bits must be gone before anything else changes.
    folder.must("qemu-img bitmap --add disk.qcow2 backup");
    let expected = folder.read("base.raw");
    cut_everywhere(&folder, 4096, 2, |what| {
        let path = folder.path("after.qcow2");
        let snapshot = image::open(
            &path,
            &Options { snapshot: Some("first"), ..Options::default() },
            &FolderGate::new(),
        )
        .unwrap();
        assert_same(&read_all(&*snapshot.device), &expected, what);
    });
}

#[test]
fn while_the_refcount_table_moves() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    folder.must("qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=64 disk.qcow2 2M");
    // One table cluster reaches 2 MiB of file; stop just before.
    let image = folder.open_for_writing("disk.qcow2").unwrap();
    let disk = image.device.writable().unwrap();
    let file_size = || std::fs::metadata(folder.path("disk.qcow2")).unwrap().len();
    let mut at = 0;
    while file_size() < (2 << 20) - 12_000 {
        disk.write_all_at(&[7; 512], at).unwrap();
        at += 512;
        if at % (64 * 512) == 0 {
            disk.flush().unwrap();
        }
    }
    disk.flush().unwrap();
    drop(image);
    folder.must_be_clean("disk.qcow2");
    folder.must("qemu-img snapshot -c first disk.qcow2");
    let table = |bytes: &[u8]| bytes[48..60].to_vec();
    let before = table(&folder.read("disk.qcow2"));
    cut_everywhere(&folder, 512, 1, |_| {});
    assert_ne!(table(&folder.read("after.qcow2")), before, "the table must have moved");
}
