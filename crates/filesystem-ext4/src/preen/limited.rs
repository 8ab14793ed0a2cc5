//! A device that is read up to a limit, whatever the structures on it ask for.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use blockdev::{BlockDevice, Device, Extent};

use crate::units::widen;

/// Reads through to another device until its bytes are spent.
#[derive(Debug)]
pub(super) struct Limited {
    inner: Device,
    /// Bytes that may still be read.
    left: AtomicU64,
}

impl Limited {
    pub(super) fn new(inner: Device, bytes: u64) -> Self {
        Self { inner, left: AtomicU64::new(bytes) }
    }

    /// Whether more was asked for than may be read.
    pub(super) fn is_spent(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0
    }
}

impl BlockDevice for Limited {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn sector_size(&self) -> u32 {
        self.inner.sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let length = widen(buf.len());
        let take = |left: u64| Some(left.saturating_sub(length));
        let before = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).unwrap_or(0);
        if before <= length {
            return Err(io::Error::other("too much was read"));
        }
        self.inner.read_exact_at(buf, offset)
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        self.inner.extent_at(offset)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use blockdev::MemoryDevice;

    use super::*;

    #[test]
    fn no_more_than_the_limit() {
        let device = Limited::new(Arc::new(MemoryDevice::new([7; 100])), 40);
        let mut buf = [0; 16];
        device.read_exact_at(&mut buf, 0).unwrap();
        device.read_exact_at(&mut buf, 80).unwrap();
        assert!(!device.is_spent() && buf == [7; 16]);
        assert!(device.read_exact_at(&mut buf, 0).is_err() && device.is_spent());
        assert!(device.read_exact_at(&mut buf[..1], 0).is_err());
    }
}
