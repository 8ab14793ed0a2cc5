//! What `e2fsck -a` comes to, against `e2fsck -a` itself: on images that were damaged in many ways, each on a copy.

#![expect(clippy::unwrap_used, reason = "whatever fails, fails the test")]

#[cfg(test)]
mod seals;
#[cfg(test)]
mod support;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use blockdev::{BlockDevice, BlockDeviceMut, Device, MemoryDevice, Overlay};
use filesystem_ext4::disk::Disk;
use filesystem_ext4::group_descriptor::GroupDescriptor;
use filesystem_ext4::mapping;
use filesystem_ext4::preen::{Preen, PreenOptions, preen};
use seals::Seals;
use support::{Lab, ask_debugfs, debugfs, device, have, pattern, run};

/// Layouts: name, arguments, size in MiB, and whether directories get an index.
const LAYOUTS: &[(&str, &str, u32, bool)] = &[
    ("ext2-1k", "-t ext2 -b 1024 -N 512", 3, false),
    ("ext3-1k", "-t ext3 -b 1024 -N 512 -J size=1", 5, true),
    (
        "ext4-1k",
        "-t ext4 -b 1024 -N 512 -J size=1 -O metadata_csum,64bit,metadata_csum_seed,orphan_file,^dir_index",
        6,
        false,
    ),
    ("ext4-4k", "-t ext4 -b 4096 -N 512 -J size=4", 10, true),
    ("no-csum", "-t ext4 -b 1024 -N 512 -J size=1 -O ^metadata_csum,^uninit_bg", 5, true),
    (
        "uninit_bg",
        "-t ext4 -b 1024 -g 1024 -N 512 -O ^has_journal,^metadata_csum,uninit_bg,^resize_inode",
        5,
        true,
    ),
    ("groups", "-t ext4 -b 1024 -g 1024 -N 512 -O ^has_journal,metadata_csum,^flex_bg", 5, false),
    ("128-bytes", "-t ext3 -b 4096 -I 128 -N 512 -O ^has_journal", 4, false),
];

/// Random damage for each layout.
const RANDOM: usize = 24;

/// In how many parts the other damage is divided among the layouts.
const PARTS: usize = 6;

/// Of a hundred answers, how many may be "unknown".
const MOST_UNKNOWN: usize = 10;

