//! One fault at a time: it is named, and everything else stays readable.

use filesystem::{FileSystem, Inode};
use filesystem_ntfs::{FORMAT, Hibernation, Log, Ntfs};

use crate::common::{attribute_of, attributes, content, device, image, inode, names, record_of};

const RECORD: usize = 1024;

/// Opens a damaged volume; returns it with its problems as text.
fn damaged(bytes: Vec<u8>) -> (Ntfs, String) {
    let opened = Ntfs::open(device(bytes)).unwrap();
    let problems: Vec<String> = opened.problems.iter().map(ToString::to_string).collect();
    (opened.value, problems.join("; "))
}

fn good() -> Vec<u8> {
    image("ntfs-512")
}

/// The rest of the volume.
fn assert_rest_is_readable(fs: &Ntfs) {
    assert_eq!(content(fs, "/small"), b"small\n");
    assert_eq!(names(fs, "/directory").len(), 300);
}

#[test]
fn boot_sector() {
    let mut bytes = good();
    bytes[11] = 7;
    assert!((FORMAT.probe)(&*device(bytes.clone())).unwrap().is_none());
    let (fs, problems) = damaged(bytes.clone());
    assert!(problems.contains("bytes_per_sector"), "{problems}");
    assert_rest_is_readable(&fs);
    // Without either copy there is nothing to go by.
    let end = bytes.len();
    bytes[end - 512 + 3] = 0;
    assert!(Ntfs::open(device(bytes)).is_err());

    let mut bytes = good();
    bytes[end - 1] = 0;
    let (fs, problems) = damaged(bytes);
    assert!(problems.contains("copy of the NTFS boot sector") && problems.contains("byte 511"), "{problems}");
    assert_rest_is_readable(&fs);
}

#[test]
fn a_shorter_device() {
    let mut bytes = good();
    bytes.truncate(bytes.len() - 4096);
    let (fs, problems) = damaged(bytes);
    assert!(problems.contains("number_of_sectors"), "{problems}");
    assert_rest_is_readable(&fs);
}

#[test]
fn mft_and_mirror() {
    let good = good();
    let mft = u64::from_le_bytes(good[0x30..0x38].try_into().unwrap()) as usize * 512;
    let mirror = u64::from_le_bytes(good[0x38..0x40].try_into().unwrap()) as usize * 512;
    for (at, word) in [(mft + 510, "update sequence"), (mft, "magic"), (mirror + 1022, "update sequence")] {
        let mut bytes = good.clone();
        bytes[at] ^= 0x55;
        let (fs, problems) = damaged(bytes);
        assert!(problems.contains(word), "{at}: {problems}");
        assert_rest_is_readable(&fs);
    }
    let mut bytes = good;
    // The label, in record 3 of the mirror only.
    let label = attribute_of(&bytes[mirror..mirror + 4096], RECORD, "$Volume", 0x60);
    bytes[mirror + label + 24] ^= 1;
    let (fs, problems) = damaged(bytes);
    assert!(problems.contains("$MFTMirr") && problems.contains("record 3"), "{problems}");
    assert_rest_is_readable(&fs);
}

#[test]
fn records() {
    let good = good();
    let at = record_of(&good, RECORD, "large");
    let data = attribute_of(&good, RECORD, "large", 0x80);
    for (at, value, word) in [
        (at, b'B', "magic"),
        (at + 510, 0xff, "update sequence"),
        (at + 22, 0, "deleted"),
        (at + 16, 77, "sequence_number"),
        (at + 32, 1, "base_mft_record"),
        (at + 44, 0xff, "mft_record_number"),
        (at + 26, 0xff, "bytes_in_use"),
        (data + 4, 9, "attribute length"),
        (data + 8, 2, "non_resident"),
        (data + 33, 1, "mapping_pairs_offset"),
        (data + 24, 0xff, "highest_vcn"),
        (data + 13, 0x40, "EFS"),
        (data + 12, 0x03, "compression method 3"),
        (data + 55, 0x80, "data_size"),
        (data + 64, 0x99, "mapping_pairs"),
    ] {
        let mut bytes = good.clone();
        assert_ne!(bytes[at], value);
        bytes[at] = value;
        let (fs, problems) = damaged(bytes);
        assert_eq!(problems, "", "{word}");
        let file = inode_of(&fs, "large");
        let error = fs.read_at(file, &mut [0; 100_000], 0).unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
        assert_rest_is_readable(&fs);
    }
}

