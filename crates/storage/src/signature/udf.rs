//! UDF (ECMA-167, OSTA UDF 2.60): an anchor leads to a sequence of volume descriptors.
//!
//! Nothing tells the size of a block but where the anchor lies. Of a disc with several sessions the last one counts,
//! as a drive presents it.

use super::probe::Bytes;
use super::{Probe, Signature, Usage};

/// Sizes of a block, the likely ones first.
const BLOCKS: [u64; 4] = [2048, 512, 4096, 1024];
/// Descriptors of a sequence that are looked at.
const MAX_DESCRIPTORS: u64 = 64;
/// Bytes that are searched for further sessions.
const SESSIONS: u64 = 32 << 20;

pub(super) fn recognise(probe: &Probe<'_>) -> Option<Signature> {
    if !has_recognition_sequence(probe, 0) {
        return None;
    }
    let first = BLOCKS.iter().find_map(|block| volume(probe, 0, *block))?;
    let last = (1..probe.size().min(SESSIONS) / 2048)
        .rev()
        .map(|sector| sector * 2048)
        .find_map(|start| is_session(probe, start).then(|| volume(probe, start, 2048)).flatten());
    Some(last.unwrap_or(first))
}

/// A sequence of structures at 32 KiB, of which one says that this is UDF.
fn has_recognition_sequence(probe: &Probe<'_>, start: u64) -> bool {
    const OTHERS: [&[u8; 5]; 5] = [b"BEA01", b"TEA01", b"BOOT2", b"CD001", b"CDW02"];
    // The structures are as large as a block, but at least 2 KiB.
    [2048, 4096].into_iter().any(|step| {
        for index in 0..64 {
            let Some(structure) = probe.at(start + (32 << 10) + index * step, 8) else { return false };
            if structure.has(1, b"NSR02") || structure.has(1, b"NSR03") {
                return true;
            }
            if !OTHERS.iter().any(|other| structure.has(1, *other)) {
                return false;
            }
        }
        false
    })
}

/// A cheap look at a possible start of a session.
fn is_session(probe: &Probe<'_>, start: u64) -> bool {
    let head = probe.at(start + (32 << 10), 8);
    head.is_some_and(|head| head.has(1, b"BEA01") || head.has(1, b"CD001"))
        && has_recognition_sequence(probe, start)
}

fn volume(probe: &Probe<'_>, start: u64, block: u64) -> Option<Signature> {
    let last = probe.size() / block;
    // The anchor lies at block 256 and at the disc's end.
    let ends = [last.saturating_sub(1), last.saturating_sub(257), last.saturating_sub(152)];
    let ends = ends.into_iter().filter(|_| start == 0);
    let anchors = std::iter::once(start / block + 256).chain(ends);
    let anchor = anchors.filter_map(|at| descriptor(probe, at, block, 2)).next()?;
    let (length, first) = (u64::from(anchor.u32(16)), u64::from(anchor.u32(20)));
    let mut signature = Signature::new("udf", Usage::FileSystem);
    let mut name = None;
    for number in first..first + (length / block).min(MAX_DESCRIPTORS) {
        let Some(found) = probe.at(number * block, 512) else { break };
        match found.u16(0) {
            _ if found.u32(12) as u64 != number => break,
            // Primary volume descriptor: the identifier of the volume set, and the volume's own.
            1 => {
                signature.uuid = signature.uuid.or_else(|| uuid(&dstring(&found, 72, 128)));
                name = name.or_else(|| text(&dstring(&found, 24, 32)));
            }
            // Logical volume descriptor: its identifier, and the revision in the domain's suffix.
            6 => {
                signature.label = signature.label.or_else(|| text(&dstring(&found, 84, 128)));
                let revision = found.u16(216 + 24);
                signature.version = Some(format!("{:x}.{:02x}", revision >> 8, revision & 0xff));
            }
            // Terminating descriptor.
            8 => break,
            _ => {}
        }
    }
    signature.label = signature.label.or(name);
    Some(signature)
}

/// The descriptor with this tag at block `at`, if it says that it belongs there.
fn descriptor(probe: &Probe<'_>, at: u64, block: u64, tag: u16) -> Option<Bytes> {
    let found = probe.at(at.checked_mul(block)?, 512)?;
    (found.u16(0) == tag && u64::from(found.u32(12)) == at).then_some(found)
}

/// A `dstring`: how characters are stored, the characters, and in the last byte the length of both.
fn dstring(descriptor: &Bytes, at: usize, size: usize) -> String {
    let length = usize::from(descriptor.u8(at + size - 1)).min(size - 1).saturating_sub(1);
    let characters = descriptor.part(at + 1, length);
    match descriptor.u8(at) {
        8 => characters.iter().map(|byte| char::from(*byte)).collect(),
        16 => {
            let units: Vec<u16> =
                characters.chunks_exact(2).map(|unit| u16::from_be_bytes([unit[0], unit[1]])).collect();
            String::from_utf16_lossy(&units)
        }
        _ => String::new(),
    }
}

fn text(string: &str) -> Option<Vec<u8>> {
    let string = string.trim_end_matches(['\0', ' ']);
    (!string.is_empty()).then(|| string.as_bytes().to_vec())
}

/// The unique start of the volume set's identifier: 16 hexadecimal digits, or 8 with the next four bytes in
/// hexadecimal, or the first eight bytes in hexadecimal.
fn uuid(identifier: &str) -> Option<String> {
    let bytes = identifier.as_bytes();
    if bytes.len() < 8 {
        return None;
    }
    let start = &bytes[..bytes.len().min(16)];
    let digits = start.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let lower = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_ascii_lowercase();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    // What is missing of the sixteen bytes counts as zeros.
    let byte = |index: usize| start.get(index).copied().unwrap_or(0);
    Some(match digits {
        0..8 => hex(&start[..8]),
        8..16 => lower(&start[..8]) + &hex(&[byte(8), byte(9), byte(10), byte(11)]),
        _ => lower(start),
    })
}
