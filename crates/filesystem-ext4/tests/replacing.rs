//! Replacing files in images that `mke2fs` made, judged by `e2fsck -fn`, `debugfs` and a second look at all
//! other files.

#![expect(clippy::unwrap_used, reason = "whatever fails, fails the test")]

#[cfg(test)]
mod support;

use std::path::{Path, PathBuf};

use filesystem::{FileSystem, Timestamp};
use filesystem_ext4::FORMAT;
use support::{
    Lab, Listing, MATRIX, ask_debugfs, debugfs, debugfs_cat, device, e2fsck, find_file, have, list,
    make_tree, open, pattern, read, run, writable,
};

const TOOLS: &[&str] = &["mke2fs", "e2fsck", "debugfs", "mkfifo"];

const NOW: Timestamp = Timestamp { seconds: 0x9abc_def0, nanoseconds: 123_456_789 };

fn replace(image: &Path, path: &str, content: &[u8]) -> Result<(), String> {
    let fs = open(writable(image));
    let file = find_file(&*fs, path);
    fs.writable().unwrap().replace(file, content, NOW).map_err(|error| error.to_string())
}

/// Replaces a file and looks at everything: the content with two readers, what must not change about the file,
/// all other files, and the file system as a whole.
fn check(image: &Path, path: &str, content: &[u8], others: &mut Listing, case: &str) {
    let case = format!("{case}: {path}, {} bytes", content.len());
    let facts = |fs: &dyn FileSystem| {
        let file = find_file(fs, path);
        let metadata = fs.metadata(file).unwrap();
        (file, metadata.permissions, metadata.uid, metadata.gid, metadata.links, fs.xattrs(file).unwrap())
    };
    let before = facts(&*open(device(image)));
    assert_eq!(replace(image, path, content), Ok(()), "{case}");
    assert_eq!(e2fsck(image), Ok(()), "{case}");
    let fs = open(device(image));
    assert!(read(&*fs, path) == content, "{case}");
    // debugfs prints all 60 bytes of shorter inline data.
    let mut seen = debugfs_cat(image, path);
    if case.starts_with("inline") && seen.len() == 60 {
        seen.truncate(content.len());
    }
    assert!(seen == content, "{case}");
    assert_eq!(facts(&*fs), before, "{case}");
    let metadata = fs.metadata(before.0).unwrap();
    let expected = if ask_debugfs(image, &format!("stat {path}")).contains("Size of extra inode fields") {
        NOW
    } else {
        // 32 signed bits: the last second that fits.
        Timestamp { seconds: i32::MAX.into(), nanoseconds: 0 }
    };
    assert_eq!((metadata.modified, metadata.changed), (expected, expected), "{case}");
    let after = list(&*fs);
    for (path, line) in &after {
        if others.get(path) != Some(line) {
            let names = list_of_same(&*fs, before.0, &after);
            assert!(names.contains(path), "{case}: {path} has changed too");
        }
    }
    assert_eq!(after.len(), others.len());
    *others = after;
}

/// All names of an inode.
fn list_of_same(fs: &dyn FileSystem, inode: filesystem::Inode, listing: &Listing) -> Vec<String> {
    let is_same = |path: &&String| {
        !path.contains('\\') && filesystem::path::resolve_no_follow(fs, path.as_bytes()).unwrap() == inode
    };
    listing.keys().filter(is_same).cloned().collect()
}

#[test]
fn every_size_in_every_layout() {
    if !have(TOOLS) {
        return;
    }
    let lab = Lab::new();
    let tree = lab.path("tree");
    make_small_tree(&tree);
    for (name, args) in MATRIX {
        let Some(image) = lab.image(name, args, 16, Some(&tree)) else { continue };
        debugfs(&image, "ea_set /etc/fstab security.selinux system_u:object_r:etc_t:s0\n");
        if args.contains("bigalloc") || args.contains("quota") {
            continue;
        }
        let mut others = list(&*open(device(&image)));
        for (index, size) in
            [27, 5, 0, 60, 61, 200, 1024, 5000, 13_000, 300_000, 12_288, 1].into_iter().enumerate()
        {
            check(&image, "/etc/fstab", &pattern(size, index as u64), &mut others, name);
        }
        check(&image, "/f0", &pattern(20_000, 1), &mut others, name);
        check(&image, "/f300000", &pattern(299_999, 2), &mut others, name);
        check(&image, "/f300000", b"", &mut others, name);
        check(&image, "/sparse", &pattern(450_000, 3), &mut others, name);
        check(&image, "/hole", &pattern(90_000, 4), &mut others, name);
        std::fs::remove_file(image).unwrap();
    }
}

