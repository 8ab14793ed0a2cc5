//! LVM2 groups that a kernel wrote: every segment type, healthy and with physical volumes missing.

use std::sync::Arc;

use blockdev::{BlockDevice, Counter, Device, Slice};
use volume::lvm2::{self, CopyVerdict, LogicalVolume, PhysicalVolume, VolumeGroup};

use crate::support::{assert_pattern, image, pattern};

/// The image `name` cut into its `count` physical volumes.
fn disks(name: &str, count: u64) -> Vec<Device> {
    let whole = image(name);
    let size = whole.size() / count;
    (0..count).map(|n| -> Device { Arc::new(Slice::new(whole.clone(), n * size, size).unwrap()) }).collect()
}

fn read(disks: &[Device]) -> Vec<PhysicalVolume> {
    let found = disks.iter().map(|disk| {
        let found = lvm2::read_pv(disk).unwrap().unwrap();
        assert!(found.problems.is_empty(), "{:?}", found.problems);
        found.value
    });
    found.collect()
}

/// The one group on `disks`, and its problems as text.
fn group(disks: &[Device]) -> (VolumeGroup, Vec<String>) {
    let mut assembled = lvm2::assemble(&read(disks));
    assert_eq!(assembled.value.len(), 1);
    let group = assembled.value.remove(0);
    let problems = assembled.problems.iter().chain(&group.problems).map(ToString::to_string).collect();
    (group.value, problems)
}

fn lv<'a>(group: &'a VolumeGroup, name: &str) -> &'a LogicalVolume {
    group.lvs.iter().find(|lv| lv.name == name).unwrap()
}

fn device<'a>(group: &'a VolumeGroup, name: &str) -> &'a dyn BlockDevice {
    match &lv(group, name).device {
        Ok(device) => device.as_ref(),
        Err(reason) => panic!("{name}: {reason}"),
    }
}

/// Name, seed, and how many physical volumes may be missing whichever they are.
const RAID: [(&str, u8, usize); 22] = [
    ("linear", 1, 0),
    ("striped", 2, 0),
    ("raid0", 3, 0),
    ("raid0_meta", 4, 0),
    ("raid1", 5, 2),
    ("mirror", 6, 1),
    ("raid4", 7, 1),
    ("raid5_ls", 8, 1),
    ("raid5_la", 9, 1),
    ("raid5_rs", 10, 1),
    ("raid5_ra", 11, 1),
    ("raid5_n", 12, 1),
    ("raid6_zr", 13, 2),
    ("raid6_nr", 14, 2),
    ("raid6_nc", 15, 2),
    ("raid6_ls_6", 16, 2),
    ("raid6_la_6", 17, 2),
    ("raid6_rs_6", 18, 2),
    ("raid6_ra_6", 19, 2),
    ("raid6_n_6", 20, 2),
    ("raid10", 21, 1),
    ("mirror_log", 22, 1),
];

#[test]
fn every_segment_type_reads_as_it_was_written() {
    let disks = disks("lvm-raid", 5);
    let (group, problems) = group(&disks);
    assert_eq!(problems, [""; 0]);
    assert!(group.copies.iter().all(|copy| copy.verdict == CopyVerdict::Current) && group.copies.len() == 5);
    assert!(!group.is_partial() && !group.is_exported());
    for (name, seed, _) in RAID {
        let lv = lv(&group, name);
        let device = device(&group, name);
        assert_eq!(device.size(), lv.size, "{name}");
        assert_eq!(lv.notes, [""; 0], "{name}");
        assert!(lv.is_visible && lv.role.is_none());
        assert_pattern(device, seed, 0..lv.size / 512);
    }
    assert_eq!(lv(&group, "linear").segments.len(), 2);
    assert_eq!(lv(&group, "raid5_ls").kinds, ["raid5_ls"]);
    assert_eq!(lv(&group, "raid5_ls_rimage_1").kinds, ["linear"]);
    let role = lv(&group, "raid5_ls_rmeta_1").role.clone().unwrap();
    assert_eq!((role.kind, role.of.as_str()), ("raid metadata", "raid5_ls"));
}