/// The inode of a file in the root, whatever is wrong with it.
fn inode_of(fs: &Ntfs, name: &str) -> Inode {
    fs.lookup(fs.root(), name.as_bytes()).unwrap().unwrap()
}

#[test]
fn a_run_beyond_the_volume() {
    let mut bytes = good();
    let data = attribute_of(&bytes, RECORD, "large", 0x80);
    let pairs = data + usize::from(bytes[data + 32]);
    // One run of two bytes of length and two of distance: far away now.
    let head = bytes[pairs];
    let distance = pairs + 1 + usize::from(head & 15);
    bytes[distance + usize::from(head >> 4) - 1] = 0x7f;
    let (fs, _) = damaged(bytes);
    let error = fs.read_at(inode_of(&fs, "large"), &mut [0; 10], 0).unwrap_err().to_string();
    assert!(error.contains("clusters below"), "{error}");
    assert_eq!(fs.metadata(inode_of(&fs, "large")).unwrap().size, 100_000);
}

#[test]
fn attribute_lists() {
    let good = good();
    let at = record_of(&good, RECORD, "holes");
    let list = attributes(&good[at..at + RECORD]).into_iter().find(|(_, kind)| *kind == 0x20).unwrap().0 + at;
    assert_eq!(good[list + 8], 1, "not resident");
    // One run: a byte of count, the cluster.
    let pairs = list + usize::from(good[list + 32]);
    let lcn = &good[pairs + 2..][..usize::from(good[pairs] >> 4)];
    let value = lcn.iter().rev().fold(0, |lcn, byte| lcn << 8 | usize::from(*byte)) * 512;
    // The first entry is $STANDARD_INFORMATION, the last a piece of the data.
    let entries = {
        let length = u32::from_le_bytes(good[list + 48..list + 52].try_into().unwrap()) as usize;
        let mut found = Vec::new();
        let mut at = value;
        while at < value + length {
            found.push(at);
            at += usize::from(good[at + 4]);
        }
        found
    };
    let last = *entries.last().unwrap();
    assert!(entries.len() > 3 && good[last] == 0x80);
    for (at, value, word) in [
        (value + 4, 3, "length"),
        (last + 16, 5, "base_mft_record"),
        (last + 22, 99, "sequence_number"),
        (last + 24, 99, "attributes"),
    ] {
        let mut bytes = good.clone();
        bytes[at] = value;
        if word == "base_mft_record" {
            // The root, by its right sequence number.
            bytes[at + 6] = 5;
        }
        let (fs, _) = damaged(bytes);
        let file = inode_of(&fs, "holes");
        let mut buf = vec![0; 999 * 512];
        let error = fs.read_at(file, &mut buf, 0).unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
        assert_rest_is_readable(&fs);
    }
}

/// Places of the index blocks of the directory with 300 entries.
fn index_blocks(image: &[u8]) -> Vec<usize> {
    let needle: Vec<u8> = "an-entry-with-a-long-name-1".encode_utf16().flat_map(u16::to_le_bytes).collect();
    (0..image.len())
        .step_by(512)
        .filter(|at| image[*at..].starts_with(b"INDX"))
        .filter(|at| image[*at..*at + 4096].windows(needle.len()).any(|window| window == needle))
        .collect()
}

#[test]
fn index_blocks_damaged() {
    let good = good();
    let blocks = index_blocks(&good);
    assert!(blocks.len() > 5);
    for (at, value, word) in [
        (0, b'X', "magic"),
        (510, 0xff, "update sequence"),
        (16, 0xee, "index_block_vcn"),
        (24, 4, "entries_offset"),
        (29, 0xff, "index_length"),
    ] {
        let mut bytes = good.clone();
        bytes[blocks[1] + at] = value;
        let (fs, _) = damaged(bytes);
        let directory = inode(&fs, "/directory");
        let error = fs.read_dir(directory).unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
        // Entries of the other blocks are found.
        let found = (0..300)
            .filter(|n| fs.lookup(directory, format!("an-entry-with-a-long-name-{n:03}").as_bytes()).is_ok())
            .count();
        assert!((200..300).contains(&found), "{word}: {found}");
        assert_eq!(content(&fs, "/small"), b"small\n");
    }
}

