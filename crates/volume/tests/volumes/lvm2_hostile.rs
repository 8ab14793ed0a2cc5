//! Tens of thousands of damaged groups: whatever the bytes, nothing may panic, hang or ask for much memory.

use std::sync::Arc;

use blockdev::{BlockDevice, Device, MemoryDevice, Slice};
use ondisk::{crc32c_raw, lvm_crc};
use volume::lvm2::{self, PhysicalVolume};

use crate::lvm2_history::{build_pv, text};
use crate::support::image;

/// A small generator; the seed is fixed, so a failure repeats.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        ((self.next() >> 33) as usize) % end
    }

    /// Changes one field of 1, 4 or 8 bytes.
    fn damage(&mut self, bytes: &mut [u8]) {
        let width = [1, 4, 8][self.below(3)].min(bytes.len());
        let at = self.below(bytes.len() / width) * width;
        let field = &mut bytes[at..at + width];
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(field);
        let old = u64::from_le_bytes(wide);
        let new = match self.below(8) {
            0 => 0,
            1 => 1,
            2 => u64::MAX,
            3 => old.wrapping_add(1),
            4 => old.wrapping_sub(1),
            5 => old ^ 1 << self.below(width * 8),
            6 => 1 << self.below(width * 8),
            _ => self.next(),
        };
        field.copy_from_slice(&new.to_le_bytes()[..width]);
    }
}

/// Assembles and reads here and there; how many reads succeeded.
fn look(pvs: &[PhysicalVolume]) -> usize {
    let mut reads = 0;
    let mut buffer = [0; 1500];
    for group in lvm2::assemble(pvs).value {
        for lv in &group.value.lvs {
            let Ok(device) = &lv.device else { continue };
            let size = device.size();
            for offset in [0, 70_000, size / 2, size.saturating_sub(1500)] {
                reads += usize::from(device.read_exact_at(&mut buffer, offset).is_ok());
                if let Ok(extent) = device.extent_at(offset) {
                    assert!(extent.length > 0 && extent.length <= size - offset);
                }
            }
        }
    }
    reads
}

#[test]
fn damaged_labels_areas_and_texts() {
    const UUID: &str = "AAAAAA-1111-2222-3333-4444-5555-666666";
    let mut good = build_pv(UUID, 1, &text("vg", "GGGGGG-1111-2222-3333-4444-5555-666666", 9, &[UUID]));
    good.truncate(160 << 10);
    let length = good[4608..].iter().position(|byte| *byte == 0).unwrap() + 1;
    let mut random = Random(1);
    let (mut labels, mut reads, mut versions) = (0, 0, 0);
    for round in 0..24_000 {
        let mut bytes = good.clone();
        for _ in 0..=random.below(2) {
            match random.below(4) {
                0 => random.damage(&mut bytes[512..512 + 160]),
                1 => random.damage(&mut bytes[4096..4096 + 100]),
                2 => random.damage(&mut bytes[4608..4608 + length]),
                _ => {
                    let at = 4608 + random.below(length);
                    bytes[at] = b"{}[]\"=#\\ \n0,\0"[random.below(13)];
                }
            }
        }
        if round % 2 == 0 {
            let crc = lvm_crc(&bytes[4608..4608 + length]);
            bytes[4096 + 56..4096 + 60].copy_from_slice(&crc.to_le_bytes());
            let crc = lvm_crc(&bytes[4100..4608]);
            bytes[4096..4100].copy_from_slice(&crc.to_le_bytes());
            let crc = lvm_crc(&bytes[512 + 0x14..1024]);
            bytes[512 + 0x10..512 + 0x14].copy_from_slice(&crc.to_le_bytes());
        }
        let device: Device = Arc::new(MemoryDevice::new(bytes));
        let _ = lvm2::recover_pv(&device, &[]);
        if let Ok(Some(found)) = lvm2::read_pv(&device) {
            labels += 1;
            if round % 4 == 0 {
                versions += lvm2::history(&found.value).map_or(0, |history| history.len());
            }
            reads += look(&[found.value]);
        }
    }
    assert!(labels > 15_000 && reads > 8_000 && versions > 2_000, "{labels} {reads} {versions}");
}

/// The physical volumes of an image, and the text of their group.
fn group(name: &str, count: u64) -> (Vec<PhysicalVolume>, Vec<Device>, String) {
    let whole = image(name);
    let size = whole.size() / count;
    let disks: Vec<Device> = (0..count)
        .map(|n| -> Device { Arc::new(Slice::new(whole.clone(), n * size, size).unwrap()) })
        .collect();
    let pvs: Vec<PhysicalVolume> =
        disks.iter().map(|disk| lvm2::read_pv(disk).unwrap().unwrap().value).collect();
    let text = pvs[0].areas[0].committed.as_ref().unwrap().text.clone().unwrap();
    (pvs, disks, String::from_utf8(text).unwrap())
}

