//! The ends of the log: where the next record would go, and the oldest record that recovery needs.
//!
//! Found as `xlog_find_head` and `xlog_find_tail` of the kernel find them, since another place would be another
//! file system. Cycles are N up to the head and N - 1 from there on, except where a crash cut off writes of
//! which up to eight were on their way: the head is before the first block that was not written, and not
//! inside a record, and every record of the last eight has its checksum right.

use std::ops::Range;

use ondisk::{Error, Result};

use super::record::{self, LONGEST, RawHeader, Record};
use super::ring::{BASIC_BLOCK, BASIC_BLOCK_BYTES, Ring, cycle_of};
use crate::number::wide;

/// Records that can be on their way at once.
const IN_FLIGHT: usize = 8;
/// Basic blocks of so many records of the greatest length.
const WINDOW: u64 = 4096;
/// Basic blocks in which the header of the last record is sought.
const RECORD_WINDOW: u64 = 512;
/// Basic blocks of the longest record of an unmount: up to eight of headers, and one.
const UNMOUNT_WINDOW: u64 = 9;

/// The last record of a log, and the place after it.
#[derive(Debug, Clone)]
pub(super) struct Head {
    /// The block that the next record would go to.
    pub(super) block: u64,
    /// The block of the last record's header.
    pub(super) last_block: u64,
    pub(super) last: RawHeader,
    /// Whether that record is the mark of an unmount.
    pub(super) is_unmount: bool,
}

impl Head {
    /// The cycle that the next record belongs to.
    pub(super) fn cycle(&self) -> u32 {
        let has_wrapped = self.last_block >= self.block;
        self.last.h_cycle.get().wrapping_add(u32::from(has_wrapped))
    }

    fn at(log: &Ring<'_>, block: u64) -> Result<Self> {
        let Some((last_block, last)) = headers_before(log, block, log.blocks, 1)?.pop() else {
            return Err(log.corrupt(block, "h_magicno", "a record before the head", "none").into());
        };
        let is_unmount = record::is_unmount(log, last_block, &last, block)?;
        Ok(Self { block, last_block, last, is_unmount })
    }
}

/// The head, or `None` for a log that was never written.
pub(super) fn find(log: &Ring<'_>, needs_crc: bool) -> Result<Option<Head>> {
    if let Some(head) = after_unmount(log)? {
        return Ok(Some(head));
    }
    let Some(block) = locate(log)? else { return Ok(None) };
    let head = Head::at(log, block)?;
    if head.is_unmount {
        return Ok(Some(head));
    }
    Ok(Some(without_torn_records(log, head, needs_crc)?))
}

/// The head of a log that was closed, for a few blocks of reading instead of megabytes.
///
/// An unmount waits for all writes before its own record, so that no block before it can be missing: where the
/// cycles change right after one, the search for missing blocks would find none.
fn after_unmount(log: &Ring<'_>) -> Result<Option<Head>> {
    let last = log.blocks.saturating_sub(1);
    let (first_cycle, last_cycle) = (log.cycle(0)?, log.cycle(last)?);
    if first_cycle == 0 || last_cycle == 0 && first_cycle != 1 {
        return Ok(None);
    }
    let block = if first_cycle == last_cycle { 0 } else { first_with(log, last, last_cycle)? };
    let Some((last_block, last)) = headers_before(log, block, UNMOUNT_WINDOW, 1)?.pop() else {
        return Ok(None);
    };
    let is_unmount = record::is_unmount(log, last_block, &last, block)?;
    Ok(is_unmount.then_some(Head { block, last_block, last, is_unmount }))
}

/// Goes back before the first of the last records that was not written whole.
fn without_torn_records(log: &Ring<'_>, head: Head, needs_crc: bool) -> Result<Head> {
    check_tail(log, &head)?;
    let reach = distance(log, head.last.tail(), head.block).min(LONGEST.saturating_mul(wide(IN_FLIGHT)));
    let last = headers_before(log, head.block, reach, IN_FLIGHT)?;
    let Some((mut block, _)) = last.last().cloned() else { return Ok(head) };
    let mut left = distance(log, block, head.block);
    while left > 0 {
        let Ok(record) = Record::read(log, block, needs_crc) else {
            if block == log.wrap(head.last.tail()) {
                return Err(log.corrupt(block, "record", "one sound record at least", "none").into());
            }
            let head = Head::at(log, block)?;
            check_tail(log, &head)?;
            return Ok(head);
        };
        left = left.saturating_sub(record.header.blocks());
        block = log.wrap(record.end());
    }
    Ok(head)
}

