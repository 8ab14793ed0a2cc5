//! Images for tests: made by `mkfs.xfs` when the test runs, or by a kernel long ago.

use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use blockdev::{Device, MemoryDevice};
use filesystem::{FileSystem, Inode, path};
use tempfile::TempDir;

/// Whether a program is there; says so when it is not.
pub(crate) fn has_tool(name: &str) -> bool {
    let found = Command::new(name).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("skipped: {name} is not installed");
    }
    found
}

/// An image file that goes away with its folder.
pub(crate) struct Image {
    folder: TempDir,
}

impl Image {
    /// Makes a 32 MiB image that holds `tree`; `None` when there is no `mkfs.xfs`.
    pub(crate) fn make(options: &str, tree: &Tree) -> Option<Self> {
        Self::sized(32, options, tree)
    }

    /// The same with a size in MiB.
    pub(crate) fn sized(mebibytes: u64, options: &str, tree: &Tree) -> Option<Self> {
        if !has_tool("mkfs.xfs") {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let image = Self { folder };
        std::fs::File::create(image.path()).unwrap().set_len(mebibytes << 20).unwrap();
        let proto = image.folder.path().join("proto");
        std::fs::write(&proto, tree.to_proto(image.folder.path())).unwrap();
        let output = Command::new("mkfs.xfs")
            .args(["--unsupported", "-q", "-p"])
            .arg(&proto)
            .args(options.split_whitespace())
            .arg(image.path())
            .output()
            .unwrap();
        if String::from_utf8_lossy(&output.stderr).contains("unrecognized option") {
            println!("skipped: this mkfs.xfs makes no small file systems");
            return None;
        }
        assert!(output.status.success(), "mkfs.xfs {options}: {}", text(&output));
        Some(image)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    /// Runs commands of `xfs_db` that may write; `false` when there is no `xfs_db`.
    pub(crate) fn edit(&self, commands: &[&str]) -> bool {
        if !has_tool("xfs_db") {
            return false;
        }
        let arguments = commands.iter().flat_map(|command| ["-c", *command]);
        // Some releases crash while they quit, after everything was written: the content is what is tested.
        Command::new("xfs_db").arg("-x").args(arguments).arg(self.path()).output().unwrap();
        true
    }

    /// The content in memory.
    pub(crate) fn device(&self) -> Arc<MemoryDevice> {
        Arc::new(MemoryDevice::new(std::fs::read(self.path()).unwrap()))
    }
}

/// The kernel-made image with extent trees, unwritten and shared blocks; see `xfs-forks.img.toml`.
pub(crate) fn forks() -> Arc<MemoryDevice> {
    unpack("xfs-forks.img.zst")
}

/// The kernel-made image with free space in hundreds of pieces; see `xfs-free-space.img.toml`.
pub(crate) fn free_space() -> Arc<MemoryDevice> {
    unpack("xfs-free-space.img.zst")
}

pub(crate) fn unpack(name: &str) -> Arc<MemoryDevice> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test-images/filesystem");
    let packed = std::fs::read(folder.join(name)).unwrap();
    let mut image = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(&packed[..]).unwrap().read_to_end(&mut image).unwrap();
    Arc::new(MemoryDevice::new(image))
}

/// Asks `xfs_repair -n` about the content of a device.
#[track_caller]
pub(crate) fn assert_clean(device: &dyn blockdev::BlockDevice) {
    if !has_tool("xfs_repair") {
        return;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut content = vec![0; device.size() as usize];
    device.read_exact_at(&mut content, 0).unwrap();
    std::fs::write(file.path(), content).unwrap();
    let output = Command::new("xfs_repair").args(["-n", "-f"]).arg(file.path()).output().unwrap();
    assert!(output.status.success(), "xfs_repair -n: {}", text(&output));
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// What an image should hold, in the order of creation.
#[derive(Default)]
pub(crate) struct Tree {
    entries: Vec<(String, Node)>,
}

enum Node {
    File(Vec<u8>),
    Symlink(String),
    Fifo,
    Directory(Tree),
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn add(mut self, name: &str, node: Node) -> Self {
        self.entries.push((name.to_owned(), node));
        self
    }

    pub(crate) fn file(self, name: &str, content: impl Into<Vec<u8>>) -> Self {
        self.add(name, Node::File(content.into()))
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.add(name, Node::Symlink(target.to_owned()))
    }

    pub(crate) fn fifo(self, name: &str) -> Self {
        self.add(name, Node::Fifo)
    }

    pub(crate) fn directory(self, name: &str, tree: Tree) -> Self {
        self.add(name, Node::Directory(tree))
    }

    /// The tree in the language of `mkfs.xfs -p`; contents go to files in `folder`.
    fn to_proto(&self, folder: &Path) -> String {
        let mut proto = "/dev/null\n0 0\nd--755 0 0\n".to_owned();
        let mut files = 0;
        self.write_proto(&mut proto, folder, &mut files);
        proto + "$\n"
    }

    fn write_proto(&self, proto: &mut String, folder: &Path, files: &mut u32) {
        for (name, node) in &self.entries {
            match node {
                Node::File(content) => {
                    *files += 1;
                    let path = folder.join(format!("content-{files}"));
                    std::fs::write(&path, content).unwrap();
                    writeln!(proto, "{name} ---640 10 20 {}", path.display()).unwrap();
                }
                Node::Symlink(target) => writeln!(proto, "{name} l--777 0 0 {target}").unwrap(),
                Node::Fifo => writeln!(proto, "{name} p--600 0 0").unwrap(),
                Node::Directory(tree) => {
                    writeln!(proto, "{name} d--755 0 0").unwrap();
                    tree.write_proto(proto, folder, files);
                    proto.push_str("$\n");
                }
            }
        }
    }
}

/// Bytes in which every block differs from every other.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    (0..length.div_ceil(4) as u32)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b1).to_le_bytes())
        .take(length)
        .collect()
}

/// Opens a healthy file system.
#[track_caller]
pub(crate) fn open(device: Device) -> Box<dyn FileSystem> {
    let opened = (filesystem_xfs::FORMAT.open)(device).unwrap();
    assert!(opened.problems.is_empty(), "{:?}", opened.problems);
    opened.value
}

#[track_caller]
pub(crate) fn inode(fs: &dyn FileSystem, path: &str) -> Inode {
    path::resolve_no_follow(fs, path.as_bytes()).unwrap()
}

#[track_caller]
pub(crate) fn content(fs: &dyn FileSystem, path: &str) -> Vec<u8> {
    filesystem::read_to_end(fs, inode(fs, path), 64 << 20).unwrap()
}

/// SplitMix64, so that a failure can be repeated from its number.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}
