//! Replacing files, judged by `xfs_repair -n`.

use std::sync::Arc;

use blockdev::{BlockDevice, BlockDeviceMut, MemoryDevice, Overlay};
use filesystem::{FileSystem, Metadata, Timestamp};
use filesystem_xfs::FORMAT;

use crate::common::{Image, Tree, assert_clean, content, forks, free_space, inode, open, pattern};

const NOW: Timestamp = Timestamp { seconds: 1_800_000_000, nanoseconds: 123_456_789 };

/// Every layout that stores something else when a file changes.
const LAYOUTS: [&str; 9] = [
    "",
    "-m crc=1,finobt=0,reflink=0,bigtime=0 -i sparse=0",
    "-b size=1024 -m reflink=1",
    "-s size=4096",
    "-i nrext64=1 -m rmapbt=1",
    "-m crc=0,finobt=0,reflink=0 -n ftype=0",
    "-m crc=0,finobt=0,reflink=0 -i size=256 -s size=4096",
    "-m crc=0,finobt=0,reflink=0 -b size=512 -n ftype=0,size=4096 -i size=256",
    "-m crc=0,finobt=0,reflink=0 -l version=1 -n ftype=0 -i attr=1,projid32bit=0",
];

fn overlay(device: &Arc<MemoryDevice>) -> Arc<Overlay> {
    Arc::new(Overlay::new(device.clone()))
}

#[track_caller]
fn replace(fs: &dyn FileSystem, path: &str, content: &[u8]) {
    fs.writable().unwrap().replace(inode(fs, path), content, NOW).unwrap();
}

/// The reason of a refusal, which must have left the device as it was.
#[track_caller]
fn refusal(device: &Arc<Overlay>, path: &str, content: &[u8]) -> String {
    let before = device.changed();
    let opened = (FORMAT.open)(device.clone()).unwrap();
    let fs = &*opened.value;
    let error = fs.writable().unwrap().replace(inode(fs, path), content, NOW).unwrap_err();
    assert!(matches!(error, ondisk::Error::Unsupported { .. }), "{error}");
    assert_eq!(device.changed(), before, "nothing was written");
    error.to_string()
}

/// What a replaced file keeps.
fn kept(metadata: &Metadata) -> (u32, u32, u32, u32, Timestamp) {
    let Metadata { permissions, uid, gid, links, accessed, .. } = metadata;
    (*permissions, *uid, *gid, *links, *accessed)
}

#[test]
fn content_of_every_size_in_every_layout() {
    let tree = Tree::new().file("f", pattern(60)).file("neighbour", pattern(70_000)).file("empty", "");
    for options in LAYOUTS {
        let Some(image) = Image::make(options, &tree) else { return };
        image.edit(&["path /f", "attr_set -s -v 30 selinux"]);
        let device = image.device();
        for path in ["/f", "/empty"] {
            let device = overlay(&device);
            let before = open(device.clone());
            let old = before.metadata(inode(&*before, path)).unwrap();
            for size in [1000, 100, 12_000, 4096, 30_000, 0, 511, 400_000] {
                let fs = open(device.clone());
                let new = pattern(size + 1).split_off(1);
                replace(&*fs, path, &new);
                // Through the writer's own eyes, and through those of a reader that knows nothing of it.
                for fs in [fs, open(device.clone())] {
                    assert!(content(&*fs, path) == new, "{options}: {path} with {size} bytes");
                    let metadata = fs.metadata(inode(&*fs, path)).unwrap();
                    assert_eq!(kept(&metadata), kept(&old));
                    assert_eq!((metadata.size, metadata.modified), (size as u64, NOW));
                    assert_eq!(metadata.changed, NOW);
                    assert!(content(&*fs, "/neighbour") == pattern(70_000));
                    assert_eq!(
                        fs.xattrs(inode(&*fs, path)).unwrap(),
                        before.xattrs(inode(&*before, path)).unwrap()
                    );
                }
            }
            assert_clean(&*device);
        }
    }
}