fn make_small_tree(tree: &Path) {
    std::fs::create_dir_all(tree.join("etc")).unwrap();
    std::fs::write(tree.join("etc/fstab"), "UUID=1 / ext4 defaults 0 1\n").unwrap();
    std::fs::hard_link(tree.join("etc/fstab"), tree.join("etc/also")).unwrap();
    for size in [0, 100, 5000, 300_000] {
        std::fs::write(tree.join(format!("f{size}")), pattern(size, 9)).unwrap();
    }
    use std::os::unix::fs::FileExt;
    let sparse = std::fs::File::create(tree.join("sparse")).unwrap();
    sparse.write_all_at(b"one", 8192).unwrap();
    sparse.write_all_at(b"two", 400_000).unwrap();
    std::fs::File::create(tree.join("hole")).unwrap().set_len(100_000).unwrap();
}

/// Equal length, and any length that needs as many blocks, touch nothing but content and inode.
#[test]
fn the_same_number_of_blocks_stays_in_place() {
    if !have(TOOLS) {
        return;
    }
    let lab = Lab::new();
    let tree = lab.path("tree");
    make_tree(&tree);
    let image = lab.image("ext4", "-t ext4 -b 4096", 40, Some(&tree)).unwrap();
    let overlay = std::sync::Arc::new(blockdev::Overlay::new(device(&image)));
    let fs = (FORMAT.open)(overlay.clone()).unwrap().value;
    let file = find_file(&*fs, "/boot/f12289");
    fs.writable().unwrap().replace(file, &pattern(13_000, 5), NOW).unwrap();
    let changed: u64 = overlay.changed().iter().map(|range| range.end - range.start).sum();
    // Four blocks of content, and the one that the inode lies in.
    assert_eq!(changed, 5 * 4096);
}

/// Where free space comes in single blocks, the content is spread and the map grows.
#[test]
fn fragmented_free_space() {
    if !have(TOOLS) {
        return;
    }
    let lab = Lab::new();
    let cases = [
        ("ext4", "-t ext4 -b 1024"),
        ("ext2", "-t ext2 -b 1024"),
        ("upstream", "-t ext4 -b 1024 -O ^metadata_csum"),
    ];
    for (name, args) in cases {
        let image = fragmented(&lab, name, args);
        let mut others = list(&*open(device(&image)));
        for size in [3000, 6000, 150_000, 400_000, 200_000, 2000, 900_000, 0] {
            check(&image, "/etc/fstab", &pattern(size, size as u64), &mut others, name);
        }
        let error = replace(&image, "/etc/fstab", &vec![1; 30 << 20]).unwrap_err();
        assert!(error.contains("more blocks than are free"), "{error}");
        assert_eq!(list(&*open(device(&image))), others);
        assert_eq!(e2fsck(&image), Ok(()));
    }
}

/// A file system whose free blocks are every second one, for the most part.
fn fragmented(lab: &Lab, name: &str, args: &str) -> PathBuf {
    let tree = lab.path(&format!("tree-{name}"));
    make_small_tree(&tree);
    let image = lab.image(name, args, 16, Some(&tree)).unwrap();
    let free = free_blocks(&image);
    let (filler, single) = (lab.path("filler"), lab.path("single"));
    std::fs::write(&filler, vec![7; (free.len() - 2100) * 1024]).unwrap();
    std::fs::write(&single, [8]).unwrap();
    let mut commands = format!("write {} filler\n", filler.display());
    commands.extend((0..2000).map(|number| format!("write {} single{number}\n", single.display())));
    commands.extend((0..2000).step_by(2).map(|number| format!("rm single{number}\n")));
    debugfs(&image, &commands);
    let free = free_blocks(&image);
    let runs = free.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count();
    assert!(runs > 900, "{runs} runs of {} blocks", free.len());
    assert_eq!(e2fsck(&image), Ok(()));
    image
}