#[test]
fn a_directory_that_contains_itself() {
    let mut bytes = good();
    // The node above the leaves; its second child is its first again.
    let node = index_blocks(&bytes).into_iter().find(|at| bytes[at + 36] & 1 != 0).unwrap();
    let first = node + 24 + usize::from(bytes[node + 24]);
    let end = first + usize::from(bytes[first + 8]);
    let second_end = end + usize::from(bytes[end + 8]);
    bytes.copy_within(end - 8..end, second_end - 8);
    let (fs, _) = damaged(bytes);
    let error = fs.read_dir(inode(&fs, "/directory")).unwrap_err().to_string();
    assert!(error.contains("again"), "{error}");
}

#[test]
fn compressed_data() {
    let mut bytes = good();
    // The text's first unit, by its first words.
    let start =
        bytes.windows(11).position(|window| window.ends_with(b"line 0 o") && window[1] & 0xf0 == 0xb0);
    bytes[start.unwrap() + 1] = 0x10;
    let (fs, _) = damaged(bytes);
    let error = fs.read_at(inode(&fs, "/packed/text"), &mut [0; 10], 0).unwrap_err().to_string();
    assert!(error.contains("compressed data") && error.contains("signature 3"), "{error}");
    assert_rest_is_readable(&fs);
}

#[test]
fn dirty_mark_and_version() {
    let mut bytes = good();
    let at = attribute_of(&bytes, RECORD, "$Volume", 0x70);
    let flags = at + usize::from(bytes[at + 20]) + 10;
    bytes[flags] |= 1;
    let (fs, problems) = damaged(bytes.clone());
    assert!(problems.contains("$MFTMirr"), "only this record was changed: {problems}");
    assert_eq!(fs.state().is_dirty, Some(true));
    assert!(fs.info().features.contains(&"dirty".to_owned()));
    bytes[record_of(&good(), RECORD, "$Volume")] = 0;
    let (fs, problems) = damaged(bytes);
    assert_eq!(fs.state().is_dirty, None);
    assert!(problems.contains("magic"), "{problems}");
    assert_rest_is_readable(&fs);
}

/// A restart page of 4096 bytes as Windows writes it.
fn restart_page(lsn: u8, client: u8, major: u8) -> Vec<u8> {
    let mut page = vec![0; 4096];
    page[..8].copy_from_slice(b"RSTR\x1e\0\x09\0");
    (page[17], page[21]) = (0x10, 0x10);
    page[24..30].copy_from_slice(&[0x30, 0, u8::from(major < 2), 0, major, 0]);
    page[30] = 7;
    page[0x30] = lsn;
    page[0x3c..0x3e].fill(client);
    for end in page.chunks_exact_mut(512) {
        end[510..].copy_from_slice(&[7, 0]);
    }
    page
}

#[test]
fn journal() {
    let good = good();
    let at = good.windows(4096).position(|window| window.iter().all(|byte| *byte == 0xff)).unwrap();
    let with = |first: &[u8], second: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + 4096].copy_from_slice(first);
        bytes[at + 4096..at + 8192].copy_from_slice(second);
        bytes
    };
    let (open_page, closed, fast) =
        (restart_page(5, 0, 1), restart_page(6, 0xff, 1), restart_page(9, 0xff, 2));
    let state = |bytes| damaged(bytes).0.state().log;
    assert_eq!(state(with(&open_page, &closed)), Log::Clean { version: (1, 1) });
    assert_eq!(state(with(&restart_page(7, 0, 1), &closed)), Log::NeedsReplay { version: (1, 1) });
    assert_eq!(state(with(&[0; 4096], &closed)), Log::Clean { version: (1, 1) });
    assert_eq!(state(with(&[0; 4096], &[0; 4096])), Log::Unknown);

    let unclean = with(&open_page, &open_page);
    let (fs, problems) = damaged(unclean.clone());
    assert!(fs.info().needs_recovery && problems.contains("$LogFile: replaying"), "{problems}");
    assert_rest_is_readable(&fs);
    assert!((FORMAT.replay)(device(unclean)).unwrap_err().to_string().contains("$LogFile"));
    let (fs, problems) = damaged(with(&fast, &closed));
    assert!(fs.state().is_kept_by_windows() && problems.contains("Fast Startup"), "{problems}");
    assert!((FORMAT.replay)(device(with(&[0; 4096], &[0; 4096]))).is_err());
}

