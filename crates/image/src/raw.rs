//! Raw: the file is the disk.

use std::io;
use std::sync::Arc;

use blockdev::{BlockDevice, Device, Extent};

use crate::open::{Layer, Opening, Source};
use crate::{Error, ImageFormat, Mode, Result};

/// Accepts anything, so it is asked last.
pub(crate) const FORMAT: ImageFormat = ImageFormat { name: "raw", probe: |_| true, open };

/// The least that can be a disk: one sector, in bytes.
const SECTOR: u64 = 512;

fn open(source: &Source, opening: &mut Opening<'_>) -> Result<Device> {
    let size = source.device.size();
    if size < SECTOR {
        return Err(Error::TooSmall { image: source.title(), size });
    }
    let mut notes = Vec::new();
    if !size.is_multiple_of(SECTOR) {
        notes.push(format!("{size} bytes are not a whole number of {SECTOR}-byte sectors"));
    }
    let layer = Layer { virtual_size: size, notes, ..source.layer(FORMAT.name) };
    opening.push(layer);
    if let Some(name) = &source.snapshot {
        return Err(source.no_snapshot(name));
    }
    let device = source.device.clone();
    match (source.mode, device.writable().is_some()) {
        (Mode::ReadOnly, true) => Ok(Arc::new(ReadOnly(device))),
        (Mode::ReadOnly, false) | (Mode::ReadWrite, true) => Ok(device),
        (Mode::ReadWrite, false) => Err(source.not_writable("it was opened read-only")),
    }
}

/// Hides the way to write of another device.
#[derive(Debug)]
struct ReadOnly(Device);

impl BlockDevice for ReadOnly {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn sector_size(&self) -> u32 {
        self.0.sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        self.0.extent_at(offset)
    }
}
