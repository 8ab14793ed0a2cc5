//! Samples of other projects, whole and damaged: all of each is read, and that ends.
//! `scripts/oracles/corpus.py` compares what is said of them with what their makers' checkers say.

#![expect(clippy::print_stdout, reason = "a test prints what it skips, and why")]

#[cfg(test)]
#[path = "../examples/survey/walk.rs"]
mod walk;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blockdev::{Device, FileDevice};
use storage::FILESYSTEMS;

/// What one image may take, on a busy machine and without optimization.
const PATIENCE: Duration = Duration::from_secs(60);

/// Families of the manifest, and the least number of images that are there.
const FAMILIES: [(&str, usize); 6] =
    [("fat", 20), ("btrfs", 40), ("xfs", 20), ("exfat", 10), ("iso9660", 10), ("squashfs", 4)];

/// Larger ones are slow to unpack; the script has them.
const MAX_SIZE: u64 = 64 << 20;

fn corpus() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    let folder = std::env::var_os("GUESTMEND_CORPUS").map_or(beside, PathBuf::from);
    if folder.join("MANIFEST.tsv").exists() {
        return Some(folder);
    }
    println!("skipped: no samples in {}", folder.display());
    None
}

/// Looks at it in every way; what it is, files, problems.
fn survey(device: &Device) -> (&'static str, usize, usize) {
    let mut result = ("none", 0, 0);
    for format in FILESYSTEMS {
        if let Ok(Some(identity)) = (format.probe)(device.as_ref()) {
            result.0 = identity.kind;
        }
        // Whatever it is taken for.
        let as_is = (format.open)(device.clone());
        let recovered = (format.replay)(device.clone()).ok().filter(|replayed| replayed.transactions > 0);
        for opened in as_is.into_iter().chain(recovered.and_then(|found| (format.open)(found.device).ok())) {
            let walked = walk::walk(opened.value.as_ref());
            result.1 += walked.files;
            result.2 += opened.problems.len() + walked.problems.len();
        }
    }
    result
}

#[test]
fn every_sample_is_read_to_its_end() {
    let Some(corpus) = corpus() else { return };
    let manifest = std::fs::read_to_string(corpus.join("MANIFEST.tsv")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    for (family, least) in FAMILIES {
        let (mut images, mut read) = (0, 0);
        for line in manifest.lines() {
            let columns: Vec<&str> = line.split('\t').collect();
            let (path, role, size) = (columns[0], columns[1], columns[8].parse().unwrap_or(u64::MAX));
            let is_image = role == "data" || path.ends_with(".fsck") || path.ends_with(".xxd");
            let is_large = size > MAX_SIZE && (role == "data" || size < u64::MAX);
            if columns[2] != family || !is_image || is_large {
                continue;
            }
            let Ok(unpacked) = Command::new("python3")
                .args([corpus.join("unpack.py"), corpus.join(path), image.clone()])
                .status()
            else {
                return println!("skipped: python3 is not installed");
            };
            assert!(unpacked.success(), "{path}");
            let start = Instant::now();
            let device: Device = Arc::new(FileDevice::open(&image).unwrap());
            let (kind, files, problems) = survey(&device);
            let took = start.elapsed();
            println!("{path}: {kind}, {files} files, {problems} problems, {} ms", took.as_millis());
            assert!(took < PATIENCE, "{path} took {took:?}");
            images += 1;
            read += usize::from(files > 0);
            std::fs::remove_file(&image).unwrap();
        }
        println!("{family}: {images} images, {read} of them read");
        assert!(images >= least, "{family}: {images} images");
        assert_eq!(read > 0, family != "exfat", "{family}: {read}");
    }
}
