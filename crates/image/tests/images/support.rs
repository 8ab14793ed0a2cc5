//! What the tests of this crate share: real tools, reproducible bytes, comparison.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use blockdev::{BlockDevice, ExtentKind};
use image::{FolderGate, Image, Mode, Options};
use tempfile::TempDir;

/// How often a locked file is tried again.
const MAX_TRIES: u32 = 200;

/// A process that another test has just started holds a copy of every file that we have open, and its lock,
/// until it becomes that other program.
fn wait() {
    std::thread::sleep(Duration::from_millis(5));
}

/// Runs a command, again as long as the file is locked.
pub(crate) fn patiently(command: &mut Command) -> Output {
    for _ in 0..MAX_TRIES {
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if !(said.contains("Failed to get") && said.contains("lock")) {
            return output;
        }
        wait();
    }
    command.output().unwrap()
}

/// Whether `qemu-img` and `qemu-io` can be run; says so when not.
pub(crate) fn has_qemu() -> bool {
    for tool in ["qemu-img", "qemu-io"] {
        if Command::new(tool).arg("--version").output().is_err() {
            println!("skipped: {tool} is not installed");
            return false;
        }
    }
    true
}

/// A folder in which the tools run; removed at the end.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Runs a command line, split at spaces, and returns what came out of it.
    pub(crate) fn run(&self, line: &str) -> Output {
        let mut words = line.split(' ');
        patiently(Command::new(words.next().unwrap()).args(words).current_dir(self.0.path()))
    }

    /// Runs a command line that must succeed; returns its standard output.
    pub(crate) fn must(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs commands of `qemu-io` on an image.
    pub(crate) fn qemu_io(&self, name: &str, commands: &[&str]) {
        self.qemu_io_as("qcow2", name, commands);
    }

    /// The same on an image of any format.
    pub(crate) fn qemu_io_as(&self, format: &str, name: &str, commands: &[&str]) {
        let mut command = Command::new("qemu-io");
        command.current_dir(self.0.path()).args(["-f", format, name]);
        for line in commands {
            command.args(["-c", line]);
        }
        let output = patiently(&mut command);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && !said.contains("failed"), "{commands:?}: {said}");
    }

    /// The exit code of `qemu-img check` and what it said: 0 clean, 2 corrupt, 3 leaks only.
    pub(crate) fn check(&self, name: &str) -> (i32, String) {
        let output = self.run(&format!("qemu-img check -f qcow2 {name}"));
        let said =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (output.status.code().unwrap(), said)
    }

    /// Fails unless `qemu-img check` finds nothing at all.
    pub(crate) fn must_be_clean(&self, name: &str) {
        let (code, said) = self.check(name);
        assert_eq!(code, 0, "{name}: {said}");
    }

    /// The disk inside an image, as QEMU reads it.
    pub(crate) fn content(&self, name: &str) -> Vec<u8> {
        self.must(&format!("qemu-img convert -O raw {name} content.raw"));
        let bytes = self.read("content.raw");
        std::fs::remove_file(self.path("content.raw")).unwrap();
        bytes
    }

    /// The same for an image whose format QEMU is told.
    pub(crate) fn content_as(&self, format: &str, name: &str) -> Vec<u8> {
        self.must(&format!("qemu-img convert -f {format} -O raw {name} content.raw"));
        let bytes = self.read("content.raw");
        std::fs::remove_file(self.path("content.raw")).unwrap();
        bytes
    }

    pub(crate) fn open(&self, name: &str) -> image::Result<Image> {
        image::open(&self.path(name), &Options::default(), &FolderGate::new())
    }

    pub(crate) fn open_for_writing(&self, name: &str) -> image::Result<Image> {
        let options = Options { mode: Mode::ReadWrite, ..Options::default() };
        let open = || image::open(&self.path(name), &options, &FolderGate::new());
        for _ in 0..MAX_TRIES {
            match open() {
                Err(image::Error::Open { source, .. }) if source.kind() == ErrorKind::ResourceBusy => wait(),
                outcome => return outcome,
            }
        }
        open()
    }
}

/// All bytes of a device, read in one go.
pub(crate) fn read_all(device: &dyn BlockDevice) -> Vec<u8> {
    let mut bytes = vec![0xee; device.size() as usize];
    device.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Compares without printing megabytes.
pub(crate) fn assert_same(found: &[u8], expected: &[u8], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    if found == expected {
        return;
    }
    if let Some(at) = found.iter().zip(expected).position(|(a, b)| a != b) {
        panic!("{what}: byte {at:#x} is {:#x}, expected {:#x}", found[at], expected[at]);
    }
}

/// Reads a device in every way it offers, and compares with what it must hold.
pub(crate) fn assert_reads(device: &dyn BlockDevice, expected: &[u8], what: &str) {
    assert_same(&read_all(device), expected, what);
    let mut random = Random::new(expected.len() as u64);
    for _ in 0..300 {
        let offset = random.below(expected.len() as u64) as usize;
        let length = (1 + random.below(150_000) as usize).min(expected.len() - offset);
        let mut bytes = vec![0xee; length];
        device.read_exact_at(&mut bytes, offset as u64).unwrap();
        assert_same(
            &bytes,
            &expected[offset..offset + length],
            &format!("{what}: {length} bytes at {offset}"),
        );
    }
    let mut offset = 0;
    while offset < device.size() {
        let extent = device.extent_at(offset).unwrap();
        assert!(
            extent.length > 0 && offset + extent.length <= device.size(),
            "{what}: {extent:?} at {offset}"
        );
        if extent.kind == ExtentKind::Zero {
            let range = offset as usize..(offset + extent.length) as usize;
            assert!(
                expected[range].iter().all(|byte| *byte == 0),
                "{what}: {extent:?} at {offset} is not zero"
            );
        }
        offset += extent.length;
    }
    assert!(device.extent_at(offset).is_err(), "{what}: an extent past the end");
    assert!(device.read_exact_at(&mut [0], offset).is_err(), "{what}: a byte past the end");
}

/// xorshift64*: the same numbers on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// A disk as they are: holes, text, noise, lonely sectors.
pub(crate) fn disk_content(size: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = vec![0; size];
    let mut at = 0;
    while at < size {
        let lengths = [512, 1024, 4096, 20_480, 65_536, 131_072, 153_600, 1 << 20];
        let length = lengths[random.below(8) as usize].min(size - at);
        let piece = &mut bytes[at..at + length];
        match random.below(20) {
            0..=6 => {}
            7..=13 => random.fill(piece),
            14..=16 => {
                let line = format!("line {at}: the quick brown fox jumps over the lazy dog\n");
                piece.iter_mut().zip(line.bytes().cycle()).for_each(|(to, from)| *to = from);
            }
            _ => {
                for sector in piece.chunks_mut(512) {
                    if random.below(10) < 3 {
                        random.fill(sector);
                    }
                }
            }
        }
        at += length;
    }
    bytes
}

/// The path of a file as text.
pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
