//! Reading what `mke2fs` and `debugfs` made, against the tree it was made from, against what those tools say,
//! and against another reader.

#![expect(clippy::unwrap_used, reason = "whatever fails, fails the test")]

#[cfg(test)]
mod support;

use std::path::Path;

use blockdev::MemoryDevice;
use filesystem::FileKind;
use filesystem_ext4::{FORMAT, backup};
use support::{
    Lab, MATRIX, ask_debugfs, debugfs, device, find_file, have, list, list_host, make_tree, open, run,
};

#[test]
fn trees_read_as_they_were_copied() {
    if !have(&["mke2fs", "mkfifo"]) {
        return;
    }
    let lab = Lab::new();
    let tree = lab.path("tree");
    make_tree(&tree);
    let mut expected = list_host(&tree);
    // The root's own owner and mode are those of the image, and /lost+found is new.
    expected.remove("");
    let mut compared = 0;
    for (name, args) in MATRIX {
        let Some(image) = lab.image(name, args, 40, Some(&tree)) else { continue };
        let mut found = list(&*open(device(&image)));
        found.remove("");
        found.remove("/lost+found");
        for (path, line) in &expected {
            // mke2fs 1.47.0 gives a file that ends in a hole a wrong length there; the kernel sees what we see.
            if args.contains("inline_data") && path == "/odd/sparse" {
                continue;
            }
            assert_eq!(found.get(path), Some(line), "{name}: {path}");
        }
        assert_eq!(found.len(), expected.len(), "{name}");
        compared += compare_with_ext4_view(&image, name);
        std::fs::remove_file(image).unwrap();
    }
    assert!(compared > 5000, "{compared}");
}

/// The other reader in Rust sees the same names, contents and targets, where it can read at all; returns how many
/// files that were.
fn compare_with_ext4_view(image: &Path, name: &str) -> usize {
    let bytes = std::fs::read(image).unwrap();
    let Ok(other) = ext4_view::Ext4::load(Box::new(bytes)) else { return 0 };
    let fs = open(device(image));
    let mut compared = 0;
    let mut todo = vec![(b"/".to_vec(), fs.root())];
    while let Some((path, inode)) = todo.pop() {
        let theirs = ext4_view::Path::try_from(path.as_slice()).unwrap();
        match fs.metadata(inode).unwrap().kind {
            FileKind::Directory => {
                let entries = fs.read_dir(inode).unwrap();
                let mut ours: Vec<Vec<u8>> = entries.iter().map(|entry| entry.name.clone()).collect();
                let Ok(found) = other.read_dir(theirs) else { continue };
                let mut names: Vec<Vec<u8>> =
                    found.map(|entry| entry.unwrap().file_name().as_ref().to_vec()).collect();
                names.retain(|name| !matches!(name.as_slice(), b"." | b".."));
                ours.sort();
                names.sort();
                assert!(ours == names, "{name}: {}", path.escape_ascii());
                for entry in entries {
                    todo.push((
                        [if path == b"/" { b"" } else { path.as_slice() }, b"/", &entry.name].concat(),
                        entry.inode,
                    ));
                }
            }
            FileKind::Regular => {
                let Ok(content) = other.read(theirs) else { continue };
                let ours = filesystem::read_to_end(&*fs, inode, 1 << 30).unwrap();
                assert!(content == ours, "{name}: {}", path.escape_ascii());
            }
            FileKind::Symlink => {
                let Ok(target) = other.read_link(theirs) else { continue };
                let ours = fs.read_link(inode).unwrap();
                assert!(target.as_path().as_ref() == ours.as_slice(), "{name}: {}", path.escape_ascii());
            }
            _ => continue,
        }
        compared += 1;
    }
    compared
}

