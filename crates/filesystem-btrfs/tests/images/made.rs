//! File systems that `mkfs.btrfs --rootdir` makes when the test runs.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::common::{content, has_tool, names, open, text, walk};
use blockdev::FileDevice;
use filesystem::FileSystem;

const LENGTHS: [usize; 6] = [0, 1, 1500, 4096, 70_000, 400_001];

fn make(folder: &Path, options: &str) -> Option<Box<dyn FileSystem>> {
    let (from, image) = (folder.join("from"), folder.join("image"));
    std::fs::create_dir_all(from.join("directory")).unwrap();
    for length in LENGTHS {
        std::fs::write(from.join(format!("text{length}")), text(length)).unwrap();
    }
    for number in 0..300 {
        std::fs::write(from.join(format!("directory/entry{number}")), "x").unwrap();
    }
    let output = Command::new("mkfs.btrfs")
        .args(["-q", "-f", "--rootdir"])
        .arg(&from)
        .args(options.split_whitespace())
        .args(["-b", "200M"])
        .arg(&image)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() && (said.contains("unrecognized") || said.contains("unknown")) {
        println!("skipped: mkfs.btrfs {options}: {said}");
        return None;
    }
    assert!(output.status.success(), "mkfs.btrfs {options}: {said}");
    Some(open(vec![Arc::new(FileDevice::open(&image).unwrap())]))
}

#[test]
fn checksums_and_node_sizes() {
    if !has_tool("mkfs.btrfs") {
        return;
    }
    for options in
        ["", "--csum xxhash", "--csum sha256", "--csum blake2", "-n 65536", "-n 4096", "-M", "-O ^no-holes"]
    {
        let folder = tempfile::tempdir().unwrap();
        let Some(fs) = make(folder.path(), options) else { continue };
        for length in LENGTHS {
            assert_eq!(content(&*fs, &format!("/text{length}")), text(length), "{options}: {length}");
        }
        assert_eq!(names(&*fs, "/directory").len(), 300, "{options}");
        let found = walk(&*fs, 10_000);
        assert!(found.errors.is_empty(), "{options}: {:?}", found.errors);
        assert_eq!(found.files, 300 + LENGTHS.len() + 2, "{options}");
    }
}