#[test]
fn what_redundancy_allows_is_read_without_its_disks() {
    let disks = disks("lvm-raid", 5);
    let mut sets: Vec<Vec<usize>> = (0..5).map(|n| vec![n]).collect();
    sets.extend((0..5).flat_map(|a| (0..a).map(move |b| vec![b, a])));
    let mut read_degraded = 0;
    for missing in sets {
        let present: Vec<Device> =
            (0..5).filter(|n| !missing.contains(n)).map(|n| disks[n].clone()).collect();
        let (group, problems) = group(&present);
        assert_eq!(problems.len(), missing.len(), "{problems:?}");
        assert!(group.is_partial());
        for (name, seed, redundancy) in RAID {
            let lv = lv(&group, name);
            match &lv.device {
                Ok(device) => {
                    assert_pattern(device.as_ref(), seed, 0..lv.size / 512);
                    read_degraded += usize::from(!lv.notes.is_empty());
                }
                Err(reason) => {
                    assert!(missing.len() > redundancy, "{name} without {missing:?}: {reason}");
                    assert!(reason.contains("is missing") && reason.contains("/dev/vd"), "{name}: {reason}");
                }
            }
        }
    }
    assert!(read_degraded > 150, "{read_degraded}");
}

#[test]
fn a_leg_that_missed_writes_is_not_read() {
    let disks = disks("lvm-stale", 3);
    let (both, _) = group(&disks);
    assert_pattern(device(&both, "one"), 3, 0..lv(&both, "one").size / 512);
    assert_pattern(device(&both, "five"), 4, 0..lv(&both, "five").size / 512);
    assert!(lv(&both, "one").notes[0].contains("leg 0 is not read"), "{:?}", lv(&both, "one").notes);
    // Without the others, nothing says that it is stale; that is what activating it in degraded mode would show.
    let (stale, _) = group(&disks[..1]);
    assert_pattern(device(&stale, "one"), 1, 0..lv(&stale, "one").size / 512);
    // A stale leg cannot stand in for another one.
    let (two, _) = group(&disks[..2]);
    assert!(lv(&two, "five").device.is_err());
}

#[test]
fn reshaped_and_taken_over_arrays_have_their_new_shape() {
    let disks = disks("lvm-reshape", 4);
    let (whole, _) = group(&disks);
    // It was 8 extents of 32 KiB over two data legs; a third leg made it 12.
    let wider = lv(&whole, "wider");
    assert_eq!((wider.size, device(&whole, "wider").size()), (12 << 15, 12 << 15));
    assert_eq!(wider.segments[0].flags, ["RESHAPE", "RESHAPE_DATA_OFFSET"]);
    assert_pattern(device(&whole, "wider"), 1, 0..512);
    assert_pattern(device(&whole, "taken"), 2, 0..384);
    for missing in 0..4 {
        let present: Vec<Device> = (0..4).filter(|n| *n != missing).map(|n| disks[n].clone()).collect();
        let (degraded, _) = group(&present);
        assert_pattern(device(&degraded, "wider"), 1, 0..512);
        assert_pattern(device(&degraded, "taken"), 2, 0..384);
    }
}

/// Checks sectors in pieces: (seed or 255 for zeros, first, end).
fn assert_pieces(device: &dyn BlockDevice, pieces: &[(u8, u64, u64)]) {
    let mut next = 0;
    for (seed, start, end) in pieces {
        assert_eq!(*start, next);
        next = *end;
        if *seed == 255 {
            let mut bytes = vec![1; ((end - start) * 512) as usize];
            device.read_exact_at(&mut bytes, start * 512).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0), "sectors {start}..{end} are not zeros");
        } else {
            assert_pattern(device, *seed, *start..*end);
        }
    }
    assert_eq!(device.size(), next * 512);
}