fn check_tail(log: &Ring<'_>, head: &Head) -> Result<()> {
    let tail = head.last.tail();
    if tail < log.blocks {
        return Ok(());
    }
    Err(log.corrupt(head.last_block, "h_tail_lsn", "a block within the log", tail).into())
}

/// The block of the oldest record to recover: where the last record says, or the next one where writes past
/// the head had already spoiled that.
pub(super) fn tail(log: &Ring<'_>, head: &Head, needs_crc: bool) -> Result<u64> {
    let mut tail = head.last.tail();
    let reach = u64::from(head.last.size()).saturating_mul(wide(IN_FLIGHT)) / BASIC_BLOCK_BYTES;
    for _ in 0..=IN_FLIGHT {
        let Err((bad, error)) = check_records(log, tail, head.block, needs_crc)? else { return Ok(tail) };
        if distance(log, head.block, bad) > reach {
            return Err(error);
        }
        tail = header_after(log, bad, head.block)?.ok_or(error)?;
    }
    Err(log.corrupt(tail, "record", "a sound record near the tail", "none").into())
}

/// Reads the records of `tail..head`; the first bad one with what is wrong.
fn check_records(log: &Ring<'_>, tail: u64, head: u64, needs_crc: bool) -> Result<Result<(), (u64, Error)>> {
    let mut block = tail;
    let mut left = distance(log, tail, head);
    while left > 0 {
        match Record::read(log, block, needs_crc) {
            Ok(record) if record.header.blocks() <= left => {
                left = left.saturating_sub(record.header.blocks());
                block = log.wrap(record.end());
            }
            Ok(record) => {
                let found = record.header.blocks();
                let error = log.corrupt(block, "h_len", "a record that ends before the head", found);
                return Ok(Err((block, error.into())));
            }
            Err(error @ Error::Corrupt(_)) => return Ok(Err((block, error))),
            Err(error) => return Err(error),
        }
    }
    Ok(Ok(()))
}

/// The next record header after `block` and before `head`.
fn header_after(log: &Ring<'_>, block: u64, head: u64) -> Result<Option<u64>> {
    for ahead in 1..distance(log, block, head).min(LONGEST.saturating_mul(wide(IN_FLIGHT))) {
        let next = log.wrap(block.saturating_add(ahead));
        if RawHeader::recognise(&log.read(next)?).is_some() {
            return Ok(Some(next));
        }
    }
    Ok(None)
}

/// Basic blocks from `from` on to `to`; the whole ring when they are equal.
pub(super) fn distance(log: &Ring<'_>, from: u64, to: u64) -> u64 {
    if to > from { to.saturating_sub(from) } else { to.saturating_add(log.blocks).saturating_sub(from) }
}

/// Up to `count` record headers in the `reach` blocks before `head`, the nearest first.
fn headers_before(log: &Ring<'_>, head: u64, reach: u64, count: usize) -> Result<Vec<(u64, RawHeader)>> {
    let end = head.saturating_add(log.blocks);
    let mut found = Vec::new();
    for back in 1..=reach.min(log.blocks) {
        let block = log.wrap(end.saturating_sub(back));
        if let Some(header) = RawHeader::recognise(&log.read(block)?) {
            found.push((block, header));
        }
        // The ones that matter are near; a log of gigabytes without any is not searched to its end.
        let is_far = found.is_empty() && back > WINDOW;
        if found.len() >= count || is_far {
            break;
        }
    }
    Ok(found)
}

