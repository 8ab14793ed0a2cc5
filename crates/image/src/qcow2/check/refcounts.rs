//! Stored refcounts against counted references.

use std::collections::BTreeSet;
use std::ops::Range;

use ondisk::{Result, read_bytes};

use super::super::geometry::length_of;
use super::counts::{CHUNK, Owner};
use super::run::Checking;
use crate::{Patch, Problem, Severity};

/// A rebuilt set of refcounts longer than this is not offered, in bytes.
const MAX_REBUILT: u64 = 256 << 20;

/// Compares, with a repair for what differs if all references are sane. Returns whether the refcounts are right or
/// can be repaired.
pub(super) fn compare(checking: &mut Checking, is_sane: bool) -> Result<bool> {
    let place = checking.header.refcount_table;
    let bits = checking.header.cluster_bits;
    if place.order > 6 || place.clusters == 0 {
        // Told when the header was read.
        return Ok(rebuild(checking, is_sane));
    }
    let length = u64::from(place.clusters).saturating_mul(bits.size());
    if !checking.claim(place.offset, length, 1, Owner::RefcountTable) {
        return Ok(rebuild(checking, is_sane));
    }
    let bytes = read_bytes(&*checking.file, place.offset, usize::try_from(length).unwrap_or(usize::MAX))?;
    let mut blocks: Vec<u64> =
        bytes.as_chunks::<8>().0.iter().map(|entry| u64::from_be_bytes(*entry)).collect();
    let mut must_rebuild = false;
    let mut seen = BTreeSet::new();
    for (block, index) in blocks.iter_mut().zip(0_u64..).filter(|(block, _)| **block != 0) {
        let at = place.offset.saturating_add(index.saturating_mul(8));
        let ends_in_file = block.saturating_add(bits.size()) <= checking.file.size();
        let is_usable = bits.is_aligned(*block) && ends_in_file && seen.insert(*block);
        if !is_usable {
            let summary =
                format!("entry {index} is {block:#x}: unaligned, past the end of the file, or used twice");
            let problem = Problem::error("qcow2 refcount table", at, summary);
            checking.report.add(problem.affecting("reads are right; writers may destroy data", []));
            *block = 0;
            must_rebuild = true;
        } else if !checking.claim(*block, bits.size(), 1, Owner::RefcountBlock) {
            must_rebuild = true;
        }
    }
    let per_block = per_block(bits.size(), place.order);
    // References without a block to count them.
    let missing =
        checking.counts.used().filter_map(|(cluster, _)| cluster.checked_div(per_block)).find(|index| {
            usize::try_from(*index).ok().and_then(|index| blocks.get(index)).is_none_or(|block| *block == 0)
        });
    if let Some(index) = missing {
        let at = place.offset.saturating_add(index.saturating_mul(8));
        let summary = format!("no block counts the clusters from {} on", index.saturating_mul(per_block));
        let problem = Problem::error("qcow2 refcount table", at, summary);
        checking.report.add(problem.affecting("reads are right; writers may destroy data", []));
        must_rebuild = true;
    }
    if must_rebuild {
        return Ok(rebuild(checking, is_sane));
    }
    for (block, index) in blocks.iter().zip(0_u64..).filter(|(block, _)| **block != 0) {
        compare_block(checking, *block, index.saturating_mul(per_block), place.order, is_sane)?;
    }
    Ok(true)
}

/// Refcounts in one block: at least 64.
fn per_block(cluster: u64, order: u32) -> u64 {
    cluster.saturating_mul(8).wrapping_shr(order).max(1)
}

/// What is wrong in one block, told in two sums: too high, too low.
fn compare_block(checking: &mut Checking, block: u64, first: u64, order: u32, is_sane: bool) -> Result<()> {
    let bits = checking.header.cluster_bits;
    let stored = read_bytes(&*checking.file, block, bits.buffer_size())?;
    let end_of_file = bits.count(checking.file.size());
    let mut right = stored.clone();
    let mut wrong: [Vec<(u64, u64, u32)>; 2] = [Vec::new(), Vec::new()];
    let end = first.saturating_add(per_block(bits.size(), order));
    let mut cluster = first;
    while cluster < end {
        let run_end = cluster.saturating_add(1).next_multiple_of(CHUNK).min(end);
        for (cluster, references) in differing(checking, &stored, order, (first, cluster..run_end)) {
            let index = cluster.saturating_sub(first);
            if references == 0 && cluster >= end_of_file {
                continue;
            }
            set(&mut right, order, index, references);
            let count = get(&stored, order, index);
            let [leaks, errors] = &mut wrong;
            let list = if count > u64::from(references) { leaks } else { errors };
            list.push((cluster, count, references));
        }
        cluster = run_end;
    }
    let max = if order >= 5 { u64::from(u32::MAX) } else { 1_u64.wrapping_shl(1 << order).saturating_sub(1) };
    let [leaks, errors] = wrong;
    for (severity, list) in [(Severity::Leak, leaks), (Severity::Error, errors)] {
        let (Some((low, count, references)), Some((high, ..))) = (list.first(), list.last()) else {
            continue;
        };
        let bytes = length_of(&list).saturating_mul(bits.size());
        let range = format!(
            "{} of the host clusters {low}..={high}; the first is counted {count} times and used {references} times",
            list.len()
        );
        let (summary, effect) = match severity {
            Severity::Leak => {
                (format!("counts too high for {range}"), format!("{bytes} bytes of the file are lost"))
            }
            _ => (
                format!("counts too low for {range}"),
                "reads are right; a later write may be given a cluster in use and destroy guest data"
                    .to_owned(),
            ),
        };
        let at = block.saturating_add(byte_of(order, low.saturating_sub(first)));
        let problem = Problem::new(severity, "qcow2 refcount block", at, summary).affecting(effect, []);
        let fits = list.iter().all(|(_, _, references)| u64::from(*references) <= max);
        checking.report.add(if is_sane && fits {
            let clusters = list.iter().map(|(cluster, ..)| cluster.saturating_sub(first));
            problem.repaired_by(
                "set the counts to the references that there are",
                patches(block, order, &right, clusters),
            )
        } else {
            problem
        });
    }
    Ok(())
}