/// Growth over several groups, some of which have a bitmap that nobody ever wrote, and back.
#[test]
fn growth_into_groups_that_were_never_used() {
    if !have(TOOLS) {
        return;
    }
    let lab = Lab::new();
    let tree = lab.path("tree");
    make_small_tree(&tree);
    let cases = [
        ("1k", "-t ext4 -b 1024"),
        ("uninit_bg", "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg"),
        ("uninit_bg-32", "-t ext4 -b 1024 -O ^metadata_csum,^64bit,uninit_bg,^flex_bg"),
        ("meta_bg", "-t ext4 -b 1024 -O meta_bg,^resize_inode"),
        ("no-flex_bg", "-t ext4 -b 1024 -O ^flex_bg"),
        ("sparse_super2", "-t ext4 -b 1024 -O sparse_super2"),
        ("small-groups", "-t ext4 -b 4096 -g 1024"),
        ("ext2", "-t ext2 -b 1024"),
    ];
    for (name, args) in cases {
        let image = lab.image(name, args, 40, Some(&tree)).unwrap();
        let unwritten = |image: &Path| ask_debugfs(image, "stats").matches("Block not init").count();
        let before = unwritten(&image);
        let mut others = list(&*open(device(&image)));
        check(&image, "/etc/fstab", &pattern(22_000_000, 1), &mut others, name);
        let after = unwritten(&image);
        assert!(after < before || before == 0, "{name}: {before} to {after}");
        assert!(before > 0 || name == "ext2", "{name}");
        check(&image, "/etc/fstab", &pattern(15_000_000, 2), &mut others, name);
        check(&image, "/etc/fstab", &pattern(3, 3), &mut others, name);
    }
}

