//! Reading images that real tools made.

use std::sync::Arc;

use crate::common::{Image, Tree, content, forks, inode, open, pattern};
use blockdev::{BlockDevice, BlockDeviceMut, Counter, Device, MemoryDevice, Overlay};
use filesystem::{FileKind, FileSystem};
use filesystem_xfs::FORMAT;

/// Every layout of blocks, sectors, inodes and directories that changes a code path.
const LAYOUTS: [&str; 11] = [
    "",
    "-m crc=1,finobt=0,reflink=0,bigtime=0 -i sparse=0",
    "-b size=1024",
    "-b size=1024 -n size=65536",
    "-b size=65536 -i size=2048",
    "-s size=4096",
    "-i nrext64=1 -m rmapbt=1",
    "-m crc=0,finobt=0,reflink=0 -n ftype=0",
    "-m crc=0,finobt=0,reflink=0 -n ftype=1 -i size=256",
    "-m crc=0,finobt=0,reflink=0 -b size=512 -n ftype=0,size=4096 -i size=256",
    "-m crc=0,finobt=0,reflink=0 -l version=1 -n ftype=0 -i attr=1,projid32bit=0",
];

const SIZES: [usize; 8] = [0, 1, 60, 4095, 4096, 4097, 65_536, 1_000_003];
const TARGETS: [usize; 6] = [1, 59, 156, 400, 1000, 1023];
/// `mkfs.xfs -p` (6.1) puts targets that do not fit the inode into blocks without the header that version 5
/// asks for, which no kernel reads; the image that a kernel made has such a link.
const LONGEST_TARGET_V5: usize = 300;
const ENTRIES: [usize; 4] = [0, 10, 200, 3000];

fn target(length: usize) -> String {
    "/path-".repeat(200)[..length].to_owned()
}

fn entry(number: usize) -> String {
    format!("entry-{number}-{}", "n".repeat(number % 50))
}

fn tree(longest_target: usize) -> Tree {
    let files = SIZES.iter().fold(Tree::new(), |tree, size| tree.file(&format!("f{size}"), pattern(*size)));
    let links = TARGETS
        .iter()
        .filter(|length| **length <= longest_target)
        .fold(Tree::new(), |tree, length| tree.symlink(&format!("l{length}"), &target(*length)));
    let directories = ENTRIES.iter().fold(Tree::new(), |tree, count| {
        let inner = (0..*count).fold(Tree::new(), |tree, number| tree.fifo(&entry(number)));
        tree.directory(&format!("d{count}"), inner)
    });
    Tree::new().directory("files", files).directory("links", links).directory("directories", directories)
}

fn check_tree(fs: &dyn FileSystem, stores_kinds: bool, longest_target: usize) {
    for size in SIZES {
        let path = format!("/files/f{size}");
        assert_eq!(content(fs, &path), pattern(size), "{path}");
        let metadata = fs.metadata(inode(fs, &path)).unwrap();
        assert_eq!((metadata.kind, metadata.size), (FileKind::Regular, size as u64));
        assert_eq!((metadata.permissions, metadata.uid, metadata.gid, metadata.links), (0o640, 10, 20, 1));
        assert!(metadata.modified.seconds > 1_700_000_000 && metadata.modified.seconds < 1 << 33);
    }
    for length in TARGETS.into_iter().filter(|length| *length <= longest_target) {
        let link = inode(fs, &format!("/links/l{length}"));
        assert_eq!(fs.read_link(link).unwrap(), target(length).into_bytes());
    }
    for count in ENTRIES {
        let directory = inode(fs, &format!("/directories/d{count}"));
        let mut found = fs.read_dir(directory).unwrap();
        let kind = if stores_kinds { FileKind::Fifo } else { FileKind::Unknown };
        assert!(found.iter().all(|entry| entry.kind == kind));
        found.sort_by_key(|entry| entry.inode);
        let names: Vec<String> =
            found.into_iter().map(|entry| String::from_utf8(entry.name).unwrap()).collect();
        assert_eq!(names.len(), count);
        let mut expected: Vec<String> = (0..count).map(entry).collect();
        let mut sorted = names;
        expected.sort();
        sorted.sort();
        assert_eq!(sorted, expected);
        assert_eq!(fs.lookup(directory, b"absent").unwrap(), None);
    }
}

