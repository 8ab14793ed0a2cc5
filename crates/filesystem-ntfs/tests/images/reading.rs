//! What ntfs-3g wrote, read back; `scripts/oracles/ntfs.sh` compares larger trees with its mount.

use filesystem::{FileKind, FileSystem, path};
use filesystem_ntfs::{FORMAT, Hibernation, Log, Ntfs};

use crate::common::{content, device, image, inode, names, numbers, open};

const IMAGES: [(&str, usize, u32); 2] = [("ntfs-512", 512, 500), ("ntfs-4kn", 65536, 20)];

fn for_each(check: impl Fn(&Ntfs, usize, u32)) {
    for (name, cluster, count) in IMAGES {
        println!("{name}");
        check(&open(image(name)), cluster, count);
    }
}

#[test]
fn identity_and_state() {
    for (name, cluster, _) in IMAGES {
        let device = device(image(name));
        let identity = (FORMAT.probe)(&*device).unwrap().unwrap();
        let fs = open(image(name));
        let info = fs.info();
        assert_eq!((identity.kind, info.kind), ("ntfs", "ntfs"));
        assert_eq!(identity.label.as_deref(), Some("Test ä".as_bytes()));
        assert_eq!(
            (identity.uuid, identity.label, identity.size),
            (info.uuid.clone(), info.label.clone(), info.size)
        );
        assert_eq!(info.block_size as usize, cluster);
        assert!(fs.state().is_clean(), "{:?}", fs.state());
        assert_eq!((fs.state().version, fs.state().log), ((3, 1), Log::Empty));
        assert_eq!(fs.state().hibernation, Hibernation::Absent);
        assert_eq!((FORMAT.replay)(device).unwrap().transactions, 0);
    }
}

#[test]
fn contents() {
    for_each(|fs, cluster, count| {
        assert_eq!(content(fs, "/small"), b"small\n");
        assert_eq!(content(fs, "/links/hard"), b"small\n");
        assert_eq!(content(fs, "/empty"), b"");
        assert!(content(fs, "/large") == numbers(100_000, 0));
        let mut sparse = vec![0; 5 << 20];
        sparse[..1500].copy_from_slice(&numbers(1500, 0));
        sparse[1 << 20..][..500].fill(b'b');
        assert!(content(fs, "/sparse") == sparse);
        let mut holes: Vec<u8> = (0..count)
            .flat_map(|n| [n.to_le_bytes().repeat(cluster / 4), vec![0; cluster]].concat())
            .collect();
        holes.truncate(holes.len() - cluster);
        assert!(content(fs, "/holes") == holes);
    });
}

#[test]
fn compressed_files() {
    for_each(|fs, cluster, _| {
        let text: String = (0..2000).map(|n| format!("line {n} of a text that packs\n")).collect();
        assert!(content(fs, "/packed/text") == text.as_bytes());
        assert!(content(fs, "/packed/numbers") == numbers(20_000, 0));
        let mixed = [vec![b'x'; 9000], numbers(12_000, 1 << 24), vec![0; 20_000], b"end".to_vec()].concat();
        assert!(content(fs, "/packed/mixed") == mixed);
        let meta = fs.metadata(inode(fs, "/packed/text")).unwrap();
        assert_eq!(meta.size, text.len() as u64);
        assert_eq!(meta.allocated < meta.size, cluster == 512, "{} bytes", meta.allocated);
        // Pieces that begin and end anywhere.
        let file = inode(fs, "/packed/mixed");
        for (offset, length) in [(0, 1), (8191, 2), (8999, 3000), (40_999, 100), (41_003, 5), (1 << 40, 5)] {
            let mut buf = vec![0xee; length];
            let count = fs.read_at(file, &mut buf, offset).unwrap();
            let expected = mixed.get(offset as usize..).unwrap_or_default();
            assert_eq!(buf[..count], expected[..expected.len().min(length)], "{offset}");
        }
    });
}

#[test]
fn streams_are_extended_attributes() {
    for_each(|fs, _, _| {
        let file = inode(fs, "/streams/file");
        assert_eq!(content(fs, "/streams/file"), b"main");
        assert_eq!(fs.xattr(file, b"user.small").unwrap().unwrap(), b"stream");
        assert_eq!(fs.xattr(file, b"user.large").unwrap().unwrap(), numbers(5000, 0));
        assert_eq!(fs.xattr(file, b"user.none").unwrap(), None);
        assert_eq!(fs.xattr(file, b"user.").unwrap(), None);
        assert_eq!(fs.xattr(file, b"security.selinux").unwrap(), None);
        assert_eq!(fs.xattrs(file).unwrap().len(), 2);
        let many = fs.xattrs(inode(fs, "/streams/many")).unwrap();
        assert_eq!(many.len(), 25);
        for (name, value) in many {
            assert_eq!(value, name[name.len() - 2..].repeat(30));
        }
        let attributes = fs.xattr(file, b"system.ntfs_attrib").unwrap().unwrap();
        assert_eq!(attributes, [0x20, 0, 0, 0]);
    });
}

