//! The copies of the superblock at the start of every other group.
//!
//! XFS Algorithms & Data Structures, "Superblocks". They are written by `mkfs.xfs`, when the file system grows
//! or its label changes, so only what does not change in daily work must agree: sizes, places and the UUID.
//! Nothing reads them but repair, which is why a bad one is worth knowing before it is needed.

use blockdev::BlockDevice;
use ondisk::{Corrupt, Result, read_bytes};

use crate::span::Span;
use crate::superblock::{CRC_AT, Superblock};

const STRUCTURE: &str = "secondary superblock";
/// Copies that are looked at.
const MOST: u32 = 256;

/// Place, width and name of the fields that agree.
const FIELDS: [(usize, usize, &str); 13] = [
    (0x00, 4, "sb_magicnum"),
    (0x04, 4, "sb_blocksize"),
    (0x08, 8, "sb_dblocks"),
    (0x10, 8, "sb_rblocks"),
    (0x20, 16, "sb_uuid"),
    (0x30, 8, "sb_logstart"),
    (0x50, 4, "sb_rextsize"),
    (0x54, 4, "sb_agblocks"),
    (0x58, 4, "sb_agcount"),
    (0x60, 4, "sb_logblocks"),
    (0x66, 2, "sb_sectsize"),
    (0x68, 2, "sb_inodesize"),
    (0xc0, 1, "sb_dirblklog"),
];

/// What is wrong with the copies, one problem for each bad one.
pub(crate) fn problems(device: &dyn BlockDevice, superblock: &Superblock) -> Result<Vec<Corrupt>> {
    let geometry = &superblock.geometry;
    let primary = read_bytes(device, 0, geometry.sector_size())?;
    let mut problems = Vec::new();
    for ag in 1..geometry.ag_count.min(MOST) {
        // A device that lost its end has said so already.
        let Some(offset) = geometry.ag_byte(ag).filter(|offset| *offset < device.size()) else { break };
        let bytes = read_bytes(device, offset, geometry.sector_size())?;
        let copy = Span::new(STRUCTURE, offset, &bytes);
        problems.extend(compare(&Span::new(STRUCTURE, 0, &primary), &copy, superblock.features.crc).err());
    }
    Ok(problems)
}

fn compare(primary: &Span<'_>, copy: &Span<'_>, has_crc: bool) -> Result<(), Corrupt> {
    if has_crc {
        copy.check_crc(CRC_AT)?;
    }
    for (at, length, field) in FIELDS {
        let (expected, found) = (primary.slice(at, length, field)?, copy.slice(at, length, field)?);
        if expected != found {
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let expected = format!("{}, as in the primary one", hex(expected));
            return Err(copy.corrupt(field, expected, hex(found)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::put_crc;

    fn sector() -> Vec<u8> {
        let mut sector: Vec<u8> = (0..512).map(|byte| byte as u8).collect();
        put_crc(&mut sector, CRC_AT);
        sector
    }

    /// The field that differs after byte `at` of the copy was changed.
    fn field(at: usize, is_stamped: bool) -> Option<&'static str> {
        let (primary, mut copy) = (sector(), sector());
        copy[at] ^= 1;
        if is_stamped {
            put_crc(&mut copy, CRC_AT);
        }
        compare(&Span::new(STRUCTURE, 0, &primary), &Span::new(STRUCTURE, 9, &copy), true)
            .err()
            .map(|c| c.field)
    }

    #[test]
    fn sizes_and_places_agree_and_the_checksum_is_right() {
        for (at, length, name) in FIELDS {
            assert_eq!(field(at, true), Some(name));
            assert_eq!(field(at + length - 1, true), Some(name));
        }
        assert_eq!(field(0x90, false), Some("checksum"));
        // Free blocks are counted in the primary one only.
        assert_eq!(field(0x90, true), None);
    }
}