#[test]
fn every_layout_reads_what_mkfs_wrote() {
    for options in LAYOUTS {
        let longest_target = if options.contains("crc=0") { usize::MAX } else { LONGEST_TARGET_V5 };
        // 64 KiB blocks need a larger log.
        let mebibytes = if options.contains("65536 -i") { 300 } else { 48 };
        let Some(image) = Image::sized(mebibytes, options, &tree(longest_target)) else { return };
        let device = Arc::new(blockdev::FileDevice::open(&image.path()).unwrap());
        let fs = open(device);
        check_tree(&*fs, !options.contains("ftype=0"), longest_target);
        assert!(!fs.info().needs_recovery, "{options}");
    }
}

#[test]
fn attributes_in_the_inode_in_leaves_and_in_blocks_of_their_own() {
    let v4 = "-m crc=0,finobt=0,reflink=0";
    for options in ["", "-b size=1024", v4, &format!("{v4} -b size=512 -i size=256")] {
        let Some(image) = Image::make(options, &Tree::new().file("f", "x")) else { return };
        let mut expected = Vec::new();
        let mut add = |commands: &mut Vec<String>, flag: &str, prefix: &str, name: &str, length: usize| {
            commands.push(format!("attr_set -{flag} -v {length} {name}"));
            expected.push((format!("{prefix}.{name}").into_bytes(), vec![b'v'; length]));
        };
        let mut rounds: Vec<Vec<String>> = vec![vec![], vec![], vec![]];
        add(&mut rounds[0], "s", "security", "selinux", 30);
        add(&mut rounds[0], "u", "user", "small", 5);
        add(&mut rounds[1], "r", "trusted", "large", 3000);
        add(&mut rounds[1], "u", "user", "larger", 20_000);
        for number in 0..40 {
            add(&mut rounds[2], "u", "user", &format!("many{number}"), 100 + number);
        }
        let mut count = 0;
        for commands in rounds {
            count += commands.len();
            for command in &commands {
                if !image.edit(&["path /f", command]) {
                    return;
                }
            }
            let fs = open(image.device());
            let file = inode(&*fs, "/f");
            let mut found = fs.xattrs(file).unwrap();
            found.sort();
            let mut so_far = expected[..count].to_vec();
            so_far.sort();
            assert!(found == so_far, "{options}: {found:?}");
            assert_eq!(fs.xattr(file, b"security.selinux").unwrap(), Some(vec![b'v'; 30]));
            assert_eq!(fs.xattr(file, b"user.selinux").unwrap(), None);
            assert_eq!(fs.xattrs(fs.root()).unwrap(), []);
        }
    }
}

#[test]
fn probing_names_the_file_system() {
    let options = "-m uuid=01234567-89AB-cdef-0123-456789abcdef -L boot";
    let Some(image) = Image::make(options, &Tree::new()) else { return };
    let device = Counter::new(image.device());
    let identity = (FORMAT.probe)(&device).unwrap().unwrap();
    assert_eq!(device.reads(), 1, "the superblock is enough");
    assert_eq!(identity.kind, "xfs");
    assert_eq!(identity.uuid.as_deref(), Some("01234567-89ab-cdef-0123-456789abcdef"));
    assert_eq!(identity.label.as_deref(), Some(&b"boot"[..]));
    assert_eq!(identity.size, 32 << 20);
    let fs = open(image.device());
    assert_eq!(fs.info().uuid, identity.uuid);
    for feature in ["crc", "ftype", "finobt"] {
        assert!(fs.info().features.iter().any(|name| name == feature), "{:?}", fs.info().features);
    }
    let replayed = (FORMAT.replay)(image.device()).unwrap();
    assert_eq!(replayed.transactions, 0);
}

#[test]
fn other_things_are_not_xfs() {
    for bytes in [vec![], vec![0; 100], vec![0; 4096], b"XFSB".repeat(1024)] {
        let device = MemoryDevice::new(bytes);
        assert_eq!((FORMAT.probe)(&device).unwrap(), None);
        assert!((FORMAT.open)(Arc::new(device)).is_err());
    }
}

