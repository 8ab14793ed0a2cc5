//! What the product tests share: the samples, the command, and the judges.
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use blockdev::{BlockDevice, Device};
use image::{FolderGate, Options};
use storage::Storage;

/// A sample that ships with the project.
pub(crate) fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("test-images/guest").join(name)
}

/// A folder with a copy of a sample, which may be written.
pub(crate) fn copy(name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::copy(sample(name), &path).unwrap();
    (folder, path)
}

/// Runs guestmend.
pub(crate) fn guestmend(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_guestmend")).args(arguments).env("NO_COLOR", "1").output().unwrap()
}

/// Exit code, standard output, standard error.
pub(crate) fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = guestmend(arguments);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// Whether a program of the system is there; says so when it is not.
pub(crate) fn has(program: &str) -> bool {
    let paths = std::env::var("PATH").unwrap_or_default();
    let found =
        paths.split(':').chain(["/usr/sbin", "/sbin"]).any(|folder| Path::new(folder).join(program).exists());
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

/// Runs a program of the system; its exit code and everything it said.
pub(crate) fn judge(program: &str, arguments: &[&str]) -> (i32, String) {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = Command::new(program).args(arguments).env("PATH", path).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// The storage of an image.
pub(crate) fn discover(path: &Path) -> Storage {
    let image = image::open(path, &Options::default(), &FolderGate::new()).unwrap();
    storage::discover(&[image.device], &luks::Keyring::default())
}

/// The device of a node by its path: `centos/root`.
pub(crate) fn node(storage: &Storage, path: &str) -> Device {
    storage.nodes.iter().find(|node| node.path == path).and_then(|node| node.device.clone()).unwrap()
}

/// Writes a device to a file, leaving holes for zeros.
pub(crate) fn dump(device: &dyn BlockDevice, path: &Path) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create(path).unwrap();
    file.set_len(device.size()).unwrap();
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    while at < device.size() {
        let extent = device.extent_at(at).unwrap();
        let count = extent.length.min(buf.len() as u64) as usize;
        if extent.kind == blockdev::ExtentKind::Data {
            device.read_exact_at(&mut buf[..count], at).unwrap();
            if buf[..count].iter().any(|byte| *byte != 0) {
                file.write_all_at(&buf[..count], at).unwrap();
            }
        }
        at += if extent.kind == blockdev::ExtentKind::Data { count as u64 } else { extent.length };
    }
}

/// The checker of a file system on one node of an image finds nothing.
pub(crate) fn assert_clean(image: &Path, node_path: &str) {
    let storage = discover(image);
    let kind =
        storage.nodes.iter().find(|node| node.path == node_path).unwrap().content_type().unwrap().to_owned();
    let (program, flags) = if kind == "xfs" { ("xfs_repair", "-n") } else { ("e2fsck", "-fn") };
    if !has(program) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("volume");
    dump(node(&storage, node_path).as_ref(), &file);
    let (code, text) = judge(program, &[flags, file.to_str().unwrap()]);
    assert_eq!(code, 0, "{program} {node_path}: {text}");
}

/// The whole content of a file.
pub(crate) fn bytes(path: &Path) -> Arc<Vec<u8>> {
    Arc::new(std::fs::read(path).unwrap())
}