/// The block that the cycles say the next record goes to.
fn locate(log: &Ring<'_>) -> Result<Option<u64>> {
    let end = log.blocks;
    let last = end.saturating_sub(1);
    let (first_cycle, last_cycle) = (log.cycle(0)?, log.cycle(last)?);
    if first_cycle == 0 {
        return match last_cycle {
            0 => Ok(None),
            _ => Err(log.corrupt(0, "cycle", "a cycle, as in the last block", 0).into()),
        };
    }
    if last_cycle == 0 {
        if first_cycle != 1 {
            return Err(log.corrupt(0, "cycle", "1, as the last block is unused", first_cycle).into());
        }
        let head = first_with(log, last, 0)?;
        let start = head.saturating_sub(WINDOW);
        let head = find_cycle(log, start..head, 0)?.unwrap_or(head);
        return Ok(Some(after_record(log, start, head, 0)?.unwrap_or(head)));
    }
    let is_full = first_cycle == last_cycle;
    let mut head = if is_full { end } else { first_with(log, last, last_cycle)? };
    let stop = if is_full { last_cycle.wrapping_sub(1) } else { last_cycle };
    let window = WINDOW.min(end);
    if head >= window {
        head = find_cycle(log, head.saturating_sub(window)..head, stop)?.unwrap_or(head);
    } else {
        let start = end.saturating_sub(window.saturating_sub(head));
        head = match find_cycle(log, start..end, stop.wrapping_sub(1))? {
            Some(hole) => hole,
            None => find_cycle(log, 0..head, stop)?.unwrap_or(head),
        };
    }
    let start = head.saturating_sub(RECORD_WINDOW.min(end));
    let head = match after_record(log, start, head, 0)? {
        Some(head) => head,
        None if start > 0 => {
            return Err(log.corrupt(head, "h_magicno", "a record before the head", "none").into());
        }
        None => {
            let start = end.saturating_sub(RECORD_WINDOW.min(end).saturating_sub(head));
            match after_record(log, start, end, head)? {
                Some(block) if block == end => head,
                Some(block) => block,
                None => {
                    return Err(log.corrupt(head, "h_magicno", "a record before the head", "none").into());
                }
            }
        }
    };
    Ok(Some(log.wrap(head)))
}

/// The first block with `cycle` by a binary search up to `last`, which has it; block 0 has not.
fn first_with(log: &Ring<'_>, last: u64, cycle: u32) -> Result<u64> {
    let (mut without, mut with) = (0, last);
    while with.saturating_sub(without) > 1 {
        let middle = without.midpoint(with);
        match log.cycle(middle)? == cycle {
            true => with = middle,
            false => without = middle,
        }
    }
    Ok(with)
}

/// The first block of `range` with `cycle`.
fn find_cycle(log: &Ring<'_>, range: Range<u64>, cycle: u32) -> Result<Option<u64>> {
    let mut block = range.start;
    while block < range.end {
        let count = range.end.saturating_sub(block).min(RECORD_WINDOW);
        let bytes = log.read_run(block, count)?;
        let found = bytes.chunks(BASIC_BLOCK).position(|bytes| cycle_of(bytes) == cycle);
        if let Some(found) = found {
            return Ok(Some(block.saturating_add(wide(found))));
        }
        block = block.saturating_add(count);
    }
    Ok(None)
}

