use std::io::{BufReader, Write};

use super::*;

/// One archive: directories end with a slash, links are `name -> target`, all else are files with content.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, (name, content)) in entries.iter().copied().chain([("TRAILER!!!", &b""[..])]).enumerate() {
        let (name, mode, content) = match name.split_once(" -> ") {
            Some((name, target)) => (name, 0o12_0777, target.as_bytes()),
            None if name.ends_with('/') => (name.trim_end_matches('/'), 0o04_0755, content),
            None => (name, 0o10_0644, content),
        };
        push(&mut bytes, index as u32, mode, 1, name, content);
    }
    bytes
}

fn push(bytes: &mut Vec<u8>, inode: u32, mode: u32, links: u32, name: &str, content: &[u8]) {
    let fields = [inode, mode, 0, 0, links, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
    bytes.extend(b"070701");
    bytes.extend(fields.iter().flat_map(|field| format!("{field:08x}").into_bytes()));
    bytes.extend(name.as_bytes());
    bytes.push(0);
    while !bytes.len().is_multiple_of(4) {
        bytes.push(0);
    }
    bytes.extend(content);
    while !bytes.len().is_multiple_of(4) {
        bytes.push(0);
    }
}

fn read(bytes: &[u8]) -> Initramfs {
    // A small buffer: everything must work across its borders.
    let mut input = BufReader::with_capacity(7, bytes);
    Initramfs::read(&mut input, Limits::default(), &|path, _| path.starts_with(b"etc/")).unwrap()
}

fn packed(compression: Compression, bytes: &[u8]) -> Vec<u8> {
    match compression {
        Compression::None => bytes.to_vec(),
        Compression::Gzip => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            writer.write_all(bytes).unwrap();
            writer.finish().unwrap()
        }
        Compression::Bzip2 => {
            let mut writer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            writer.write_all(bytes).unwrap();
            writer.finish().unwrap()
        }
        Compression::Lz4 => {
            let mut packed = 0x184c_2102_u32.to_le_bytes().to_vec();
            for block in bytes.chunks(8 << 20) {
                let block = lz4_flex::block::compress(block);
                packed.extend((block.len() as u32).to_le_bytes());
                packed.extend(block);
            }
            packed
        }
        Compression::Zstd => {
            ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
        }
        Compression::Xz | Compression::Lzma | Compression::Lzo => unreachable!("no encoder here"),
    }
}

const MAIN: &[(&str, &[u8])] = &[
    ("usr/", b""),
    ("usr/lib/", b""),
    ("lib -> usr/lib", b""),
    ("./usr/lib/module.ko", b"some bytes"),
    ("etc/", b""),
    ("etc/cmdline", b"root=UUID=1"),
];

#[test]
fn every_compression_behind_an_early_archive() {
    let early = archive(&[("kernel/", b""), ("kernel/microcode.bin", &[7; 1000])]);
    for compression in
        [Compression::None, Compression::Gzip, Compression::Bzip2, Compression::Lz4, Compression::Zstd]
    {
        let mut bytes = early.clone();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        let start = bytes.len() as u64;
        bytes.extend(packed(compression, &archive(MAIN)));
        let found = read(&bytes);
        assert_eq!(found.damage, None, "{compression}");
        assert_eq!(found.segments.len(), 2, "{compression}");
        assert_eq!((found.segments[1].offset, found.segments[1].compression), (start, compression));
        assert_eq!(found.segments[1].length, bytes.len() as u64 - start, "{compression}");
        assert_eq!((found.segments[0].entries, found.segments[1].entries), (2, 6), "{compression}");
        assert_eq!(found.content(b"/etc/cmdline"), Some(&b"root=UUID=1"[..]), "{compression}");
        let (path, module) = found.resolve(b"lib/module.ko").unwrap();
        assert_eq!((path.as_slice(), module.size, &module.content), (&b"usr/lib/module.ko"[..], 10, &None));
        assert_eq!(found.below(b"/lib").count(), 1);
    }
}

#[test]
fn something_may_follow_every_compression() {
    for compression in [Compression::Gzip, Compression::Bzip2, Compression::Zstd] {
        let mut bytes = packed(compression, &archive(MAIN));
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(archive(&[("etc/late", b"x"), ("lib/late.ko", b"")]));
        let found = read(&bytes);
        assert_eq!((found.damage.clone(), found.segments.len()), (None, 2), "{compression}");
        assert_eq!(found.content(b"etc/late"), Some(&b"x"[..]), "{compression}");
        assert!(found.entries.contains_key(&b"usr/lib/late.ko"[..]), "through a link, {compression}");
    }
}

#[test]
fn later_archives_win_but_not_over_a_directory_in_use() {
    let mut bytes = archive(&[("etc/", b""), ("etc/a", b"old"), ("lib -> usr/lib", b"")]);
    bytes.extend(archive(&[("etc/a", b"new"), ("etc -> elsewhere", b""), ("lib/", b""), ("none/file", b"")]));
    let found = read(&bytes);
    assert_eq!(found.entries.get(&b"none/file"[..]), None);
    assert_eq!(found.content(b"etc/a"), Some(&b"new"[..]));
    assert_eq!(found.entries[&b"etc"[..]].kind, EntryKind::Directory);
    assert_eq!(found.entries[&b"lib"[..]].kind, EntryKind::Directory);
}