/// The clusters of a range, within one run of counts, whose stored count is not the number of references, with
/// that number. `first` is the cluster of the block's first count.
fn differing(
    checking: &Checking,
    stored: &[u8],
    order: u32,
    (first, range): (u64, Range<u64>),
) -> Vec<(u64, u32)> {
    let from = range.start.saturating_sub(first);
    let run = checking.counts.run(range.start);
    let within = usize::try_from(range.start % CHUNK).unwrap_or(0);
    let counts = run.and_then(|run| run.get(within..)).unwrap_or_default();
    let references = counts.iter().map(|count| count.references()).chain(std::iter::repeat(0));
    let numbered = range.clone().zip(references);
    if order == 4 {
        // The usual width, without the arithmetic of the others.
        let start = usize::try_from(byte_of(order, from)).unwrap_or(usize::MAX);
        let words = stored.get(start..).unwrap_or_default().as_chunks::<2>().0;
        let pairs = numbered.zip(words.iter().map(|word| u32::from(u16::from_be_bytes(*word))));
        return pairs
            .filter(|((_, references), stored)| references != stored)
            .map(|(pair, _)| pair)
            .collect();
    }
    numbered
        .filter(|(cluster, references)| {
            get(stored, order, cluster.saturating_sub(first)) != u64::from(*references)
        })
        .collect()
}

/// The bytes of these counts, neighbours together.
fn patches(block: u64, order: u32, right: &[u8], indices: impl Iterator<Item = u64>) -> Vec<Patch> {
    let width = if order < 3 { 1 } else { 1_u64.wrapping_shl(order.saturating_sub(3)) };
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for start in indices.map(|index| byte_of(order, index)) {
        let end = start.saturating_add(width);
        match ranges.last_mut() {
            Some((_, last)) if *last >= start => *last = end.max(*last),
            _ => ranges.push((start, end)),
        }
    }
    let bytes = |(start, end): (u64, u64)| {
        let range = usize::try_from(start).ok()?..usize::try_from(end).ok()?;
        Some(Patch { file: 0, offset: block.saturating_add(start), bytes: right.get(range)?.to_vec() })
    };
    ranges.into_iter().filter_map(bytes).collect()
}

/// Offers new refcounts behind everything that is in use. Returns whether it could.
fn rebuild(checking: &mut Checking, is_sane: bool) -> bool {
    let bits = checking.header.cluster_bits;
    let order = checking.header.refcount_table.order;
    let Some(patches) = is_sane.then(|| rebuilt(checking)).flatten() else { return false };
    let problem = Problem::error(
        "qcow2 refcount table",
        checking.header.refcount_table.offset,
        "refcounts are not usable",
    );
    let title =
        format!("write all refcounts anew, {} bits wide, at the end of the file", 1_u32.wrapping_shl(order));
    debug_assert!(patches.iter().all(|patch| bits.is_aligned(patch.offset) || patch.offset < bits.size()));
    checking.report.add(problem.repaired_by(title, patches));
    true
}

