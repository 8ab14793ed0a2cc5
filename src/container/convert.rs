//! One disk into another container.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, bail};
use blockdev::{BlockDevice, BlockDeviceMut, ExtentKind};
use image::{FolderGate, Mode, NewImage, Options};

use crate::delivery::{share_as, sync_folder};

/// Bytes that one thread takes on: the largest cluster, so that none is decompressed by both.
const CHUNK: u64 = 2 << 20;

/// Bytes that are read before they are written: no more than the processor's own cache holds.
const PIECE: u64 = 512 << 10;

/// Bytes that become a hole together, or not.
const HOLE: usize = 64 << 10;

/// Writes the disk in `source` to a new image at `out`, which appears only when it is whole and durable.
///
/// # Errors
/// `out` exists, the format cannot be written, or any error of the host or of the source.
pub fn convert(
    source: &dyn BlockDevice,
    like: &Path,
    out: &Path,
    format: &str,
    new: &NewImage,
) -> anyhow::Result<()> {
    if out.symlink_metadata().is_ok() {
        bail!("{} exists already", out.display());
    }
    let name = out.file_name().with_context(|| format!("{} is no name for a file", out.display()))?;
    let folder = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // A folder of its own: an image may be several files, which know each other by name.
    let work = tempfile::Builder::new().prefix(".guestmend-").tempdir_in(folder)?;
    let path = work.path().join(name);
    let stream = image::format_named(format)?.stream;
    if let Some(stream) = stream.filter(|stream| new.subformat.as_deref() == Some(stream.subformat)) {
        (stream.write)(&path, source)?;
    } else {
        image::create(&path, format, new)?;
        let options = Options { format: Some(format), mode: Mode::ReadWrite, ..Options::default() };
        let target = image::open(&path, &options, &FolderGate::new())?;
        let disk = blockdev::writable(&target.device)?;
        copy(source, disk)?;
        disk.flush()?;
    }
    move_all(work.path(), folder, name, like)
}

/// Moves the files of the new image into `folder`, the one that names the others last.
fn move_all(work: &Path, folder: &Path, name: &std::ffi::OsStr, like: &Path) -> anyhow::Result<()> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(work)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.sort_by_key(|path| path.file_name() == Some(name));
    for file in files {
        let target = folder.join(file.file_name().unwrap_or(name));
        if target.symlink_metadata().is_ok() {
            bail!("{} exists already", target.display());
        }
        share_as(like, &file)?;
        std::fs::File::open(&file)?.sync_all()?;
        std::fs::rename(&file, &target)?;
    }
    sync_folder(folder)?;
    Ok(())
}

/// Copies everything that is not zero, with a thread for each processor.
///
/// # Errors
/// The first error of any thread.
pub fn copy(source: &dyn BlockDevice, target: &dyn BlockDeviceMut) -> io::Result<()> {
    let work = Work {
        source,
        target,
        end: source.size().min(target.size()),
        next: AtomicU64::new(0),
        has_failed: AtomicBool::new(false),
        writing: Mutex::default(),
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(8);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| work.run())).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| Err(io::Error::other("a thread failed"))))
    })
}

struct Work<'a> {
    source: &'a dyn BlockDevice,
    target: &'a dyn BlockDeviceMut,
    end: u64,
    /// First byte of the next chunk.
    next: AtomicU64,
    has_failed: AtomicBool,
    /// Held while writing: a file takes one writer at a time, and the kernel lets the others spin.
    writing: Mutex<()>,
}