fn free_blocks(image: &Path) -> Vec<u64> {
    ask_debugfs(image, "ffb 100000 1").split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn refusals_say_why_and_write_nothing() {
    if !have(TOOLS) {
        return;
    }
    let lab = Lab::new();
    let tree = lab.path("tree");
    make_small_tree(&tree);
    let refused = |name: &str, args: &str, commands: &str, path: &str, content: &[u8]| {
        let image = lab.image(name, args, 16, Some(&tree)).unwrap();
        debugfs(&image, commands);
        let before = std::fs::read(&image).unwrap();
        let fs = (FORMAT.open)(writable(&image)).unwrap().value;
        let file = find_file(&*fs, path);
        let error = fs.writable().unwrap().replace(file, content, NOW).unwrap_err().to_string();
        assert!(std::fs::read(&image).unwrap() == before, "{name}, {error}: the image was written");
        let reason = error.strip_prefix("replacing a file: ").unwrap_or(&error);
        reason.strip_suffix(" is not supported").unwrap_or(reason).to_owned()
    };
    let ext4 = |commands: &str| refused("ext4", "-t ext4 -b 4096", commands, "/etc/fstab", b"new");
    assert_eq!(ext4("feature needs_recovery\n"), "a journal that was not replayed (needs_recovery)");
    assert_eq!(ext4("ssv state 2\n"), "a file system in which the kernel has met damage (s_state)");
    assert_eq!(ext4("ssv state 0\n"), "a file system that was not unmounted and has no journal (s_state)");
    assert_eq!(ext4("sif /etc/fstab flags 0x80010\n"), "an immutable file");
    assert_eq!(ext4("sif /etc/fstab flags 0x80020\n"), "an append-only file");
    assert_eq!(ext4("sif /etc/fstab flags 0x80800\n"), "an encrypted file");
    assert_eq!(ext4("sif /etc/fstab flags 0x180000\n"), "a file with fs-verity");
    assert_eq!(ext4("feature read-only\n"), "the feature read-only");
    assert_eq!(ext4("feature orphan_present\n"), "the feature orphan_present");
    assert_eq!(ext4("feature FEATURE_R20\n"), "the feature FEATURE_R20");
    assert_eq!(ext4("feature shared_blocks\n"), "the feature shared_blocks");
    let plain = lab.image("plain", "-t ext4 -b 4096", 16, Some(&tree)).unwrap();
    let number = find_file(&*open(device(&plain)), "/etc/fstab").0;
    assert_eq!(
        ext4(&format!("ssv last_orphan {number}\n")),
        "a file that the kernel will truncate at the next mount (orphan)"
    );
    assert_eq!(
        refused("bigalloc", "-t ext4 -b 4096 -O bigalloc -C 16384", "", "/etc/fstab", b"new"),
        "the feature bigalloc"
    );
    assert_eq!(
        refused("quota", "-t ext4 -b 4096 -O quota", "", "/etc/fstab", &[1; 5000]),
        "another number of blocks with the feature quota"
    );
    assert_eq!(
        refused("large", "-t ext4 -b 4096", "", "/etc/fstab", &vec![0; 1 << 31]),
        "content of 2 GiB or more"
    );
    let journal = refused(
        "journal",
        "-t ext4 -b 4096",
        "jo\njw -b 1000 /dev/null\njc\nfeature -needs_recovery\n",
        "/f100",
        b"",
    );
    assert_eq!(journal, "a journal with transactions, although it needs no recovery");
}

/// debugfs would say that it has left; so the block is written here.
#[test]
fn a_file_system_in_use_is_refused() {
    if !have(TOOLS) {
        return;
    }
    let lab = Lab::new();
    let tree = lab.path("tree");
    make_small_tree(&tree);
    let image = lab.image("mmp", "-t ext4 -b 4096 -O mmp", 16, Some(&tree)).unwrap();
    let mut bytes = std::fs::read(&image).unwrap();
    let block = u64::from_le_bytes(bytes[1024 + 0x168..][..8].try_into().unwrap());
    bytes[block as usize * 4096 + 4] = 0;
    std::fs::write(&image, &bytes).unwrap();
    let error = replace(&image, "/etc/fstab", b"new").unwrap_err();
    assert!(error.contains("a file system that is in use (mmp)"), "{error}");
    assert!(std::fs::read(&image).unwrap() == bytes);
}

/// With quotas, content that needs as many blocks as before changes no count.
#[test]
fn quota_allows_what_it_does_not_count() {
    if !have(TOOLS) {
        return;
    }
    let lab = Lab::new();
    let tree = lab.path("tree");
    make_small_tree(&tree);
    let image = lab.image("quota", "-t ext4 -b 4096 -O quota", 16, Some(&tree)).unwrap();
    // mke2fs 1.47.0 does not count what it copies.
    run("e2fsck", &["-fy".as_ref(), image.as_os_str()]);
    let mut others = list(&*open(device(&image)));
    check(&image, "/etc/fstab", &pattern(4096, 1), &mut others, "quota");
    check(&image, "/f5000", &pattern(8000, 1), &mut others, "quota");
}

/// A file whose map leads into the file system's own blocks is left alone.
#[test]
fn maps_into_metadata_are_damage() {
    if !have(TOOLS) {
        return;
    }
    let lab = Lab::new();
    let tree = lab.path("tree");
    make_small_tree(&tree);
    let image = lab.image("ext2", "-t ext2 -b 4096", 16, Some(&tree)).unwrap();
    let stats = ask_debugfs(&image, "stats");
    let group = stats.lines().find(|line| line.contains("Group  0")).unwrap();
    let table: u64 =
        group.split("inode table at ").nth(1).unwrap().split(',').next().unwrap().trim().parse().unwrap();
    let own = ask_debugfs(&image, "bmap /f5000 0").trim().to_owned();
    for (block, what) in [(table.to_string(), "no block of the file system's own"), (own, "each block once")]
    {
        debugfs(&image, &format!("sif /f5000 block[1] {block}\n"));
        let before = std::fs::read(&image).unwrap();
        let error = replace(&image, "/f5000", b"new").unwrap_err();
        assert!(error.contains(what), "{error}");
        assert!(std::fs::read(&image).unwrap() == before);
    }
}
