//! LVM2: a metadata text up to its NUL, and behind it the bytes of the physical volumes that it names.
//!
//! The first byte chooses: bit 0, whether the rest is a whole physical volume instead; bit 1, whether checksums are
//! set right. Whatever the bytes, assembling, searching old texts and reading must end without a panic, and quickly.
#![no_main]

use std::sync::Arc;

use blockdev::{Concat, Device, MemoryDevice, Part};
use libfuzzer_sys::fuzz_target;
use ondisk::{crc32c_raw, lvm_crc};
use volume::lvm2::{self, MetadataArea, MetadataText, PhysicalVolume, Place};

/// First byte of the extents in the seeds: pe_start = 384.
const DATA: usize = 384 * 512;
/// Bytes of a physical volume: the input and zeros behind it.
const SIZE: u64 = 16 << 20;

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    let pvs = if choice & 1 == 1 { whole(bytes, choice & 2 != 0) } else { parts(bytes, choice & 2 != 0) };
    let mut buffer = [0; 3000];
    let assembled = lvm2::assemble(&pvs);
    for group in &assembled.value {
        for lv in &group.value.lvs {
            let Ok(device) = &lv.device else { continue };
            for offset in [0, 1000, device.size() / 2, device.size().saturating_sub(3000)] {
                let _ = device.read_exact_at(&mut buffer, offset);
                if let Ok(run) = device.extent_at(offset) {
                    assert!(run.length > 0 && run.length <= device.size() - offset);
                }
            }
        }
    }
});

/// A device that begins with `bytes`.
fn device(bytes: Vec<u8>) -> Device {
    let length = bytes.len() as u64;
    let front = Part { device: Some(Arc::new(MemoryDevice::new(bytes))), offset: 0, length };
    let back = Part { device: None, offset: 0, length: SIZE.saturating_sub(length) };
    Arc::new(Concat::new([front, back]).expect("both parts have their length"))
}

fn whole(bytes: &[u8], set_checksums: bool) -> Vec<PhysicalVolume> {
    let mut bytes = bytes.to_vec();
    if set_checksums && bytes.len() >= 8192 {
        let place = u64::from_le_bytes(bytes[4136..4144].try_into().expect("8 bytes"));
        let size = u64::from_le_bytes(bytes[4144..4152].try_into().expect("8 bytes"));
        let start = place.saturating_add(4096).min(bytes.len() as u64) as usize;
        let end = place.saturating_add(4096).saturating_add(size).min(bytes.len() as u64) as usize;
        let crc = lvm_crc(&bytes[start..end]);
        bytes[4152..4156].copy_from_slice(&crc.to_le_bytes());
        let crc = lvm_crc(&bytes[4100..4608]);
        bytes[4096..4100].copy_from_slice(&crc.to_le_bytes());
        let crc = lvm_crc(&bytes[0x214..0x400]);
        bytes[0x210..0x214].copy_from_slice(&crc.to_le_bytes());
    }
    let device = device(bytes);
    let found = match lvm2::read_pv(&device) {
        Ok(Some(found)) => Some(found.value),
        _ => lvm2::recover_pv(&device, &[]).ok().flatten().map(|found| found.value),
    };
    let pvs: Vec<PhysicalVolume> = found.into_iter().collect();
    for pv in &pvs {
        let _ = lvm2::history(pv);
    }
    pvs
}

fn parts(bytes: &[u8], set_checksums: bool) -> Vec<PhysicalVolume> {
    let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (text, data) = bytes.split_at(length);
    let _ = lvm2::parse_backup(text);
    let mut content = vec![0; DATA];
    content.extend_from_slice(data.get(1..).unwrap_or_default());
    if set_checksums {
        for block in content[DATA..].chunks_exact_mut(4096) {
            let magic = u64::from_le_bytes(block[32..40].try_into().expect("8 bytes"));
            let xor = match (magic, block[4]) {
                (27_022_010, _) => 160_774,
                (1_623_043, _) => 9_031_977,
                (_, 1 | 2) => 121_107,
                _ => 595_846_735,
            };
            let crc = crc32c_raw(!0, &block[4..]) ^ xor;
            block[..4].copy_from_slice(&crc.to_le_bytes());
        }
    }
    let device = device(content);
    let words = String::from_utf8_lossy(text);
    let uuids = words.split("pv").skip(1).filter_map(|rest| rest.split("id = \"").nth(1)?.split('"').next());
    let pvs = uuids.take(4).enumerate().map(|(number, uuid)| {
        let place = Place { area: 4096, offset: 512, size: length as u64, is_split: false };
        let committed = (number == 0).then(|| MetadataText { place, text: Ok(text.to_vec()) });
        PhysicalVolume {
            uuid: uuid.to_owned(),
            device: device.clone(),
            label_sector: Some(1),
            recorded_size: device.size(),
            data_areas: Vec::new(),
            extension: None,
            areas: vec![MetadataArea {
                offset: 4096,
                size: 1 << 20,
                header: Ok(()),
                is_ignored: false,
                committed,
                precommitted: None,
            }],
        }
    });
    pvs.collect()
}