impl Work<'_> {
    fn run(&self) -> io::Result<()> {
        let mut buffer = vec![0; PIECE as usize];
        let mut known = (0..0, ExtentKind::Zero);
        loop {
            let start = self.next.fetch_add(CHUNK, Ordering::Relaxed);
            if start >= self.end || self.has_failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            // What is known to be zeros for long is left out at once: a disk may claim exabytes of them.
            if known.1 == ExtentKind::Zero && known.0.contains(&start) {
                self.next.fetch_max(known.0.end / CHUNK * CHUNK, Ordering::Relaxed);
            }
            let outcome =
                self.chunk(&mut buffer, &mut known, start, start.saturating_add(CHUNK).min(self.end));
            if outcome.is_err() {
                self.has_failed.store(true, Ordering::Relaxed);
                return outcome;
            }
        }
    }

    /// Copies one chunk. `known` is the extent that was asked about last: it may span many chunks.
    fn chunk(
        &self,
        buffer: &mut [u8],
        known: &mut (Range<u64>, ExtentKind),
        start: u64,
        end: u64,
    ) -> io::Result<()> {
        let mut offset = start;
        while offset < end {
            if !known.0.contains(&offset) {
                let extent = self.source.extent_at(offset)?;
                *known = (offset..offset.saturating_add(extent.length), extent.kind);
            }
            let length = (known.0.end - offset).min(end - offset);
            let length = if known.1 == ExtentKind::Data { length.min(PIECE) } else { length };
            if known.1 == ExtentKind::Data {
                let piece = &mut buffer[..length as usize];
                self.source.read_exact_at(piece, offset)?;
                self.write_data(piece, offset)?;
            }
            offset += length;
        }
        Ok(())
    }

    /// Writes what is not zero; a new image reads as zeros.
    fn write_data(&self, piece: &[u8], offset: u64) -> io::Result<()> {
        static ZEROS: [u8; HOLE] = [0; HOLE];
        let is_zero = |part: &[u8]| part == &ZEROS[..part.len()];
        let mut done = 0;
        while done < piece.len() {
            done +=
                piece[done..].chunks(HOLE).take_while(|part| is_zero(part)).map(<[u8]>::len).sum::<usize>();
            let data: usize =
                piece[done..].chunks(HOLE).take_while(|part| !is_zero(part)).map(<[u8]>::len).sum();
            if data > 0 {
                let _one_at_a_time = self.writing.lock();
                self.target.write_all_at(&piece[done..done + data], offset + done as u64)?;
            }
            done += data;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use blockdev::Extent;

    use super::*;

    /// An exabyte with a few bytes in it, or a disk of that length that notes what it is given.
    #[derive(Debug, Default)]
    struct Vast {
        islands: Mutex<BTreeMap<u64, u8>>,
    }

    const SIZE: u64 = 1 << 60;

    impl BlockDevice for Vast {
        fn size(&self) -> u64 {
            SIZE
        }

        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
            buf.fill(0);
            for (at, byte) in self.islands.lock().unwrap().range(offset..offset + buf.len() as u64) {
                buf[(at - offset) as usize] = *byte;
            }
            Ok(())
        }

        fn extent_at(&self, offset: u64) -> io::Result<Extent> {
            let islands = self.islands.lock().unwrap();
            let next = islands.range(offset..).next().map_or(SIZE, |(at, _)| *at);
            if next == offset {
                return Ok(Extent { length: 1, kind: ExtentKind::Data });
            }
            Ok(Extent { length: next - offset, kind: ExtentKind::Zero })
        }
    }

    impl BlockDeviceMut for Vast {
        fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
            let data = (offset..).zip(buf.iter().copied()).filter(|(_, byte)| *byte != 0);
            self.islands.lock().unwrap().extend(data);
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_exabyte_of_zeros_takes_no_time_and_hides_nothing() {
        let places = [0, 1, CHUNK - 1, CHUNK, 5 * CHUNK + 7, 1 << 40, (1 << 50) + 3, SIZE / 2, SIZE - 1];
        let source = Vast::default();
        source.islands.lock().unwrap().extend((1..).zip(places).map(|(byte, at)| (at, byte)));
        let target = Vast::default();
        copy(&source, &target).unwrap();
        assert_eq!(*target.islands.lock().unwrap(), *source.islands.lock().unwrap());
    }
}
