//! A window onto another device: a partition, a data area.

use std::io;

use crate::{BlockDevice, BlockDeviceMut, Device, Extent, check_range};

/// `length` bytes of another device, from byte `start`.
#[derive(Debug)]
pub struct Slice {
    inner: Device,
    start: u64,
    length: u64,
}

impl Slice {
    /// The window `start..start + length` of `inner`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the window does not lie within `inner`.
    pub fn new(inner: Device, start: u64, length: u64) -> io::Result<Self> {
        check_range(inner.size(), start, length)?;
        Ok(Self { inner, start, length })
    }
}

impl BlockDevice for Slice {
    fn size(&self) -> u64 {
        self.length
    }

    fn sector_size(&self) -> u32 {
        self.inner.sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.length, offset, buf.len() as u64)?;
        self.inner.read_exact_at(buf, self.start + offset)
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        check_range(self.length, offset, 1)?;
        let extent = self.inner.extent_at(self.start + offset)?;
        Ok(Extent { length: extent.length.min(self.length - offset), kind: extent.kind })
    }

    fn writable(&self) -> Option<&dyn BlockDeviceMut> {
        self.inner.writable().is_some().then_some(self)
    }
}

impl BlockDeviceMut for Slice {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        check_range(self.length, offset, buf.len() as u64)?;
        crate::writable(&self.inner)?.write_all_at(buf, self.start + offset)
    }

    fn flush(&self) -> io::Result<()> {
        crate::writable(&self.inner)?.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::MemoryDevice;

    #[test]
    fn a_slice_never_leaves_its_window() {
        let disk: Device = Arc::new(MemoryDevice::new((0..=255).collect::<Vec<u8>>()));
        assert!(Slice::new(disk.clone(), 200, 57).is_err());
        assert!(Slice::new(disk.clone(), u64::MAX, 2).is_err());
        let slice = Slice::new(disk.clone(), 16, 16).unwrap();
        let mut buf = [0; 4];
        slice.read_exact_at(&mut buf, 12).unwrap();
        assert_eq!(buf, [28, 29, 30, 31]);
        assert!(slice.read_exact_at(&mut buf, 13).is_err());
        assert!(slice.write_all_at(&buf, 13).is_err());
        slice.write_all_at(&[0; 4], 12).unwrap();
        disk.read_exact_at(&mut buf, 30).unwrap();
        assert_eq!(buf, [0, 0, 32, 33]);
        assert_eq!(slice.extent_at(10).unwrap().length, 6);
    }
}