#[test]
fn only_predicted_places_change() {
    let Some(image) = Image::make("", &Tree::new().file("f", pattern(4096))) else { return };
    let device = overlay(&image.device());
    replace(&*open(device.clone()), "/f", &pattern(3000));
    let pages: u64 = device.changed().iter().map(|range| range.end - range.start).sum();
    assert_eq!(pages, 2 * 4096, "the block of the file and that of its inode");
}

#[test]
fn times_outside_the_range_become_its_end() {
    let tree = Tree::new().file("f", "");
    for (options, end) in [("-m bigtime=0", i64::from(i32::MAX)), ("-m bigtime=1", 1 << 33)] {
        let Some(image) = Image::make(options, &tree) else { return };
        let fs = open(image.device());
        let file = inode(&*fs, "/f");
        let now = Timestamp { seconds: 1 << 33, nanoseconds: 5 };
        fs.writable().unwrap().replace(file, b"x", now).unwrap();
        assert_eq!(fs.metadata(file).unwrap().modified, Timestamp { seconds: end, nanoseconds: 5 });
    }
}

#[test]
fn holes_are_filled_and_preallocated_blocks_written() {
    let device = overlay(&forks());
    let fs = open(device.clone());
    let allocated = |fs: &dyn FileSystem| fs.metadata(inode(fs, "/sparse")).unwrap().allocated;
    let before = allocated(&*fs);
    // Blocks 2 and 3 are a hole, 6 and 7 as well, 8 to 15 are preallocated.
    let new = pattern(11_111);
    replace(&*fs, "/sparse", &new);
    assert!(content(&*fs, "/sparse") == new);
    assert_eq!(allocated(&*fs), before + 4 * 1024);
    replace(&*fs, "/unshared", &pattern(6999));
    assert!(content(&*fs, "/unshared") == pattern(6999));
    assert_clean(&*device);
}

#[test]
fn shared_blocks_stay_as_they_are() {
    let reason = refusal(&overlay(&forks()), "/shared-1", b"x");
    assert!(reason.starts_with("inode: writing block") && reason.contains("shares"), "{reason}");
    let device = overlay(&forks());
    replace(&*open(device.clone()), "/shared-2", b"");
    assert_clean(&*device);
}

#[test]
fn a_tree_of_extents_keeps_its_shape() {
    let device = overlay(&forks());
    let fs = open(device.clone());
    replace(&*fs, "/fragmented", &pattern(1000));
    assert!(content(&*fs, "/fragmented") == pattern(1000));
    assert_clean(&*device);
    let reason = refusal(&overlay(&forks()), "/fragmented", &pattern(2000));
    assert_eq!(reason, "inode: adding blocks to a tree of extents is not supported");
}

#[test]
fn free_space_trees_of_two_levels() {
    let image = free_space();
    for sizes in [
        &[100_000, 100_000][..],
        // All of the longest extent of one group, then of the other, then small ones.
        &[1_956 * 1024, 1_900 * 1024],
        &[2_500_000],
        &[1_900_000, 1_900_000, 20_000],
    ] {
        let device = overlay(&image);
        let fs = open(device.clone());
        for (path, size) in ["/small", "/medium", "/empty"].into_iter().zip(sizes) {
            let new = pattern(*size);
            replace(&*fs, path, &new);
            assert!(content(&*fs, path) == new, "{path} with {size} bytes");
        }
        assert_clean(&*device);
    }
    // Down to pieces of five blocks, of which one list has room for about twenty.
    let device = overlay(&image);
    let fs = open(device.clone());
    replace(&*fs, "/small", &pattern(1_956 * 1024));
    replace(&*fs, "/medium", &pattern(1_890 * 1024));
    replace(&*fs, "/empty", &pattern(60 * 1024));
    assert!(content(&*fs, "/empty") == pattern(60 * 1024));
    assert_clean(&*device);
    let reason = refusal(&device, "/empty", &pattern(200 * 1024));
    assert!(reason.contains("pieces") || reason.contains("extents"), "{reason}");
}