#[test]
fn facts_agree_with_blkid_and_dumpe2fs() {
    if !have(&["mke2fs", "dumpe2fs", "blkid"]) {
        return;
    }
    let lab = Lab::new();
    for (name, args) in MATRIX {
        let Some(image) = lab.image(name, &format!("-L guest-{name:.9} {args}"), 40, None) else { continue };
        let identity = (FORMAT.probe)(&*device(&image)).unwrap().unwrap();
        let blkid = |tag: &str| {
            let output = run(
                "blkid",
                &["-p", "-o", "value", "-s", tag]
                    .map(AsRef::as_ref)
                    .iter()
                    .copied()
                    .chain([image.as_os_str()])
                    .collect::<Vec<_>>(),
            );
            String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
        };
        assert_eq!(identity.kind, blkid("TYPE"), "{name}");
        assert_eq!(identity.uuid.as_deref(), Some(blkid("UUID").as_str()), "{name}");
        assert_eq!(identity.label, Some(blkid("LABEL").into_bytes()), "{name}");
        assert_eq!(identity.size, std::fs::metadata(&image).unwrap().len(), "{name}");

        let dump = run("dumpe2fs", &["-h".as_ref(), image.as_os_str()]).stdout;
        let dump = String::from_utf8(dump).unwrap();
        let field = |name: &str| {
            let line = dump.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_once(':').unwrap().1.trim().to_owned()
        };
        let fs = open(device(&image));
        let info = fs.info();
        assert_eq!(info.features.join(" "), field("Filesystem features"), "{name}");
        let free: u64 = field("Free blocks").parse().unwrap();
        assert_eq!(info.free, Some(free * u64::from(info.block_size)), "{name}");
        assert_eq!((info.kind, &info.uuid), (identity.kind, &identity.uuid));
        assert!(!info.needs_recovery);
        std::fs::remove_file(image).unwrap();
    }
}

#[test]
fn nodes_and_attributes_that_only_debugfs_makes_without_root() {
    if !have(&["mke2fs", "debugfs"]) {
        return;
    }
    let lab = Lab::new();
    let long = "v".repeat(700);
    let large = "w".repeat(6000);
    for (name, args) in MATRIX {
        let Some(image) = lab.image(name, args, 40, None) else { continue };
        let source = lab.path("source");
        std::fs::write(&source, "content").unwrap();
        let said = debugfs(
            &image,
            &format!(
                "mknod block b 8 17\nmknod char c 3 200\nmknod pipe p\nwrite {} file\n\
                 ea_set file user.name value\nea_set file security.selinux system_u:object_r:etc_t:s0\n\
                 ea_set file trusted.empty \"\"\nea_set file user.long {long}\n",
                source.display(),
            ),
        );
        let fs = open(device(&image));
        let metadata = |path: &str| fs.metadata(find_file(&*fs, path)).unwrap();
        assert_eq!((metadata("/block").kind.letter(), metadata("/block").device), ('b', (8, 17)), "{name}");
        assert_eq!((metadata("/char").kind.letter(), metadata("/char").device), ('c', (3, 200)), "{name}");
        assert_eq!(metadata("/pipe").kind.letter(), 'p', "{name}");
        let file = find_file(&*fs, "/file");
        let xattr = |key: &str| fs.xattr(file, key.as_bytes()).unwrap();
        assert_eq!(xattr("user.name").unwrap(), b"value", "{name}: {said}");
        assert_eq!(xattr("security.selinux").unwrap(), b"system_u:object_r:etc_t:s0", "{name}");
        assert_eq!(xattr("user.long").unwrap(), long.as_bytes(), "{name}");
        assert_eq!(xattr("user.absent"), None, "{name}");
        if args.contains("ea_inode") {
            let said = debugfs(&image, &format!("ea_set file user.large {large}\n"));
            // What was opened before keeps blocks of metadata.
            let fs = open(device(&image));
            let found = fs.xattr(find_file(&*fs, "/file"), b"user.large").unwrap().unwrap();
            assert_eq!(found.len(), large.len(), "{said}");
        }
        std::fs::remove_file(image).unwrap();
    }
}

