//! What device-mapper targets and their tools put in front of data; LVM1 too.

use super::probe::Bytes;
use super::{Probe, Signature, Usage};

pub(super) fn recognise(probe: &Probe<'_>) -> Option<Signature> {
    let head = probe.at(0, 1024)?;
    if head.has(0, b"HM\x01\0") || head.has(0, b"HM\x02\0") {
        let uuid = head.string(0x2c, 32).map(|uuid| dashed(&uuid));
        return Some(Signature::new("LVM1_member", Usage::Raid).uuid(uuid));
    }
    if head.has(0, b"SnAp") {
        return Some(Signature::new("DM_snapshot_cow", Usage::Other).version(head.u32(8)));
    }
    if head.has(0, b"verity\0\0") {
        let found = Signature::new("DM_verity_hash", Usage::Crypto).version(head.u32(8));
        return Some(found.uuid(head.guid(16)));
    }
    if head.has(0, b"integrt\0") {
        return Some(Signature::new("DM_integrity", Usage::Other).version(head.u8(8)));
    }
    if head.has(0, b"dmvdo001") {
        return Some(Signature::new("vdo", Usage::Raid).uuid(vdo_uuid(&head)));
    }
    [516, 516 + 4096].into_iter().find_map(|at| {
        let found = probe.at(at - 4, 512).filter(|bytes| bytes.has(4, b"!Stra0tis\x86\xff\x02^\x41rh"))?;
        let uuid = |at| found.string(at, 32).map(|digits| guid(&digits));
        Some(Signature::new("stratis", Usage::Raid).uuid(uuid(64)).sub_uuid(uuid(32)))
    })
}

/// The super block of a VDO: the geometry block names it, and so does blkid, by the first of its UUIDs.
fn vdo_uuid(head: &Bytes) -> Option<String> {
    head.guid(0x2c).or_else(|| head.guid(0x28))
}

/// The groups of an LVM UUID.
fn dashed(uuid: &str) -> String {
    let mut text = String::new();
    for (index, character) in uuid.chars().enumerate() {
        if matches!(index, 6 | 10 | 14 | 18 | 22 | 26) {
            text.push('-');
        }
        text.push(character);
    }
    text
}

/// The groups of a UUID in hexadecimal.
fn guid(digits: &str) -> String {
    let mut text = String::new();
    for (index, character) in digits.chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(character);
    }
    text
}
