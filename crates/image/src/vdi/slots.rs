//! Places for new blocks of a VDI: numbered from 0, the lowest free one first.
//!
//! The header says how many are taken, and VirtualBox puts the next block behind them. So the count is raised
//! before the map refers to the place: a cut between the two leaves a place that nobody uses, and that is found
//! free when the image is next written here.

use std::io;
use std::ops::Range;

use blockdev::BlockDeviceMut;

use super::header::ALLOCATED_AT;
use crate::arithmetic::{length_of, to_index};
use crate::blocks::{Allocator, Layout, Survey};

/// Bytes of zeros that are written at once.
const CHUNK: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Slots {
    layout: Layout,
    /// Places below `count` that no block has, the lowest last.
    free: Vec<Range<u32>>,
    /// As in the header, or to be written there.
    count: u32,
    /// As in the header.
    stored: u32,
}

impl Slots {
    /// The places that `survey` left free. `stored` is the header's count, above every place in use.
    pub(super) fn new(layout: &Layout, survey: &Survey, stored: u32) -> Self {
        let mut free = Vec::new();
        let mut next = 0_u32;
        for used in &survey.used {
            if used.entry > next {
                free.push(next..used.entry);
            }
            next = used.entry.saturating_add(1);
        }
        if next < stored {
            free.push(next..stored);
        }
        free.reverse();
        Self { layout: layout.clone(), free, count: stored, stored }
    }

    fn next(&mut self) -> Option<u32> {
        while let Some(range) = self.free.last_mut() {
            if let Some(entry) = range.next() {
                return Some(entry);
            }
            self.free.pop();
        }
        // No more places than blocks: QEMU takes a higher number for damage.
        let entry = Some(self.count).filter(|count| *count < self.layout.entries)?;
        self.count = entry.saturating_add(1);
        Some(entry)
    }
}

impl Allocator for Slots {
    fn take(&mut self, file: &dyn BlockDeviceMut) -> io::Result<u32> {
        let full = || io::Error::new(io::ErrorKind::FileTooLarge, "every place of the image is taken");
        let entry = self.next().ok_or_else(full)?;
        let mut at = self.layout.place(entry);
        let end = at.saturating_add(self.layout.unit);
        // What the file has there already may be anything.
        let old_end = file.size().min(end);
        file.grow(end)?;
        while at < old_end {
            let zeros = vec![0; to_index(CHUNK.min(old_end.saturating_sub(at)))?];
            file.write_all_at(&zeros, at)?;
            at = at.saturating_add(length_of(&zeros));
        }
        Ok(entry)
    }

    fn seal(&mut self, file: &dyn BlockDeviceMut) -> io::Result<()> {
        if self.count != self.stored {
            file.write_all_at(&self.count.to_le_bytes(), ALLOCATED_AT)?;
            self.stored = self.count;
        }
        Ok(())
    }
}
