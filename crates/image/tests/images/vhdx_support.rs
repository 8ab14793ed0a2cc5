//! What the tests of VHDX share: QEMU's tools, samples, and an encoder of headers and logs that owes nothing to
//! the code under test.

use std::path::PathBuf;
use std::sync::Arc;

use crate::support::{Folder, patiently};
use blockdev::{Device, MemoryDevice};
use image::vhdx::{CreateOptions, create};
use image::{DenyAll, Image, Mode, Options};
use ondisk::crc32c;

pub(crate) const MIB: usize = 1 << 20;
pub(crate) const SECTOR: usize = 4096;
pub(crate) const HEADERS: [usize; 2] = [64 << 10, 128 << 10];
pub(crate) const REGION_TABLES: [usize; 2] = [192 << 10, 256 << 10];

/// Runs commands of `qemu-io` on an image.
pub(crate) fn qemu_io(folder: &Folder, name: &str, commands: &[&str]) {
    let mut line = vec!["-f", "vhdx", name];
    for command in commands {
        line.extend(["-c", command]);
    }
    let mut command = std::process::Command::new("qemu-io");
    let output = patiently(command.current_dir(folder.path("")).args(line));
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && !said.contains("failed"), "{commands:?}: {said}");
}

/// The exit code of `qemu-img check` and what it said.
pub(crate) fn qemu_check(folder: &Folder, name: &str) -> (i32, String) {
    let output = folder.run(&format!("qemu-img check -f vhdx {name}"));
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code().unwrap(), said)
}

/// A sample of the corpus, unpacked into the folder; `None`, with a word about it, where there is no corpus.
pub(crate) fn sample(folder: &Folder, path: &str, name: &str) -> Option<()> {
    let corpus = std::env::var_os("GUESTMEND_CORPUS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpus")),
        PathBuf::from,
    );
    let file = corpus.join(path);
    if !file.exists() {
        println!("skipped: there is no {}", file.display());
        return None;
    }
    let output = std::process::Command::new("python3")
        .arg(corpus.join("unpack.py"))
        .args([file, folder.path(name)])
        .output()
        .unwrap();
    assert!(output.status.success(), "{path}: {}", String::from_utf8_lossy(&output.stderr));
    Some(())
}

/// A test image of this repository.
pub(crate) fn test_image(name: &str) -> Vec<u8> {
    let path = format!("{}/../../test-images/image/{name}.zst", env!("CARGO_MANIFEST_DIR"));
    let packed = std::fs::read(path).unwrap();
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(packed.as_slice()).unwrap();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut decoder, &mut bytes).unwrap();
    bytes
}

/// An empty image of ours.
pub(crate) fn new_image(options: &CreateOptions) -> Arc<MemoryDevice> {
    let device = Arc::new(MemoryDevice::new([]));
    create(&*device, options).unwrap();
    device
}

