//! GRUB's view of file systems beside `grub-fstest`: GRUB's own drivers over an image.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use storage::{Bus, Hardware};

use super::{Build, GrubWorld};
use crate::grub::{Answer, Place, Platform, World};

const HERE: Place<'static> = Place { device: "hd0", is_btrfs_relative: false };
/// Files of an image that are compared byte for byte.
const MAX_FILES: usize = 60;

/// The judge, unless it is missing or is not of the build that is claimed.
fn judge() -> Option<()> {
    let said = Command::new("grub-fstest").arg("--version").output().ok();
    let version = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let is_it = version.contains("2.06") && version.contains("deb12");
    if !is_it {
        println!("skipped: grub-fstest of Debian 12 is not installed");
    }
    is_it.then_some(())
}

fn shell(command: &str, folder: &Path) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output =
        Command::new("sh").args(["-ec", command]).current_dir(folder).env("PATH", path).output().unwrap();
    if !output.status.success() {
        println!("skipped: {command}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    output.status.success()
}

fn grub(image: &Path, command: &str, path: &str) -> Output {
    Command::new("grub-fstest").arg(image).arg(command).arg(format!("(loop0){path}")).output().unwrap()
}

/// Names as GRUB lists them: directories end in a slash.
fn names(output: &Output) -> Vec<String> {
    let mut names: Vec<String> =
        String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect();
    names.sort();
    names
}

/// Every name and the content of the first files; whether GRUB reads the image at all.
fn compare(image: &Path) -> bool {
    let disk = Arc::new(blockdev::FileDevice::open(image).unwrap());
    let storage = storage::discover(&[disk], &Default::default());
    let core = ["ext2", "xfs", "btrfs", "fat", "ntfs", "iso9660", "squash4"].map(str::to_owned);
    let mut world = GrubWorld::new(&storage, &Hardware::new(Bus::Sata, 1), 0, Platform::Bios, &core);
    world.set_build(Build::Debian);
    let mut folders = vec![String::from("/")];
    let mut compared = 0;
    while let Some(folder) = folders.pop() {
        let theirs = grub(image, "ls", &folder);
        // What it does not know it lists as nothing, without a word.
        let refused = String::from_utf8_lossy(&theirs.stderr).contains("error")
            || folder == "/" && theirs.stdout.trim_ascii().is_empty();
        let ours = match world.list(HERE, folder.as_bytes()) {
            Answer::Known(Ok(names)) => names,
            Answer::Known(Err(error)) => {
                assert!(
                    refused,
                    "{} {folder}: {error:?}, and GRUB lists {:?}",
                    image.display(),
                    names(&theirs)
                );
                return false;
            }
            Answer::Unknown(reason) => panic!("{}: {reason}", image.display()),
        };
        assert!(!refused, "{} {folder}: {}", image.display(), String::from_utf8_lossy(&theirs.stderr));
        let mut listed = Vec::new();
        for name in ours.iter().filter(|name| !matches!(name.as_slice(), b"." | b"..")) {
            let name = String::from_utf8_lossy(name).into_owned();
            let path = format!("{folder}{name}");
            let is_folder =
                matches!(world.lookup(HERE, path.as_bytes()), Answer::Known(super::Lookup::Directory));
            if is_folder {
                folders.push(format!("{path}/"));
            } else if compared < MAX_FILES {
                let theirs = grub(image, "cat", &path);
                match world.read(HERE, path.as_bytes(), 8 << 20) {
                    Answer::Known(Ok(bytes)) => {
                        let sizes = (bytes.len(), theirs.stdout.len());
                        assert!(bytes == theirs.stdout, "{} {path}: {sizes:?} bytes", image.display());
                    }
                    // GRUB takes an inode that was never written, as no journal was replayed, for an empty file.
                    _ => assert!(theirs.stdout.is_empty(), "{} {path}: GRUB reads it", image.display()),
                }
                compared += 1;
            }
            listed.push(if is_folder { format!("{name}/") } else { name });
        }
        listed.sort();
        // `ls` leaves out names that begin with a dot; links to directories get no slash there.
        listed.retain(|name| !name.starts_with('.'));
        let plain = |names: Vec<String>| -> Vec<String> {
            names.into_iter().map(|name| name.trim_end_matches('/').to_owned()).collect()
        };
        // NTFS' own files are hidden in ours.
        let mut theirs = names(&theirs);
        theirs.retain(|name| !name.starts_with('$'));
        assert_eq!(plain(listed), plain(theirs), "{} {folder}", image.display());
    }
    true
}

// What does not shrink is the same each time, so that what fails once can be made again.
const TREE: &str = "mkdir -p tree/boot/grub tree/empty; for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo content $i >tree/boot/grub/f$i.cfg; done
seq 1 200000 | gzip -9nc | head -c 300000 >tree/big; { echo x; head -c 9000 /dev/zero; } >tree/zero; : >tree/nothing; ln -s boot/grub/f1.cfg tree/link; ln -s ../big tree/boot/up
printf 'm\\n0 0\\nd--755 0 0\\nboot d--755 0 0\\nf ---644 0 0 tree/boot/grub/f1.cfg\\nup l--777 0 0 ../big\\n$\\nbig ---644 0 0 tree/big\\n$\\n$\\n' >proto";

/// What is made, and whether GRUB 2.06 of Debian 12 reads it.
#[test]
fn file_systems_as_grub_fstest_reads_them() {
    let Some(()) = judge() else { return };
    let ext = |options: &str| format!("truncate -s 40M i; mke2fs -q -F {options} -d tree i");
    let xfs = |options: &str| format!("truncate -s 320M i; mkfs.xfs -q -p proto {options} i");
    let btrfs = |options: &str| format!("truncate -s 160M i; mkfs.btrfs -q --rootdir tree {options} i");
    let makers = [
        (ext("-t ext2"), true),
        (ext("-t ext3 -b 1024"), true),
        (ext("-t ext4"), true),
        (ext("-t ext4 -O ^64bit,^metadata_csum"), true),
        (ext("-t ext4 -O metadata_csum_seed"), true),
        (ext("-t ext4 -O meta_bg,^resize_inode -b 1024"), true),
        (ext("-t ext4 -O large_dir"), true),
        (ext("-t ext4 -O encrypt"), true),
        (ext("-t ext4 -O inline_data"), false),
        (ext("-t ext4 -O ea_inode"), false),
        (ext("-t ext4 -O casefold"), false),
        // With blocks of 1 KiB GRUB looks for the descriptors in the wrong block.
        (ext("-t ext4 -O bigalloc -b 4096"), true),
        (xfs("-m crc=0"), true),
        (xfs(""), true),
        (xfs("-m bigtime=0,inobtcount=0 -i sparse=0"), true),
        (xfs("-b size=1024 -n size=8192"), true),
        (btrfs(""), true),
        (btrfs("--csum xxhash"), true),
        ("truncate -s 40M i; mkfs.fat -F 32 i >&2; mcopy -s -i i tree/boot tree/big ::/".into(), true),
        ("truncate -s 20M i; mkfs.fat -F 16 i >&2; mcopy -s -i i tree/boot tree/big ::/".into(), true),
        ("truncate -s 2M i; mkfs.fat -F 12 i >&2; mcopy -s -i i tree/boot tree/big ::/".into(), true),
        ("truncate -s 20M i; mkntfs -qF i; ntfscp i tree/big big; ntfscp i tree/zero zero".into(), true),
        ("xorriso -as mkisofs -quiet -R -J -o i tree".into(), true),
        ("mksquashfs tree i -quiet -no-progress >&2".into(), true),
        ("mksquashfs tree i -quiet -no-progress -comp xz >&2".into(), true),
    ];
    let mut compared = 0;
    for (maker, is_read) in makers {
        let folder = tempfile::tempdir().unwrap();
        if !shell(TREE, folder.path()) || !shell(&maker, folder.path()) {
            continue;
        }
        println!("{maker}");
        assert_eq!(compare(&folder.path().join("i")), is_read, "{maker}");
        compared += 1;
    }
    println!("{compared} file systems compared");
    assert!(compared >= 10, "the tools are there, and most file systems were not made");
}

/// GRUB replays no journal: what it sees of an unclean file system is what we show it.
#[test]
fn journals_are_not_replayed() {
    let Some(()) = judge() else { return };
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test-images/filesystem");
    let mut compared = 0;
    for name in [
        "ext4-fast-commit",
        "xfs-log-open",
        "xfs-log-v5",
        "xfs-log-v4",
        "xfs-log-1k",
        "xfs-forks",
        "btrfs-log",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let packed = samples.join(format!("{name}.img.zst"));
        if shell(&format!("zstd -qd {} -o i", packed.display()), folder.path()) {
            compare(&folder.path().join("i"));
            compared += 1;
        }
    }
    println!("{compared} images compared");
}