#[test]
fn files_with_several_names() {
    let mut bytes = Vec::new();
    push(&mut bytes, 8, 0o04_0755, 2, "etc", b"");
    push(&mut bytes, 9, 0o10_0644, 2, "etc/a", b"");
    push(&mut bytes, 9, 0o10_0644, 2, "etc/b", b"both");
    push(&mut bytes, 0, 0, 1, "TRAILER!!!", b"");
    let found = read(&bytes);
    assert_eq!(found.content(b"etc/a"), Some(&b"both"[..]));
    assert_eq!(found.entries[&b"etc/b"[..]].size, 4);
}

#[test]
fn damage_keeps_what_came_before() {
    let mut bytes = archive(&[("etc/", b""), ("etc/a", b"a")]);
    let end = bytes.len() as u64;
    for (tail, reason) in [
        (&b"\x28\xb5\x2f\xfdnot zstd at all"[..], "zstd"),
        (b"0707", "cut off"),
        (b"garbage", "invalid magic"),
        (b"070707aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "incorrect cpio method"),
    ] {
        bytes.truncate(end as usize);
        bytes.extend(tail);
        let found = read(&bytes);
        let damage = found.damage.unwrap();
        assert_eq!(damage.segment, end, "{reason}");
        assert!(damage.reason.contains(reason) || reason == "zstd", "{damage:?}");
        assert!(!damage.is_limit, "{damage:?}");
        assert_eq!(found.entries[&b"etc/a"[..]].size, 1);
    }
}

#[test]
fn a_bomb_ends() {
    let zeros = vec![0; 64 << 20];
    let bytes = packed(Compression::Gzip, &archive(&[("etc/", b""), ("zeros", &zeros)]));
    let limits = Limits { unpacked: 1 << 20, ..Limits::default() };
    let found = Initramfs::read(&mut &bytes[..], limits, &|_, _| true).unwrap();
    assert!(found.damage.unwrap().is_limit);
    let limits = Limits { kept: 1 << 10, ..Limits::default() };
    let found = Initramfs::read(&mut &bytes[..], limits, &|_, _| true).unwrap();
    assert_eq!((found.damage, &found.entries[&b"zeros"[..]].content), (None, &None));
}

/// A hundred thousand names of one file, every other with content: no name is gone through twice.
#[test]
fn a_file_with_very_many_names() {
    let mut bytes = Vec::new();
    for index in 0..100_000 {
        push(&mut bytes, 7, 0o10_0644, 9, &format!("n{index}"), if index % 2 == 0 { b"x" } else { b"" });
    }
    push(&mut bytes, 0, 0, 1, "TRAILER!!!", b"");
    let found = read(&bytes);
    assert_eq!((found.damage, found.entries.len()), (None, 100_000));
}

/// A file that is a hole without end.
#[test]
fn padding_ends() {
    let mut input = BufReader::new(std::io::repeat(0));
    let limits = Limits { unpacked: 1 << 20, ..Limits::default() };
    let found = Initramfs::read(&mut input, limits, &|_, _| true).unwrap();
    assert!(found.damage.unwrap().is_limit);
}

/// What this project has no encoder for, made by the tools where they are installed.
#[test]
fn xz_and_lzma() {
    for (tool, arguments, compression) in
        [("xz", &["--check=crc32"][..], Compression::Xz), ("xz", &["--format=lzma"], Compression::Lzma)]
    {
        let child = std::process::Command::new(tool)
            .args(["--compress", "--stdout"])
            .args(arguments)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn();
        let Ok(mut child) = child else {
            println!("skipped: {tool} is not installed");
            return;
        };
        child.stdin.take().unwrap().write_all(&archive(MAIN)).unwrap();
        let mut bytes = child.wait_with_output().unwrap().stdout;
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        if compression == Compression::Xz {
            bytes.extend(archive(&[("etc/late", b"x")]));
        }
        let found = read(&bytes);
        assert_eq!(found.damage, None, "{compression}");
        assert_eq!(found.segments[0].compression, compression);
        assert_eq!(found.content(b"etc/cmdline"), Some(&b"root=UUID=1"[..]), "{compression}");
        assert_eq!(found.content(b"etc/late").is_some(), compression == Compression::Xz);
    }
}

#[test]
fn links_that_lead_round() {
    let found = read(&archive(&[("a -> b", b""), ("b -> a", b""), ("up -> ../../etc", b""), ("etc/", b"")]));
    assert_eq!(found.resolve(b"a"), None);
    assert_eq!(found.resolve(b"up").unwrap().0, b"etc");
}

/// Twenty thousand damages: no panic, no hang, and most are noticed or harmless.
#[test]
fn mutations() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let plain = archive(MAIN);
    let originals: Vec<Vec<u8>> = [Compression::None, Compression::Gzip, Compression::Lz4, Compression::Zstd]
        .into_iter()
        .map(|compression| [plain.clone(), packed(compression, &plain)].concat())
        .collect();
    let limits = Limits { unpacked: 1 << 20, entries: 1000, kept: 1 << 16 };
    let mut damaged = 0;
    for round in 0..20_000 {
        let mut bytes = originals[round % originals.len()].clone();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] ^= 1 << random(8),
                1 => bytes[at] = b"0123456789abcdefABCDEF"[random(22)],
                2 => bytes[at] = [0, 0xff, 0x7f, b'0'][random(4)],
                _ => bytes.truncate(at.max(1)),
            }
        }
        let found = Initramfs::read(&mut &bytes[..], limits, &|_, _| true).unwrap();
        damaged += usize::from(found.damage.is_some());
    }
    assert!((2_000..19_000).contains(&damaged), "{damaged}");
}
