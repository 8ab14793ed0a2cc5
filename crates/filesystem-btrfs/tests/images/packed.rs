//! One device with everything that a kernel makes; see `btrfs-one.img.toml`.

use std::sync::Arc;

use crate::common::{content, hole, inode, names, open, patch, structures, text, unpack, walk};
use blockdev::{Device, Overlay};
use filesystem::{FileKind, FileSystem, Timestamp};
use filesystem_btrfs::{FORMAT, Select, open_subvolume, subvolumes, superblocks};

fn top(device: &Device) -> Box<dyn FileSystem> {
    let opened = open_subvolume(vec![device.clone()], Select::Id(5)).unwrap();
    assert!(opened.problems.is_empty(), "{:?}", opened.problems);
    opened.value
}

fn one() -> Device {
    unpack("btrfs-one")
}

#[test]
fn files() {
    let device = one();
    let fs = &*top(&device);
    for codec in ["zlib", "lzo", "zstd"] {
        for length in [100, 1500, 5000, 300_001] {
            assert_eq!(content(fs, &format!("/{codec}/text{length}")), text(length), "{codec} {length}");
        }
        assert_eq!(content(fs, &format!("/{codec}/zeros")), vec![0; 200_000]);
        let mut patched = text(200_000);
        for at in [30_000, 100_000, 150_001] {
            patched[at..at + 5000].fill(b'x');
        }
        assert_eq!(content(fs, &format!("/{codec}/patched")), patched);
        // Small pieces go through what is kept of decompressed extents.
        let file = inode(fs, &format!("/{codec}/patched"));
        let mut pieces = Vec::new();
        let mut buf = [0; 3001];
        loop {
            match fs.read_at(file, &mut buf, pieces.len() as u64).unwrap() {
                0 => break,
                count => pieces.extend_from_slice(&buf[..count]),
            }
        }
        assert_eq!(pieces, patched);
    }
    assert_eq!(content(fs, "/files/empty"), []);
    assert_eq!(content(fs, "/files/inline"), text(2000));
    assert_eq!(content(fs, "/files/plain"), text(10_001));
    assert_eq!(content(fs, "/files/cloned"), text(10_001));
    assert_eq!(content(fs, "/files/unsummed"), text(9000));
    let mut sparse = vec![0; 100_000];
    sparse[..5000].fill(b'a');
    sparse[50_000..55_000].fill(b'b');
    assert_eq!(content(fs, "/files/sparse"), sparse);
    let mut reserved = vec![0; 65_536];
    reserved[20_000..21_000].fill(b'c');
    assert_eq!(content(fs, "/files/reserved"), reserved);
    let fragmented = content(fs, "/files/fragmented");
    assert_eq!(fragmented.len(), 399 * 8192 + 4096);
    for (number, block) in fragmented.chunks(8192).enumerate() {
        assert_eq!(block[..4096], *format!("{number:04}").repeat(1024).as_bytes());
        assert!(block[4096..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn metadata_and_names() {
    let device = one();
    let fs = &*top(&device);
    let meta = |path: &str| fs.metadata(inode(fs, path)).unwrap();
    let plain = meta("/files/plain");
    assert_eq!((plain.permissions, plain.uid, plain.gid, plain.size), (0o4751, 1000, 100_000, 10_001));
    assert_eq!((plain.accessed, plain.links), (Timestamp { seconds: 0, nanoseconds: 1 }, 1));
    assert_eq!(plain.modified, Timestamp { seconds: 1_700_000_000, nanoseconds: 123_456_789 });
    assert_eq!((plain.allocated, meta("/files/inline").links), (12_288, 2));
    assert_eq!(inode(fs, "/nodes/hard"), inode(fs, "/files/inline"));
    for (name, kind, numbers) in [
        ("fifo", FileKind::Fifo, (0, 0)),
        ("char", FileKind::CharDevice, (4, 65)),
        ("block", FileKind::BlockDevice, (259, 200_000)),
        ("socket", FileKind::Socket, (0, 0)),
        ("link", FileKind::Symlink, (0, 0)),
    ] {
        let meta = meta(&format!("/nodes/{name}"));
        assert_eq!((meta.kind, meta.device), (kind, numbers), "{name}");
    }
    assert_eq!(fs.read_link(inode(fs, "/nodes/link")).unwrap(), b"target");
    assert_eq!(fs.read_link(inode(fs, "/nodes/long")).unwrap(), [b"/", &[b't'; 1500][..]].concat());
    let file = inode(fs, "/files/plain");
    let mut xattrs = fs.xattrs(file).unwrap();
    xattrs.sort();
    assert_eq!(xattrs.len(), 3);
    assert_eq!(xattrs[1], (b"user.large".to_vec(), b"0123456789".repeat(300)));
    assert_eq!(fs.xattr(file, b"security.selinux").unwrap().unwrap(), b"system_u:object_r:etc_t:s0\0");
    assert_eq!(fs.xattr(file, b"user.none").unwrap(), None);
    let many = names(fs, "/many");
    assert_eq!(many.len(), 502);
    // These two names have the same hash.
    let dir = inode(fs, "/many");
    let (one, other) = (fs.lookup(dir, b"ABCDE").unwrap(), fs.lookup(dir, b"\xb04\xafAD").unwrap());
    assert!(one.is_some() && other.is_some() && one != other);
    assert_eq!(fs.lookup(dir, b"ABCDF").unwrap(), None);
    assert!(fs.read_dir(file).is_err() && fs.read_link(file).is_err());
    assert!(fs.read_at(dir, &mut [0; 10], 0).is_err());
}

#[test]
fn subvolumes_are_shown_as_the_kernel_does() {
    let device = one();
    let list = subvolumes(vec![device.clone()]).unwrap();
    assert!(list.problems.is_empty());
    let shown: Vec<_> = list
        .value
        .iter()
        .map(|found| {
            let path = String::from_utf8(found.path.clone().unwrap()).unwrap();
            (path, found.parent, found.is_default, found.is_read_only, found.is_snapshot())
        })
        .collect();
    let [top_level, root, var, snapshot] = &shown[..] else { panic!("{shown:?}") };
    let root_id = list.value[1].id;
    assert_eq!(*top_level, (String::new(), None, false, false, false));
    assert_eq!(*root, ("@".into(), Some(5), true, false, false));
    assert_eq!(*var, ("@/var".into(), Some(root_id), false, false, false));
    assert_eq!(*snapshot, ("snapshots".into(), Some(5), false, true, true));
    assert_eq!(list.value[3].parent_uuid, Some(list.value[1].uuid));

    let default = &*open(vec![device.clone()]);
    assert_eq!(names(default, "/"), ["etc", "var"]);
    assert_eq!(content(default, "/etc/fstab"), b"changed\n");
    assert_eq!(content(default, "/var/log"), b"log\n");
    assert_eq!(default.root(), filesystem::Inode(256));
    assert_ne!(inode(default, "/var"), default.root());

    let fs = &*top(&device);
    assert_eq!(content(fs, "/@/etc/fstab"), b"changed\n");
    assert_eq!(content(fs, "/@/var/log"), b"log\n");
    assert_eq!(content(fs, "/snapshots/etc/fstab"), b"UUID=x / btrfs subvol=@ 0 0\n");
    // A snapshot does not hold the subvolumes below; an empty directory stands there.
    let placeholder = inode(fs, "/snapshots/var");
    let meta = fs.metadata(placeholder).unwrap();
    assert_eq!((meta.kind, meta.permissions, meta.links), (FileKind::Directory, 0o755, 1));
    assert!(fs.read_dir(placeholder).unwrap().is_empty());
    assert_eq!(fs.lookup(placeholder, b"log").unwrap(), None);
    assert!(fs.xattrs(placeholder).unwrap().is_empty());
    // Numbers are unique, though each subvolume counts from 256.
    let all = walk(fs, 10_000);
    assert!(all.errors.is_empty(), "{:?}", all.errors);
    let inodes: std::collections::HashSet<_> =
        ["/", "/@", "/@/var", "/snapshots", "/snapshots/var"].iter().map(|path| inode(fs, path)).collect();
    assert_eq!(inodes.len(), 5);

    let at = |select: Select<'_>| open_subvolume(vec![device.clone()], select);
    assert_eq!(content(&*at(Select::Path(b"@/var")).unwrap().value, "/log"), b"log\n");
    assert_eq!(names(&*at(Select::Path(b"/snapshots")).unwrap().value, "/"), ["etc", "var"]);
    assert_eq!(names(&*at(Select::Id(root_id)).unwrap().value, "/"), ["etc", "var"]);
    assert!(names(&*at(Select::Id(0)).unwrap().value, "/").contains(&"many".to_owned()));
    let text = |select: Select<'_>| at(select).map(|_| ()).unwrap_err().to_string();
    assert_eq!(text(Select::Path(b"@/etc")), "subvolume cannot be read: @/etc is not a subvolume");
    assert!(text(Select::Path(b"snapshots/var")).ends_with("snapshots/var is not a subvolume"));
    assert!(text(Select::Path(b"@home")).ends_with("/@home: no such file or directory"));
    assert_eq!(text(Select::Id(999)), "subvolume cannot be read: there is no subvolume 999");
    assert_eq!(text(Select::Id(7)), "subvolume cannot be read: there is no subvolume 7");
}

#[test]
fn identity_and_info() {
    let device = one();
    let identity = (FORMAT.probe)(&*device).unwrap().unwrap();
    assert_eq!((identity.kind, identity.size), ("btrfs", 32 << 20));
    assert_eq!(identity.uuid.as_deref(), Some("0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"));
    assert_eq!(identity.label.as_deref(), Some(&b"one device"[..]));
    let fs = open(vec![device.clone()]);
    let info = fs.info();
    assert_eq!((info.block_size, info.size, info.needs_recovery), (4096, 32 << 20, false));
    assert!(
        ["mixed_groups", "compress_lzo", "compress_zstd", "default_subvol"]
            .iter()
            .all(|name| info.features.contains(&(*name).to_owned()))
    );
    assert_eq!((FORMAT.replay)(device).unwrap().transactions, 0);
    assert!((FORMAT.probe)(&*hole(1 << 20)).unwrap().is_none());
    assert!((FORMAT.probe)(&*hole(1 << 10)).unwrap().is_none());
}

#[test]
fn a_log_tree_is_named_and_not_replayed() {
    let device: Device = unpack("btrfs-log");
    let reason = (FORMAT.replay)(device.clone()).unwrap_err().to_string();
    assert!(reason.starts_with("log tree: replaying the log tree (files are as of commit "), "{reason}");
    let fs = &*open(vec![device]);
    assert!(fs.info().needs_recovery);
    assert_eq!(content(fs, "/fstab"), b"old\n");
}

/// An image with one thing changed, and what opening it says.
fn damaged(change: impl FnOnce(&Overlay)) -> (Device, Vec<String>) {
    let overlay = Arc::new(Overlay::new(one()));
    change(&overlay);
    let device: Device = overlay;
    let problems = match (FORMAT.open)(device.clone()) {
        Ok(opened) => opened.problems.iter().map(ToString::to_string).collect(),
        Err(error) => vec![format!("refused: {error}")],
    };
    (device, problems)
}

#[test]
fn damage_of_the_superblock_is_named() {
    let superblock = (64 << 10, 4096);
    let text = |change: &dyn Fn(&mut [u8])| {
        let (_, problems) = damaged(|device| patch(device, superblock, change));
        problems.join("; ")
    };
    let at = "superblock at byte 65536";
    assert_eq!(
        text(&|b| b[0xc2] = 1),
        "refused: superblock: the incompatible feature bit 48 is not supported"
    );
    assert_eq!(
        text(&|b| b[0x90] = 1),
        format!("refused: {at}: sectorsize is 4097, expected a power of two from 4096 to 65536")
    );
    assert_eq!(text(&|b| b[0x30] = 1), format!("refused: {at}: bytenr is 65537, expected 65536"));
    assert_eq!(text(&|b| b[0xc4] = 9), "refused: superblock: the checksum type 9 is not supported");
    assert_eq!(
        text(&|b| b[0x88] = 2),
        format!("{at}: num_devices is 2, expected 1 as there are device items")
    );
    assert!(text(&|b| b[0xa0] = 5).starts_with("refused: sys_chunk_array at byte 65536: size is 5"));
    assert!(text(&|b| b[0x5c] = 1).starts_with("refused: logical address cannot be read: no chunk holds"));
    let (_, problems) = damaged(|device| {
        blockdev::BlockDeviceMut::write_all_at(device, b"x", (64 << 10) + 0x200).unwrap();
    });
    assert!(problems[0].starts_with(&format!("refused: {at}: csum is 0x")), "{problems:?}");
    // Another generation than the root block has: an older root is taken, and it is said.
    let changed = text(&|b| b[0x48] ^= 1);
    assert!(changed.contains("generation is ") && changed.contains("from a backup root"), "{changed}");
}

#[test]
fn copies_of_the_superblock_are_compared() {
    // 128 MiB of which the file system takes 32, with a second superblock as mkfs would put it there.
    let device = hole(128 << 20);
    let image = unpack("btrfs-one").to_vec();
    let write = |bytes: &[u8], at: u64| blockdev::BlockDeviceMut::write_all_at(&*device, bytes, at).unwrap();
    write(&image, 0);
    write(&image[64 << 10..68 << 10], 64 << 20);
    patch(&*device, (64 << 20, 4096), |bytes| {
        bytes[0x30..0x38].copy_from_slice(&(64_u64 << 20).to_le_bytes());
    });
    let open = || (FORMAT.open)(device.clone() as Device).unwrap();
    let problems = || open().problems.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(problems().is_empty());
    assert!(superblocks(&*device).iter().all(|copy| copy.generation.is_ok()));
    patch(&*device, (64 << 20, 4096), |bytes| bytes[0x48] ^= 1);
    assert!(problems()[0].starts_with("superblock at byte 67108864: generation is "), "{:?}", problems());
    patch(&*device, (64 << 20, 4096), |bytes| bytes[0x48] ^= 1);
    // The first gone, the second leads on.
    write(&[0; 4096], 64 << 10);
    let opened = open();
    assert_eq!(opened.problems.len(), 1);
    assert!(opened.problems[0].to_string().starts_with("superblock at byte 65536: magic is "));
    assert_eq!(content(&*opened.value, "/etc/fstab"), b"changed\n");
    let copies = superblocks(&*device);
    assert!(copies.len() == 2 && copies[0].generation.is_err() && copies[1].generation.is_ok());
    // blkid does not look there.
    assert!((FORMAT.probe)(&*device).unwrap().is_none());
}

#[test]
fn damaged_data_is_never_passed_on() {
    let image = unpack("btrfs-one").to_vec();
    // The content of /files/plain is there once, and cloned.
    let needle = &text(10_001)[4096..8192];
    let found: Vec<usize> =
        (0..image.len()).step_by(4096).filter(|at| image[*at..].starts_with(needle)).collect();
    let (device, problems) = damaged(|device| {
        for at in &found {
            blockdev::BlockDeviceMut::write_all_at(device, b"X", *at as u64 + 10).unwrap();
        }
    });
    assert!(problems.is_empty());
    let fs = &*top(&device);
    for name in ["plain", "cloned"] {
        let file = inode(fs, &format!("/files/{name}"));
        let error = fs.read_at(file, &mut [0; 20_000], 0).unwrap_err().to_string();
        assert!(error.starts_with("file data at byte ") && error.contains("checksum is 0x"), "{error}");
        // The sectors beside it are good.
        let mut first = [0; 4096];
        assert_eq!(fs.read_at(file, &mut first, 0).unwrap(), 4096);
        assert_eq!(first, text(4096)[..]);
    }
    // Without checksums there is nothing to judge by.
    let mut unsummed = text(9000);
    unsummed[4096 + 10] = b'X';
    assert_eq!(content(fs, "/files/unsummed"), unsummed);
}

#[test]
fn every_tree_block_may_be_lost() {
    let image = one();
    let blocks = structures(&*image, 4096);
    assert!(blocks.len() > 100);
    let whole = walk(&*top(&image), 1000).files;
    let mut lost = 0;
    for (offset, _) in &blocks[1..] {
        let (device, _) = damaged(|device| {
            blockdev::BlockDeviceMut::write_all_at(device, &[0xff; 4096], *offset).unwrap();
        });
        let Ok(opened) = open_subvolume(vec![device], Select::Id(5)) else {
            lost += 1;
            continue;
        };
        let found = walk(&*opened.value, 1000);
        assert!(found.files <= whole);
        if found.files < whole {
            assert!(!found.errors.is_empty(), "the block at {offset} is missed by no one");
            lost += 1;
        }
    }
    println!("{lost} of {} blocks were missed", blocks.len());
    assert!(lost > 3);
}

#[test]
fn a_cut_device_keeps_what_is_left() {
    let image = unpack("btrfs-one").to_vec();
    for length in [0, 65_536, 70_000, 1 << 20, 6 << 20, 20 << 20] {
        let device: Device = Arc::new(blockdev::MemoryDevice::new(image[..length].to_vec()));
        if let Ok(opened) = (FORMAT.open)(device.clone()) {
            let cut =
                opened.problems.iter().any(|problem| problem.to_string().contains("dev_item.total_bytes"));
            assert!(cut && device.size() < 32 << 20);
            walk(&*opened.value, 1000);
        }
    }
}
