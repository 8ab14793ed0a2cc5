//! Replaying journals that `debugfs` wrote, against `e2fsck -E journal_only` on a copy of the image.

#![expect(clippy::unwrap_used, reason = "whatever fails, fails the test")]

#[cfg(test)]
mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use blockdev::{BlockDevice, Device, MemoryDevice};
use filesystem_ext4::FORMAT;
use support::{Lab, ask_debugfs, debugfs, device, e2fsck, have, list, open, pattern, read, run};

/// Feature sets with each kind of group descriptors and journal.
const CASES: &[(&str, &str)] = &[
    ("ext3", "-t ext3 -b 4096"),
    ("ext4", "-t ext4 -b 4096"),
    ("ext4-upstream", "-t ext4 -b 4096 -O metadata_csum_seed,orphan_file"),
    ("1k-blocks", "-t ext4 -b 1024"),
    ("32-bit", "-t ext4 -b 4096 -O ^64bit"),
    ("uninit_bg", "-t ext4 -b 4096 -O ^metadata_csum,uninit_bg"),
    ("bigalloc", "-t ext4 -b 4096 -O bigalloc -C 16384"),
];

/// How the journal is opened: without checksums, and with each kind. Without `metadata_csum` the last two are
/// the first kind, a checksum over the whole transaction.
const CHECKSUMS: &[&str] = &["jo", "jo -c -v 2", "jo -c -v 3"];

/// A file system with the files a, b, c and d, and where their first blocks are.
struct Dirty {
    image: PathBuf,
    block_size: usize,
    blocks: [u64; 4],
}

fn make(lab: &Lab, name: &str, args: &str) -> Option<Dirty> {
    let tree = lab.path("tree");
    let _ = std::fs::create_dir(&tree);
    for file in ["a", "b", "c", "d"] {
        std::fs::write(tree.join(file), file.repeat(12_288)).unwrap();
    }
    let image = lab.image(name, args, 40, Some(&tree))?;
    let block_size = if args.contains("-b 1024") { 1024 } else { 4096 };
    let block = |file: &str| ask_debugfs(&image, &format!("bmap {file} 0")).trim().parse().unwrap();
    let blocks = ["a", "b", "c", "d"].map(block);
    Some(Dirty { image, block_size, blocks })
}

impl Dirty {
    /// Writes transactions: a gets new content; b gets content that looks like the journal's own; c gets new
    /// content, then is revoked; d gets new content, without a commit. Returns how many are complete.
    fn write_journal(&self, lab: &Lab, open: &str) -> u64 {
        let new = lab.path("new");
        let magic = lab.path("magic");
        std::fs::write(&new, self.new_blocks()).unwrap();
        std::fs::write(&magic, self.magic_block()).unwrap();
        let (new, magic) = (new.display(), magic.display());
        let [a, b, c, d] = self.blocks;
        // Where a checksum covers the transaction, debugfs 1.47.0 counts revocation blocks in, which nobody
        // else does.
        let (revoked, count) = if self.has_transaction_checksums(open) {
            (String::new(), 2)
        } else {
            (format!("jw -b {c} {new}\njw -r {c}\n"), 4)
        };
        let commands = format!(
            "{open}\njw -b {a},{},{} {new}\njw -b {b} {magic}\n{revoked}jw -c -b {d} {new}\njc\n",
            a + 1,
            a + 2
        );
        debugfs(&self.image, &commands);
        count
    }

    fn has_transaction_checksums(&self, open: &str) -> bool {
        let features = ask_debugfs(&self.image, "features");
        open != "jo" && !features.contains("metadata_csum")
    }

    /// Three blocks, no two alike.
    fn new_blocks(&self) -> Vec<u8> {
        [b'N', b'O', b'P'].map(|byte| vec![byte; self.block_size]).concat()
    }

    fn magic_block(&self) -> Vec<u8> {
        let mut bytes = pattern(self.block_size, 3);
        bytes[..4].copy_from_slice(&[0xc0, 0x3b, 0x39, 0x98]);
        bytes
    }

    /// The first three blocks of the files.
    fn contents(&self, device: Device) -> [Vec<u8>; 4] {
        let fs = open(device);
        ["a", "b", "c", "d"].map(|file| read(&*fs, file)[..3 * self.block_size].to_vec())
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.image).unwrap()
    }
}