#[test]
fn thin_volumes_share_and_diverge() {
    let disks = disks("lvm-thin", 2);
    let (group, problems) = group(&disks);
    assert_eq!(problems, [""; 0]);
    let one = device(&group, "one");
    // What `seek` and `skip` moved.
    let mut sector = [0; 512];
    for number in 0..300 {
        one.read_exact_at(&mut sector, (9000 + number) * 512).unwrap();
        assert!(sector == pattern(3, 808 + number), "{number}");
    }
    for number in 0..256 {
        one.read_exact_at(&mut sector, (8192 + number) * 512).unwrap();
        assert!(sector == pattern(2, number), "{number}");
    }
    assert_pattern(one, 1, 0..1000);
    assert_pattern(one, 1, 3000..3200);
    assert_pattern(one, 4, 3200..3456);
    // Discarded: whole blocks of 128 sectors.
    let mut block = vec![1; 128 * 512];
    one.read_exact_at(&mut block, 3456 * 512).unwrap();
    assert!(block.iter().all(|byte| *byte == 0));
    let snap = device(&group, "snap");
    assert_pieces_of(snap, &[(1, 0, 100), (3, 100, 300), (1, 300, 1000), (1, 3000, 4000)]);
    snap.read_exact_at(&mut block, 6000 * 512).unwrap();
    assert!(block.iter().all(|byte| *byte == 0));
    assert_eq!(snap.extent_at(1 << 20).unwrap().kind, blockdev::ExtentKind::Zero);
    assert_pieces(device(&group, "ext"), &[(9, 0, 256), (5, 256, 384), (9, 384, 1024)]);
    assert_pieces(device(&group, "empty"), &[(255, 0, 2048)]);
    assert_pieces(device(&group, "base"), &[(9, 0, 1024)]);
    for n in 1..=8 {
        assert_pattern(
            device(&group, &format!("many{n}")),
            20 + n,
            u64::from(n) * 10..u64::from(n) * 10 + 100,
        );
    }
    let pool = lv(&group, "pool");
    assert!(pool.device.is_err() && !pool.has_bytes());
    assert_eq!(lv(&group, "pool_tmeta").role.as_ref().unwrap().kind, "thin pool metadata");
    assert!(one.writable().is_none());
}

fn assert_pieces_of(device: &dyn BlockDevice, pieces: &[(u8, u64, u64)]) {
    for (seed, start, end) in pieces {
        assert_pattern(device, *seed, *start..*end);
    }
}

#[test]
fn thin_volumes_without_their_pool_name_the_reason() {
    let disks = disks("lvm-thin", 2);
    let (group, _) = group(&disks[..1]);
    let reason = lv(&group, "one").device.as_ref().unwrap_err();
    assert!(reason.contains("pool_tmeta") && reason.contains("is missing"), "{reason}");
}

#[test]
fn cached_volumes_show_what_the_cache_holds() {
    for (name, dirty) in [("lvm-cache-through", false), ("lvm-cache-back", true), ("lvm-cache-vol", true)] {
        let disks = disks(name, 2);
        let (cached, problems) = group(&disks);
        assert_eq!(problems, [""; 0], "{name}");
        let (last, end) = if dirty { (5, 1280) } else { (2, 1280) };
        let pieces =
            [(1, 0, 64), (3, 64, 128), (1, 128, 1024), (last, 1024, end), (2, end, 1536), (4, 1536, 2048)];
        assert_pieces(device(&cached, "data"), &pieces);
        // The origin alone lacks the last write, so without the cache it must not be shown.
        let (alone, _) = group(&disks[..1]);
        let origin = device(&alone, "data_corig");
        let mut sector = [0; 512];
        origin.read_exact_at(&mut sector, 1024 * 512).unwrap();
        if dirty {
            assert!(sector != pattern(5, 1024), "{name}: nothing was dirty");
            let reason = lv(&alone, "data").device.as_ref().unwrap_err();
            assert!(reason.contains("newer blocks") && reason.contains("is missing"), "{reason}");
        } else {
            assert_pieces(device(&alone, "data"), &pieces);
            assert!(lv(&alone, "data").notes.iter().any(|note| note.contains("origin only")));
        }
    }
}