#[test]
fn hibernation() {
    for (word, expected) in [
        (b"hibr", Hibernation::Hibernated),
        (b"HIBR", Hibernation::Hibernated),
        (b"wake", Hibernation::Unused),
        (b"\0\0\0\0", Hibernation::Unused),
        (b"????", Hibernation::Unknown),
    ] {
        let mut bytes = good();
        make_hiberfil(&mut bytes, word);
        let (fs, problems) = damaged(bytes);
        assert_eq!(fs.state().hibernation, expected, "{problems}");
        assert_eq!(problems.contains("hibernated"), expected == Hibernation::Hibernated, "{problems}");
    }
}

/// Makes the root's entry `holes` one that names `small`'s record `hiberfil.sys`, and gives that other content. The
/// entries behind it are cut off.
fn make_hiberfil(bytes: &mut [u8], word: &[u8; 4]) {
    let name: Vec<u8> = "holes".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let wanted: Vec<u8> = "hiberfil.sys".encode_utf16().flat_map(u16::to_le_bytes).collect();
    // In the root's index block: [entry header 16] [66 bytes of $FILE_NAME] name.
    let block = (0..bytes.len())
        .step_by(512)
        .find(|at| {
            bytes[*at..].starts_with(b"INDX")
                && bytes[*at..*at + 4096].windows(name.len()).any(|window| window == name)
        })
        .unwrap();
    let at =
        bytes[block..block + 4096].windows(name.len()).position(|window| window == name).unwrap() + block;
    let entry = at - 66 - 16;
    let data = attribute_of(bytes, RECORD, "small", 0x80);
    let value = data + usize::from(bytes[data + 20]);
    bytes[value..value + 4].copy_from_slice(word);
    bytes[value + 4..value + 6].fill(0);
    // The entry becomes one for `small`'s record, longer by the longer name; the end mark follows.
    let number = record_of(bytes, RECORD, "small");
    let reference = u64::from(u32::from_le_bytes(bytes[number + 44..number + 48].try_into().unwrap()));
    bytes[entry..entry + 8].copy_from_slice(&reference.to_le_bytes());
    let length = (16 + 66 + wanted.len()).next_multiple_of(8);
    bytes[entry + 8] = length as u8;
    bytes[entry + 10] = (66 + wanted.len()) as u8;
    bytes[entry + 16 + 64] = 12;
    bytes[at..at + wanted.len()].copy_from_slice(&wanted);
    let end = entry + length;
    bytes[end..end + 16].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 2, 0, 0, 0]);
    // What was written over the end of a sector goes where the update sequence keeps it.
    for sector in 0..8 {
        let (number, kept, end) = (block + 40, block + 42 + 2 * sector, block + 512 * sector + 510);
        if bytes[end..end + 2] != bytes[number..number + 2] {
            bytes.copy_within(end..end + 2, kept);
            bytes.copy_within(number..number + 2, end);
        }
    }
    let used = (end + 16 - block - 24) as u32;
    bytes[block + 28..block + 32].copy_from_slice(&used.to_le_bytes());
}

#[test]
fn upcase_table() {
    let mut bytes = good();
    bytes[record_of(&good(), RECORD, "$UpCase")] = 0;
    let (fs, problems) = damaged(bytes);
    assert!(problems.contains("magic"), "{problems}");
    assert_eq!(content(&fs, "/names/äö"), "ÄÖ".as_bytes());
    assert_rest_is_readable(&fs);
}
