//! Images that mkfs.fat and mtools wrote, whole and damaged.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says what it skips")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use blockdev::{BlockDeviceMut, Device, MemoryDevice, Overlay};
use filesystem::path::resolve;
use filesystem::{FileKind, FileSystem, Inode};
use filesystem_fat::FORMAT;

fn run(program: &str, arguments: &[&str]) -> Option<()> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    // Names in UTF-8, and no questions about the geometry.
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", path).env("LC_ALL", "C.UTF-8").env("MTOOLS_SKIP_CHECK", "1");
    match command.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{program} {arguments:?}: {said}");
            Some(())
        }
        Err(_) => {
            println!("skipped: {program} is not installed");
            None
        }
    }
}

/// A tree on the host: paths with their contents.
fn tree() -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let body = |seed: usize, length: usize| -> Vec<u8> {
        (0..length).map(|index| (index / 3 + seed * 7) as u8).collect()
    };
    files.insert("EFI/BOOT/BOOTX64.EFI".to_owned(), body(1, 300_000));
    files.insert("EFI/debian/grub.cfg".to_owned(), body(2, 126));
    files.insert("empty".to_owned(), Vec::new());
    files.insert("exactly one cluster.bin".to_owned(), body(3, 512));
    files.insert("Ein langer Name mit Ümlauten und mehr als dreizehn Zeichen.txt".to_owned(), body(4, 5000));
    files.insert("a.b.c.d".to_owned(), body(5, 4097));
    files.insert("lower.txt".to_owned(), body(6, 33));
    for number in 0..200 {
        files.insert(format!("many/file number {number}"), body(number, number * 5));
    }
    files
}

/// A file system with that tree; `None` where the tools are missing.
fn image(folder: &Path, options: &[&str], size: u64) -> Option<Vec<u8>> {
    let (source, path) = (folder.join("source"), folder.join("image"));
    for (name, content) in tree() {
        let file = source.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, content).unwrap();
    }
    std::fs::File::create(&path).unwrap().set_len(size).unwrap();
    let image = path.to_str().unwrap();
    run("mkfs.fat", &[options, &["-i", "1234abcd", "-n", "ESP", image]].concat())?;
    let mut entries: Vec<String> = std::fs::read_dir(&source)
        .unwrap()
        .map(|entry| entry.unwrap().path().display().to_string())
        .collect();
    entries.sort();
    let mut arguments = vec!["-i", image, "-s", "-Q", "-m"];
    arguments.extend(entries.iter().map(String::as_str));
    arguments.push("::/");
    run("mcopy", &arguments)?;
    Some(std::fs::read(&path).unwrap())
}

fn walk(fs: &dyn FileSystem, dir: Inode, path: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs.read_dir(dir).unwrap() {
        let name = format!("{path}{}", String::from_utf8(entry.name).unwrap());
        let metadata = fs.metadata(entry.inode).unwrap();
        if metadata.kind == FileKind::Directory {
            walk(fs, entry.inode, &format!("{name}/"), found);
        } else {
            let mut content = vec![0; metadata.size as usize];
            assert_eq!(fs.read_at(entry.inode, &mut content, 0).unwrap(), content.len());
            found.insert(name, content);
        }
    }
}

const KINDS: [(&str, &[&str], u64); 4] = [
    ("FAT12", &["-F", "12", "-s", "1"], 1_474_560),
    ("FAT12", &["-F", "12", "-s", "4"], 7 << 20),
    ("FAT16", &["-F", "16", "-s", "1"], 16 << 20),
    ("FAT32", &["-F", "32", "-s", "1"], 40 << 20),
];

#[test]
fn a_tree_that_mtools_wrote() {
    for (width, options, size) in KINDS {
        let folder = tempfile::tempdir().unwrap();
        let Some(content) = image(folder.path(), options, size) else { return };
        let device: Device = Arc::new(MemoryDevice::new(content));
        let identity = (FORMAT.probe)(device.as_ref()).unwrap().unwrap();
        assert_eq!((identity.kind, identity.uuid.as_deref()), ("vfat", Some("1234-ABCD")));
        assert_eq!(identity.label.as_deref(), Some(b"ESP".as_slice()));
        let opened = (FORMAT.open)(device).unwrap();
        assert!(opened.problems.is_empty(), "{options:?}: {:?}", opened.problems);
        let fs = opened.value;
        assert_eq!((&fs.info().features, fs.info().needs_recovery), (&vec![width.to_owned()], false));
        let mut found = BTreeMap::new();
        walk(fs.as_ref(), fs.root(), "", &mut found);
        assert!(found == tree(), "{options:?}: {:?}", found.keys().take(9).collect::<Vec<_>>());
        // By FAT's rules a name is found in any case.
        let inode = resolve(fs.as_ref(), b"/efi/boot/bootx64.efi").unwrap();
        let mut part = [0; 700];
        assert_eq!(fs.read_at(inode, &mut part, 299_500).unwrap(), 500);
        assert_eq!(part[..500], tree()["EFI/BOOT/BOOTX64.EFI"][299_500..]);
        assert!(fs.lookup(fs.root(), b"nothing").unwrap().is_none());
    }
}