#[test]
fn old_snapshots_keep_what_the_origin_was() {
    let disks = disks("lvm-snapshot", 1);
    let (group, problems) = group(&disks);
    assert_eq!(problems, [""; 0]);
    let origin = [(1, 0, 500), (2, 500, 800), (1, 800, 2000), (3, 2000, 2100), (1, 2100, 4096)];
    assert_pieces(device(&group, "data"), &origin);
    assert_pieces(device(&group, "early"), &[(1, 0, 520), (5, 520, 584), (1, 584, 4096)]);
    let late = [(1, 0, 500), (2, 500, 800), (1, 800, 1001), (4, 1001, 1078), (1, 1078, 4096)];
    assert_pieces(device(&group, "late"), &late);
    assert_eq!(lv(&group, "late").kinds, ["snapshot"]);
    assert!(lv(&group, "late").is_visible);
    assert!(device(&group, "data").writable().is_none());
    assert!(!group.lvs.iter().any(|lv| lv.name.starts_with("snapshot")));
}

/// Writes to a hidden volume and tells how `name` is then: its notes, or why it is refused.
fn after(disks: &[Device], hidden: &str, at: u64, bytes: &[u8], name: &str) -> Result<Vec<String>, String> {
    let (before, _) = group(disks);
    let target = device(&before, hidden).writable().unwrap();
    let mut old = vec![0; bytes.len()];
    target.read_exact_at(&mut old, at).unwrap();
    target.write_all_at(bytes, at).unwrap();
    let (changed, _) = group(disks);
    let lv = lv(&changed, name);
    let said = lv.device.as_ref().map(|_| lv.notes.clone()).map_err(Clone::clone);
    target.write_all_at(&old, at).unwrap();
    said
}

fn assert_says(said: &Result<Vec<String>, String>, is_read: bool, words: &str) {
    let text = match said {
        Ok(notes) => notes.join("; "),
        Err(reason) => reason.clone(),
    };
    assert!(said.is_ok() == is_read && text.contains(words), "{said:?}, expected {words}");
}

#[test]
fn what_raid_superblocks_say_is_obeyed() {
    let disks = disks("lvm-raid", 5);
    let five = |hidden: &str, at, bytes: &[u8]| after(&disks, hidden, at, bytes, "raid5_ls");
    let sync = [0xff; 8];
    // events of the newest one, so that its list of failed legs counts.
    assert_says(&five("raid5_ls_rmeta_1", 0x10, &[0xff, 0xff, 0, 0, 0, 0, 0, 0]), false, "is old");
    assert_says(&five("raid5_ls_rmeta_1", 0, &[0; 4]), true, "leg 1 is not read: raid5_ls_rimage_1 is new");
    assert_says(
        &five("raid5_ls_rmeta_1", 0, b"DmRx"),
        true,
        "leg 1 is not read: raid5_ls_rmeta_1: dm-raid superblock at byte 0: magic",
    );
    assert_says(&five("raid5_ls_rmeta_2", 0x0c, &[1]), true, "calls itself leg 1");
    assert_says(
        &five("raid5_ls_rmeta_2", 0x20, &[8, 0, 0, 0, 0, 0, 0, 0]),
        true,
        "rebuilt up to sector 8 only",
    );
    for leg in 0..4 {
        let rmeta = format!("raid5_ls_rmeta_{leg}");
        assert_says(&five(&rmeta, 0x20, &sync), true, "");
        // Only the newest superblock is asked; of equals, any.
        let said = five(&rmeta, 0x28, &[0; 8]).unwrap();
        assert!(said.is_empty() || said == ["the legs were never all in sync"], "{said:?}");
    }
    // The last of equals is the one that is asked.
    assert_says(&five("raid5_ls_rmeta_3", 0x18, &[1]), true, "leg 0 is not read: raid5_ls_rimage_0 failed");
    assert_says(&five("raid5_ls_rmeta_3", 0x18, &[3]), false, "no member for role 0, 1");
    assert_says(&five("raid5_ls_rmeta_3", 0x28, &[0; 8]), true, "never all in sync");
    assert_says(&five("raid5_ls_rmeta_3", 0x3c, &[1]), false, "a reshape is under way");
    assert_says(&five("raid5_ls_rmeta_3", 0x54, &[1]), false, "a reshape is under way");
    assert_says(&five("raid5_ls_rmeta_3", 0x08, &[5]), false, "know 5 legs");
    assert_says(&five("raid5_ls_rmeta_3", 0x90, &[1]), false, "incompat_features 0x1");
    assert_says(
        &five(
            "raid5_ls_rmeta_3",
            0x30,
            &[6, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6],
        ),
        false,
        "takeover from RAID level 6 to 5",
    );
    assert_says(&five("raid5_ls_rmeta_3", 0x34, &[3]), false, "a reshape is under way");
    let layout = [3, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 3];
    assert_says(&five("raid5_ls_rmeta_3", 0x34, &layout), false, "have layout 3");
    let chunk = [16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0, 16];
    assert_says(&five("raid5_ls_rmeta_3", 0x38, &chunk), false, "chunks of 16 sectors");
    // Not in sync and a leg gone: parity must not be asked, and a mirror's first leg must be there.
    let (without_first, without_last) = (&disks[1..], &disks[..4]);
    let one = after(without_first, "raid1_rmeta_2", 0x28, &[0; 8], "raid1");
    assert_says(&one, false, "leg 0 is needed");
    assert_says(&after(&disks, "raid1_rmeta_2", 0x28, &[0; 8], "raid1"), true, "never all in sync");
    let six = after(without_last, "raid6_nr_rmeta_3", 0x28, &[0; 8], "raid6_nr");
    assert!(six.is_err(), "{six:?}");
    let (whole, _) = group(&disks);
    assert_eq!(lv(&whole, "raid5_ls").notes, [""; 0]);
    // What a leg that is not there would not get to know must not be written.
    assert!(device(&whole, "raid5_ls").writable().is_some() && device(&whole, "raid1").writable().is_some());
    let (degraded, _) = group(without_first);
    for name in ["raid5_ls", "raid1", "raid10"] {
        assert!(device(&degraded, name).writable().is_none(), "{name}");
    }
}

