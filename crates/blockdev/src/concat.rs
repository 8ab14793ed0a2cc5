//! Parts of devices laid end to end: a linear logical volume, a disk made of extents.

use std::io;

use crate::{BlockDevice, BlockDeviceMut, Device, Extent, ExtentKind, check_range};

/// One piece of a [`Concat`].
#[derive(Debug, Clone)]
pub struct Part {
    /// Where the bytes lie; `None` reads as zeros and refuses writes.
    pub device: Option<Device>,
    /// First byte within that device.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// Parts of other devices laid end to end.
#[derive(Debug)]
pub struct Concat {
    /// Each with the byte of this device at which it starts, ascending and without gaps.
    parts: Vec<(u64, Part)>,
    size: u64,
    sector_size: u32,
}

impl Concat {
    /// Lays `parts` end to end; parts of zero length are dropped. The sector size is the largest among them.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when a part reaches past its device, or their sum past `u64`.
    pub fn new(parts: impl IntoIterator<Item = Part>) -> io::Result<Self> {
        let mut placed = Vec::new();
        let mut size = 0_u64;
        let mut sector_size = 512;
        for part in parts.into_iter().filter(|part| part.length > 0) {
            if let Some(device) = &part.device {
                check_range(device.size(), part.offset, part.length)?;
                sector_size = sector_size.max(device.sector_size());
            }
            let start = size;
            size = size.checked_add(part.length).ok_or(io::ErrorKind::UnexpectedEof)?;
            placed.push((start, part));
        }
        Ok(Self { parts: placed, size, sector_size })
    }

    /// Calls `visit` for each piece of `offset..offset + length` with the part, the byte within the part, and
    /// the piece as a range of the request.
    fn for_each_piece(
        &self,
        offset: u64,
        length: usize,
        mut visit: impl FnMut(&Part, u64, std::ops::Range<usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        check_range(self.size, offset, length as u64)?;
        let mut done = 0;
        let mut index = self.index_at(offset);
        while done < length {
            let (start, part) = &self.parts[index];
            let within = offset + done as u64 - start;
            let count = (part.length - within).min((length - done) as u64) as usize;
            visit(part, within, done..done + count)?;
            done += count;
            index += 1;
        }
        Ok(())
    }

    fn index_at(&self, offset: u64) -> usize {
        self.parts.partition_point(|(start, _)| *start <= offset).saturating_sub(1)
    }
}

impl BlockDevice for Concat {
    fn size(&self) -> u64 {
        self.size
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.for_each_piece(offset, buf.len(), |part, within, range| match &part.device {
            Some(device) => device.read_exact_at(&mut buf[range], part.offset + within),
            None => {
                buf[range].fill(0);
                Ok(())
            }
        })
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        check_range(self.size, offset, 1)?;
        let (start, part) = &self.parts[self.index_at(offset)];
        let within = offset - start;
        let left = part.length - within;
        let Some(device) = &part.device else {
            return Ok(Extent { length: left, kind: ExtentKind::Zero });
        };
        let extent = device.extent_at(part.offset + within)?;
        Ok(Extent { length: extent.length.min(left), kind: extent.kind })
    }

    fn writable(&self) -> Option<&dyn BlockDeviceMut> {
        let all =
            self.parts.iter().all(|(_, part)| part.device.as_ref().is_some_and(|d| d.writable().is_some()));
        all.then_some(self)
    }
}

impl BlockDeviceMut for Concat {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.for_each_piece(offset, buf.len(), |part, within, range| match &part.device {
            Some(device) => crate::writable(device)?.write_all_at(&buf[range], part.offset + within),
            None => Err(io::Error::new(io::ErrorKind::PermissionDenied, "this part has no device")),
        })
    }

    fn flush(&self) -> io::Result<()> {
        self.parts
            .iter()
            .filter_map(|(_, part)| part.device.as_ref())
            .try_for_each(|device| crate::writable(device)?.flush())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::MemoryDevice;

    fn device(byte: u8, length: usize) -> Device {
        Arc::new(MemoryDevice::new(vec![byte; length]))
    }

    #[test]
    fn reads_cross_parts_and_holes() {
        let whole = Concat::new([
            Part { device: Some(device(1, 10)), offset: 2, length: 4 },
            Part { device: None, offset: 0, length: 3 },
            Part { device: Some(device(2, 5)), offset: 0, length: 5 },
        ])
        .unwrap();
        let mut buf = [9; 12];
        whole.read_exact_at(&mut buf, 0).unwrap();
        assert_eq!(buf, [1, 1, 1, 1, 0, 0, 0, 2, 2, 2, 2, 2]);
        assert_eq!(whole.extent_at(5).unwrap(), Extent { length: 2, kind: ExtentKind::Zero });
        assert!(whole.read_exact_at(&mut buf, 1).is_err());
        assert!(whole.writable().is_none());
    }

    #[test]
    fn a_part_past_its_device_is_refused() {
        assert!(Concat::new([Part { device: Some(device(1, 10)), offset: 8, length: 3 }]).is_err());
    }
}