#[test]
fn other_things_are_not_recognised() {
    let probe = |bytes: Vec<u8>| (FORMAT.probe)(&MemoryDevice::new(bytes)).unwrap();
    assert_eq!(probe(vec![]), None);
    assert_eq!(probe(vec![0; 2047]), None);
    assert_eq!(probe(vec![0; 4096]), None);
    if !have(&["mke2fs"]) {
        return;
    }
    let lab = Lab::new();
    let Some(journal) = lab.image("journal", "-O journal_dev -b 4096", 40, None) else { return };
    assert_eq!((FORMAT.probe)(&*device(&journal)).unwrap(), None);
    let error = (FORMAT.open)(device(&journal)).err().unwrap().to_string();
    assert_eq!(error, "superblock: journal_dev (an external journal, not a file system) is not supported");
}

#[test]
fn wrong_kinds_and_numbers_are_refused() {
    if !have(&["mke2fs"]) {
        return;
    }
    let lab = Lab::new();
    let tree = lab.path("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("file"), "x").unwrap();
    let image = lab.image("ext4", "-t ext4", 8, Some(&tree)).unwrap();
    let fs = open(device(&image));
    let file = find_file(&*fs, "/file");
    let field = |error: ondisk::Error| error.as_corrupt().unwrap().field;
    assert_eq!(field(fs.read_dir(file).unwrap_err()), "i_mode");
    assert_eq!(field(fs.read_link(file).unwrap_err()), "i_mode");
    assert_eq!(field(fs.read_at(fs.root(), &mut [0; 4], 0).unwrap_err()), "i_mode");
    for number in [0, 1 << 20, u64::MAX] {
        assert_eq!(field(fs.metadata(filesystem::Inode(number)).unwrap_err()), "number");
    }
    assert!(fs.writable().is_none());
}

/// A checksum that does not fit is named with its structure and place.
#[test]
fn damaged_metadata_is_named() {
    if !have(&["mke2fs", "mkfifo"]) {
        return;
    }
    let lab = Lab::new();
    let tree = lab.path("tree");
    make_tree(&tree);
    let image = lab.image("ext4", "-t ext4 -b 1024", 40, Some(&tree)).unwrap();
    let good = std::fs::read(&image).unwrap();
    let open_changed = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        let device = std::sync::Arc::new(MemoryDevice::new(bytes));
        (FORMAT.open)(device).unwrap()
    };
    // Mount count; then the free inodes of group 1, whose descriptor is the second at block 2.
    let structures = |at: usize| -> Vec<&'static str> {
        open_changed(at).problems.iter().map(|problem| problem.as_corrupt().unwrap().structure).collect()
    };
    assert_eq!(structures(1024 + 0x34), ["superblock"]);
    assert_eq!(structures(2048 + 64 + 0xe), ["group descriptor"]);
    assert_eq!(structures(good.len() - 1), [""; 0]);

    let fs = open(device(&image));
    let at = |path: &str| {
        let text = ask_debugfs(&image, &format!("imap {path}"));
        let (block, offset) = text.split_once("at block ").unwrap().1.split_once(", offset ").unwrap();
        let block: usize = block.parse().unwrap();
        block * 1024 + usize::from_str_radix(offset.trim().trim_start_matches("0x"), 16).unwrap()
    };
    let root = fs.root();
    let corrupt = open_changed(at("/boot/big") + 2).value.metadata(find_file(&*fs, "/boot/big")).unwrap_err();
    assert_eq!(corrupt.as_corrupt().unwrap().structure, "inode");
    assert_eq!(corrupt.as_corrupt().unwrap().offset, at("/boot/big") as u64);
    let block = |path: &str, number: u32| -> usize {
        ask_debugfs(&image, &format!("bmap {path} {number}")).trim().parse().unwrap()
    };
    let leaf = block("/", 0) * 1024;
    let corrupt = open_changed(leaf + 100).value.read_dir(root).unwrap_err();
    assert_eq!(corrupt.as_corrupt().unwrap().structure, "directory block");
    assert_eq!(corrupt.as_corrupt().unwrap().offset, leaf as u64);
    let text = ask_debugfs(&image, "htree_dump /dirs/d1200");
    if text.contains("Root node dump") {
        let index = block("/dirs/d1200", 0) * 1024;
        let corrupt = open_changed(index + 0x2a).value.read_dir(find_file(&*fs, "/dirs/d1200")).unwrap_err();
        assert_eq!(corrupt.as_corrupt().unwrap().structure, "directory index block");
    }
}

