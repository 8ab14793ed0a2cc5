//! Room for new blocks of a VHD: at the end of the file, where the footer is, which moves behind them.
//!
//! While it moves there may be none at the end; the copy at byte 0 says all that it says.

use std::io;

use blockdev::BlockDeviceMut;
use zerocopy::IntoBytes;

use super::footer::{self, RawFooter};
use crate::arithmetic::to_index;
use crate::blocks::{Allocator, Bitmaps, Layout, SECTOR};

#[derive(Debug)]
pub(super) struct Room {
    /// Where the next block starts: nothing is behind it but the footer.
    next: u64,
    footprint: u64,
    /// The bitmap of a new block.
    bitmap: Vec<u8>,
    footer: RawFooter,
    /// Blocks were taken since the footer was last written.
    is_unsealed: bool,
}

impl Room {
    /// Room in a file whose footer starts at byte `end`.
    pub(super) fn new(layout: &Layout, footer: RawFooter, end: u64) -> io::Result<Self> {
        // A new block holds zeros, which are as valid as what is written over them; over a parent they are not.
        let bits = if layout.bitmaps == Bitmaps::Decide { 0 } else { 0xff };
        Ok(Self {
            next: end.next_multiple_of(SECTOR),
            footprint: layout.footprint(),
            bitmap: vec![bits; to_index(layout.lead)?],
            footer,
            is_unsealed: false,
        })
    }
}

impl Allocator for Room {
    fn take(&mut self, file: &dyn BlockDeviceMut) -> io::Result<u32> {
        let too_large =
            || io::Error::new(io::ErrorKind::FileTooLarge, "the image has reached 2 TiB, the end of VHD");
        // The largest number stands for "nowhere".
        let entry = u32::try_from(self.next / SECTOR).ok().filter(|entry| *entry != u32::MAX);
        let entry = entry.ok_or_else(too_large)?;
        let end = self.next.saturating_add(self.footprint);
        file.grow(end.saturating_add(footer::LENGTH))?;
        // Overwrites the old footer: all else behind `next` was just grown, and is zero.
        file.write_all_at(&self.bitmap, self.next)?;
        self.next = end;
        self.is_unsealed = true;
        Ok(entry)
    }

    fn seal(&mut self, file: &dyn BlockDeviceMut) -> io::Result<()> {
        if self.is_unsealed {
            file.write_all_at(self.footer.as_bytes(), self.next)?;
            self.is_unsealed = false;
        }
        Ok(())
    }
}