#[test]
fn a_mirror_log_decides_on_the_second_leg() {
    let disks = disks("lvm-raid", 5);
    let (whole, _) = group(&disks);
    let first = lv(&whole, "mirror_log_mimage_0").segments[0].targets[0].name.clone();
    let lost: usize = first.trim_start_matches("pv").parse().unwrap();
    let present: Vec<Device> = (0..5).filter(|n| *n != lost).map(|n| disks[n].clone()).collect();
    let log = "mirror_log_mlog";
    let mirror = |at, bytes: &[u8]| after(&present, log, at, bytes, "mirror_log");
    assert_says(&mirror(2048, &[0]), true, "read from mirror_log_mimage_1");
    assert_says(&mirror(1024, &[0]), false, "calls region 0 not in sync");
    assert_says(&mirror(0, b"X"), false, "no valid header");
    assert_says(&mirror(8, &[9]), false, "one of 9 regions");
    assert_says(&after(&disks, log, 1024, &[0], "mirror_log"), true, "");
}

#[test]
fn damaged_pools_caches_and_stores_are_named() {
    let thin = disks("lvm-thin", 2);
    let one = |at, bytes: &[u8]| after(&thin, "pool_tmeta", at, bytes, "one");
    assert_says(&one(100, &[1]), false, "thin pool superblock at byte 0: checksum");
    assert_says(&one(0x20, &[1]), false, "thin pool superblock at byte 0: magic");
    // With the checksum set right: flags, transaction, version.
    let (whole, _) = group(&thin);
    let mut good = vec![0; 4096];
    device(&whole, "pool_tmeta").read_exact_at(&mut good, 0).unwrap();
    let sealed = |at: usize, byte: u8| {
        let mut block = good.clone();
        block[at] = byte;
        let sum = ondisk::crc32c_raw(!0, &block[4..]) ^ 160_774;
        block[..4].copy_from_slice(&sum.to_le_bytes());
        one(0, &block)
    };
    assert_says(&sealed(0x04, 1), true, "wants thin_check");
    assert_says(&sealed(0x30, 99), true, "at transaction 99, the metadata text at 12");
    assert_says(&sealed(0x28, 3), false, "version 3");
    assert_says(&sealed(0x151, 1), false, "blocks of 196608 bytes");
    assert_says(&sealed(0x168, 1), false, "incompat_flags");
    assert_says(&sealed(0x140, 255), false, "persistent-data");

    let cache = disks("lvm-cache-back", 2);
    let said = after(&cache, "fast_cpool_cmeta", 100, &[1], "data");
    assert_says(
        &said,
        false,
        "the cache may hold newer blocks (writeback): cache superblock at byte 0: checksum",
    );
    assert_says(&after(&cache, "fast_cpool_cmeta", 0, &[0; 4096], "data"), true, "never used");
    let cache = disks("lvm-cache-through", 2);
    let said = after(&cache, "fast_cpool_cmeta", 100, &[1], "data");
    assert_says(&said, true, "read from the origin only: cache superblock at byte 0: checksum");

    // The store of a snapshot is not a volume of its own here: at extent 32 of 64 KiB, from sector 384 on.
    let disk = disks("lvm-snapshot", 1);
    let store = (384 + 32 * 128) * 512;
    let mut old = [0; 16];
    disk[0].read_exact_at(&mut old, store).unwrap();
    for (at, byte, words) in
        [(0, 0x54, "magic"), (4, 0, "the snapshot lost"), (8, 2, "version 2"), (12, 7, "chunk_size is 7")]
    {
        let mut new = old;
        new[at] = byte;
        disk[0].writable().unwrap().write_all_at(&new, store).unwrap();
        let (group, _) = group(&disk);
        let reason = lv(&group, "early").device.as_ref().unwrap_err();
        assert!(reason.contains(words), "{reason}");
        assert!(lv(&group, "late").device.is_ok() && lv(&group, "data").device.is_ok());
    }
}

