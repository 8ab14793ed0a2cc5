//! Everything readable is a block device.
//!
//! One positional, thread-safe trait and its wrappers. A disk image, a partition, a logical volume and a
//! file in memory are all a [`BlockDevice`]; everything above reads bytes through it and nothing else.
//! Offsets and lengths are bytes. A device never has a cursor, so one device can serve many readers.

mod concat;
mod counter;
mod file;
mod lock;
mod memory;
mod overlay;
mod power_cut;
mod slice;

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

pub use concat::{Concat, Part};
pub use counter::Counter;
pub use file::FileDevice;
pub use memory::MemoryDevice;
pub use overlay::Overlay;
pub use power_cut::{Power, PowerCut, Survivors};
pub use slice::Slice;

/// A shared handle to a device of any kind.
pub type Device = Arc<dyn BlockDevice>;

/// Readable bytes with a fixed length.
///
/// Names and argument order follow [`std::os::unix::fs::FileExt`].
pub trait BlockDevice: Debug + Send + Sync {
    /// Length in bytes. Changes only through [`BlockDeviceMut::grow`].
    fn size(&self) -> u64;

    /// Logical sector size in bytes, 512 or 4096.
    fn sector_size(&self) -> u32 {
        512
    }

    /// Fills `buf` from `offset` bytes; reaching past the end is an error, never a short read.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the range ends past [`size`](Self::size); any error of the
    /// device below. The content of `buf` is unspecified after an error.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// The run that starts at `offset`: data, or known zeros.
    ///
    /// The run is at least one byte long and ends at or before the end of the device; the next run may be of
    /// the same kind. `offset` must be below [`size`](Self::size).
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when `offset` is at or past the end; any error of the device below.
    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        check_range(self.size(), offset, 1)?;
        Ok(Extent { length: self.size() - offset, kind: ExtentKind::Data })
    }

    /// The way to write, if this device and all below it were opened for writing.
    fn writable(&self) -> Option<&dyn BlockDeviceMut> {
        None
    }
}

/// A device that was opened for writing.
///
/// Writes go through `&self`, as reads do: a device is shared between the parts of one transaction. What
/// concurrent writes to overlapping ranges leave behind is unspecified.
pub trait BlockDeviceMut: BlockDevice {
    /// Writes all of `buf` at `offset` bytes.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] when the range ends past the end (nothing is written then); any
    /// error of the device below, after which an unknown part of the range holds the new bytes.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Makes a range read as zeros, and gives back the space behind it where the device can.
    ///
    /// # Errors
    /// As [`write_all_at`](Self::write_all_at).
    fn write_zeros_at(&self, offset: u64, length: u64) -> io::Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        check_range(self.size(), offset, length)?;
        let mut done = 0;
        while done < length {
            let piece = (length - done).min(ZEROS.len() as u64);
            self.write_all_at(&ZEROS[..piece as usize], offset + done)?;
            done += piece;
        }
        Ok(())
    }

    /// Makes every completed write durable before it returns.
    ///
    /// # Errors
    /// Any error of the device below; what is durable is then unknown.
    fn flush(&self) -> io::Result<()>;

    /// Extends the device with zeros to `size` bytes; a `size` at or below the present one changes nothing.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where the length is given by what lies below.
    fn grow(&self, size: u64) -> io::Result<()> {
        if size <= self.size() { Ok(()) } else { Err(io::ErrorKind::Unsupported.into()) }
    }
}

/// A run of bytes of one kind; see [`BlockDevice::extent_at`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Length in bytes, at least 1.
    pub length: u64,
    /// Whether the run must be read to know its bytes.
    pub kind: ExtentKind,
}

/// What [`Extent`] knows of its bytes without reading them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtentKind {
    /// Must be read; may still be all zeros.
    Data,
    /// Reads as zeros.
    Zero,
}

/// Refuses a range that does not lie within `size` bytes; the check every device makes first.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`], with the range in its text.
pub fn check_range(size: u64, offset: u64, length: u64) -> io::Result<()> {
    match offset.checked_add(length) {
        Some(end) if end <= size => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("{length} bytes at byte {offset} reach past the end of the device ({size} bytes)"),
        )),
    }
}

/// The writable face of a shared device.
///
/// # Errors
/// [`io::ErrorKind::PermissionDenied`] when the device, or one below it, was opened read-only.
pub fn writable(device: &Device) -> io::Result<&dyn BlockDeviceMut> {
    device
        .writable()
        .ok_or_else(|| io::Error::new(io::ErrorKind::PermissionDenied, "the device was opened read-only"))
}