/// Where the first table of an image begins, and the entries of FAT32 are four bytes.
fn table_start(content: &[u8]) -> usize {
    usize::from(u16::from_le_bytes([content[14], content[15]]))
        * usize::from(u16::from_le_bytes([content[11], content[12]]))
}

#[test]
fn damage_is_named_and_the_rest_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let Some(good) = image(folder.path(), &["-F", "32", "-s", "1"], 40 << 20) else { return };
    let table = table_start(&good);
    let size = u32::from_le_bytes(good[36..40].try_into().unwrap()) as usize * 512;
    let open = |content: Vec<u8>| (FORMAT.open)(Arc::new(MemoryDevice::new(content))).unwrap();
    let inode = |fs: &dyn FileSystem| resolve(fs, b"/EFI/BOOT/BOOTX64.EFI").unwrap();
    // The file's chain: its first cluster is where its entry says.
    let fs = open(good.clone()).value;
    let entry = inode(fs.as_ref()).0 as usize * 32;
    let cluster = usize::from(u16::from_le_bytes([good[entry + 26], good[entry + 27]]));
    let set = |content: &mut Vec<u8>, cluster: usize, value: u32| {
        for copy in 0..2 {
            let at = table + copy * size + cluster * 4;
            content[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
    };
    for (value, said) in [
        (cluster as u32, "again"),
        (0, "free"),
        (0x0fff_fff7, "bad"),
        (0x0aaa_aaaa, "cluster number"),
        (0x0fff_ffff, "a chain that ends before"),
    ] {
        let mut content = good.clone();
        set(&mut content, cluster + 5, value);
        let fs = open(content).value;
        let error = fs.read_at(inode(fs.as_ref()), &mut vec![0; 300_000], 0).unwrap_err().to_string();
        assert!(error.contains(said), "{said}: {error}");
        let other = resolve(fs.as_ref(), b"/EFI/debian/grub.cfg").unwrap();
        assert_eq!(fs.read_at(other, &mut [0; 126], 0).unwrap(), 126);
    }
    let damaged = |at: usize| {
        let mut content = good.clone();
        content[at] ^= 0x55;
        open(content).problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    assert!(damaged(table + size + 4 * (cluster + 1)).contains("something else in table 1"));
    assert!(damaged(6 * 512 + 0x30).contains("FAT backup boot sector at byte 3120"));
    assert!(damaged(table + 7).contains("something else in table 1"));
    assert!(!open(good.clone()).value.info().needs_recovery);
    let mut dirty = good.clone();
    dirty[0x41] = 1;
    assert!(open(dirty).value.info().needs_recovery);
    let mut dirty = good.clone();
    set(&mut dirty, 1, 0x07ff_ffff);
    let opened = open(dirty);
    assert_eq!(opened.value.info().features, ["FAT32", "not unmounted"]);
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 20) as usize % bound
    }
}

/// Looks around, but not for long: damage may make a tree of any depth.
fn look(fs: &dyn FileSystem, dir: Inode, left: &mut usize) {
    let Ok(entries) = fs.read_dir(dir) else { return };
    for entry in entries {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let Ok(metadata) = fs.metadata(entry.inode) else { continue };
        if metadata.kind == FileKind::Directory {
            look(fs, entry.inode, left);
        } else {
            drop(fs.read_at(entry.inode, &mut [0; 600], metadata.size / 2));
        }
    }
}

#[test]
fn no_mutation_panics_or_hangs() {
    // Small tables, for opening compares them.
    const SMALL: [(&[&str], u64); 4] = [
        (&["-F", "12", "-s", "1"], 1_474_560),
        (&["-F", "12", "-s", "4"], 4 << 20),
        (&["-F", "16", "-s", "1"], 4 << 20),
        (&["-F", "32", "-s", "1"], 34 << 20),
    ];
    for (kind, (options, size)) in SMALL.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let Some(good) = image(folder.path(), options, size) else { return };
        let (table, length) = (table_start(&good), 1 << 20);
        let device: Device = Arc::new(MemoryDevice::new(good.as_slice()));
        let mut walked = 0;
        for number in 0..5000_u64 {
            let mut random = Random((number + 10_000 * kind as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            let overlay = Arc::new(Overlay::new(device.clone()));
            for _ in 0..=random.below(4) {
                let at = match random.below(4) {
                    0 => 11 + random.below(60),
                    1 => table + random.below(1200),
                    _ => table + random.below(length),
                };
                let byte =
                    [0, 0xff, good[at] ^ 1 << random.below(8), random.below(256) as u8][random.below(4)];
                overlay.write_all_at(&[byte], at as u64).unwrap();
            }
            drop((FORMAT.probe)(overlay.as_ref()));
            if let Ok(opened) = (FORMAT.open)(overlay) {
                let mut left = 40;
                look(opened.value.as_ref(), opened.value.root(), &mut left);
                walked += usize::from(left < 35);
            }
        }
        assert!(walked > 3000, "{options:?}: {walked}");
    }
}
