//! A device that is a vector of bytes.

use std::fmt;
use std::io;
use std::sync::{PoisonError, RwLock};

use crate::{BlockDevice, BlockDeviceMut, check_range};

/// Bytes in memory, always writable.
pub struct MemoryDevice {
    bytes: RwLock<Vec<u8>>,
    sector_size: u32,
}

impl MemoryDevice {
    /// A device with 512-byte sectors over `bytes`.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: RwLock::new(bytes.into()), sector_size: 512 }
    }

    /// The same with another logical sector size in bytes.
    pub fn with_sector_size(bytes: impl Into<Vec<u8>>, sector_size: u32) -> Self {
        Self { bytes: RwLock::new(bytes.into()), sector_size }
    }

    /// A copy of the present content.
    pub fn to_vec(&self) -> Vec<u8> {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for MemoryDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryDevice({} bytes)", self.size())
    }
}

/// The slice indices of a range that [`check_range`] has accepted; it lies within a `Vec`, so it fits.
fn indices(offset: u64, length: usize) -> std::ops::Range<usize> {
    let start = offset as usize;
    start..start + length
}

impl BlockDevice for MemoryDevice {
    fn size(&self) -> u64 {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.bytes.read().unwrap_or_else(PoisonError::into_inner);
        check_range(bytes.len() as u64, offset, buf.len() as u64)?;
        buf.copy_from_slice(&bytes[indices(offset, buf.len())]);
        Ok(())
    }

    fn writable(&self) -> Option<&dyn BlockDeviceMut> {
        Some(self)
    }
}

impl BlockDeviceMut for MemoryDevice {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        check_range(bytes.len() as u64, offset, buf.len() as u64)?;
        bytes[indices(offset, buf.len())].copy_from_slice(buf);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn grow(&self, size: u64) -> io::Result<()> {
        let mut bytes = self.bytes.write().unwrap_or_else(PoisonError::into_inner);
        let size = usize::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        if let Some(more) = size.checked_sub(bytes.len()) {
            bytes.try_reserve(more).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
            bytes.resize(size, 0);
        }
        Ok(())
    }
}