fn save(device: &dyn BlockDevice, path: &Path) {
    let mut bytes = vec![0; device.size() as usize];
    device.read_exact_at(&mut bytes, 0).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn transactions_land_as_e2fsck_puts_them() {
    if !have(&["mke2fs", "debugfs", "e2fsck", "dumpe2fs"]) {
        return;
    }
    let lab = Lab::new();
    let mut compared = 0;
    for (name, args) in CASES {
        for checksums in CHECKSUMS {
            let Some(dirty) = make(&lab, name, args) else { continue };
            let count = dirty.write_journal(&lab, checksums);
            let case = format!("{name}, {checksums}");
            let fs = open(device(&dirty.image));
            assert!(fs.info().needs_recovery, "{case}");
            let before = dirty.bytes();

            let replayed = (FORMAT.replay)(device(&dirty.image)).unwrap();
            assert_eq!(replayed.transactions, count, "{case}");
            let [a, b, c, d] = dirty.contents(replayed.device.clone());
            assert!(a == dirty.new_blocks(), "{case}");
            assert!(b[..dirty.block_size] == dirty.magic_block(), "{case}");
            assert!(c.iter().all(|byte| *byte == b'c'), "{case}");
            assert!(d.iter().all(|byte| *byte == b'd'), "{case}");
            assert!(!open(replayed.device.clone()).info().needs_recovery);
            assert!(before == dirty.bytes(), "{case}: the image was written");

            let ours = lab.path("ours.img");
            save(&*replayed.device, &ours);
            assert_eq!(e2fsck(&ours), Ok(()), "{case}");
            let again = (FORMAT.replay)(device(&ours)).unwrap();
            assert_eq!(again.transactions, 0);

            run("e2fsck", &["-y".as_ref(), "-E".as_ref(), "journal_only".as_ref(), dirty.image.as_os_str()]);
            assert_eq!(list(&*open(replayed.device.clone())), list(&*open(device(&dirty.image))), "{case}");
            let counters = |image: &Path| {
                let text = run("dumpe2fs", &["-h".as_ref(), image.as_os_str()]).stdout;
                let text = String::from_utf8(text).unwrap();
                text.lines().filter(|line| line.starts_with("Free")).collect::<Vec<_>>().join(";")
            };
            assert_eq!(counters(&ours), counters(&dirty.image), "{case}");
            compared += 1;
        }
    }
    assert!(compared >= 12, "{compared}");
}

/// Where each block of the log begins in the image, in order.
fn log_blocks(dirty: &Dirty) -> Vec<usize> {
    let text = ask_debugfs(&dirty.image, "blocks <8>");
    text.split_whitespace().map(|block| block.parse::<usize>().unwrap() * dirty.block_size).collect()
}

/// With checksums a damaged transaction stops recovery, as it stops the kernel's; one that was never finished
/// only ends it.
#[test]
fn the_end_of_the_log() {
    if !have(&["mke2fs", "debugfs"]) {
        return;
    }
    let lab = Lab::new();
    let dirty = make(&lab, "ext4", "-t ext4 -b 4096").unwrap();
    dirty.write_journal(&lab, "jo -c -v 3");
    let blocks = log_blocks(&dirty);
    // The first transaction has two copies more than the others; from here on: 4 descriptor, 5 copy, 6 commit;
    // 7, 8, 9; 10 revocation, 11 commit; 12, 13.
    let (first, blocks) = (blocks[1], [&blocks[..1], &blocks[3..]].concat());
    let good = dirty.bytes();
    let replay = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        (FORMAT.replay)(Arc::new(MemoryDevice::new(bytes)))
    };
    let transactions = |change: &dyn Fn(&mut Vec<u8>)| replay(change).unwrap().transactions;
    let structure = |change: &dyn Fn(&mut Vec<u8>)| {
        let error = replay(change).unwrap_err();
        let corrupt = error.as_corrupt().unwrap();
        (corrupt.structure, corrupt.field, corrupt.offset as usize)
    };
    assert_eq!(transactions(&|_| ()), 4);
    assert_eq!(transactions(&|bytes| bytes[blocks[11]..][..4096].fill(0)), 3);
    assert_eq!(transactions(&|bytes| bytes[blocks[4]..][..4096].fill(0)), 1);
    assert_eq!(transactions(&|bytes| bytes[first..][..4096].fill(0)), 0);
    assert_eq!(transactions(&|bytes| bytes[blocks[4] + 11] ^= 1), 1);
    assert_eq!(structure(&|bytes| bytes[blocks[5] + 77] ^= 1), ("journalled block", "checksum", blocks[5]));
    assert_eq!(structure(&|bytes| bytes[blocks[4] + 77] ^= 1), ("descriptor block", "checksum", blocks[4]));
    assert_eq!(structure(&|bytes| bytes[blocks[10] + 77] ^= 1), ("revocation block", "checksum", blocks[10]));
    assert_eq!(structure(&|bytes| bytes[blocks[6] + 77] ^= 1), ("commit block", "checksum", blocks[6]));
    assert_eq!(structure(&|bytes| bytes[blocks[0] + 0x19] ^= 1).0, "journal superblock");
    // Damage in a transaction without a commit is no damage.
    assert_eq!(transactions(&|bytes| bytes[blocks[12] + 77] ^= 1), 4);
    assert_eq!(transactions(&|bytes| bytes[blocks[13] + 77] ^= 1), 4);
}

