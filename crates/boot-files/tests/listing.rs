//! What an initramfs holds, as `lsinitramfs` (initramfs-tools) and `lsinitrd` (dracut) list it.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says what it skips")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use boot_files::initramfs::{Initramfs, Limits};

fn has(program: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        println!("skipped: {program} is not installed");
    }
    found
}

fn shell(command: &str, folder: &Path) -> String {
    let output = Command::new("bash").args(["-ec", command]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn ours(path: &Path) -> BTreeSet<String> {
    let mut file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let found = Initramfs::read(&mut file, Limits::default(), &|_, _| false).unwrap();
    assert!(found.damage.is_none(), "{:?}", found.damage);
    found.entries.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect()
}

/// Without the root itself, which the tools write in several ways.
fn names<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let names = lines.map(|name| name.trim_start_matches("./").trim_matches('/').to_owned());
    names.filter(|name| !matches!(name.as_str(), "" | ".")).collect()
}

/// The last column of `cpio -tv`, without what a link leads to.
fn long_listing(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| {
        line.len() > 10 && line.starts_with(['-', 'd', 'l', 'c', 'b', 'p']) && line.as_bytes()[10] == b' '
    });
    names(lines.filter_map(|line| {
        let mut rest = line;
        // Device numbers take the column of the size.
        let columns = if line.starts_with(['c', 'b']) && line.contains(", ") { 9 } else { 8 };
        for _ in 0..columns {
            rest = rest.trim_start().split_once(' ')?.1;
        }
        Some(rest.split(" -> ").next().unwrap_or(rest))
    }))
}

const TREE: &str = "mkdir -p tree/usr/bin tree/etc/conf.d tree/lib early/kernel/x86/microcode
for i in $(seq 1 300); do echo $i >tree/usr/bin/program$i; done
echo x >'tree/etc/conf.d/with a blank'; : >tree/etc/nothing; ln -s usr/bin tree/bin; ln -s ../nowhere tree/lib/gone
ln tree/usr/bin/program1 tree/usr/bin/other1; head -c 200000 /dev/urandom >tree/lib/big; mkfifo tree/pipe
head -c 20000 /dev/urandom >early/kernel/x86/microcode/GenuineIntel.bin
(cd early && find . | cpio -o -H newc --quiet) >early.cpio; (cd tree && find . | cpio -o -H newc --quiet) >main.cpio";

#[test]
fn every_compression_as_the_makers_list_it() {
    if !has("cpio") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    shell(TREE, at);
    let mut compared = 0;
    for (program, command) in [
        ("cat", "cat"),
        ("gzip", "gzip -9n"),
        ("xz", "xz --check=crc32 --lzma2=dict=1MiB"),
        ("zstd", "zstd -q -19 -T1"),
        ("lz4", "lz4 -lq9"),
        ("lzma", "xz --format=lzma"),
        ("bzip2", "bzip2 -9"),
    ] {
        if !has(if program == "lzma" { "xz" } else { program }) {
            continue;
        }
        for early in ["", "early.cpio"] {
            // The kernel pads the first archive to four bytes; both tools want what cpio pads to.
            shell(
                &format!(
                    "{{ {}; {command} <main.cpio; }} >initrd",
                    if early.is_empty() { ":" } else { "cat early.cpio" }
                ),
                at,
            );
            let found = ours(&at.join("initrd"));
            assert!(found.len() > 300, "{command}: {}", found.len());
            let found = names(found.iter().map(String::as_str));
            if has("lsinitramfs") {
                // It lists an archive that is not compressed, and fails behind its end.
                let theirs = shell("lsinitramfs initrd || :", at);
                assert_eq!(found, names(theirs.lines()), "{command} {early}");
                compared += 1;
            }
            if has("lsinitrd") {
                let theirs = shell("lsinitrd initrd", at);
                assert_eq!(found, long_listing(&theirs), "{command} {early}");
                compared += 1;
            }
        }
    }
    println!("{compared} listings compared");
}
