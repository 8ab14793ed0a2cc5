//! Raw: the file is the disk.

use std::io;
use std::path::Path;
use std::sync::Arc;

use blockdev::{BlockDevice, BlockDeviceMut, Device, Extent, ExtentKind, FileDevice};

use crate::open::{Opening, Source};
use crate::report::nothing_to_check;
use crate::{Error, ImageFormat, Layer, LayerDisk, Mode, NewImage, OwnContent, OwnRun, Result};

/// Accepts anything, so it is asked last.
pub(crate) static FORMAT: ImageFormat = ImageFormat {
    name: "raw",
    qemu_name: "raw",
    probe: |_| true,
    open,
    check: nothing_to_check,
    create: Some(create),
    stream: None,
    rename_parent: None,
};

/// The least that can be a disk: one sector, in bytes.
const SECTOR: u64 = 512;

fn open(source: &Source, opening: &mut Opening<'_>) -> Result<Arc<dyn LayerDisk>> {
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
    let can_write = source.mode == Mode::ReadWrite;
    if can_write && source.device.writable().is_none() {
        return Err(source.not_writable("it was opened read-only"));
    }
    Ok(Arc::new(Raw { file: source.device.clone(), can_write }))
}

fn create(path: &Path, new: &NewImage) -> Result<()> {
    let failed = |source| Error::Open { path: path.to_owned(), source };
    FileDevice::create_new(path).and_then(|file| file.grow(new.size)).map_err(failed)
}

/// The file as a disk.
#[derive(Debug)]
struct Raw {
    file: Device,
    can_write: bool,
}

impl BlockDevice for Raw {
    fn size(&self) -> u64 {
        self.file.size()
    }

    fn sector_size(&self) -> u32 {
        self.file.sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        self.file.extent_at(offset)
    }

    fn writable(&self) -> Option<&dyn BlockDeviceMut> {
        if self.can_write { self.file.writable() } else { None }
    }
}

impl LayerDisk for Raw {
    fn own_run_at(&self, offset: u64) -> io::Result<OwnRun> {
        let Extent { length, kind } = self.file.extent_at(offset)?;
        let content = match kind {
            ExtentKind::Data => OwnContent::Stored { file: 0, offset },
            ExtentKind::Zero => OwnContent::Zero,
        };
        Ok(OwnRun { length, content })
    }
}