#[test]
fn trees_of_extents_and_what_only_a_kernel_makes() {
    let fs = open(forks());
    let fs = &*fs;
    assert_eq!(fs.info().label.as_deref(), Some(&b"forks"[..]));
    assert_eq!(fs.info().uuid.as_deref(), Some("0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"));
    assert!(fs.info().features.contains(&"metauuid".to_owned()));
    let mut expected = Vec::new();
    for block in 0..1300_u32 {
        let number = if block % 2 == 0 { block } else { 0 };
        expected.extend(number.to_be_bytes().repeat(256));
    }
    assert_eq!(content(fs, "/fragmented"), expected);
    let fragmented = inode(fs, "/fragmented");
    for (offset, length) in
        [(0, 1), (1023, 2), (700_000, 5000), (1_331_199, 10), (1_331_200, 10), (1 << 60, 1)]
    {
        let mut buf = vec![9; length];
        let count = fs.read_at(fragmented, &mut buf, offset).unwrap();
        let start = usize::try_from(offset).unwrap().min(expected.len());
        assert_eq!(buf[..count], expected[start..(start + length).min(expected.len())]);
    }
    let sparse = [vec![b'a'; 1500], vec![0; 3500], vec![b'b'; 500]].concat();
    assert_eq!(content(fs, "/sparse"), sparse);
    assert!(fs.metadata(inode(fs, "/sparse")).unwrap().allocated > 8192);
    assert_eq!(content(fs, "/shared-2"), b"shared ".repeat(1000));
    assert_eq!(content(fs, "/unshared"), b"own ".repeat(1750));
    assert_eq!(fs.read_link(inode(fs, "/link")).unwrap(), format!("/{}", "target/".repeat(140)).into_bytes());
    let linked = inode(fs, "/linked");
    let entries = fs.read_dir(inode(fs, "/directory")).unwrap();
    assert!(entries.len() == 600 && entries.iter().all(|entry| entry.inode == linked));
    assert_eq!(fs.metadata(linked).unwrap().links, 601);
    let attributes = inode(fs, "/attributes");
    assert_eq!(fs.xattrs(attributes).unwrap().len(), 63);
    let value = |name: &str| fs.xattr(attributes, name.as_bytes()).unwrap().unwrap();
    assert_eq!(value("user.number-07"), b"07".repeat(30));
    assert_eq!(value("user.large"), b"0123456789abcdef".repeat(600));
    assert_eq!(value("trusted.largest"), b"0123456789abcdef".repeat(4096));
    assert_eq!(value("security.selinux"), b"system_u:object_r:etc_t:s0\0");
}

/// The last place of `needle` inside a block of 1 KiB: earlier ones may be left over from smaller forms of the
/// same structure.
fn find(device: &MemoryDevice, needle: &[u8]) -> u64 {
    let bytes = device.to_vec();
    let place = |(number, block): (usize, &[u8])| {
        // Comparing whole blocks is fast without optimisation, and most of them are zeros.
        let within = (block != [0; 1024]).then(|| block.windows(needle.len()).rposition(|it| it == needle));
        within.flatten().map(|within| (number * 1024 + within) as u64)
    };
    bytes.chunks(1024).enumerate().filter_map(place).next_back().unwrap()
}

/// The bytes at 0x98 of an inode of the kernel-made image, whose metadata UUID is not the one that users see.
fn number_and_uuid(inode: filesystem::Inode) -> Vec<u8> {
    let uuid = 0xea3a_9f77_65f9_4b6f_bc4b_0416_c3f1_8591_u128;
    [&inode.0.to_be_bytes()[..], &uuid.to_be_bytes()].concat()
}

