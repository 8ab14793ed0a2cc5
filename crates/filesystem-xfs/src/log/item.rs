//! Log item: one change of a transaction, as a list of regions.
//!
//! XFS Algorithms & Data Structures, "Log Items". The first region says what the item is and how many regions
//! it has. All formats are in the byte order of the machine that logged them; only little-endian ones come here.

use ondisk::le;
use zerocopy::FromBytes;

use crate::span::{Checked, Span};

/// `XFS_LI_*`: the first field of every item.
pub(super) mod kind {
    pub(in super::super) const INODE: u16 = 0x123b;
    pub(in super::super) const BUFFER: u16 = 0x123c;
    pub(in super::super) const DQUOT: u16 = 0x123d;
    pub(in super::super) const QUOTA_OFF: u16 = 0x123e;
    pub(in super::super) const INODE_CREATE: u16 = 0x123f;
    /// Intents have even numbers here, their done items the next.
    pub(in super::super) const EXTENT_FREE: u16 = 0x1236;
    pub(in super::super) const REVERSE_MAP: u16 = 0x1240;
    pub(in super::super) const REFERENCE_COUNT: u16 = 0x1242;
    pub(in super::super) const EXTENT_MAP: u16 = 0x1244;
    pub(in super::super) const ATTRIBUTE: u16 = 0x1246;
    pub(in super::super) const EXCHANGE: u16 = 0x1248;
}

/// One item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    /// Regions that it has when it is whole.
    pub(super) count: usize,
    pub(super) regions: Vec<Vec<u8>>,
}

impl Item {
    pub(super) fn is_whole(&self) -> bool {
        self.regions.len() >= self.count
    }

    /// Region `number`, as damage of `structure` at byte `offset` when it is not there.
    pub(super) fn region(&self, number: usize, structure: &'static str, offset: u64) -> Checked<Span<'_>> {
        match self.regions.get(number) {
            Some(bytes) => Ok(Span::new(structure, offset, bytes)),
            None => {
                Err(Span::new(structure, offset, &[]).corrupt("size", "more regions", self.regions.len()))
            }
        }
    }

    /// Which kind of item it is.
    pub(super) fn kind(&self, offset: u64) -> Checked<u16> {
        Ok(get::<le::U16>(&self.region(0, "log item", offset)?, 0, "type")?.get())
    }
}

/// A little-endian value of an item.
pub(super) fn get<T: FromBytes>(span: &Span<'_>, at: usize, field: &'static str) -> Checked<T> {
    span.value(at, field)
}