/// A copy of the superblock, or of a descriptor, that says something else is named; where the primary one is gone
/// the copy is found; and files whose descriptor is damaged are read through its copy.
#[test]
fn copies_are_compared_and_used() {
    if !have(&["mke2fs", "mkfifo", "e2fsck"]) {
        return;
    }
    let lab = Lab::new();
    let tree = lab.path("tree");
    make_tree(&tree);
    let mut expected = list_host(&tree);
    expected.remove("");
    let cases = [
        ("sparse", "-t ext4 -b 1024"),
        ("all", "-t ext4 -b 1024 -O ^sparse_super,^resize_inode"),
        ("two", "-t ext4 -b 1024 -O sparse_super2"),
        ("meta_bg", "-t ext4 -b 1024 -O meta_bg,^resize_inode"),
        ("ext2", "-t ext2 -b 1024"),
    ];
    for (name, args) in cases {
        let image = lab.image(name, args, 40, Some(&tree)).unwrap();
        let good = std::fs::read(&image).unwrap();
        // Group 1 begins at block 8193 of 1024 bytes.
        let copy = 8193 * 1024;
        let opened = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            let device: blockdev::Device = std::sync::Arc::new(MemoryDevice::new(bytes));
            (FORMAT.open)(device.clone()).map(|opened| (opened, device))
        };
        let named = |change: &dyn Fn(&mut Vec<u8>)| -> Vec<(&'static str, &'static str)> {
            let problems = opened(change).unwrap().0.problems;
            let place = |problem: &ondisk::Error| {
                let corrupt = problem.as_corrupt().unwrap();
                (corrupt.structure, corrupt.field)
            };
            problems.iter().map(place).collect()
        };
        assert_eq!(named(&|_| ()), [], "{name}");
        assert_eq!(named(&|bytes| bytes[copy + 0x28] ^= 1), [("backup superblock", "s_inodes_per_group")]);
        assert_eq!(named(&|bytes| bytes[copy + 0x6a] ^= 1), [("backup superblock", "s_uuid")], "{name}");
        assert_eq!(named(&|bytes| bytes[copy + 0x5a] ^= 8), [("backup superblock", "s_block_group_nr")]);
        let found = named(&|bytes| bytes[copy + 1024 + 8] ^= 1);
        assert_eq!(found, [("backup group descriptor", "bg_inode_table")], "{name}");

        // The inode table of group 0 seems to lie far outside.
        let (damaged, device) = opened(&|bytes| bytes[2048 + 8..2048 + 12].fill(0x7f)).unwrap();
        assert_eq!(damaged.problems[0].as_corrupt().unwrap().structure, "group descriptor", "{name}");
        let mut files = list(&*damaged.value);
        files.retain(|path, _| !matches!(path.as_str(), "" | "/lost+found"));
        assert_eq!(files, expected, "{name}");
        let restored = backup::restored(device).unwrap();
        assert!(!restored.problems.is_empty() && list(&*open(restored.value)).len() > files.len());

        let mut bytes = good.clone();
        bytes[..2048].fill(0);
        let device: blockdev::Device = std::sync::Arc::new(MemoryDevice::new(bytes));
        assert_eq!((FORMAT.probe)(&*device).unwrap(), None);
        let error = (FORMAT.open)(device.clone()).err().unwrap().to_string();
        assert!(error.contains(&format!("good copies lie at byte {copy} (group 1)")), "{name}: {error}");
        let restored = backup::restored(device).unwrap();
        let mut files = list(&*open(restored.value.clone()));
        files.retain(|path, _| !matches!(path.as_str(), "" | "/lost+found"));
        assert_eq!(files, expected, "{name}");
        std::fs::remove_file(image).unwrap();
    }
}
