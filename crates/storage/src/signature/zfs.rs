//! A member of a ZFS pool: four labels, each with a name-value list and a ring of uberblocks.
//!
//! ZFS On-Disk Specification, chapter 1. The list is XDR (big-endian); uberblocks are in the writer's order.

use super::probe::Bytes;
use super::{Probe, Signature, Usage};

const LABEL: u64 = 256 << 10;
const UBERBLOCK: u64 = 0x00ba_b10c;
/// Pairs of a list that are read.
const MAX_PAIRS: usize = 64;

pub(super) fn recognise(probe: &Probe<'_>) -> Option<Signature> {
    let size = probe.size() / LABEL * LABEL;
    let labels = [0, LABEL, size.checked_sub(2 * LABEL)?, size.checked_sub(LABEL)?];
    let mut found: Option<Signature> = None;
    for label in labels {
        // A glance at the first uberblock spares reading the ring where there is nothing.
        let Some(version) = uberblock(probe, label) else { continue };
        let names = names(probe, label);
        let signature = Signature::new("zfs_member", Usage::FileSystem).version(version);
        let signature = match names {
            Some(names) => signature
                .label(names.name)
                .uuid(names.pool.map(|pool| pool.to_string()))
                .sub_uuid(names.device.map(|device| device.to_string())),
            None => signature,
        };
        if signature.uuid.is_some() {
            return Some(signature);
        }
        found.get_or_insert(signature);
    }
    found
}

/// The version of the first uberblock in the ring of the label at `label`.
fn uberblock(probe: &Probe<'_>, label: u64) -> Option<u64> {
    let places = (0..128).map(|slot| label + (128 << 10) + slot * 1024);
    // The first eight slots are enough to see that there is a ring.
    places.take(8).find_map(|at| {
        let block = probe.at(at, 16)?;
        if block.u64(0) == UBERBLOCK {
            Some(block.u64(8))
        } else if block.u64_be(0) == UBERBLOCK {
            Some(block.u64_be(8))
        } else {
            None
        }
    })
}

#[derive(Default)]
struct Names {
    name: Option<Vec<u8>>,
    pool: Option<u64>,
    device: Option<u64>,
}

fn names(probe: &Probe<'_>, label: u64) -> Option<Names> {
    let list = probe.at(label + (16 << 10), 16 << 10)?;
    let mut names = Names::default();
    // Behind the encoding, and the list's version and flags.
    let mut at = 12;
    for _ in 0..MAX_PAIRS {
        let length = list.u32_be(at) as usize;
        let name_length = list.u32_be(at + 8) as usize;
        if length < 20 || name_length > 256 || length > list.0.len() - at.min(list.0.len()) {
            break;
        }
        let value = at + 12 + name_length.next_multiple_of(4);
        pair(&mut names, &list, list.part(at + 12, name_length), value);
        at += length;
    }
    Some(names)
}

/// `value` is where the type and the count of elements stand.
fn pair(names: &mut Names, list: &Bytes, name: &[u8], value: usize) {
    const UINT64: u32 = 8;
    const STRING: u32 = 9;
    match (name, list.u32_be(value)) {
        (b"name", STRING) => names.name = list.text(value + 12, list.u32_be(value + 8).min(256) as usize),
        (b"pool_guid", UINT64) => names.pool = Some(list.u64_be(value + 8)),
        (b"guid", UINT64) => names.device = Some(list.u64_be(value + 8)),
        _ => {}
    }
}