/// Where nothing protects the journal, what is in it counts; only what is missing ends it.
#[test]
fn without_checksums_damage_passes() {
    if !have(&["mke2fs", "debugfs"]) {
        return;
    }
    let lab = Lab::new();
    let dirty = make(&lab, "ext3", "-t ext3 -b 4096").unwrap();
    dirty.write_journal(&lab, "jo");
    let blocks = log_blocks(&dirty);
    let mut bytes = dirty.bytes();
    // The blocks of the map lie between those of the journal; find the second copy by its content.
    let copy = blocks.iter().filter(|at| bytes[**at + 4..**at + 4096] == dirty.magic_block()[4..]).count();
    assert_eq!(copy, 1);
    let copy = blocks.iter().find(|at| bytes[**at + 4..**at + 4096] == dirty.magic_block()[4..]).unwrap();
    bytes[copy + 77] ^= 1;
    let replayed = (FORMAT.replay)(Arc::new(MemoryDevice::new(bytes))).unwrap();
    assert_eq!(replayed.transactions, 4);
    let mut expected = dirty.magic_block();
    expected[77] ^= 1;
    assert!(dirty.contents(replayed.device)[1][..4096] == expected);
}

#[test]
fn a_clean_file_system_is_left_alone() {
    if !have(&["mke2fs"]) {
        return;
    }
    let lab = Lab::new();
    for (name, args) in CASES {
        let Some(image) = lab.image(name, args, 40, None) else { continue };
        let clean = device(&image);
        let replayed = (FORMAT.replay)(clean.clone()).unwrap();
        assert!(Arc::ptr_eq(&clean, &replayed.device) && replayed.transactions == 0, "{name}");
    }
}

/// The mark that the orphan file holds something goes away when it holds nothing, and stays when it does.
#[test]
fn empty_orphan_files_are_marked_as_empty() {
    if !have(&["mke2fs", "debugfs", "e2fsck"]) {
        return;
    }
    let lab = Lab::new();
    let Some(image) = lab.image("orphans", "-t ext4 -b 4096 -O orphan_file", 40, None) else { return };
    debugfs(&image, "feature orphan_present\n");
    let is_present =
        |device: Device| open(device).info().features.iter().any(|name| name == "orphan_present");
    assert!(is_present(device(&image)));
    let replayed = (FORMAT.replay)(device(&image)).unwrap();
    assert!(!is_present(replayed.device.clone()));
    let ours = lab.path("ours.img");
    save(&*replayed.device, &ours);
    assert_eq!(e2fsck(&ours), Ok(()));

    // Any change in the file breaks its checksum, which is damage.
    let number = ask_debugfs(&image, "show_super_stats -h");
    let number = number.lines().find(|line| line.starts_with("Orphan file inode")).unwrap();
    let number: u32 = number.split_whitespace().last().unwrap().parse().unwrap();
    let block = ask_debugfs(&image, &format!("bmap <{number}> 0"));
    let at = block.trim().parse::<usize>().unwrap() * 4096;
    let mut bytes = std::fs::read(&image).unwrap();
    bytes[at] = 12;
    let error = (FORMAT.replay)(Arc::new(MemoryDevice::new(bytes))).unwrap_err();
    assert_eq!(error.as_corrupt().unwrap().structure, "orphan file block");
}

/// A first fast commit without an end is damage, on which the kernel refuses to mount; one that names an earlier
/// transaction is a leftover.
#[test]
fn fast_commits_without_an_end() {
    if !have(&["mke2fs", "debugfs"]) {
        return;
    }
    let lab = Lab::new();
    let args = "-t ext4 -b 4096 -O fast_commit,^metadata_csum";
    let Some(dirty) = make(&lab, "fast_commit", args) else { return };
    dirty.write_journal(&lab, "jo");
    let blocks: Vec<usize> = (0..1040)
        .filter_map(|number| ask_debugfs(&dirty.image, &format!("bmap <8> {number}")).trim().parse().ok())
        .map(|block: usize| block * 4096)
        .collect();
    let mut bytes = dirty.bytes();
    let field = |at: usize| u32::from_be_bytes(bytes[blocks[0] + at..][..4].try_into().unwrap()) as usize;
    // The area begins one block after the log: Linux 6.18 put its first block there.
    let first = blocks[field(0x10) - field(0x54) + 1];
    assert!(field(0x54) > 0);
    bytes[blocks[0] + 0x2b] |= 0x20;
    let mut replay = |transaction: u32| {
        let mut head = [9_u16, 8, 0, 0].map(u16::to_le_bytes).concat();
        head.extend(transaction.to_le_bytes());
        bytes[first..first + 12].copy_from_slice(&head);
        (FORMAT.replay)(Arc::new(MemoryDevice::new(bytes.clone())))
    };
    assert_eq!(replay(4).unwrap().transactions, 4);
    let error = replay(5).unwrap_err();
    let corrupt = error.as_corrupt().unwrap();
    assert_eq!((corrupt.structure, corrupt.offset), ("fast commit block", first as u64 + 12));
}
