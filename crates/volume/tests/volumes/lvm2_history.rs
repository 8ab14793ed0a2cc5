//! Rings of old metadata texts, and what is concluded from several physical volumes.

use std::sync::Arc;

use blockdev::{Device, MemoryDevice};
use ondisk::lvm_crc;
use volume::lvm2::{self, CopyVerdict, PhysicalVolume, VolumeGroup};

use crate::support::image;

const MIB: usize = 1 << 20;
/// The one whose newest text goes round the end of its area.
const WRAPPED: usize = 5;

/// Physical volume `number` of the image, with zeros up to its whole size.
fn ring(number: usize, size: usize) -> Device {
    let whole = image("lvm-history");
    let mut bytes = vec![0; MIB];
    whole.read_exact_at(&mut bytes, (number * MIB) as u64).unwrap();
    bytes.resize(size, 0);
    if number == WRAPPED {
        // It has a second area, at its end.
        let end = size - MIB;
        whole.read_exact_at(&mut bytes[end..], (6 * MIB) as u64).unwrap();
    }
    Arc::new(MemoryDevice::new(bytes))
}

fn pv(device: &Device) -> PhysicalVolume {
    let found = lvm2::read_pv(device).unwrap().unwrap();
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    found.value
}

#[test]
fn every_version_in_a_ring_is_found() {
    let pv = pv(&ring(0, 64 * MIB));
    assert_eq!((pv.label_sector, pv.areas.len()), (Some(1), 1));
    let extension = pv.extension.as_ref().unwrap();
    assert_eq!((extension.version, extension.is_in_use), (2, Some(true)));
    let history = lvm2::history(&pv).unwrap();
    assert_eq!(history.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(history.iter().filter(|entry| entry.is_committed).count(), 1);
    assert!(history[0].is_committed && history.iter().all(|entry| entry.group == "vg0"));
    assert_eq!(history[7].description.as_deref().unwrap().split(' ').nth(2), Some("vgcreate"));
    assert_eq!(history[7].creation_host.as_deref(), Some("vm"));
    assert_eq!(history[7].creation_time, Some(1_795_447_897));
    // A backup is the same text, also with its parts in the other order.
    let backup = lvm2::parse_backup(&history[3].text).unwrap();
    assert_eq!((backup.sequence, backup.place, backup.is_committed), (5, None, false));
    let text = String::from_utf8(history[3].text.clone()).unwrap();
    let (group, rest) = text.split_at(text.find("# Generated").unwrap());
    assert_eq!(lvm2::parse_backup(format!("{rest}{group}").as_bytes()).unwrap().sequence, 5);
    assert!(lvm2::parse_backup(&text.as_bytes()[..text.len() / 2]).is_err());
    assert!(lvm2::parse_backup(format!("{text}{text}").replace("vg0 {", "vg1 {").as_bytes()).is_ok());
    assert!(lvm2::parse_backup(b"a = 1").is_err());
}

#[test]
fn a_text_that_goes_round_the_end_is_read() {
    let pv = pv(&ring(WRAPPED, 32 * MIB));
    let place = pv.areas[0].committed.as_ref().unwrap().place;
    assert!(place.is_split && place.offset + place.size > pv.areas[0].size);
    let history = lvm2::history(&pv).unwrap();
    assert!(history[0].is_committed && history[0].place == Some(place));
    // 205 changes; what one area has lost, the other still has.
    assert_eq!(history.len(), 205);
    assert!(history.windows(2).all(|two| two[0].sequence == two[1].sequence + 1));
    let assembled = lvm2::assemble(&[pv]);
    assert_eq!(assembled.value[0].value.sequence, history[0].sequence);
}

#[test]
fn a_cut_copy_is_not_a_version() {
    let device = ring(0, MIB);
    let history = lvm2::history(&lvm2::read_pv(&device).unwrap().unwrap().value).unwrap();
    let place = history[4].place.unwrap();
    let at = place.area + place.offset + place.size / 2;
    device.writable().unwrap().write_all_at(b"\0\0", at).unwrap();
    let again = lvm2::history(&lvm2::read_pv(&device).unwrap().unwrap().value).unwrap();
    assert_eq!(again.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [8, 7, 6, 5, 3, 2, 1]);
}

/// A physical volume of 1 MiB with one area at 4096, of 24 KiB, and its data from 64 KiB on.
pub(crate) fn build_pv(uuid: &str, flags: u32, text: &str) -> Vec<u8> {
    let mut bytes = vec![0; MIB];
    let sector = &mut bytes[512..1024];
    sector[..8].copy_from_slice(b"LABELONE");
    sector[8] = 1;
    sector[0x14] = 32;
    sector[0x18..0x20].copy_from_slice(b"LVM2 001");
    sector[32..64].copy_from_slice(uuid.replace('-', "").as_bytes());
    let mut put = |at: usize, value: u64| sector[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put(64, MIB as u64);
    put(72, 64 << 10);
    put(104, 4096);
    put(112, 24 << 10);
    put(136, 2 | u64::from(flags) << 32);
    let crc = lvm_crc(&sector[0x14..]);
    sector[0x10..0x14].copy_from_slice(&crc.to_le_bytes());
    if !text.is_empty() {
        let text = format!("{text}\0");
        bytes[4096 + 512..4096 + 512 + text.len()].copy_from_slice(text.as_bytes());
        let header = &mut bytes[4096..4096 + 512];
        header[4..20].copy_from_slice(b" LVM2 x[5A%r0N*>");
        header[20] = 1;
        let mut put = |at: usize, value: u64| header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        put(24, 4096);
        put(32, 24 << 10);
        put(40, 512);
        put(48, text.len() as u64);
        put(56, u64::from(lvm_crc(text.as_bytes())));
        let crc = lvm_crc(&header[4..]);
        header[..4].copy_from_slice(&crc.to_le_bytes());
    }
    bytes
}

const UUIDS: [&str; 3] = [
    "AAAAAA-1111-2222-3333-4444-5555-666666",
    "BBBBBB-1111-2222-3333-4444-5555-666666",
    "CCCCCC-1111-2222-3333-4444-5555-666666",
];
const GROUP: &str = "GGGGGG-1111-2222-3333-4444-5555-666666";

/// A group with one volume on each of two physical volumes, and one over both.
pub(crate) fn text(name: &str, uuid: &str, sequence: u64, pvs: &[&str]) -> String {
    let mut text = format!(
        "{name} {{\nid = \"{uuid}\"\nseqno = {sequence}\nformat = \"lvm2\"\nstatus = [\"RESIZEABLE\", \"READ\", \"WRITE\"]\n\
         flags = []\nextent_size = 8\nphysical_volumes {{\n"
    );
    for (number, pv) in pvs.iter().enumerate() {
        text += &format!(
            "pv{number} {{\nid = \"{pv}\"\ndevice = \"/dev/sd{}\"\nstatus = [\"ALLOCATABLE\"]\ndev_size = 2048\n\
             pe_start = 128\npe_count = 200\n}}\n",
            char::from(b'a' + number as u8)
        );
    }
    text += "}\nlogical_volumes {\n";
    for (number, _) in pvs.iter().enumerate() {
        text += &format!(
            "lv{number} {{\nid = \"LLLLLL-1111-2222-3333-4444-5555-66666{number}\"\nstatus = [\"READ\", \"VISIBLE\"]\n\
             segment_count = 1\nsegment1 {{\nstart_extent = 0\nextent_count = 10\ntype = \"striped\"\n\
             stripe_count = 1\nstripes = [\n\"pv{number}\", 5\n]\n}}\n}}\n"
        );
    }
    text + "}\n}\ncontents = \"Text Format Volume Group\"\nversion = 1\ndescription = \"\"\n"
}

fn device(bytes: Vec<u8>) -> Device {
    Arc::new(MemoryDevice::new(bytes))
}

/// What is concluded from `disks`: groups, and problems as text.
fn conclude(disks: &[Device]) -> (Vec<VolumeGroup>, Vec<String>) {
    let mut problems = Vec::new();
    let mut pvs = Vec::new();
    for disk in disks {
        if let Ok(Some(found)) = lvm2::read_pv(disk) {
            problems.extend(found.problems.iter().map(ToString::to_string));
            pvs.push(found.value);
        }
    }
    let assembled = lvm2::assemble(&pvs);
    problems.extend(assembled.problems.iter().map(ToString::to_string));
    let groups = assembled.value.into_iter().map(|group| {
        problems.extend(group.problems.iter().map(ToString::to_string));
        group.value
    });
    let groups = groups.collect();
    (groups, problems)
}

fn assert_one(problems: &[String], words: &[&str]) {
    assert!(
        problems.iter().filter(|problem| words.iter().all(|word| problem.contains(word))).count() == 1,
        "{words:?} in {problems:#?}"
    );
}

#[test]
fn the_newest_text_wins_and_old_ones_are_named() {
    let new = text("vg", GROUP, 9, &UUIDS[..2]);
    let old = text("vg", GROUP, 8, &UUIDS[..1]);
    let disks = [device(build_pv(UUIDS[0], 1, &old)), device(build_pv(UUIDS[1], 1, &new))];
    let (groups, problems) = conclude(&disks);
    assert_eq!((groups.len(), groups[0].sequence, groups[0].lvs.len()), (1, 9, 2));
    assert_eq!(problems.len(), 1);
    assert_one(&problems, &["seqno is 8", UUIDS[0], "missed changes", "expected 9"]);
    let verdicts: Vec<_> = groups[0].copies.iter().map(|copy| copy.verdict.clone()).collect();
    assert_eq!(verdicts, [CopyVerdict::Stale, CopyVerdict::Current]);
    assert!(groups[0].lvs.iter().all(|lv| lv.device.is_ok()));

    let other = new.replace("description = \"\"", "description = \"x\"");
    let disks = [device(build_pv(UUIDS[0], 1, &new)), device(build_pv(UUIDS[1], 1, &other))];
    let (_, problems) = conclude(&disks);
    assert_one(&problems, &["seqno", "another one on", UUIDS[1]]);
}

#[test]
fn physical_volumes_are_doubted() {
    let two = text("vg", GROUP, 9, &UUIDS[..2]);
    let [a, b] = [build_pv(UUIDS[0], 1, &two), build_pv(UUIDS[1], 1, "")];
    // One without any text, and without a header in its area.
    let (groups, problems) = conclude(&[device(a.clone()), device(b.clone())]);
    assert!(groups[0].lvs.iter().all(|lv| lv.device.is_ok()));
    assert_one(&problems, &["LVM2 metadata area header", "checksum"]);
    assert!(groups[0].copies.iter().any(|copy| matches!(copy.verdict, CopyVerdict::Damaged(_))));
    // Missing: what does not need it is read.
    let (groups, problems) = conclude(&[device(a.clone())]);
    assert_one(&problems, &[UUIDS[1], "/dev/sdb", "no such device"]);
    assert!(groups[0].lvs[0].device.is_ok() && groups[0].is_partial());
    let reason = groups[0].lvs[1].device.as_ref().unwrap_err();
    assert_eq!(reason, &format!("physical volume {} (was /dev/sdb) is missing", UUIDS[1]));
    // The same one twice.
    let (groups, problems) = conclude(&[device(a.clone()), device(a.clone()), device(b.clone())]);
    assert_eq!(groups.len(), 1);
    assert_one(&problems, &["pv_uuid", "a second one", UUIDS[0]]);
    // Shrunk.
    let (groups, problems) = conclude(&[device(a[..96 << 10].to_vec()), device(b.clone())]);
    assert_one(&problems, &["device_size_xl is 1048576"]);
    assert_one(&problems, &["dev_size is 1048576"]);
    assert!(groups[0].lvs[0].device.as_ref().unwrap_err().contains("past the end"));
    // Called missing though it is there.
    let missing = two.replacen("\"ALLOCATABLE\"", "\"ALLOCATABLE\", \"MISSING\"", 1);
    let (groups, problems) = conclude(&[device(build_pv(UUIDS[0], 1, &missing)), device(b.clone())]);
    assert_one(&problems, &["MISSING", UUIDS[0]]);
    assert!(groups[0].lvs[0].device.is_err() && groups[0].lvs[1].device.is_ok());
    // In use, says its header, and no group names it.
    let mut orphan = build_pv(UUIDS[2], 1, "");
    orphan[512 + 104..512 + 120].fill(0);
    let crc = lvm_crc(&orphan[512 + 0x14..1024]);
    orphan[512 + 0x10..512 + 0x14].copy_from_slice(&crc.to_le_bytes());
    // The extension moved forward by the entry that is gone.
    orphan.copy_within(512 + 136..512 + 144, 512 + 120);
    let crc = lvm_crc(&orphan[512 + 0x14..1024]);
    orphan[512 + 0x10..512 + 0x14].copy_from_slice(&crc.to_le_bytes());
    let (groups, problems) = conclude(&[device(orphan)]);
    assert!(groups.is_empty());
    assert_eq!(problems.len(), 1);
    assert_one(&problems, &["LVM2 label", UUIDS[2], "in use by a group that does not"]);
}

#[test]
fn groups_are_doubted() {
    let first = text("vg", GROUP, 9, &UUIDS[..1]);
    let second = text("vg", "HHHHHH-1111-2222-3333-4444-5555-666666", 3, &UUIDS[1..2]);
    let disks = [device(build_pv(UUIDS[0], 1, &first)), device(build_pv(UUIDS[1], 1, &second))];
    let (groups, problems) = conclude(&disks);
    assert_eq!((groups.len(), problems.len()), (2, 1));
    assert_one(&problems, &["name is vg of HHHHHH", GROUP]);

    let claimed = second.replace(UUIDS[1], UUIDS[0]);
    let (_, problems) = conclude(&[disks[0].clone(), device(build_pv(UUIDS[1], 0, &claimed))]);
    assert_one(&problems, &["physical_volumes is in vg and vg", UUIDS[0]]);

    let exported = first.replace("\"RESIZEABLE\"", "\"EXPORTED\", \"RESIZEABLE\"").replace(
        "flags = []",
        "flags = []\nsystem_id = \"elsewhere\"\nlock_type = \"sanlock\"\ntags = [\"a\", \"b\"]",
    );
    let (groups, problems) = conclude(&[device(build_pv(UUIDS[0], 1, &exported))]);
    assert!(groups[0].is_exported() && groups[0].lvs[0].device.is_ok());
    assert_eq!(groups[0].system_id.as_deref(), Some("elsewhere"));
    assert_eq!((groups[0].lock_type.as_deref(), groups[0].tags.len()), (Some("sanlock"), 2));
    assert_one(&problems, &["status is EXPORTED"]);
}

#[test]
fn labels_and_areas_are_doubted() {
    let one = text("vg", GROUP, 9, &UUIDS[..1]);
    let good = build_pv(UUIDS[0], 1, &one);
    let problems = |bytes: Vec<u8>| -> Vec<String> {
        match lvm2::read_pv(&device(bytes)) {
            Ok(Some(found)) => found.problems.iter().map(ToString::to_string).collect(),
            Ok(None) => vec!["none".into()],
            Err(error) => vec![format!("error: {error}")],
        }
    };
    assert_eq!(problems(good.clone()), [""; 0]);
    let mut flipped = good.clone();
    flipped[512 + 40] ^= 1;
    assert_one(&problems(flipped.clone()), &["error: LVM2 label at byte 512: checksum"]);
    // A second label, of another physical volume, at another sector; and one that replaces a bad one.
    let other = build_pv(UUIDS[1], 1, "");
    let mut second = good.clone();
    second.copy_within(512..1024, 1024);
    assert_eq!(problems(second.clone()), [""; 0]);
    second[1024..1536].copy_from_slice(&other[512..1024]);
    second[1024 + 8] = 2;
    second[1024 + 0x10..1024 + 0x14].copy_from_slice(&lvm_crc(&other[512 + 0x14..1024]).to_le_bytes());
    assert_one(&problems(second.clone()), &["pv_uuid is BBBBBB", "expected AAAAAA"]);
    second[512 + 40] ^= 1;
    let found = lvm2::read_pv(&device(second)).unwrap().unwrap();
    assert_eq!((found.value.uuid.as_str(), found.value.label_sector), (UUIDS[1], Some(2)));
    assert!(found.problems.iter().any(|problem| problem.to_string().contains("checksum")));
    // One field of the area's header at a time.
    for (at, field) in [(4, "magic"), (20, "version"), (24, "start"), (32, "size"), (40, "raw_locn")] {
        let mut bytes = good.clone();
        bytes[4096 + at + 2] ^= 0x40;
        let crc = lvm_crc(&bytes[4096 + 4..4096 + 512]);
        bytes[4096..4096 + 4].copy_from_slice(&crc.to_le_bytes());
        assert_one(&problems(bytes), &[field]);
    }
    let mut bytes = good.clone();
    bytes[4096 + 600] ^= 1;
    assert_one(&problems(bytes.clone()), &["LVM2 metadata text at byte 4608: checksum"]);
    let pv = lvm2::read_pv(&device(bytes)).unwrap().unwrap().value;
    assert!(pv.areas[0].committed.as_ref().unwrap().text.is_err() && pv.areas[0].header.is_ok());
    // Ignored: no problem, and not used.
    let mut bytes = good.clone();
    bytes[4096 + 60] = 1;
    let crc = lvm_crc(&bytes[4096 + 4..4096 + 512]);
    bytes[4096..4096 + 4].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(problems(bytes.clone()), [""; 0]);
    let (groups, _) = conclude(&[device(bytes)]);
    assert!(groups.is_empty());
    // A precommitted text beside the committed one.
    let mut bytes = good;
    let next = text("vg", GROUP, 10, &UUIDS[..1]) + "\0";
    bytes[4096 + 4096..4096 + 4096 + next.len()].copy_from_slice(next.as_bytes());
    for (at, value) in [(64, 4096), (72, next.len() as u64), (80, u64::from(lvm_crc(next.as_bytes())))] {
        bytes[4096 + at..4096 + at + 8].copy_from_slice(&value.to_le_bytes());
    }
    let crc = lvm_crc(&bytes[4096 + 4..4096 + 512]);
    bytes[4096..4096 + 4].copy_from_slice(&crc.to_le_bytes());
    let (groups, _) = conclude(&[device(bytes)]);
    assert_eq!(groups[0].sequence, 9);
    assert!(groups[0].copies.iter().any(|copy| copy.verdict == CopyVerdict::Precommitted));
}

#[test]
fn a_lost_label_is_guessed_from_the_metadata() {
    let two = text("vg", GROUP, 9, &UUIDS[..2]);
    let mut lost = build_pv(UUIDS[0], 1, &two);
    lost[..4096].fill(0);
    let lost = device(lost);
    assert!(lvm2::read_pv(&lost).unwrap().is_none());
    // Either of two.
    assert!(lvm2::recover_pv(&lost, &[]).unwrap().is_none());
    let other = lvm2::read_pv(&device(build_pv(UUIDS[1], 1, &two))).unwrap().unwrap().value;
    let found = lvm2::recover_pv(&lost, std::slice::from_ref(&other)).unwrap().unwrap();
    assert_eq!((found.value.uuid.as_str(), found.value.label_sector), (UUIDS[0], None));
    assert!(found.problems[0].to_string().contains("the only one that was not found"));
    let groups = lvm2::assemble(&[other, found.value]).value;
    assert!(groups[0].value.lvs.iter().all(|lv| lv.device.is_ok()));
    // By its size.
    let sized = two.replacen("dev_size = 2048", "dev_size = 4096", 1);
    let mut bytes = build_pv(UUIDS[1], 1, &sized);
    bytes[..4096].fill(0);
    let found = lvm2::recover_pv(&device(bytes), &[]).unwrap().unwrap();
    assert_eq!(found.value.uuid, UUIDS[1]);
    // Nothing there.
    assert!(lvm2::recover_pv(&device(vec![0; 8192]), &[]).unwrap().is_none());
}

#[test]
fn volumes_of_themselves_end() {
    let refuse = |from: &str, to: &str| {
        let text = text("vg", GROUP, 9, &UUIDS[..2]).replacen(from, to, 1);
        let pv = build_pv(UUIDS[0], 1, &text);
        let (groups, _) = conclude(&[device(pv), device(build_pv(UUIDS[1], 1, ""))]);
        groups[0].lvs[0].device.as_ref().map(|device| device.size()).map_err(Clone::clone)
    };
    assert_eq!(refuse("x", "x"), Ok(40960));
    assert!(refuse("\"pv0\", 5", "\"lv0\", 0").unwrap_err().contains("made of itself"));
    assert_eq!(refuse("\"pv0\", 5", "\"lv1\", 0"), Ok(40960));
    assert!(refuse("\"pv0\", 5", "\"lv1\", 1").unwrap_err().contains("past the end"));
    assert!(refuse("\"pv0\", 5", "\"nothing\", 1").unwrap_err().contains("no volume nothing"));
    assert!(refuse("start_extent = 0", "start_extent = 1").unwrap_err().contains("expected 0"));
    assert_eq!(refuse("type = \"striped\"", "type = \"zero\""), Ok(40960));
    assert!(refuse("type = \"striped\"", "type = \"error\"").unwrap_err().contains("every read"));
    for kind in ["vdo", "writecache", "integrity", "raid7", "striped+NEW"] {
        let reason = refuse("type = \"striped\"", &format!("type = \"{kind}\"")).unwrap_err();
        assert!(reason.contains(kind) && reason.contains("not supported"), "{reason}");
    }
}