fn rebuilt(checking: &Checking) -> Option<Vec<Patch>> {
    let bits = checking.header.cluster_bits;
    let order = checking.header.refcount_table.order;
    if order > 6 {
        return None;
    }
    let per_block = per_block(bits.size(), order);
    // Behind the last cluster that is in use, whether or not old refcounts lie there.
    let used = |(_, count): &(u64, super::counts::Count)| {
        !matches!(count.owner(), Some(Owner::RefcountTable | Owner::RefcountBlock))
    };
    let start = bits.count(checking.file.size()).max(checking.counts.end());
    let (mut blocks, mut table) = (0, 0);
    loop {
        let end = start.saturating_add(blocks).saturating_add(table);
        let needed_blocks = end.div_ceil(per_block);
        let needed_table = bits.count(needed_blocks.saturating_mul(8));
        if needed_blocks <= blocks && needed_table <= table {
            break;
        }
        (blocks, table) = (needed_blocks.max(blocks), needed_table.max(table));
    }
    let total = blocks.saturating_add(table);
    if total.saturating_mul(bits.size()) > MAX_REBUILT {
        return None;
    }
    let length = usize::try_from(blocks.saturating_mul(bits.size())).ok()?;
    let mut counts = vec![0; length];
    let references =
        checking.counts.used().filter(used).map(|(cluster, count)| (cluster, count.references()));
    let own = (start..start.saturating_add(total)).map(|cluster| (cluster, 1));
    for (cluster, references) in references.chain(own) {
        if order < 5 && u64::from(references) >= 1_u64.wrapping_shl(1 << order) {
            return None;
        }
        set(&mut counts, order, cluster, references);
    }
    let first = bits.offset(start)?;
    let mut entries: Vec<u8> = (0..blocks)
        .flat_map(|block| bits.offset(start.saturating_add(block)).unwrap_or(0).to_be_bytes())
        .collect();
    entries.resize(usize::try_from(table.saturating_mul(bits.size())).ok()?, 0);
    let table_offset = bits.offset(start.saturating_add(blocks))?;
    let mut header = table_offset.to_be_bytes().to_vec();
    header.extend_from_slice(&u32::try_from(table).ok()?.to_be_bytes());
    Some(vec![
        Patch { file: 0, offset: first, bytes: counts },
        Patch { file: 0, offset: table_offset, bytes: entries },
        // refcount_table_offset and refcount_table_clusters.
        Patch { file: 0, offset: 0x30, bytes: header },
    ])
}

/// First byte of count `index`.
fn byte_of(order: u32, index: u64) -> u64 {
    index.wrapping_shl(order) / 8
}

/// Count `index` of the counts in `bytes`, one behind the other.
fn get(bytes: &[u8], order: u32, index: u64) -> u64 {
    let at = usize::try_from(byte_of(order, index)).unwrap_or(usize::MAX);
    let bytes = bytes.get(at..).unwrap_or_default();
    let count = match order {
        0..=2 => {
            let bit = u32::try_from(index.wrapping_shl(order) % 8).unwrap_or(0);
            let mask = 1_u64.wrapping_shl(1 << order).wrapping_sub(1);
            bytes.first().map(|byte| u64::from(*byte).wrapping_shr(bit) & mask)
        }
        3 => bytes.first().map(|byte| u64::from(*byte)),
        4 => bytes.first_chunk().map(|count| u64::from(u16::from_be_bytes(*count))),
        5 => bytes.first_chunk().map(|count| u64::from(u32::from_be_bytes(*count))),
        _ => bytes.first_chunk().map(|count| u64::from_be_bytes(*count)),
    };
    count.unwrap_or(0)
}

/// Sets count `index`, which the caller knows to fit the width.
fn set(bytes: &mut [u8], order: u32, index: u64, count: u32) {
    let at = usize::try_from(byte_of(order, index)).unwrap_or(usize::MAX);
    let Some(bytes) = bytes.get_mut(at..) else { return };
    if order < 3 {
        let bit = u32::try_from(index.wrapping_shl(order) % 8).unwrap_or(0);
        let mask = 1_u8.wrapping_shl(1 << order).wrapping_sub(1).wrapping_shl(bit);
        let value = u8::try_from(count & 0xff).unwrap_or(0).wrapping_shl(bit);
        if let Some(byte) = bytes.first_mut() {
            *byte = *byte & !mask | value & mask;
        }
        return;
    }
    let width = 1_usize.wrapping_shl(order.saturating_sub(3));
    let stored = u64::from(count).to_be_bytes();
    if let (Some(to), Some(from)) = (bytes.get_mut(..width), stored.get(stored.len().saturating_sub(width)..))
    {
        to.copy_from_slice(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_widths_round_trip() {
        for order in 0..=6 {
            let mut bytes = vec![0; 512];
            let max = if order >= 5 { u32::MAX } else { (1 << (1 << order)) - 1 };
            for index in 0..64 {
                set(&mut bytes, order, index, (index as u32).wrapping_mul(0x9e37_79b9) & max);
            }
            for index in 0..64 {
                let expected = (index as u32).wrapping_mul(0x9e37_79b9) & max;
                assert_eq!(get(&bytes, order, index), u64::from(expected), "order {order}, index {index}");
            }
        }
    }

    #[test]
    fn neighbours_become_one_patch() {
        let right = vec![7; 64];
        let patches = patches(1000, 4, &right, [1, 2, 3, 9].into_iter());
        assert_eq!(patches.len(), 2);
        assert_eq!((patches[0].offset, patches[0].bytes.len()), (1002, 6));
        let narrow = super::patches(0, 0, &right, 0..16);
        assert_eq!((narrow.len(), narrow[0].bytes.len()), (1, 2));
    }
}
