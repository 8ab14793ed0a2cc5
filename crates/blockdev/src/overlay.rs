//! Copy-on-write in memory: what a change would leave behind, before anything is changed.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{PoisonError, RwLock};

use crate::{BlockDevice, BlockDeviceMut, Device, Extent, ExtentKind, check_range};

/// Bytes per page: the unit in which old content is copied up.
const PAGE: u64 = 4096;

/// A writable view of another device; the other device is never written.
///
/// Holds only the pages that were written, whole. A page that was written back to its old content still
/// counts as changed in [`changed`](Self::changed).
pub struct Overlay {
    base: Device,
    state: RwLock<State>,
}

struct State {
    size: u64,
    /// By page number. The last page of an uneven device is padded with zeros past its end.
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Overlay {
    /// An overlay without changes.
    pub fn new(base: Device) -> Self {
        let state = State { size: base.size(), pages: BTreeMap::new() };
        Self { base, state: RwLock::new(state) }
    }

    /// The device below, as it is.
    pub fn base(&self) -> &Device {
        &self.base
    }

    /// The byte ranges that were written, merged, ascending, in whole pages cut at the end of the device.
    pub fn changed(&self) -> Vec<Range<u64>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for page in state.pages.keys() {
            let start = page * PAGE;
            let end = (start + PAGE).min(state.size);
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        ranges
    }

    /// The content of page `number` of the base, with zeros where the base ends.
    fn base_page(&self, number: u64) -> io::Result<Box<[u8]>> {
        let mut page = vec![0; PAGE as usize].into_boxed_slice();
        let start = number * PAGE;
        let available = self.base.size().saturating_sub(start).min(PAGE) as usize;
        if available > 0 {
            self.base.read_exact_at(&mut page[..available], start)?;
        }
        Ok(page)
    }

    /// Reads `buf` from the base, with zeros past its end.
    fn read_base(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let available = self.base.size().saturating_sub(offset).min(buf.len() as u64) as usize;
        let (below, past) = buf.split_at_mut(available);
        past.fill(0);
        if below.is_empty() { Ok(()) } else { self.base.read_exact_at(below, offset) }
    }
}

impl fmt::Debug for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pages = self.state.read().unwrap_or_else(PoisonError::into_inner).pages.len();
        write!(f, "Overlay({pages} pages over {:?})", self.base)
    }
}

impl BlockDevice for Overlay {
    fn size(&self) -> u64 {
        self.state.read().unwrap_or_else(PoisonError::into_inner).size
    }

    fn sector_size(&self) -> u32 {
        self.base.sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        check_range(state.size, offset, buf.len() as u64)?;
        let end = offset + buf.len() as u64;
        let mut at = offset;
        for (number, page) in state.pages.range(offset / PAGE..end.div_ceil(PAGE)) {
            let start = (number * PAGE).max(offset);
            let stop = ((number + 1) * PAGE).min(end);
            self.read_base(&mut buf[(at - offset) as usize..(start - offset) as usize], at)?;
            let within = (start - number * PAGE) as usize;
            let count = (stop - start) as usize;
            buf[(start - offset) as usize..(stop - offset) as usize]
                .copy_from_slice(&page[within..within + count]);
            at = stop;
        }
        self.read_base(&mut buf[(at - offset) as usize..], at)
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        check_range(state.size, offset, 1)?;
        let next_page =
            state.pages.range(offset / PAGE..).next().map_or(u64::MAX, |(number, _)| number * PAGE);
        if next_page <= offset {
            let length = (next_page + PAGE).min(state.size) - offset;
            return Ok(Extent { length, kind: ExtentKind::Data });
        }
        let limit = next_page.min(state.size) - offset;
        if offset >= self.base.size() {
            return Ok(Extent { length: limit, kind: ExtentKind::Zero });
        }
        let extent = self.base.extent_at(offset)?;
        Ok(Extent { length: extent.length.min(limit), kind: extent.kind })
    }

    fn writable(&self) -> Option<&dyn BlockDeviceMut> {
        Some(self)
    }
}

impl BlockDeviceMut for Overlay {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        check_range(state.size, offset, buf.len() as u64)?;
        let end = offset + buf.len() as u64;
        for number in offset / PAGE..end.div_ceil(PAGE) {
            let start = (number * PAGE).max(offset);
            let stop = ((number + 1) * PAGE).min(end);
            let page = match state.pages.entry(number) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => entry.insert(self.base_page(number)?),
            };
            let within = (start - number * PAGE) as usize;
            page[within..within + (stop - start) as usize]
                .copy_from_slice(&buf[(start - offset) as usize..(stop - offset) as usize]);
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn grow(&self, size: u64) -> io::Result<()> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.size = state.size.max(size);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::MemoryDevice;

    #[test]
    fn writes_stay_in_the_overlay() {
        let base = Arc::new(MemoryDevice::new(vec![1; 10_000]));
        let overlay = Overlay::new(base.clone());
        overlay.write_all_at(&[2; 5000], 3000).unwrap();
        assert_eq!(base.to_vec(), vec![1; 10_000]);
        let mut buf = vec![0; 10_000];
        overlay.read_exact_at(&mut buf, 0).unwrap();
        let mut expected = vec![1; 10_000];
        expected[3000..8000].fill(2);
        assert_eq!(buf, expected);
        assert_eq!(overlay.changed(), [0..8192]);
    }

    #[test]
    fn every_window_reads_the_same_bytes() {
        let base: Vec<u8> = (0..20_000_u32).map(|n| (n % 251) as u8).collect();
        let mut model = base.clone();
        let overlay = Overlay::new(Arc::new(MemoryDevice::new(base)));
        for (offset, length) in [(4096, 4096), (100, 1), (8191, 2), (19_999, 1), (12_000, 6000)] {
            overlay.write_all_at(&vec![0xee; length], offset as u64).unwrap();
            model[offset..offset + length].fill(0xee);
        }
        for offset in (0..20_000).step_by(371) {
            for length in [1, 7, 4095, 4096, 4097, 9000] {
                let length = length.min(20_000 - offset);
                let mut buf = vec![0; length];
                overlay.read_exact_at(&mut buf, offset as u64).unwrap();
                assert_eq!(buf, &model[offset..offset + length], "{length} bytes at {offset}");
            }
        }
    }

    #[test]
    fn growth_past_an_uneven_base_is_zero() {
        let overlay = Overlay::new(Arc::new(MemoryDevice::new(vec![1; 100])));
        overlay.grow(9000).unwrap();
        overlay.write_all_at(&[3], 8999).unwrap();
        let mut buf = vec![9; 9000];
        overlay.read_exact_at(&mut buf, 0).unwrap();
        assert!(buf[..100].iter().all(|b| *b == 1) && buf[100..8999].iter().all(|b| *b == 0));
        assert_eq!(buf[8999], 3);
        assert_eq!(overlay.changed(), [8192..9000]);
        assert_eq!(overlay.extent_at(200).unwrap(), Extent { length: 7992, kind: ExtentKind::Zero });
    }
}
