//! The corpus: volumes that Windows and others wrote. `scripts/oracles/ntfs-corpus.py` compares all of them, the
//! damaged ones too, with ntfs-3g.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use blockdev::{Device, FileDevice, Slice};
use filesystem::FileSystem;
use filesystem_ntfs::Ntfs;

use crate::common::{content, inode, names};

fn corpus() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    let root = std::env::var_os("GUESTMEND_CORPUS").map_or(beside, PathBuf::from);
    if !root.join("MANIFEST.tsv").exists() {
        println!("skipped: no corpus at {}", root.display());
        return None;
    }
    Some(root)
}

/// Unpacks a file of the corpus, and takes the first partition of a disk.
fn unpack(root: &Path, path: &str, folder: &Path) -> Device {
    let image = folder.join("image");
    let mut command = Command::new("python3");
    command.arg(root.join("unpack.py")).arg(root.join(path)).arg(&image);
    assert!(command.status().unwrap().success(), "{path}");
    let device: Device = Arc::new(FileDevice::open(&image).unwrap());
    if !path.starts_with("ntfs-samples/") {
        return device;
    }
    let mut head = [0; 512];
    device.read_exact_at(&mut head, 0).unwrap();
    let field = |at: usize| u64::from(u32::from_le_bytes(head[at..at + 4].try_into().unwrap())) * 512;
    Arc::new(Slice::new(device, field(454), field(458)).unwrap())
}

/// Reads everything; returns how many files and how many errors there were.
fn walk(fs: &Ntfs) -> (usize, usize) {
    let (mut files, mut errors) = (0, 0);
    let mut todo = vec![fs.root()];
    let mut seen = std::collections::HashSet::new();
    while let Some(inode) = todo.pop() {
        if !seen.insert(inode) {
            continue;
        }
        files += 1;
        match fs.metadata(inode).map(|metadata| metadata.kind) {
            Ok(filesystem::FileKind::Directory) => match fs.read_dir(inode) {
                Ok(entries) => todo.extend(entries.iter().map(|entry| entry.inode)),
                Err(_) => errors += 1,
            },
            Ok(filesystem::FileKind::Regular) => {
                errors += usize::from(fs.read_at(inode, &mut vec![0; 100_000], 0).is_err());
            }
            Ok(_) => {}
            Err(_) => errors += 1,
        }
        errors += usize::from(fs.xattrs(inode).is_err());
    }
    (files, errors)
}

#[test]
fn the_volume_of_the_ntfs_crate() {
    let Some(root) = corpus() else { return };
    let folder = tempfile::tempdir().unwrap();
    let opened = Ntfs::open(unpack(&root, "ntfs-rs/testfs1.xz", folder.path())).unwrap();
    assert!(opened.problems.is_empty(), "{:?}", opened.problems);
    let fs = opened.value;
    assert_eq!((fs.info().block_size, fs.info().size), (512, 2_096_640));
    assert_eq!(fs.info().label.as_deref(), Some(&b"mylabel"[..]));
    assert_eq!(content(&fs, "/empty-file"), b"");
    assert_eq!(names(&fs, "/many_subdirs").len(), 512);
    assert_eq!(inode(&fs, "/MANY_SUBDIRS/511"), inode(&fs, "/many_subdirs/511"));
    assert_eq!(walk(&fs), (518, 0));
}

#[test]
fn volumes_of_windows_and_others() {
    let Some(root) = corpus() else { return };
    let folder = tempfile::tempdir().unwrap();
    for (path, expected) in [
        ("ntfs-samples/ntfs-lastaccess.raw.gz", 9),
        ("dfir_ntfs/ntfs3_attrlist.raw.gz", 2),
        ("dfvfs/vss.raw.xz", 13),
        ("syzkaller/syz_mount_image_ntfs_10.syz", 7),
        ("syzkaller/syz_mount_image_ntfs_9.syz", 7),
    ] {
        let opened = Ntfs::open(unpack(&root, path, folder.path())).unwrap();
        assert!(opened.problems.is_empty(), "{path}: {:?}", opened.problems);
        assert_eq!(walk(&opened.value), (expected, 0), "{path}");
    }
}

#[test]
fn planted_faults() {
    let Some(root) = corpus() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    // The fault, what opening says, files and errors.
    for (fault, word, expected) in [
        ("bs_bytes_per_sector", "bytes_per_sector", (4, 0)),
        ("bs_filesystem_siganture", "oem_id", (4, 0)),
        ("bs_index_record_size", "clusters_per_index_record", (4, 0)),
        ("bs_mftmirror_cluster_number", "mftmirr_lcn", (4, 0)),
        ("bs_sector_per_cluster", "sectors_per_cluster", (4, 0)),
        ("bs_total_sectors", "mft_lcn", (4, 0)),
        ("mft_file_bad_base_mft_record", "$MFTMirr", (4, 0)),
        ("mft_file_bad_fixup_value_count", "usa_count", (4, 0)),
        ("mft_file_bad_fixup_value_offset", "usa_ofs", (4, 0)),
        ("mft_file_missing_data_attr", "$DATA", (420, 0)),
        ("mft_attr_bad_fields", "", (14, 11)),
        ("mft_record_bad_fields", "", (17, 15)),
    ] {
        let path = format!("ntfs-corrupted-images/created_manually/{fault}/ntfs.img.tar.xz");
        let opened = Ntfs::open(unpack(&root, &path, folder.path())).unwrap();
        let problems: Vec<String> = opened.problems.iter().map(ToString::to_string).collect();
        assert!(
            problems.iter().any(|problem| problem.contains(word)) || word.is_empty(),
            "{fault}: {problems:?}"
        );
        let found = walk(&opened.value);
        if found != expected {
            wrong.push(format!("{fault}: {found:?}, expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