#[test]
fn one_flipped_bit_is_found_where_it_is() {
    let device = forks();
    let fs = open(device.clone());
    let (link, directory) = (inode(&*fs, "/link"), inode(&*fs, "/directory"));
    let (attributes, fragmented) = (inode(&*fs, "/attributes"), inode(&*fs, "/fragmented"));
    // Flips a bit and reads: the damage is named, at the start of its block of at most 4 KiB.
    let check = |at: u64, structure: &str, read: &dyn Fn(&dyn FileSystem) -> Option<ondisk::Error>| {
        let overlay = Overlay::new(device.clone());
        let mut byte = [0];
        overlay.read_exact_at(&mut byte, at).unwrap();
        overlay.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
        let fs = open(Arc::new(overlay));
        let error = read(&*fs).expect("the damage is found");
        let corrupt = error.as_corrupt().expect("damage");
        assert_eq!((corrupt.structure, corrupt.field), (structure, "checksum"));
        assert!((corrupt.offset..corrupt.offset + 4096).contains(&at));
    };
    check(find(&device, b"target/target/"), "symlink block", &|fs| fs.read_link(link).err());
    let name = find(&device, b"some-room-0599");
    check(name, "directory block", &|fs| fs.read_dir(directory).err());
    check(name, "directory block", &|fs| fs.lookup(directory, b"absent").err());
    check(find(&device, b"number-07"), "attribute leaf", &|fs| fs.xattrs(attributes).err());
    let large = find(&device, b"large");
    check(large, "attribute leaf", &|fs| fs.xattr(attributes, b"user.large").err());
    let value = find(&device, &b"0123456789abcdef".repeat(60));
    check(value, "attribute value block", &|fs| fs.xattrs(attributes).err());
    check(find(&device, &number_and_uuid(link)), "inode", &|fs| fs.metadata(link).err());
    let block = |fs: &dyn FileSystem| filesystem::read_to_end(fs, fragmented, 1 << 22).err();
    check(find(&device, b"BMA3\0\x01") + 20, "extent btree block", &block);
    check(find(&device, b"BMA3\0\0") + 500, "extent btree block", &block);
}

#[test]
fn a_device_that_lost_its_end_is_read_as_far_as_it_goes() {
    let Some(image) = Image::make("", &Tree::new().file("f", "content")) else { return };
    let whole = image.device();
    let short: Device = Arc::new(blockdev::Slice::new(whole, 0, 20 << 20).unwrap());
    let opened = (FORMAT.open)(short).unwrap();
    let problem = opened.problems[0].as_corrupt().unwrap();
    assert_eq!(problem.field, "sb_dblocks");
    assert_eq!(content(&*opened.value, "/f"), b"content");
}

#[test]
fn wrong_kinds_and_wrong_numbers_are_damage() {
    let Some(image) = Image::make("", &Tree::new().file("f", "x").fifo("p")) else { return };
    let fs = open(image.device());
    let (file, root) = (inode(&*fs, "/f"), fs.root());
    assert!(fs.read_dir(file).is_err());
    assert!(fs.read_at(root, &mut [0], 0).is_err());
    assert!(fs.read_at(inode(&*fs, "/p"), &mut [0], 0).is_err());
    assert!(fs.read_link(file).is_err());
    for number in [0, 1, root.0 + 40, u64::MAX, 1 << 40] {
        assert!(fs.metadata(filesystem::Inode(number)).is_err(), "{number}");
    }
}

#[test]
fn a_bad_copy_of_the_superblock_is_a_problem_and_nothing_more() {
    let Some(image) = Image::make("-d agcount=2", &Tree::new().file("f", "x")) else { return };
    let device = Arc::new(Overlay::new(image.device()));
    let opened = (FORMAT.open)(device.clone()).unwrap();
    let mut word = [0; 4];
    device.read_exact_at(&mut word, 0x54).unwrap();
    let second = u64::from(u32::from_be_bytes(word)) * u64::from(opened.value.info().block_size);
    device.write_all_at(&[1], second + 0x5b).unwrap();
    let opened = (FORMAT.open)(device).unwrap();
    let corrupt = opened.problems[0].as_corrupt().unwrap();
    assert_eq!(
        (corrupt.structure, corrupt.offset, corrupt.field),
        ("secondary superblock", second, "checksum")
    );
    assert_eq!((opened.problems.len(), content(&*opened.value, "/f")), (1, b"x".to_vec()));
}
