//! How much is read from a device, for benchmarks and for promises about what is not read.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{BlockDevice, BlockDeviceMut, Device, Extent};

/// Counts reads on their way to another device.
#[derive(Debug)]
pub struct Counter {
    inner: Device,
    reads: AtomicU64,
    bytes: AtomicU64,
}

impl Counter {
    /// Counts what is read from `inner` through this device.
    pub fn new(inner: Device) -> Self {
        Self { inner, reads: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// Read calls so far, failed ones included.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Bytes asked for so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl BlockDevice for Counter {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn sector_size(&self) -> u32 {
        self.inner.sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.inner.read_exact_at(buf, offset)
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        self.inner.extent_at(offset)
    }

    fn writable(&self) -> Option<&dyn BlockDeviceMut> {
        self.inner.writable()
    }
}
