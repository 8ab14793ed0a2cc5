//! AGF: the free space of one allocation group, and the roots of its trees.
//!
//! XFS Algorithms & Data Structures, "AG Free Space Management". The second sector of every group.

use ondisk::{Error, Guid, Result, be, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::btree::Kind;
use super::free_list;
use super::staging::Staging;
use crate::number::wide;
use crate::span::{Checked, Span, put, put_crc};

const STRUCTURE: &str = "AGF";
const CRC_AT: usize = 0xd8;
/// Levels that a tree of 2^31 records could need, and some.
const MAX_LEVELS: u32 = 9;

/// The AGF as stored.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawAgf {
    agf_magicnum: [u8; 4],        // 0x00 "XAGF"
    agf_versionnum: be::U32,      // 0x04 1
    agf_seqno: be::U32,           // 0x08 the group
    agf_length: be::U32,          // 0x0c blocks
    agf_bno_root: be::U32,        // 0x10
    agf_cnt_root: be::U32,        // 0x14
    agf_rmap_root: be::U32,       // 0x18
    agf_bno_level: be::U32,       // 0x1c
    agf_cnt_level: be::U32,       // 0x20
    agf_rmap_level: be::U32,      // 0x24
    agf_flfirst: be::U32,         // 0x28
    agf_fllast: be::U32,          // 0x2c
    agf_flcount: be::U32,         // 0x30
    agf_freeblks: be::U32,        // 0x34 free blocks in both trees
    agf_longest: be::U32,         // 0x38 the longest free extent
    agf_btreeblks: be::U32,       // 0x3c
    agf_uuid: [u8; 16],           // 0x40
    agf_rmap_blocks: be::U32,     // 0x50
    agf_refcount_blocks: be::U32, // 0x54
    agf_refcount_root: be::U32,   // 0x58
    agf_refcount_level: be::U32,  // 0x5c
    agf_spare64: [u8; 112],       // 0x60
    agf_lsn: be::U64,             // 0xd0
    agf_crc: le::U32,             // 0xd8 over the sector
    agf_spare2: be::U32,          // 0xdc
}
const _: () = assert!(size_of::<RawAgf>() == 0xe0);

/// Root block and height of one tree of a group.
#[derive(Debug, Clone, Copy)]
pub(super) struct Root {
    pub(super) block: u32,
    /// At least 1: a tree of one leaf.
    pub(super) levels: u32,
}

/// The part of the AGFL's ring that is filled: blocks kept for the growth of trees.
#[derive(Debug, Clone, Copy)]
struct FreeList {
    first: u32,
    count: u32,
}

/// An AGF whose fields agree with the superblock.
#[derive(Debug, Clone)]
pub(super) struct Agf {
    pub(super) ag: u32,
    /// First byte on the device.
    offset: u64,
    sector: Vec<u8>,
    pub(super) free_blocks: u32,
    pub(super) longest: u32,
    by_block: Root,
    by_size: Root,
    /// With the feature `rmapbt`.
    reverse_map: Option<Root>,
    /// With the feature `reflink`.
    reference_counts: Option<Root>,
    /// Blocks of the two free space trees and the reverse map, without their first roots.
    tree_blocks: u32,
    /// Blocks of the reverse map.
    reverse_map_blocks: u32,
    free_list: FreeList,
}

impl Agf {
    pub(super) fn read(staging: &Staging<'_>, ag: u32) -> Result<Self> {
        let superblock = &staging.xfs.superblock;
        let geometry = &superblock.geometry;
        let sector_size = geometry.sector_size();
        let start = geometry
            .ag_byte(ag)
            .ok_or_else(|| ondisk::Corrupt::new(STRUCTURE, 0, "agf_seqno", geometry.ag_count, ag))?;
        let offset = start.saturating_add(wide(sector_size));
        let sector = staging.read(offset, sector_size)?;
        let span = Span::new(STRUCTURE, offset, &sector);
        let raw: RawAgf = span.value(0, "agf_magicnum")?;
        check_place(&span, &raw, ag, geometry.ag_length(ag).unwrap_or_default())?;
        if superblock.features.crc {
            span.check_crc(CRC_AT)?;
            let uuid = Guid::from_bytes(raw.agf_uuid);
            if uuid != superblock.meta_uuid {
                return Err(span.corrupt("agf_uuid", superblock.meta_uuid, uuid).into());
            }
        }
        let root = |field, block: be::U32, levels: be::U32| check_root(&span, &raw, field, block, levels);
        let (has_reverse_map, has_reflink) =
            (superblock.features.has_reverse_map(), superblock.features.has_reflink());
        Ok(Self {
            ag,
            offset,
            free_blocks: raw.agf_freeblks.get(),
            longest: raw.agf_longest.get(),
            by_block: root("agf_bno_root", raw.agf_bno_root, raw.agf_bno_level)?,
            by_size: root("agf_cnt_root", raw.agf_cnt_root, raw.agf_cnt_level)?,
            reverse_map: has_reverse_map
                .then(|| root("agf_rmap_root", raw.agf_rmap_root, raw.agf_rmap_level))
                .transpose()?,
            reference_counts: has_reflink
                .then(|| root("agf_refcount_root", raw.agf_refcount_root, raw.agf_refcount_level))
                .transpose()?,
            tree_blocks: raw.agf_btreeblks.get(),
            reverse_map_blocks: raw.agf_rmap_blocks.get(),
            free_list: FreeList { first: raw.agf_flfirst.get(), count: raw.agf_flcount.get() },
            sector,
        })
    }