#[test]
fn a_full_file_system_is_not_filled_further() {
    let reason = refusal(&overlay(&free_space()), "/small", &pattern(8 << 20));
    assert_eq!(reason, "free space: growing on a full file system is not supported");
}

/// Puts `bytes` at byte `at` of the superblock and makes its checksum right.
fn with_superblock(device: &Arc<MemoryDevice>, at: u64, bytes: &[u8]) -> Arc<Overlay> {
    let device = overlay(device);
    device.write_all_at(bytes, at).unwrap();
    device.write_all_at(&[0; 4], 224).unwrap();
    let mut sector = [0; 512];
    device.read_exact_at(&mut sector, 0).unwrap();
    device.write_all_at(&ondisk::crc32c(&sector).to_le_bytes(), 224).unwrap();
    device
}

#[test]
fn nothing_is_written_where_it_could_be_wrong() {
    let device = forks();
    let refused = |at: u64, bytes: &[u8], size: usize| {
        refusal(&with_superblock(&device, at, bytes), "/linked", &pattern(size))
    };
    // needsrepair on top of ftype, sparse, metauuid, bigtime.
    assert!(refused(0xd8, &[0, 0, 0, 0x1f], 0).contains("needsrepair"));
    assert!(refused(0xd4, &[0, 0, 0x10, 5], 0).contains("bit 12"));
    assert!(refused(0xdc, &[0, 0, 0, 1], 0).contains("log incompatible feature xattrs"));
    assert!(refused(0x7e, &[1], 0).contains("has not finished"));
    assert!(refused(0xb0, &[0, 1], 100).contains("quota"));
    // An external log may hold anything.
    assert!(refused(0x30, &[0; 8], 0).contains("external log"));
    let read_only: blockdev::Device = Arc::new(ReadOnly(device.clone()));
    assert!(open(read_only).writable().is_none());
}

/// A device that was opened read-only.
#[derive(Debug)]
struct ReadOnly(Arc<MemoryDevice>);

impl BlockDevice for ReadOnly {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

#[test]
fn immutable_and_append_only_files_are_left_alone() {
    let Some(image) = Image::make("", &Tree::new().file("f", "x")) else { return };
    for (flag, reason) in [("immutable", "immutable"), ("append", "append-only")] {
        if !image.edit(&["path /f", &format!("write core.{flag} 1")]) {
            return;
        }
        let text = refusal(&overlay(&image.device()), "/f", b"y");
        assert!(text.contains(reason), "{text}");
        image.edit(&["path /f", &format!("write core.{flag} 0")]);
    }
}

#[test]
fn many_random_changes_leave_a_clean_file_system() {
    let mut seed = 12_345_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    let tree =
        (0..10).fold(Tree::new(), |tree, number| tree.file(&format!("f{number}"), pattern(number * 999)));
    for options in
        ["-b size=1024 -m rmapbt=1", "-m crc=0,finobt=0,reflink=0 -b size=512 -i size=256 -n size=4096"]
    {
        let Some(image) = Image::make(options, &tree) else { return };
        let device = overlay(&image.device());
        let fs = open(device.clone());
        let mut sizes: Vec<usize> = (0..10).map(|number| number * 999).collect();
        for _ in 0..200 {
            let number = random(10) as usize;
            let size = if random(10) == 0 { random(600_000) } else { random(20_000) } as usize;
            let path = format!("/f{number}");
            match fs.writable().unwrap().replace(inode(&*fs, &path), &pattern(size), NOW) {
                Ok(()) => sizes[number] = size,
                Err(error) => assert!(error.to_string().contains("extents"), "{error}"),
            }
        }
        for (number, size) in sizes.into_iter().enumerate() {
            assert!(content(&*fs, &format!("/f{number}")) == pattern(size), "/f{number} with {size} bytes");
        }
        assert_clean(&*device);
    }
}
