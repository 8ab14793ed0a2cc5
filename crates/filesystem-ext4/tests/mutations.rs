//! Damaged images: whatever the bytes say, reading, recovery and replacing end, soon and without a panic; and
//! a file that was replaced reads as what it was replaced with.

#![expect(clippy::unwrap_used, reason = "whatever fails, fails the test")]

#[cfg(test)]
mod seals;
#[cfg(test)]
mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blockdev::{BlockDevice, BlockDeviceMut, Device, MemoryDevice, Overlay};
use filesystem::{FileKind, FileSystem, Inode, Timestamp, path};
use filesystem_ext4::FORMAT;
use seals::Seals;
use support::{Lab, ask_debugfs, debugfs, have, pattern};

/// Layouts with and without checksums, which stop nearly every mutation at once unless they are made right again.
const CASES: &[(&str, &str, usize)] = &[
    ("ext2", "-t ext2 -b 1024 -N 32", 3000),
    ("extents", "-t ext4 -b 1024 -N 32 -O ^metadata_csum,^has_journal,^resize_inode", 3000),
    (
        "inline",
        "-t ext4 -b 1024 -N 32 -O inline_data,ea_inode,^metadata_csum,^has_journal,^resize_inode",
        3000,
    ),
    ("checksums", "-t ext4 -b 1024 -N 32 -O metadata_csum,^has_journal,^resize_inode", 20_000),
    ("journal", "-t ext4 -b 1024 -N 32 -J size=1 -O ^metadata_csum,^resize_inode", 3000),
];