/// `MUTATIONS=20` makes that many times as much random damage, and all the other on every layout.
fn rounds() -> usize {
    std::env::var("MUTATIONS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

#[derive(Default)]
struct Score {
    same: usize,
    skipped: usize,
    passes: usize,
    by_hand: usize,
    refused: usize,
    unknown: Vec<String>,
    wrong: Vec<String>,
}

#[test]
fn agrees_with_e2fsck() {
    if !have(&["mke2fs", "debugfs", "e2fsck"]) {
        return;
    }
    let lab = Lab::new();
    let tree = lab.path("tree");
    make_tree(&tree);
    let score = Mutex::new(Score::default());
    std::thread::scope(|scope| {
        for half in [0, 1] {
            let (lab, tree, score) = (&lab, &tree, &score);
            scope.spawn(move || {
                for (number, layout) in LAYOUTS.iter().enumerate().filter(|(number, _)| number % 2 == half) {
                    judge_layout(lab, tree, number, layout, score);
                }
            });
        }
    });
    let score = score.into_inner().unwrap();
    let count = score.same + score.unknown.len() + score.wrong.len();
    println!(
        "{count} cases: {} same ({} skipped, {} pass, {} by hand, {} refused), {} unknown, {} wrong",
        score.same,
        score.skipped,
        score.passes,
        score.by_hand,
        score.refused,
        score.unknown.len(),
        score.wrong.len()
    );
    score.unknown.iter().for_each(|line| println!("unknown: {line}"));
    assert!(score.wrong.is_empty(), "{}", score.wrong.join("\n"));
    assert!(score.unknown.len() * 100 <= count * MOST_UNKNOWN);
}

/// Something of every kind, small.
fn make_tree(root: &Path) {
    for folder in ["dir/sub/deeper", "long", "none"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for (name, size) in
        [("small", 50), ("empty", 0), ("medium", 5000), ("large", 300_000), ("dir/sub/leaf", 100)]
    {
        fs::write(root.join(name), pattern(size, size as u64)).unwrap();
    }
    for number in 0..120 {
        fs::write(root.join(format!("long/entry-with-a-fairly-long-name-{number}")), "").unwrap();
    }
    std::os::unix::fs::symlink("a".repeat(30), root.join("fast")).unwrap();
    std::os::unix::fs::symlink("b".repeat(90), root.join("slow")).unwrap();
    fs::hard_link(root.join("small"), root.join("dir/hard")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(root.join("fifo")).status().unwrap().success());
}

fn make_image(lab: &Lab, tree: &Path, name: &str, args: &str, size: u32, is_indexed: bool) -> PathBuf {
    let image = lab.image(name, args, size, Some(tree)).unwrap();
    // Leaves a tree of some depth.
    let punched: String =
        (41..79).step_by(2).map(|number| format!("punch large {number} {number}\n")).collect();
    debugfs(&image, &punched);
    debugfs(&image, &format!("ea_set small user.name value\nea_set medium user.long {}\n", "v".repeat(300)));
    let flags: &[&OsStr] = if is_indexed { &["-fyD".as_ref()] } else { &["-fy".as_ref()] };
    run("e2fsck", &[flags, &[image.as_os_str()]].concat());
    image
}

fn judge_layout(
    lab: &Lab,
    tree: &Path,
    number: usize,
    (name, args, size, is_indexed): &(&str, &str, u32, bool),
    score: &Mutex<Score>,
) {
    let image = make_image(lab, tree, name, args, *size, *is_indexed);
    let base = fs::read(&image).unwrap();
    let copy = lab.path(&format!("copy-{name}"));
    let commands = commands(&image);
    // Every layout takes another part of the list.
    for (index, command) in commands.iter().enumerate() {
        if rounds() == 1 && index % PARTS != number % PARTS {
            continue;
        }
        let mode = (index / PARTS + number) % 4;
        fs::write(&copy, &base).unwrap();
        let marked = if mode < 2 { format!("{command}\nssv state 2\n") } else { format!("{command}\n") };
        debugfs(&copy, &marked);
        compare(name, &format!("{command} (mode {mode})"), &copy, mode == 2, score);
    }
    let mut random = Random(0x1234_5678_9abc_def1 ^ (number as u64) << 32);
    let places = places(&base);
    let whole: Device = Arc::new(MemoryDevice::new(base.as_slice()));
    let seals = seals(&base, &whole);
    for round in 0..RANDOM * rounds() {
        let overlay = Arc::new(Overlay::new(whole.clone()));
        let (what, range) = &places[round % places.len()];
        let at = range.start + random.next() % (range.end - range.start);
        let mut byte = [0];
        overlay.read_exact_at(&mut byte, at).unwrap();
        byte[0] ^= if round % 3 == 0 { 1 << (random.next() % 8) } else { (random.next() % 255 + 1) as u8 };
        overlay.write_all_at(&byte, at).unwrap();
        // Half of them reach what stands behind the checksums.
        if let Some(seals) = seals.as_ref().filter(|_| round % 2 == 0) {
            seals.seal(&overlay, at as usize, 1);
        }
        let mut bytes = vec![0; base.len()];
        overlay.read_exact_at(&mut bytes, 0).unwrap();
        fs::write(&copy, &bytes).unwrap();
        compare(name, &format!("{what}: byte {at:#x} is {byte:x?}, round {round}"), &copy, true, score);
    }
}

fn compare(layout: &str, what: &str, image: &Path, is_forced: bool, score: &Mutex<Score>) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    let found = preen(device(image), &PreenOptions { is_forced, now: Some(now) }).unwrap();
    let flags = if is_forced { "-af" } else { "-a" };
    let output = run("e2fsck", &[flags.as_ref(), image.as_os_str()]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let code = output.status.code().unwrap_or(-1);
    let is_skipped = text.contains(": clean, ");
    let is_same = match &found {
        Preen::Skipped => code & 12 == 0 && is_skipped,
        Preen::Passes => code & 12 == 0 && !is_skipped,
        Preen::ByHand(_) => code & 4 != 0,
        Preen::Refused(_) => code & 12 == 8,
        Preen::Unknown(_) => false,
    };
    let mut score = score.lock().unwrap();
    match &found {
        Preen::Unknown(why) => score.unknown.push(format!("{layout}: {what}: {why} (status {code})")),
        _ if !is_same => {
            let errors = String::from_utf8_lossy(&output.stderr);
            score.wrong.push(format!("WRONG {layout}: {what}: {found:?}, status {code}:\n{text}{errors}"));
        }
        _ => score.same += 1,
    }
    if is_same {
        match found {
            Preen::Skipped => score.skipped += 1,
            Preen::Passes => score.passes += 1,
            Preen::ByHand(_) => score.by_hand += 1,
            Preen::Refused(_) => score.refused += 1,
            Preen::Unknown(_) => {}
        }
    }
}

/// Damage by `debugfs`, one or more commands each.
fn commands(image: &Path) -> Vec<String> {
    let mut all: Vec<String> = [
        "",
        "clri dir",
        "clri <2>",
        "kill_file medium",
        "link small dir/second",
        "link dir dir2",
        "link small dir/sub/..x",
        "mkdir fresh",
        "rm small",
        "unlink lost+found",
        "rm lost+found\nunlink lost+found",
        "rmdir lost+found",
        "expand_dir dir",
        "expand_dir long",
        "punch large 3 9",
        "punch large 0 0",
        "punch long 1 1",
        "fallocate empty 0 20",
        "mknod dev c 1 2",
        "mknod pipe p",
        "symlink other target",
        "feature +FEATURE_C30",
        "feature +FEATURE_I30",
        "feature +FEATURE_R30",
        "feature -has_journal",
        "feature -dir_index",
        "feature -filetype",
        "feature -extent",
        "feature -ext_attr",
        "feature -resize_inode",
        "feature -large_file",
        "feature -huge_file",
        "feature +dir_nlink",
        "feature needs_recovery",
        "feature +large_dir",
        "feature +inline_data",
        "feature +project",
        "feature +verity",
        "feature +orphan_present",
        "feature -sparse_super",
        "feature -flex_bg",
        "freei small",
        "freei dir",
        "seti <100>",
        "freeb 100 20",
        "setb 900 10",
        "ssv state 0",
        "ssv state 1",
        "ssv state 3",
        "ssv mnt_count 30\nssv max_mnt_count 20",
        "ssv mnt_count 30\nssv max_mnt_count 40",
        "ssv mnt_count 30\nssv max_mnt_count -1",
        "ssv checkinterval 1d\nssv lastcheck 20200101",
        "ssv checkinterval 864000000\nssv lastcheck 20200101",
        "ssv checkinterval 1d\nssv lastcheck 20350101",
        "ssv checkinterval 1d\nssv mtime 20360101",
        "ssv wtime 20360101",
        "ssv free_blocks_count 1",
        "ssv free_inodes_count 100000",
        "ssv inodes_count 8",
        "ssv blocks_count 100000",
        "ssv blocks_count 1500",
        "ssv r_blocks_count 100000",
        "ssv first_ino 5",
        "ssv first_ino 20",
        "ssv inode_size 100",
        "ssv inode_size 512",
        "ssv desc_size 48",
        "ssv desc_size 128",
        "ssv log_block_size 9",
        "ssv log_cluster_size 5",
        "ssv reserved_gdt_blocks 3",
        "ssv reserved_gdt_blocks 3000",
        "ssv min_extra_isize 3",
        "ssv want_extra_isize 1000",
        "ssv last_orphan 12",
        "ssv last_orphan 3",
        "ssv journal_inum 12",
        "ssv journal_inum 0",
        "ssv journal_dev 5",
        "ssv jnl_backup_type 0",
        "ssv uuid clear",
        "ssv uuid random",
        "ssv hash_seed random",
        "ssv flags 2",
        "ssv blocks_per_group 100",
        "ssv clusters_per_group 64",
        "ssv inodes_per_group 8",
        "ssv rev_level 3",
        "ssv magic 1",
        "ssv creator_os 1",
        "ssv checksum_type 7",
        "ssv log_groups_per_flex 40",
        "ssv first_data_block 7",
        "set_bg 0 inode_table 3000000",
        "set_bg 0 block_bitmap 3000000",
        "set_bg 0 inode_bitmap 0",
        "set_bg 0 block_bitmap 20",
        "set_bg 0 free_blocks_count 65000",
        "set_bg 0 free_inodes_count 0",
        "set_bg 0 used_dirs_count 60000",
        "set_bg 0 itable_unused 1",
        "set_bg 0 itable_unused 30",
        "set_bg 0 flags 1",
        "set_bg 0 flags 2",
        "set_bg 0 itable_unused 30\nset_bg 0 checksum calc",
        "set_bg 0 flags 1\nset_bg 0 checksum calc",
        "set_bg 0 flags 0x4\nset_bg 0 checksum calc",
        "set_bg 0 checksum 77",
        "set_bg 1 inode_table 40\nset_bg 1 checksum calc",
        "rm empty\nsif <20> links_count 1",
        "clri <7>",
        "clri <8>",
        "clri <11>",
        "clri <12>",
        "sif <1> mode 0100644",
        "sif <1> block[0] 77",
        "sif <3> links_count 1",
        "sif <4> mode 0100644",
        "sif <5> mode 0100644",
        "sif <6> mode 0100644",
        "sif <7> mode 0",
        "sif <7> block[0] 9",
        "sif <7> links_count 0",
        "sif <8> links_count 0",
        "sif <8> mode 0",
        "sif <8> size 1000",
        "sif <8> flags 0",
        "sif <9> links_count 4",
        "sif <2> dtime 20200101",
        "sif <2> links_count 0",
        "sif <2> links_count 9",
        "sif <2> mode 0100755",
        "sif <2> flags 0x1000",
        "ea_set dir user.a b\nsif dir flags 0",
        "write /dev/null zero",
        "copy_inode <12> <100>",
        "copy_inode <14> <100>",
    ]
    .map(str::to_owned)
    .to_vec();
    for file in
        ["small", "empty", "medium", "large", "dir", "dir/sub/deeper", "long", "fast", "slow", "fifo", "none"]
    {
        for command in ["clri", "unlink", "kill_file", "rm"] {
            all.push(format!("{command} {file}"));
        }
        for change in [
            "mode 0",
            "i_mode 0160000",
            "mode 0100644",
            "mode 040755",
            "mode 0120777",
            "mode 020644",
            "mode 010644",
            "links_count 0",
            "links_count 5",
            "size 0",
            "size 5",
            "size 123456789",
            "size_high 1",
            "blocks 0",
            "blocks 999",
            "flags 0",
            "flags 0x80000",
            "flags 0x1000",
            "flags 0x10000000",
            "flags 0x800",
            "flags 0x40000000",
            "flags 0x10",
            "flags 0x40000",
            "flags 0x2000",
            "flags 0x200000",
            "dtime 5",
            "dtime 20200101",
            "block[0] 0",
            "block[0] 999999",
            "block[1] 999999",
            "block[IND] 888888",
            "block[0] 25",
            "file_acl 5",
            "file_acl 99999999",
            "faddr 1",
            "uid 70000",
            "generation 5",
            "extra_isize 3",
            "extra_isize 9",
            "extra_isize 400",
            "atime_extra 3",
            "frag 1",
            "checksum 5",
            "osd2.linux2.l_i_blocks_hi 5",
            "blocks_hi 5",
            "file_acl_high 5",
        ] {
            all.push(format!("sif {file} {change}"));
        }
    }
    // What a power cut leaves: orphans, and a journal with something in it.
    for file in ["medium", "large", "slow", "empty"] {
        let inode = inode_number(image, file);
        let orphan = format!("sif {file} links_count 0\nunlink {file}\nssv last_orphan {inode}");
        all.push(orphan.clone());
        all.push(format!("{orphan}\nsif <{inode}> dtime 12"));
        all.push(format!("{orphan}\nsif <{inode}> block[0] 0"));
        all.push(format!("{orphan}\nfreeb {} 1", ask_debugfs(image, &format!("bmap {file} 0")).trim()));
        all.push(format!("sif {file} links_count 0\nunlink {file}"));
        all.push(format!("ssv last_orphan {inode}\nsif {file} size 20"));
    }
    let new = image.with_extension("new");
    fs::write(&new, pattern(block_size(image), 7)).unwrap();
    for file in ["medium", "dir", "long", "/"] {
        let place = ask_debugfs(image, &format!("bmap {file} 0")).trim().to_owned();
        let write = format!("jw -b {place} {}", new.display());
        all.push(format!("jo\n{write}\njc"));
        all.push(format!("jo\n{write}\njw -r {place}\njc"));
        all.push(format!("jo -c\n{write}\n{write}\njc"));
        all.push(format!("jo\n{write}\njc\nfeature -needs_recovery"));
        all.push(format!("jo\n{write}\njc\nssv state 0"));
        all.push(format!("jo\n{write}\njc\nclri <8>"));
        all.push(format!("jo\n{write}\njc\nclri small"));
    }
    // Data of one file in another, and blocks of the map.
    for (file, block) in
        [("medium", "0"), ("dir", "0"), ("long", "0"), ("long", "1"), ("/", "0"), ("slow", "0")]
    {
        let place = ask_debugfs(image, &format!("bmap {file} {block}")).trim().to_owned();
        all.push(format!("sif large block[0] {place}"));
        all.push(format!("zap_block -p 0 {place}"));
        all.push(format!("zap_block -o 24 -l 4 -p 7 {place}"));
        all.push(format!("zap_block -o 4 -l 1 -p 13 {place}"));
        all.push(format!("freeb {place}"));
    }
    all
}

fn inode_number(image: &Path, file: &str) -> u32 {
    let answer = ask_debugfs(image, &format!("stat {file}"));
    answer.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap()
}

fn block_size(image: &Path) -> usize {
    Disk::open(device(image)).unwrap().value.superblock.block_size.bytes() as usize
}

/// What makes checksums right again, where there are any.
fn seals(base: &[u8], device: &Device) -> Option<Seals> {
    let disk = Disk::open(device.clone()).unwrap().value;
    let is_simple = disk.superblock.groups == 1 && disk.superblock.block_size.bytes() == 1024;
    disk.superblock.checksums.seed().filter(|_| is_simple).map(|_| Seals::of(base))
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// What random damage may hit: the bytes that are used of each kind of structure.
fn places(base: &[u8]) -> Vec<(String, std::ops::Range<u64>)> {
    let disk = Disk::open(Arc::new(MemoryDevice::new(base))).unwrap().value;
    let superblock = &disk.superblock;
    let mut places = Vec::new();
    let size = u64::from(superblock.inode_size);
    let group = disk.group(0).unwrap();
    let table = disk.offset_of(group.inode_table());
    let block = superblock.block_size.bytes();
    // The root, and some of what it holds.
    places.push(("inode 2".to_owned(), table + size..table + 2 * size));
    places.push(("inodes".to_owned(), table + 10 * size..table + 30 * size));
    places.push(("heads of inodes".to_owned(), table + 12 * size..table + 12 * size + 128));
    for number in 2..superblock.inodes {
        let Ok(inode) = disk.inode(number) else { continue };
        if inode.kind() == filesystem::FileKind::Directory && inode.raw.i_links_count.get() > 0 {
            let _ = mapping::runs(&disk, &inode, 0..4, &mut |run| {
                let first = disk.offset_of(run.physical);
                places.push((format!("directory {number}"), first..first + 60));
                places.push((format!("directory {number}"), first..first + block));
                Ok(())
            });
        }
    }
    let bitmap = disk.offset_of(group.block_bitmap());
    places.push(("block bitmap".into(), bitmap..bitmap + block));
    let bitmap = disk.offset_of(group.inode_bitmap());
    places.push(("inode bitmap".into(), bitmap..bitmap + block / 4));
    let descriptor = GroupDescriptor::offset(superblock, 0);
    places.push(("descriptor".into(), descriptor..descriptor + u64::from(superblock.descriptor_size)));
    places.push(("superblock".into(), 1024..1024 + 0x70));
    places
}

/// The size alone does not keep anybody from seeing that a file system is marked clean.
#[test]
fn a_large_file_system() {
    if !have(&["mke2fs", "debugfs", "e2fsck"]) {
        return;
    }
    let lab = Lab::new();
    let path = lab.path("large");
    fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    run(
        "mke2fs",
        &[OsStr::new("-qFt"), OsStr::new("ext4"), OsStr::new("-J"), OsStr::new("size=4"), path.as_os_str()],
    );
    let asked = |is_forced| preen(device(&path), &PreenOptions { is_forced, now: Some(0) }).unwrap();
    assert_eq!(asked(false), Preen::Skipped);
    let Preen::Unknown(reason) = asked(true) else { panic!("67,108,864 inodes were looked at") };
    assert!(reason.contains("67108864 inodes"), "{reason}");
}

/// No mutation may take longer; most take a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whatever the bytes say, there is an answer, soon.
#[test]
fn damage_is_survived() {
    if !have(&["mke2fs", "debugfs", "e2fsck"]) {
        return;
    }
    let lab = Lab::new();
    let tree = lab.path("tree");
    make_tree(&tree);
    std::thread::scope(|scope| {
        for (number, (name, args)) in [
            ("map", "-t ext2 -b 1024 -N 256"),
            ("extents", "-t ext4 -b 1024 -N 256 -O metadata_csum,^has_journal,^resize_inode,^dir_index"),
        ]
        .into_iter()
        .enumerate()
        {
            let (lab, tree) = (&lab, &tree);
            scope.spawn(move || {
                let base = fs::read(make_image(lab, tree, name, args, 2, number == 0)).unwrap();
                mutate(&base, number as u64);
            });
        }
    });
}

fn mutate(base: &[u8], seed: u64) {
    let used: Vec<usize> =
        (0..base.len()).step_by(16).filter(|at| base[*at..*at + 16].contains(&0)).collect();
    let used: Vec<usize> =
        used.into_iter().filter(|at| base[*at..*at + 16].iter().any(|byte| *byte != 0)).collect();
    let device: Device = Arc::new(MemoryDevice::new(base));
    let seals = seals(base, &device);
    let mut random = Random(0x9876_5432_1fed_cba9 ^ seed);
    for number in 0..1500 * rounds() {
        let overlay = Arc::new(Overlay::new(device.clone()));
        for _ in 0..=random.next() % 3 {
            let at = (used[(random.next() % used.len() as u64) as usize] + (random.next() % 16) as usize)
                .min(base.len() - 8);
            let bytes = (random.next() >> (random.next() % 60)).to_le_bytes();
            let length = 1 << (random.next() % 3);
            overlay.write_all_at(&bytes[..length], at as u64).unwrap();
            if let Some(seals) = seals.as_ref().filter(|_| number % 2 == 0) {
                seals.seal(&overlay, at, length);
            }
        }
        let start = Instant::now();
        preen(overlay, &PreenOptions { is_forced: true, now: Some(0) }).unwrap();
        assert!(start.elapsed() < PATIENCE, "{number} took {:?}", start.elapsed());
    }
    for length in (0..base.len()).step_by(40_961) {
        let short = Arc::new(MemoryDevice::new(&base[..length]));
        preen(short, &PreenOptions { is_forced: true, now: None }).unwrap();
    }
}