pub(crate) fn open(device: Device, mode: Mode) -> image::Result<Image> {
    image::open_device(device, None, &Options { format: Some("vhdx"), mode, ..Options::default() }, &DenyAll)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

pub(crate) fn put(bytes: &mut [u8], at: usize, change: &[u8]) {
    bytes[at..at + change.len()].copy_from_slice(change);
}

/// Makes the checksum at byte 4 of a structure right.
pub(crate) fn seal(bytes: &mut [u8], at: usize, length: usize) {
    bytes[at + 4..at + 8].fill(0);
    let sum = crc32c(&bytes[at..at + length]);
    put(bytes, at + 4, &sum.to_le_bytes());
}

/// Where the header lies that counts.
pub(crate) fn current_header(bytes: &[u8]) -> usize {
    let is_valid = |at: usize| {
        let mut copy = bytes[at..at + SECTOR].to_vec();
        seal(&mut copy, 0, SECTOR);
        copy == bytes[at..at + SECTOR]
    };
    HEADERS.into_iter().filter(|at| is_valid(*at)).max_by_key(|at| u64_at(bytes, at + 8)).unwrap()
}

/// Writes the header that does not count, with a change and a higher number.
pub(crate) fn update_header(bytes: &mut [u8], change: impl FnOnce(&mut [u8])) {
    let at = current_header(bytes);
    let other = HEADERS[usize::from(at == HEADERS[0])];
    bytes.copy_within(at..at + SECTOR, other);
    let sequence = u64_at(bytes, at + 8) + 1;
    put(bytes, other + 8, &sequence.to_le_bytes());
    change(&mut bytes[other..other + SECTOR]);
    seal(bytes, other, SECTOR);
}

/// Says in both headers that the log with this identity is active.
pub(crate) fn activate_log(bytes: &mut [u8], guid: [u8; 16]) {
    for _ in 0..2 {
        update_header(bytes, |header| put(header, 48, &guid));
    }
}

/// Where the log lies.
pub(crate) fn log_place(bytes: &[u8]) -> (usize, usize) {
    let header = current_header(bytes);
    (u64_at(bytes, header + 72) as usize, u32_at(bytes, header + 68) as usize)
}

/// Where a region lies, by the first byte of its identifier: 0x66 for the block allocation table, 0x06 for the
/// metadata.
pub(crate) fn region(bytes: &[u8], first: u8) -> usize {
    let table = REGION_TABLES[0];
    let entry = (0..2).map(|number| table + 16 + 32 * number).find(|at| bytes[*at] == first).unwrap();
    u64_at(bytes, entry + 16) as usize
}

pub(crate) fn bat(bytes: &[u8]) -> usize {
    region(bytes, 0x66)
}

/// One write of a log entry.
#[derive(Clone)]
pub(crate) enum Step {
    Data(usize, Vec<u8>),
    Zero(usize, usize),
}

/// An entry of a log.
#[derive(Clone)]
pub(crate) struct LogEntry {
    pub(crate) guid: [u8; 16],
    pub(crate) sequence: u64,
    /// Where in the log the oldest entry lies.
    pub(crate) tail: usize,
    pub(crate) steps: Vec<Step>,
    pub(crate) flushed: usize,
    pub(crate) last: usize,
}

impl LogEntry {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut descriptors = Vec::new();
        let mut data = Vec::new();
        for step in &self.steps {
            match step {
                Step::Data(offset, sector) => {
                    descriptors.extend_from_slice(b"desc");
                    descriptors.extend_from_slice(&sector[4092..]);
                    descriptors.extend_from_slice(&sector[..8]);
                    descriptors.extend_from_slice(&(*offset as u64).to_le_bytes());
                    data.extend_from_slice(b"data");
                    data.extend_from_slice(&self.sequence.to_le_bytes()[4..]);
                    data.extend_from_slice(&sector[8..4092]);
                    data.extend_from_slice(&self.sequence.to_le_bytes()[..4]);
                }
                Step::Zero(offset, length) => {
                    descriptors.extend_from_slice(b"zero\0\0\0\0");
                    descriptors.extend_from_slice(&(*length as u64).to_le_bytes());
                    descriptors.extend_from_slice(&(*offset as u64).to_le_bytes());
                }
            }
            descriptors.extend_from_slice(&self.sequence.to_le_bytes());
        }
        let mut entry = b"loge\0\0\0\0".to_vec();
        let start = (64 + descriptors.len()).next_multiple_of(SECTOR);
        entry.extend_from_slice(&((start + data.len()) as u32).to_le_bytes());
        entry.extend_from_slice(&(self.tail as u32).to_le_bytes());
        entry.extend_from_slice(&self.sequence.to_le_bytes());
        entry.extend_from_slice(&(self.steps.len() as u64).to_le_bytes());
        entry.extend_from_slice(&self.guid);
        entry.extend_from_slice(&(self.flushed as u64).to_le_bytes());
        entry.extend_from_slice(&(self.last as u64).to_le_bytes());
        entry.extend_from_slice(&descriptors);
        entry.resize(start, 0);
        entry.extend_from_slice(&data);
        let length = entry.len();
        seal(&mut entry, 0, length);
        entry
    }

    /// Puts the entry into the log of an image, from byte `at` of the log on; returns where the next one goes.
    pub(crate) fn put(&self, bytes: &mut [u8], at: usize) -> usize {
        let (start, length) = log_place(bytes);
        let mut at = at;
        for sector in self.encode().chunks(SECTOR) {
            put(bytes, start + at, sector);
            at = (at + SECTOR) % length;
        }
        at
    }
}