    /// The root of a tree, if the file system has such trees.
    pub(super) fn root(&self, kind: Kind) -> Option<Root> {
        match kind {
            Kind::FreeByBlock => Some(self.by_block),
            Kind::FreeBySize => Some(self.by_size),
            Kind::ReverseMap => self.reverse_map,
            Kind::ReferenceCounts => self.reference_counts,
        }
    }

    /// Notes that a tree has grown a new root.
    pub(super) fn set_root(&mut self, kind: Kind, root: Root) -> Result<()> {
        if root.levels > MAX_LEVELS {
            return Err(Error::unsupported(STRUCTURE, format!("a tree of {} levels", root.levels)));
        }
        match kind {
            Kind::FreeByBlock => self.by_block = root,
            Kind::FreeBySize => self.by_size = root,
            Kind::ReverseMap => self.reverse_map = Some(root),
            Kind::ReferenceCounts => self.reference_counts = Some(root),
        }
        Ok(())
    }

    /// Takes a block for a tree. It counted as free in the superblock and still does, and its owner in the
    /// reverse map is the group, before and after.
    pub(super) fn take_tree_block(&mut self, staging: &Staging<'_>, kind: Kind) -> Result<u32> {
        if kind == Kind::ReferenceCounts {
            return Err(Error::unsupported(STRUCTURE, "growing the reference count tree"));
        }
        let FreeList { first, count } = self.free_list;
        let Some(rest) = count.checked_sub(1) else {
            return Err(Error::unsupported(STRUCTURE, "growing a tree without a free list"));
        };
        let list = free_list::read(staging, self.ag)?;
        let (block, next) = list.block_at(first)?;
        let length = staging.xfs.superblock.geometry.ag_length(self.ag).unwrap_or_default();
        if block == 0 || block >= length {
            return Err(self.span().corrupt("agf_flfirst", "the place of a block", block).into());
        }
        self.free_list = FreeList { first: next, count: rest };
        self.tree_blocks = self.tree_blocks.saturating_add(1);
        if kind == Kind::ReverseMap {
            self.reverse_map_blocks = self.reverse_map_blocks.saturating_add(1);
        }
        Ok(block)
    }

    /// Puts the present values into the sector.
    pub(super) fn write(mut self, staging: &mut Staging<'_>) {
        let mut fields = vec![
            (0x10, self.by_block.block),
            (0x14, self.by_size.block),
            (0x1c, self.by_block.levels),
            (0x20, self.by_size.levels),
            (0x28, self.free_list.first),
            (0x30, self.free_list.count),
            (0x34, self.free_blocks),
            (0x38, self.longest),
            (0x3c, self.tree_blocks),
        ];
        if let Some(root) = self.reverse_map {
            fields.extend([(0x18, root.block), (0x24, root.levels), (0x50, self.reverse_map_blocks)]);
        }
        for (at, value) in fields {
            put(&mut self.sector, at, &value.to_be_bytes());
        }
        if staging.xfs.superblock.features.crc {
            put_crc(&mut self.sector, CRC_AT);
        }
        staging.write(self.offset, self.sector);
    }

    /// The AGF as a place for damage.
    pub(super) fn span(&self) -> Span<'_> {
        Span::new(STRUCTURE, self.offset, &self.sector)
    }
}

fn check_place(span: &Span<'_>, raw: &RawAgf, ag: u32, length: u32) -> Checked<()> {
    if raw.agf_magicnum != *b"XAGF" {
        return Err(span.corrupt("agf_magicnum", "XAGF", raw.agf_magicnum.escape_ascii()));
    }
    for (field, expected, found) in [
        ("agf_versionnum", 1, raw.agf_versionnum),
        ("agf_seqno", ag, raw.agf_seqno),
        ("agf_length", length, raw.agf_length),
    ] {
        if found.get() != expected {
            return Err(span.corrupt(field, expected, found));
        }
    }
    if raw.agf_freeblks.get() > length || raw.agf_longest.get() > raw.agf_freeblks.get() {
        let found = format!("{} (agf_longest {})", raw.agf_freeblks, raw.agf_longest);
        return Err(span.corrupt("agf_freeblks", format_args!("agf_longest..={length}"), found));
    }
    Ok(())
}

fn check_root(
    span: &Span<'_>,
    raw: &RawAgf,
    field: &'static str,
    block: be::U32,
    levels: be::U32,
) -> Checked<Root> {
    let root = Root { block: block.get(), levels: levels.get() };
    if root.block == 0 || root.block >= raw.agf_length.get() || !(1..=MAX_LEVELS).contains(&root.levels) {
        let expected = format!("a block of the group and 1..={MAX_LEVELS} levels");
        return Err(span.corrupt(field, expected, format_args!("block {block}, {levels} levels")));
    }
    Ok(root)
}
