//! After recovery: counts of the superblock, and a log that says that nothing is to be replayed.
//!
//! A log that only said "unmounted" would lose what the kernel has yet to do: intents that are not done, files
//! that were removed while they were open, and blocks of copies that never became part of a file. Then the log ends with one record instead, which depends on
//! nothing before it: a transaction of those intents. The kernel replays nothing from it and then does its
//! duties; it is [`State::Settled`](super::State::Settled) to us.

use std::sync::Arc;

use blockdev::{BlockDevice, Overlay};
use ondisk::{Error, Result, read_bytes};

use super::head::Head;
use super::intent::Intents;
use super::item::Item;
use super::metadata::{self, buffer_type};
use super::recovery::write;
use super::ring::{BASIC_BLOCK, Ring, cycle_of};
use super::transaction::{self, CLIENT_LOG, CLIENT_TRANSACTION, flags};
use super::{buffer, record, staging};
use crate::number::{index, wide};
use crate::span::{Span, put, put_crc};
use crate::superblock::{CRC_AT, FREE_BLOCKS_AT, FREE_INODES_AT, INODES_AT, Superblock};

/// Basic blocks behind the head that writes on their way could have reached.
const WINDOW: u64 = 4096;
/// Byte of `agi_unlinked` and number of lists.
const UNLINKED_AT: usize = 0x28;
const LISTS: usize = 64;
/// The number of our transaction.
const NUMBER: u32 = 0x6775_6573;
/// What an unmount operation holds: "Un", little-endian, and padding.
const UNMOUNTED: [u8; 8] = [0x6e, 0x55, 0, 0, 0, 0, 0, 0];

/// What the headers of all groups say together.
#[derive(Debug, Default)]
struct Counts {
    inodes: u64,
    free_inodes: u64,
    free_blocks: u64,
    /// Lists of removed files that are not empty.
    unlinked: u64,
    /// Groups with blocks of copies that never became part of a file.
    staging: u64,
}

fn count(overlay: &dyn BlockDevice, superblock: &Superblock) -> Result<Counts> {
    let geometry = &superblock.geometry;
    let sector = geometry.sector_size();
    let mut counts = Counts::default();
    for ag in 0..geometry.ag_count {
        let Some(start) = geometry.ag_byte(ag) else { break };
        let offset = start.saturating_add(wide(sector));
        let bytes = read_bytes(overlay, offset, sector.saturating_mul(2))?;
        let (agf, agi) = bytes.split_at(sector.min(bytes.len()));
        let agf = Span::new("AGF", offset, agf);
        let agi = Span::new("AGI", offset.saturating_add(wide(sector)), agi);
        if superblock.features.crc {
            metadata::check(buffer_type::AGF, &agf)?;
            metadata::check(buffer_type::AGI, &agi)?;
        }
        for (at, field) in [(0x34, "agf_freeblks"), (0x30, "agf_flcount"), (0x3c, "agf_btreeblks")] {
            counts.free_blocks = counts.free_blocks.saturating_add(u64::from(agf.u32(at, field)?));
        }
        counts.inodes = counts.inodes.saturating_add(u64::from(agi.u32(0x10, "agi_count")?));
        counts.free_inodes = counts.free_inodes.saturating_add(u64::from(agi.u32(0x1c, "agi_freecount")?));
        let has_staging = staging::has_any(overlay, superblock, ag, &agf)?;
        counts.staging = counts.staging.saturating_add(u64::from(has_staging));
        counts.unlinked = counts.unlinked.saturating_add(unlinked(&agi)?);
    }
    Ok(counts)
}

/// Lists that are not empty.
fn unlinked(agi: &Span<'_>) -> Result<u64> {
    let mut found = 0;
    for list in 0..LISTS {
        let first = agi.u32(list.saturating_mul(4).saturating_add(UNLINKED_AT), "agi_unlinked")?;
        found = u64::from(first != u32::MAX).saturating_add(found);
    }
    Ok(found)
}

/// How many lists of files that were removed while they were open are not empty; for a settled log.
pub(super) fn count_unlinked(device: &dyn BlockDevice, superblock: &Superblock) -> Result<u64> {
    Ok(count(device, superblock)?.unlinked)
}

/// Writes the counts and the end of the log.
pub(super) fn finish(
    overlay: &Arc<Overlay>,
    superblock: &Superblock,
    log: &Ring<'_>,
    head: &Head,
    intents: &Intents,
) -> Result<()> {
    let counts = count(&**overlay, superblock)?;
    if superblock.features.has_lazy_counts() {
        let mut sector = read_bytes(&**overlay, 0, superblock.geometry.sector_size())?;
        put(&mut sector, INODES_AT, &counts.inodes.to_be_bytes());
        put(&mut sector, FREE_INODES_AT, &counts.free_inodes.to_be_bytes());
        put(&mut sector, FREE_BLOCKS_AT, &counts.free_blocks.to_be_bytes());
        if superblock.features.crc {
            put_crc(&mut sector, CRC_AT);
        }
        write(overlay, 0, &sector)?;
    }
    let is_done = intents.count() == 0 && counts.unlinked == 0 && counts.staging == 0;
    let operations = if is_done { vec![unmount()] } else { duties(log, intents) };
    let template = record::Template {
        last: head.last.clone(),
        last_block: head.last_block,
        head: head.block,
        cycle: head.cycle(),
        unit: superblock.log_unit,
    };
    let Some(bytes) = record::encode(log, &template, &operations) else {
        return Err(Error::unsupported("log", "leaving so many interrupted changes to the kernel"));
    };
    for (number, block) in bytes.chunks(BASIC_BLOCK).enumerate() {
        write(overlay, log.byte(head.block.saturating_add(wide(number))), block)?;
    }
    clear(overlay, log, &template, wide(bytes.len() / BASIC_BLOCK))
}