/// The same with another text on the first one and none on the others.
fn with_text(pvs: &[PhysicalVolume], text: &str) -> Vec<PhysicalVolume> {
    let mut pvs = pvs.to_vec();
    for (number, pv) in pvs.iter_mut().enumerate() {
        let area = &mut pv.areas[0];
        match area.committed.as_mut().filter(|_| number == 0) {
            Some(committed) => committed.text = Ok(text.as_bytes().to_vec()),
            None => area.committed = None,
        }
    }
    pvs
}

/// Cuts the section of one logical volume out.
fn without(text: &str, name: &str) -> String {
    let start = text.find(&format!("\n{name} {{")).unwrap_or_else(|| panic!("{name}"));
    let mut depth = 0;
    for (at, byte) in text.bytes().enumerate().skip(start) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return format!("{}{}", &text[..start], &text[at + 1..]),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    panic!("{name} does not end")
}

/// Keeps the volumes whose names begin with one of `names`.
fn only(text: &str, names: &[&str]) -> String {
    let volumes = text.find("logical_volumes {").unwrap();
    let mut kept = text.to_owned();
    for line in text[volumes..].lines().skip(1) {
        let Some(name) = line.strip_suffix(" {") else { continue };
        if !name.trim().starts_with("segment")
            && name.trim() != "policy_settings"
            && !names.iter().any(|prefix| name.trim().starts_with(prefix))
        {
            kept = without(&kept.replace("\t", ""), name.trim());
        }
    }
    kept
}

#[test]
fn damaged_maps_of_segments() {
    let mut random = Random(2);
    let mut reads = 0;
    let mut rounds = 0;
    let cases: [(&str, u64, &[&str], usize); 6] = [
        ("lvm-raid", 5, &["raid5_ls", "linear", "striped"], 5_000),
        ("lvm-raid", 5, &["raid6_nr", "mirror_log", "raid10"], 4_000),
        ("lvm-raid", 5, &["raid1", "raid0", "mirror_"], 3_000),
        ("lvm-thin", 2, &["one", "ext", "base", "pool"], 4_000),
        ("lvm-cache-vol", 2, &["data", "fast"], 3_000),
        ("lvm-snapshot", 1, &["data", "early", "snapshot0"], 3_000),
    ];
    let kinds = [
        "striped", "mirror", "raid1", "raid5", "raid6", "raid10", "thin", "cache", "zero", "error",
        "snapshot",
    ];
    for (name, count, names, times) in cases {
        let (pvs, _, text) = group(name, count);
        let text = only(&text, names);
        let words: Vec<&str> = text.split('"').skip(1).step_by(2).collect();
        let numbers: Vec<(usize, usize)> = (0..text.len())
            .filter(|at| text.as_bytes()[*at].is_ascii_digit() && b" \t".contains(&text.as_bytes()[at - 1]))
            .map(|at| (at, at + text[at..].bytes().take_while(u8::is_ascii_digit).count()))
            .collect();
        let strings: Vec<(usize, usize)> = {
            let quotes: Vec<usize> = text.match_indices('"').map(|(at, _)| at).collect();
            quotes.chunks_exact(2).map(|pair| (pair[0] + 1, pair[1])).collect()
        };
        // Not the header of the text; what is in the volumes counts.
        let volumes = text.find("logical_volumes {").unwrap();
        assert!(look(&with_text(&pvs, &text)) > 0, "{name}");
        for _ in 0..times {
            rounds += 1;
            let mut damaged = text.clone();
            let spot = |list: &[(usize, usize)], random: &mut Random| loop {
                let spot = list[random.below(list.len())];
                if spot.0 > volumes || random.below(8) == 0 {
                    return spot;
                }
            };
            if random.below(2) == 0 {
                let (start, end) = spot(&numbers, &mut random);
                let old: u64 = text[start..end].parse().unwrap_or(0);
                let new = match random.below(7) {
                    0 => 0,
                    1 => 1,
                    2 => i64::MAX as u64,
                    3 => old.saturating_add(1),
                    4 => old.saturating_sub(1),
                    5 => u64::from(u32::MAX),
                    _ => old ^ 1 << random.below(40),
                };
                damaged.replace_range(start..end, &new.to_string());
            } else {
                let (start, end) = spot(&strings, &mut random);
                let new = if random.below(3) == 0 {
                    kinds[random.below(kinds.len())]
                } else {
                    words[random.below(words.len())]
                };
                damaged.replace_range(start..end, new);
            }
            reads += look(&with_text(&pvs, &damaged));
        }
    }
    assert!(rounds >= 20_000 && reads > 40_000, "{rounds} {reads}");
}

