//! Devices that refuse: one that only refuses to be written, one that refuses everything.

use std::io;

use blockdev::{BlockDevice, Device, Extent, check_range};

/// Another device without its way to write.
#[derive(Debug)]
pub(crate) struct ReadOnly {
    inner: Device,
}

impl ReadOnly {
    pub(crate) fn new(inner: Device) -> Self {
        Self { inner }
    }
}

impl BlockDevice for ReadOnly {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn sector_size(&self) -> u32 {
        self.inner.sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_exact_at(buf, offset)
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        self.inner.extent_at(offset)
    }
}

/// What the device-mapper's `error` target is: every read fails.
#[derive(Debug)]
pub(crate) struct Broken {
    size: u64,
}

impl Broken {
    pub(crate) fn new(size: u64) -> Self {
        Self { size }
    }
}

impl BlockDevice for Broken {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.size, offset, u64::try_from(buf.len()).unwrap_or(u64::MAX))?;
        Err(io::Error::other("a segment of type error"))
    }
}