/// `head` if the last record of `start..head`, of which `extra` more blocks lie elsewhere, ends there, else
/// the start of that record; `None` when there is no record.
fn after_record(log: &Ring<'_>, start: u64, head: u64, extra: u64) -> Result<Option<u64>> {
    for block in (start..head).rev() {
        if let Some(header) = RawHeader::recognise(&log.read(block)?) {
            let length = head.saturating_sub(block).saturating_add(extra);
            return Ok(Some(if length == header.blocks() { head } else { block }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use blockdev::{BlockDevice, BlockDeviceMut, MemoryDevice};

    use super::*;
    use crate::log::record::{Template, encode, lsn, tests::header};
    use crate::span::put;

    const BLOCKS: u64 = 6000;

    /// A log with a record of `lengths[n]` blocks after another from block `start` on, in cycle 7; before them
    /// the ring has the same cycle, after them the one before. The last record has the tail of the first.
    fn log(start: u64, lengths: &[u64]) -> MemoryDevice {
        let device = MemoryDevice::new(vec![0; BLOCKS as usize * 512]);
        let log = Ring { device: &device, offset: 0, blocks: BLOCKS };
        for block in 0..BLOCKS {
            let cycle: u32 = if block < start { 7 } else { 6 };
            device.write_all_at(&cycle.to_be_bytes(), block * 512).unwrap();
        }
        let mut at = start;
        for length in lengths {
            let cycle = if at >= BLOCKS { 8 } else { 7 };
            let template =
                Template { last: header(2, 32768), last_block: 0, head: log.wrap(at), cycle, unit: 512 };
            let content = vec![1; (*length as usize - 1) * 512];
            let mut bytes = encode(&log, &template, &[content.clone(), Vec::new()]).unwrap();
            put(&mut bytes, 24, &lsn(7, start).to_be_bytes());
            put(&mut bytes, 32, &[0; 4]);
            for (number, block) in bytes.chunks(512).enumerate() {
                device.write_all_at(block, log.byte(at + number as u64)).unwrap();
            }
            at += length;
        }
        device
    }

    fn ends(device: &MemoryDevice) -> (u64, u64, u32) {
        let log = Ring { device, offset: 0, blocks: BLOCKS };
        let head = find(&log, false).unwrap().unwrap();
        (head.block, tail(&log, &head, false).unwrap(), head.cycle())
    }

    #[test]
    fn heads_anywhere_in_the_ring() {
        assert_eq!(ends(&log(100, &[10, 20, 5])), (135, 100, 7));
        assert_eq!(ends(&log(5000, &[10, 60])), (5070, 5000, 7));
        // Up to the end of the ring, and over it.
        assert_eq!(ends(&log(BLOCKS - 30, &[10, 20])), (0, BLOCKS - 30, 8));
        assert_eq!(ends(&log(BLOCKS - 30, &[10, 50])), (30, BLOCKS - 30, 8));
        assert_eq!(ends(&log(BLOCKS - 30, &[30, 50, 3])), (53, BLOCKS - 30, 8));
        let unused = MemoryDevice::new(vec![0; 512 * 100]);
        assert!(find(&Ring { device: &unused, offset: 0, blocks: 100 }, false).unwrap().is_none());
    }

    #[test]
    fn a_record_that_was_not_written_whole_does_not_count() {
        for missing in [110, 115, 129] {
            let device = log(100, &[10, 20, 5]);
            device.write_all_at(&6_u32.to_be_bytes(), missing * 512).unwrap();
            assert_eq!(ends(&device), (110, 100, 7), "without block {missing}");
        }
        // Over the end of the ring.
        let device = log(BLOCKS - 30, &[10, 50]);
        device.write_all_at(&7_u32.to_be_bytes(), 20 * 512).unwrap();
        assert_eq!(ends(&device), (BLOCKS - 20, BLOCKS - 30, 7));
        let device = log(BLOCKS - 30, &[10, 50]);
        device.write_all_at(&6_u32.to_be_bytes(), (BLOCKS - 3) * 512).unwrap();
        assert_eq!(ends(&device), (BLOCKS - 20, BLOCKS - 30, 7));
    }

    #[test]
    fn a_record_with_a_bad_checksum_near_the_head_ends_the_log() {
        let device = log(100, &[10, 20, 5]);
        let mut block = [0; 512];
        device.read_exact_at(&mut block, 110 * 512).unwrap();
        block[32] = 1;
        device.write_all_at(&block, 110 * 512).unwrap();
        assert_eq!(ends(&device), (110, 100, 7));
    }

    #[test]
    fn logs_that_are_none() {
        let error = |first: u32, last: u32| {
            let device = MemoryDevice::new(vec![0; 512 * 100]);
            device.write_all_at(&first.to_be_bytes(), 0).unwrap();
            device.write_all_at(&last.to_be_bytes(), 99 * 512).unwrap();
            let log = Ring { device: &device, offset: 0, blocks: 100 };
            find(&log, false).unwrap_err().as_corrupt().unwrap().field
        };
        assert_eq!(error(0, 5), "cycle");
        assert_eq!(error(2, 0), "cycle");
        assert_eq!(error(5, 5), "h_magicno");
    }
}
