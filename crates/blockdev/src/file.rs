//! A regular file or a block device of the host.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};

use crate::{BlockDevice, BlockDeviceMut, Extent, ExtentKind, check_range, lock};

/// `O_NONBLOCK` on Linux: opening a FIFO must not wait for a writer before we can see that it is one.
const O_NONBLOCK: i32 = 0o4000;

/// An open host file, read with `pread`; written with `pwrite` when opened for that.
///
/// Only regular files and block devices are accepted: a directory, FIFO, socket or character device is
/// refused, whoever names it.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    path: PathBuf,
    size: AtomicU64,
    writable: bool,
}

impl FileDevice {
    /// Opens `path` read-only.
    ///
    /// # Errors
    /// Those of `open(2)`; [`io::ErrorKind::InvalidInput`] for what is neither a regular file nor a block
    /// device.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with_options(path, OpenOptions::new().read(true), false)
    }

    /// Opens `path` for reading and writing, locked against other writers as QEMU does it: a running machine
    /// makes this fail, and this makes QEMU fail, until the device is dropped.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`io::ErrorKind::ResourceBusy`] while somebody else writes, or reads in a way that
    /// suffers no writer.
    pub fn open_writable(path: &Path) -> io::Result<Self> {
        Self::with_options(path, OpenOptions::new().read(true).write(true), true)
    }

    /// Creates `path`, which must not exist, as an empty writable file; [`grow`](BlockDeviceMut::grow) gives
    /// it a length.
    ///
    /// # Errors
    /// Those of `open(2)`; [`io::ErrorKind::AlreadyExists`] among them.
    pub fn create_new(path: &Path) -> io::Result<Self> {
        Self::with_options(path, OpenOptions::new().read(true).write(true).create_new(true), true)
    }

    fn with_options(path: &Path, options: &mut OpenOptions, writable: bool) -> io::Result<Self> {
        let file = options.custom_flags(O_NONBLOCK).open(path)?;
        let metadata = file.metadata()?;
        let kind = metadata.file_type();
        let size = if kind.is_file() {
            metadata.len()
        } else if kind.is_block_device() {
            block_device_size(&file)?
        } else {
            let what = if kind.is_dir() { "a directory" } else { "not a regular file or block device" };
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        };
        if writable {
            lock::for_writing(&file)?;
        }
        Ok(Self { file, path: path.to_owned(), size: AtomicU64::new(size), writable })
    }

    /// Whether somebody else, such as a running machine, holds this file open for writing.
    ///
    /// # Errors
    /// Any error of the host, such as a file system without locks.
    pub fn is_being_written(&self) -> io::Result<bool> {
        lock::is_being_written(&self.file)
    }

    /// The path this file was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file, for locks and metadata.
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// A block device has no length in its metadata; the end is where seeking stops.
fn block_device_size(file: &File) -> io::Result<u64> {
    use std::io::{Seek, SeekFrom};
    let mut cursor = file;
    cursor.seek(SeekFrom::End(0))
}

impl BlockDevice for FileDevice {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.size(), offset, buf.len() as u64)?;
        self.file.read_exact_at(buf, offset)
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        let size = self.size();
        check_range(size, offset, 1)?;
        let data = Extent { length: size - offset, kind: ExtentKind::Data };
        let Ok(start) = i64::try_from(offset) else { return Ok(data) };
        // Moves the cursor, which nothing here uses. Where holes are not known, all is data.
        let (kind, end) = match lseek(&self.file, start, Whence::SeekData) {
            Ok(found) if found > start => (ExtentKind::Zero, found as u64),
            Ok(_) => match lseek(&self.file, start, Whence::SeekHole) {
                Ok(hole) if hole > start => (ExtentKind::Data, hole as u64),
                _ => return Ok(data),
            },
            // No data up to the end.
            Err(Errno::ENXIO) => (ExtentKind::Zero, size),
            Err(_) => return Ok(data),
        };
        Ok(Extent { length: end.min(size) - offset, kind })
    }

    fn writable(&self) -> Option<&dyn BlockDeviceMut> {
        if self.writable { Some(self) } else { None }
    }
}

impl BlockDeviceMut for FileDevice {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        check_range(self.size(), offset, buf.len() as u64)?;
        self.file.write_all_at(buf, offset)
    }

    fn write_zeros_at(&self, offset: u64, length: u64) -> io::Result<()> {
        check_range(self.size(), offset, length)?;
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let range = i64::try_from(offset).ok().zip(i64::try_from(length).ok());
        if let Some((offset, length)) = range.filter(|(_, length)| *length > 0)
            && fallocate(&self.file, hole, offset, length).is_ok()
        {
            return Ok(());
        }
        // Not every file system makes holes.
        let zeros = vec![0; length.min(64 << 10) as usize];
        let mut done = 0;
        while done < length {
            let piece = (length - done).min(zeros.len() as u64);
            self.file.write_all_at(&zeros[..piece as usize], offset + done)?;
            done += piece;
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn grow(&self, size: u64) -> io::Result<()> {
        if size > self.size() {
            self.file.set_len(size)?;
            self.size.store(size, Ordering::Release);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_and_a_character_device_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(FileDevice::open(folder.path()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(FileDevice::open(Path::new("/dev/null")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn read_only_files_offer_no_way_to_write() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk.raw");
        std::fs::write(&path, [7; 1024]).unwrap();
        let device = FileDevice::open(&path).unwrap();
        assert!(device.writable().is_none());
        let mut buf = [0; 4];
        device.read_exact_at(&mut buf, 1020).unwrap();
        assert_eq!(buf, [7; 4]);
        assert_eq!(device.read_exact_at(&mut buf, 1021).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(device.read_exact_at(&mut buf, u64::MAX).is_err());
    }

    #[test]
    fn holes_are_known_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let device = FileDevice::create_new(&folder.path().join("sparse")).unwrap();
        device.grow(3 << 20).unwrap();
        device.write_all_at(&[7; 4096], 1 << 20).unwrap();
        let extents = [0, 1 << 20, 2 << 20].map(|offset| device.extent_at(offset).unwrap());
        // A file system may know no holes; then all is data.
        if extents[0].kind == ExtentKind::Zero {
            assert_eq!(extents[0].length, 1 << 20);
            assert_eq!(extents[1].kind, ExtentKind::Data);
            assert_eq!(extents[2], Extent { length: 1 << 20, kind: ExtentKind::Zero });
        }
        device.write_zeros_at(1 << 20, 4000).unwrap();
        let mut buf = [1; 4096];
        device.read_exact_at(&mut buf, 1 << 20).unwrap();
        assert!(buf[..4000].iter().all(|byte| *byte == 0) && buf[4000..].iter().all(|byte| *byte == 7));
        assert!(device.write_zeros_at(3 << 20, 1).is_err());
        assert!(device.extent_at(3 << 20).is_err());
    }

    #[test]
    fn growth_reads_as_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let device = FileDevice::create_new(&folder.path().join("new")).unwrap();
        assert!(device.write_all_at(b"x", 0).is_err());
        device.grow(4096).unwrap();
        device.write_all_at(b"x", 4095).unwrap();
        let mut buf = [1; 2];
        device.read_exact_at(&mut buf, 4094).unwrap();
        assert_eq!(&buf, b"\0x");
    }
}