#[test]
fn security_descriptors() {
    for_each(|fs, _, _| {
        let descriptor = fs.xattr(inode(fs, "/small"), b"system.ntfs_acl").unwrap().unwrap();
        // Revision 1, self-relative, with a DACL.
        assert_eq!((descriptor[0], descriptor[3] & 0x80, descriptor[2] & 4), (1, 0x80, 4), "{descriptor:x?}");
    });
}

#[test]
fn links() {
    for_each(|fs, _, _| {
        let target = |path: &str| String::from_utf8(fs.read_link(inode(fs, path)).unwrap()).unwrap();
        assert_eq!(target("/links/interix"), "../small");
        assert_eq!(target("/links/relative"), "../small");
        assert_eq!(target("/links/full"), "/packed/text");
        assert_eq!(target("/links/junction"), "/packed");
        assert_eq!(path::resolve(fs, b"/links/junction/text").unwrap(), inode(fs, "/packed/text"));
        let away = fs.read_link(inode(fs, "/links/volume")).unwrap_err().to_string();
        assert!(away.contains("another volume") && away.contains("Volume{01234567"), "{away}");
        assert_eq!(fs.metadata(inode(fs, "/links/relative")).unwrap().size, 8);
        let metadata = |path: &str| fs.metadata(inode(fs, path)).unwrap();
        assert_eq!(metadata("/links/fifo").kind, FileKind::Fifo);
        assert_eq!(
            (metadata("/links/char").kind, metadata("/links/char").device),
            (FileKind::CharDevice, (4, 65))
        );
        assert_eq!(metadata("/small").links, 2);
        assert!(fs.read_link(inode(fs, "/small")).is_err());
        assert!(fs.read_at(inode(fs, "/links/fifo"), &mut [0], 0).is_err());
    });
}

#[test]
fn content_that_is_elsewhere_is_named() {
    for_each(|fs, _, _| {
        for (path, word) in [("/links/wof", "WOF"), ("/links/cloud", "OneDrive")] {
            assert_eq!(fs.metadata(inode(fs, path)).unwrap().kind, FileKind::Regular);
            let error = fs.read_at(inode(fs, path), &mut [0; 10], 0).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
            assert!(fs.read_link(inode(fs, path)).is_err());
        }
    });
}

#[test]
fn directories_and_names() {
    for_each(|fs, _, _| {
        let expected = [
            "directory",
            "empty",
            "holes",
            "large",
            "links",
            "names",
            "packed",
            "small",
            "sparse",
            "streams",
        ];
        assert_eq!(names(fs, "/"), expected);
        assert_eq!(names(fs, "/directory").len(), 300);
        for number in 0..300 {
            let name = format!("/directory/an-entry-with-a-long-name-{number:03}");
            assert_eq!(inode(fs, &name), inode(fs, &name.to_uppercase().replace("/DIRECTORY", "/directory")));
        }
        assert_eq!(fs.lookup(inode(fs, "/directory"), b"an-entry-with-a-long-name-300").unwrap(), None);
        let names = inode(fs, "/names");
        // Each by its own name; what has none, by one that differs in case.
        assert_eq!(content(fs, "/names/Case"), b"Case");
        assert_eq!(content(fs, "/names/case"), b"case");
        assert!(["Case", "case"].contains(&String::from_utf8(content(fs, "/names/cASE")).unwrap().as_str()));
        assert_eq!(content(fs, "/names/äö"), "ÄÖ".as_bytes());
        assert_eq!(content(fs, &format!("/names/{}", "😀".repeat(20))).len(), 80);
        assert_eq!(content(fs, &format!("/names/{}", "N".repeat(255))).len(), 255);
        let lone = fs.lookup(names, b"lone-\xed\xa0\xbd").unwrap().unwrap();
        assert!(fs.read_dir(names).unwrap().iter().any(|entry| entry.inode == lone));
        assert_eq!(fs.lookup(names, b"lone-\xff").unwrap(), None);
        // The system's files are found, and not listed.
        assert!(fs.lookup(fs.root(), b"$Volume").unwrap().is_some());
    });
}

#[test]
fn metadata() {
    for_each(|fs, _, _| {
        let meta = fs.metadata(inode(fs, "/small")).unwrap();
        assert_eq!(
            (meta.kind, meta.permissions, meta.uid, meta.gid, meta.size),
            (FileKind::Regular, 0o777, 0, 0, 6)
        );
        assert_eq!((meta.modified.seconds, meta.modified.nanoseconds), (1_700_000_000, 123_456_700));
        assert_eq!((meta.accessed.seconds, meta.accessed.nanoseconds), (1_000_000_000, 123_456_700));
        let root = fs.metadata(fs.root()).unwrap();
        assert_eq!((root.kind, root.links), (FileKind::Directory, 1));
        let sparse = fs.metadata(inode(fs, "/sparse")).unwrap();
        assert!(sparse.size == 5 << 20 && sparse.allocated < 1 << 20, "{}", sparse.allocated);
    });
}
