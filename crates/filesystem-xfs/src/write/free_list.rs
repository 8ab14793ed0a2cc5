//! AGFL: blocks that are kept aside for the trees of an allocation group.
//!
//! XFS Algorithms & Data Structures, "AG Free List". The fourth sector of every group: a ring of block numbers,
//! after a header on version 5. Which part of the ring is filled, the AGF says.

use ondisk::{Corrupt, Error, Guid, Result};

use super::staging::Staging;
use crate::number::{index, wide};
use crate::span::Span;

const STRUCTURE: &str = "AGFL";
const HEADER: usize = 36;
const CRC_AT: usize = 32;

/// The ring of one group.
pub(super) struct Ring {
    offset: u64,
    sector: Vec<u8>,
    header: usize,
}

/// Reads the AGFL of group `ag`.
pub(super) fn read(staging: &Staging<'_>, ag: u32) -> Result<Ring> {
    let superblock = &staging.xfs.superblock;
    let sector_size = superblock.geometry.sector_size();
    let start = superblock
        .geometry
        .ag_byte(ag)
        .ok_or_else(|| Corrupt::new(STRUCTURE, 0, "agfl_seqno", superblock.geometry.ag_count, ag))?;
    let offset = start.saturating_add(wide(sector_size).saturating_mul(3));
    let sector = staging.read(offset, sector_size)?;
    if !superblock.features.crc {
        return Ok(Ring { offset, sector, header: 0 });
    }
    let span = Span::new(STRUCTURE, offset, &sector);
    let magic: [u8; 4] = span.value(0, "agfl_magicnum")?;
    if magic != *b"XAFL" {
        return Err(span.corrupt("agfl_magicnum", "XAFL", magic.escape_ascii()).into());
    }
    span.check_crc(CRC_AT)?;
    let (found, uuid) = (span.u32(4, "agfl_seqno")?, Guid::from_bytes(span.value(8, "agfl_uuid")?));
    if found != ag {
        return Err(span.corrupt("agfl_seqno", ag, found).into());
    }
    if uuid != superblock.meta_uuid {
        return Err(span.corrupt("agfl_uuid", superblock.meta_uuid, uuid).into());
    }
    Ok(Ring { offset, sector, header: HEADER })
}

impl Ring {
    /// The block in place `slot`, and the place after it.
    ///
    /// Kernels have disagreed about the length of the ring by one place, so its very end is left alone.
    pub(super) fn block_at(&self, slot: u32) -> Result<(u32, u32)> {
        let places = self.sector.len().saturating_sub(self.header) / 4;
        let next = slot.saturating_add(1);
        if index(next).saturating_add(1) >= places {
            return Err(Error::unsupported(STRUCTURE, "taking a block from the end of the ring"));
        }
        let at = index(slot).saturating_mul(4).saturating_add(self.header);
        let block = Span::new(STRUCTURE, self.offset, &self.sector).u32(at, "agfl_bno")?;
        Ok((block, next))
    }
}