/// Damages blocks of `disk` one after another, and looks at the group each time. `blocks` are byte ranges, with
/// what the checksum in their first four bytes is xored with, if they have one.
fn damage_blocks(
    disk: &Device,
    pvs: &[PhysicalVolume],
    blocks: &[(u64, usize, Option<u32>)],
    times: usize,
    seed: u64,
) -> usize {
    let mut random = Random(seed);
    let mut reads = 0;
    let disk = disk.writable().unwrap();
    for round in 0..times {
        let (at, length, xor) = blocks[random.below(blocks.len())];
        let mut good = vec![0; length];
        disk.read_exact_at(&mut good, at).unwrap();
        let mut bytes = good.clone();
        // Headers and the first entries are what decides.
        let end = [40, 400, length][random.below(3)].min(length);
        random.damage(&mut bytes[..end]);
        if let Some(xor) = xor.filter(|_| round % 4 != 0) {
            let sum = crc32c_raw(!0, &bytes[4..]) ^ xor;
            bytes[..4].copy_from_slice(&sum.to_le_bytes());
        }
        disk.write_all_at(&bytes, at).unwrap();
        reads += look(pvs);
        disk.write_all_at(&good, at).unwrap();
    }
    reads
}

/// The blocks of a metadata device in `start..` of `disk` that have a checksum of a kind we know.
fn metadata_blocks(disk: &dyn BlockDevice, start: u64, count: u64) -> Vec<(u64, usize, Option<u32>)> {
    let mut blocks = Vec::new();
    let mut bytes = vec![0; 4096];
    for at in (0..count).map(|number| start + number * 4096) {
        disk.read_exact_at(&mut bytes, at).unwrap();
        let xor = u32::from_le_bytes(bytes[..4].try_into().unwrap()) ^ crc32c_raw(!0, &bytes[4..]);
        if [160_774, 121_107, 9_031_977, 595_846_735].contains(&xor) {
            blocks.push((at, 4096, Some(xor)));
        }
    }
    blocks
}

#[test]
fn damaged_thin_metadata() {
    let (pvs, disks, text) = group("lvm-thin", 2);
    let text = only(&text, &["one", "ext", "base", "pool"]);
    let pvs = with_text(&pvs, &text);
    // As the guest's table said: 1664 sectors into the second one.
    let blocks = metadata_blocks(disks[1].as_ref(), 1664 * 512, 80);
    assert!(blocks.len() > 20, "{}", blocks.len());
    let good = look(&pvs);
    let reads = damage_blocks(&disks[1], &pvs, &blocks, 20_000, 3);
    assert!(reads > 20_000 * good / 2 && reads < 20_000 * good, "{reads}");
}

#[test]
fn damaged_caches_and_snapshots() {
    let (pvs, disks, text) = group("lvm-cache-vol", 2);
    let pvs = with_text(&pvs, &text);
    let blocks = metadata_blocks(disks[1].as_ref(), 384 * 512, 60);
    assert!(blocks.len() > 10, "{}", blocks.len());
    let good = look(&pvs);
    let reads = damage_blocks(&disks[1], &pvs, &blocks, 4_000, 4);
    assert!(reads > 4_000 * good / 2 && reads < 4_000 * good, "{reads}");

    let (pvs, disks, _) = group("lvm-snapshot", 1);
    let store = (384 + 4096) * 512;
    let blocks = [(store, 16, None), (store + 4096, 1024, None)];
    let good = look(&pvs);
    let reads = damage_blocks(&disks[0], &pvs, &blocks, 4_000, 5);
    assert!(reads > 4_000 * good / 2 && reads < 4_000 * good, "{reads}");
}

#[test]
fn legs_of_legs_cost_no_more_than_a_bound() {
    // Each volume a mirror of two stripes, 15 deep: 2^15 reads for one, were it allowed.
    let uuid = "AAAAAA-1111-2222-3333-4444-5555-666666";
    let mut volumes = String::new();
    for level in 0..15 {
        let below = if level == 0 { "pv0".to_owned() } else { format!("lv{}", level - 1) };
        volumes += &format!(
            "lv{level} {{\nid = \"x\"\nsegment1 {{\nstart_extent = 0\nextent_count = {}\ntype = \"striped\"\n\
             stripe_count = 2\nstripe_size = 8\nstripes = [\"{below}\", 0, \"{below}\", 0]\n}}\n}}\n",
            2_u64 << level
        );
    }
    let group = text("vg", "GGGGGG-1111-2222-3333-4444-5555-666666", 9, &[uuid]);
    let start = group.find("lv0 {").unwrap();
    let end = group.find("}\n}\ncontents").unwrap();
    let group = format!("{}{volumes}{}", &group[..start], &group[end..]);
    let device: Device = Arc::new(MemoryDevice::new(build_pv(uuid, 1, &group)));
    let pv = lvm2::read_pv(&device).unwrap().unwrap().value;
    let assembled = lvm2::assemble(&[pv]);
    let lvs = &assembled.value[0].value.lvs;
    let reason = lvs.iter().find(|lv| lv.name == "lv14").unwrap().device.as_ref().unwrap_err();
    assert!(reason.contains("one read would cause"), "{reason}");
    assert!(lvs.iter().filter(|lv| lv.device.is_ok()).count() >= 9);
}