/// Overwrites what writes that were cut off left behind the new head, where it looks like the newest cycle.
fn clear(overlay: &Overlay, log: &Ring<'_>, template: &record::Template, written: u64) -> Result<()> {
    for ahead in written..WINDOW.min(log.blocks) {
        let at = template.head.saturating_add(ahead);
        let is_past = at >= log.blocks;
        let wanted = template.cycle.wrapping_sub(u32::from(!is_past));
        let block = log.wrap(at);
        let found = cycle_of(&log.read(block)?);
        if found == wanted {
            continue;
        }
        let bytes = match wanted {
            0 => vec![0; BASIC_BLOCK],
            _ => record::encode_empty(template, block, wanted),
        };
        write(overlay, log.byte(block), &bytes)?;
    }
    Ok(())
}

fn operation(client: u8, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = NUMBER.to_be_bytes().to_vec();
    bytes.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(&[client, flags, 0, 0]);
    bytes.extend_from_slice(data);
    bytes
}

fn unmount() -> Vec<u8> {
    operation(CLIENT_LOG, flags::UNMOUNT, &UNMOUNTED)
}

/// A transaction of the intents, and of one item without effect, as no transaction is empty.
fn duties(log: &Ring<'_>, intents: &Intents) -> Vec<Vec<u8>> {
    let nothing = Item { count: 1, regions: vec![buffer::encode_cancel(log.offset >> 9, 1)] };
    let mut items = vec![&nothing];
    items.extend(intents.items());
    let mut header = transaction::MAGIC.to_le_bytes().to_vec();
    header.extend_from_slice(&40_u32.to_le_bytes());
    header.extend_from_slice(&NUMBER.to_le_bytes());
    header.extend_from_slice(&u32::try_from(items.len()).unwrap_or(u32::MAX).to_le_bytes());
    let mut operations =
        vec![operation(CLIENT_TRANSACTION, flags::START, &[]), operation(CLIENT_TRANSACTION, 0, &header)];
    for region in items.iter().flat_map(|item| &item.regions) {
        operations.push(operation(CLIENT_TRANSACTION, 0, region));
    }
    operations.push(operation(CLIENT_TRANSACTION, flags::COMMIT, &[]));
    operations
}

/// Whether a record can be one that we wrote: it depends on nothing before it.
pub(super) fn may_be_settled(head: &Head) -> bool {
    let own = head.last.h_lsn.get();
    own == head.last.h_tail_lsn.get() && index(head.last.h_num_logops.get()) >= 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::head::find;
    use crate::log::item::kind;
    use crate::log::record::tests::{header, log_with};
    use crate::log::record::{Record, Template};
    use crate::log::state::is_settled;
    use crate::log::transaction::Assembler;

    fn intent(kind: u16, number: u8) -> Item {
        let mut region = kind.to_le_bytes().to_vec();
        region.extend_from_slice(&[1, 0, 1, 0, 0, 0, number]);
        region.resize(40, number);
        Item { count: 1, regions: vec![region] }
    }

    #[test]
    fn duties_come_back_from_the_record_that_holds_them() {
        let mut intents = Intents::default();
        let items = [intent(kind::REVERSE_MAP, 9), intent(kind::EXTENT_FREE, 3)];
        for item in &items {
            intents.add(item, item.kind(0).unwrap(), 0).unwrap();
        }
        let template = Template { last: header(2, 32768), last_block: 0, head: 9, cycle: 1, unit: 4096 };
        let empty = blockdev::MemoryDevice::new(vec![0; 512]);
        let operations = duties(&Ring { device: &empty, offset: 64 * 512, blocks: 100 }, &intents);
        let device = log_with(100, &template, &operations);
        // The ring before the record was written in the same cycle.
        for block in 0..9 {
            blockdev::BlockDeviceMut::write_all_at(&device, &1_u32.to_be_bytes(), block * 512).unwrap();
        }
        let log = Ring { device: &device, offset: 0, blocks: 100 };
        let head = find(&log, true).unwrap().unwrap();
        assert_eq!((head.block, head.last_block, head.is_unmount), (17, 9, false));
        assert!(is_settled(&log, &head, true));
        let mut found = Vec::new();
        let record = Record::read(&log, 9, true).unwrap();
        Assembler::default()
            .add(&record, &mut |transaction| {
                found.extend(transaction.items);
                Ok(())
            })
            .unwrap();
        assert_eq!(found[1..], items);
        // A buffer that nothing wrote: a cancelled one, at the start of the log.
        assert_eq!(found[0].kind(0).unwrap(), kind::BUFFER);
        assert!(buffer::Format::decode(&found[0], 0).unwrap().is_cancelled());
    }

    #[test]
    fn an_unmount_record_is_one() {
        let template = Template { last: header(2, 32768), last_block: 0, head: 0, cycle: 1, unit: 512 };
        let device = log_with(100, &template, &[unmount()]);
        let log = Ring { device: &device, offset: 0, blocks: 100 };
        let head = find(&log, true).unwrap().unwrap();
        assert_eq!((head.block, head.is_unmount, head.cycle()), (2, true, 1));
    }
}