#[test]
fn what_is_merged_is_named() {
    let disks = disks("lvm-snapshot", 1);
    let mut pv = read(&disks).remove(0);
    let committed = pv.areas[0].committed.as_mut().unwrap();
    let text = String::from_utf8(committed.text.clone().unwrap()).unwrap();
    let merging = text.replacen("cow_store = \"early\"", "merging_store = \"early\"", 1);
    committed.text = Ok(merging.into_bytes());
    let group = lvm2::assemble(&[pv]).value.remove(0).value;
    let reason = |name: &str| lv(&group, name).device.as_ref().unwrap_err();
    assert_eq!(reason("data"), "snapshot early is being merged into it");
    assert_eq!(reason("early"), "a snapshot that is being merged into data");

    let disks = self::disks("lvm-thin", 2);
    let mut pvs = read(&disks);
    for pv in &mut pvs {
        let committed = pv.areas[0].committed.as_mut().unwrap();
        let text = String::from_utf8(committed.text.clone().unwrap()).unwrap();
        committed.text =
            Ok(text.replacen("device_id = 1\n", "device_id = 1\nmerge = \"snap\"\n", 1).into_bytes());
    }
    let group = lvm2::assemble(&pvs).value.remove(0).value;
    let reason = lv(&group, "one").device.as_ref().unwrap_err();
    assert_eq!(reason, "thin snapshot snap is to be merged into it");
    assert!(lv(&group, "snap").device.is_ok());
}

#[test]
fn opening_reads_little() {
    for (name, count) in [("lvm-raid", 5), ("lvm-thin", 2), ("lvm-cache-back", 2), ("lvm-snapshot", 1)] {
        let counted: Vec<Arc<Counter>> =
            disks(name, count).into_iter().map(|disk| Arc::new(Counter::new(disk))).collect();
        let disks: Vec<Device> = counted.iter().cloned().map(|disk| -> Device { disk }).collect();
        group(&disks);
        let bytes: u64 = counted.iter().map(|disk| disk.bytes()).sum();
        assert!(bytes < 1 << 20, "{name}: {bytes}");
    }
}

#[test]
fn memory_is_writable_through_a_linear_volume() {
    let disks = disks("lvm-raid", 5);
    let (group, _) = group(&disks);
    device(&group, "linear").writable().unwrap().write_all_at(&[7; 512], 512).unwrap();
    device(&group, "raid6_nr").writable().unwrap().write_all_at(&[8; 512], 512).unwrap();
    let (again, _) = self::group(&disks);
    let mut sector = [0; 512];
    device(&again, "linear").read_exact_at(&mut sector, 512).unwrap();
    assert_eq!(sector, [7; 512]);
    assert!(device(&again, "mirror").writable().is_none());
}