/// `MUTATIONS=50` makes that many times as many, with other damage each time.
fn rounds() -> u64 {
    std::env::var("MUTATIONS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

/// No single mutation may take longer; most take a millisecond.
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn damage_is_survived() {
    if !have(&["mke2fs", "debugfs"]) {
        return;
    }
    let lab = Lab::new();
    std::thread::scope(|scope| {
        for (name, args, count) in CASES {
            let base = image(&lab, name, args);
            scope.spawn(move || (1..=rounds()).for_each(|round| mutate(name, &base, *count, round)));
        }
    });
}

fn image(lab: &Lab, name: &str, args: &str) -> Vec<u8> {
    let tree = lab.path(&format!("tree-{name}"));
    std::fs::create_dir_all(tree.join("dir/sub")).unwrap();
    std::fs::write(tree.join("small"), pattern(50, 1)).unwrap();
    std::fs::write(tree.join("medium"), pattern(100, 2)).unwrap();
    std::fs::write(tree.join("large"), pattern(40_000, 3)).unwrap();
    for number in 0..12 {
        std::fs::write(tree.join(format!("dir/entry-{number}")), "").unwrap_or(());
    }
    std::fs::create_dir_all(tree.join("dir/sub/deeper")).unwrap();
    std::os::unix::fs::symlink("a".repeat(30), tree.join("fast")).unwrap();
    std::os::unix::fs::symlink("b".repeat(90), tree.join("slow")).unwrap();
    let args = args.replace("-N 32", "-N 80");
    let image = lab.image(name, &args, if name == "journal" { 4 } else { 2 }, Some(&tree)).unwrap();
    // The last one has no place within its inode.
    let long = "v".repeat(200);
    debugfs(
        &image,
        &format!(
            "ea_set small user.name value\nea_set medium security.selinux system_u:object_r:etc_t:s0\n\
             ea_set dir user.long {long}\n"
        ),
    );
    // Leaves a tree of some depth.
    let punched: String =
        (1..39).step_by(2).map(|number| format!("punch large {number} {number}\n")).collect();
    debugfs(&image, &punched);
    if name == "journal" {
        let block = ask_debugfs(&image, "bmap large 0").trim().to_owned();
        let new = lab.path("new");
        std::fs::write(&new, pattern(1024, 7)).unwrap();
        let write = format!("jw -b {block} {}\n", new.display());
        debugfs(&image, &format!("jo\n{write}jw -r {block}\n{write}{write}jc\n"));
    }
    std::fs::read(image).unwrap()
}

/// From nothing to more than a block map holds directly.
fn contents() -> Vec<Vec<u8>> {
    [0, 40, 120, 3000, 30_000].map(|length| pattern(length, length as u64)).to_vec()
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

fn mutate(name: &str, base: &[u8], count: usize, round: u64) {
    // What is all zeros is seldom looked at.
    let used: Vec<usize> =
        (0..base.len()).step_by(16).filter(|at| base[*at..*at + 16].iter().any(|byte| *byte != 0)).collect();
    // Of file content only a part, or it would be most.
    let used: Vec<usize> =
        used.into_iter().filter(|at| !is_content(&base[*at..*at + 16]) || at % 256 == 0).collect();
    let device: Device = Arc::new(MemoryDevice::new(base));
    let contents = contents();
    let seals = (name == "checksums").then(|| Seals::of(base));
    let mut opened = 0;
    let mut random = Random(round.wrapping_mul(0x1234_5678_9abc_def1));
    for number in 0..count {
        let overlay = Arc::new(Overlay::new(device.clone()));
        let mut what = Vec::new();
        for _ in 0..=random.below(3) {
            let at = (used[random.below(used.len())] + random.below(16)).min(base.len() - 8);
            let bytes = mutation(&mut random, base, at);
            overlay.write_all_at(&bytes, at as u64).unwrap();
            what.push((at, bytes));
        }
        // Half of them reach what stands behind the checksums.
        if let Some(seals) = seals.as_ref().filter(|_| number % 2 == 0) {
            what.iter().for_each(|(at, bytes)| seals.seal(&overlay, *at, bytes.len()));
            opened +=
                usize::from((FORMAT.open)(overlay.clone()).is_ok_and(|found| found.problems.is_empty()));
        }
        let start = Instant::now();
        visit(&overlay, number, &contents, &what);
        assert!(start.elapsed() < PATIENCE, "{name}: {what:x?} took {:?}", start.elapsed());
    }
    // Most of what was changed is not what opening looks at, and would stop it for the checksum alone.
    assert!(seals.is_none() || opened > count / 8, "{opened} of {count} open without a problem");
}

/// Random content has no zeros and no runs.
fn is_content(bytes: &[u8]) -> bool {
    bytes.iter().filter(|byte| **byte == 0).count() < 2 && !bytes.is_ascii()
}

fn mutation(random: &mut Random, base: &[u8], at: usize) -> Vec<u8> {
    match random.below(8) {
        0 => vec![base[at] ^ 1 << random.below(8)],
        1 => vec![random.next() as u8],
        2 => vec![[0, 0xff][random.below(2)]; 1 + random.below(8)],
        3 => (random.next() as u16).to_le_bytes().to_vec(),
        4 => (random.below(2048) as u32).to_le_bytes().to_vec(),
        5 => (u32::from_le_bytes(base[at..at + 4].try_into().unwrap()).wrapping_add(random.below(5) as u32))
            .wrapping_sub(2)
            .to_le_bytes()
            .to_vec(),
        6 => {
            let from = random.below(base.len() - 64);
            base[from..from + 1 + random.below(32)].to_vec()
        }
        _ => (random.next() as u32).to_le_bytes().to_vec(),
    }
}

/// Everything that can be done to an image; `number` chooses what replaces files.
fn visit(overlay: &Arc<Overlay>, number: usize, contents: &[Vec<u8>], what: &[(usize, Vec<u8>)]) {
    let _ = (FORMAT.probe)(&**overlay);
    if let Ok(opened) = (FORMAT.open)(overlay.clone()) {
        walk(&*opened.value);
    }
    if let Ok(replayed) = (FORMAT.replay)(overlay.clone())
        && replayed.transactions > 0
        && let Ok(opened) = (FORMAT.open)(replayed.device)
    {
        walk(&*opened.value);
    }
    let Ok(opened) = (FORMAT.open)(overlay.clone()) else { return };
    let fs = opened.value;
    let name = ["small", "large"][number / contents.len() % 2];
    if let Ok(file) = path::resolve(&*fs, name.as_bytes()) {
        let content = &contents[number % contents.len()];
        let now = Timestamp { seconds: 1, nanoseconds: 0 };
        if fs.writable().unwrap().replace(file, content, now).is_ok() {
            let found = filesystem::read_to_end(&*fs, file, 1 << 20).unwrap();
            assert!(found == *content, "{name} reads as something else: {what:x?}");
        }
    }
}

fn walk(fs: &dyn FileSystem) {
    let mut seen = HashSet::new();
    let mut todo = vec![fs.root()];
    while let Some(inode) = todo.pop().filter(|_| seen.len() < 100) {
        if !seen.insert(inode) {
            continue;
        }
        let _ = fs.xattrs(inode);
        let Ok(metadata) = fs.metadata(inode) else { continue };
        if metadata.kind == FileKind::Directory {
            let _ = fs.read_dir(inode).map(|entries| todo.extend(entries.iter().map(|entry| entry.inode)));
            let _ = fs.lookup(inode, b"entry-7");
        }
        if metadata.kind == FileKind::Symlink {
            let _ = fs.read_link(inode);
        }
        if metadata.kind == FileKind::Regular {
            let mut buf = [0; 3000];
            for offset in [0, 1 << 20, 1 << 33, metadata.size.saturating_sub(2000)] {
                let _ = fs.read_at(inode, &mut buf, offset);
            }
        }
    }
    let _ = fs.metadata(Inode(u64::MAX));
    let _ = fs.info().size;
}

/// Images cut short are opened as far as they go.
#[test]
fn any_length_is_survived() {
    if !have(&["mke2fs", "debugfs"]) {
        return;
    }
    let lab = Lab::new();
    let base = image(&lab, CASES[1].0, CASES[1].1);
    for length in (0..base.len()).step_by(7919) {
        let device = Arc::new(MemoryDevice::new(&base[..length]));
        let size = device.size();
        let overlay = Arc::new(Overlay::new(device));
        visit(&overlay, length, &contents(), &[]);
        if let Ok(opened) = (FORMAT.open)(overlay) {
            assert!(!opened.problems.is_empty(), "{size}");
        }
    }
}
