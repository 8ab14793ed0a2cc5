//! The undo journal: what makes a commit into an image reversible, at every write.
//!
//! A commit first writes the old bytes of every range it will change to a journal beside the image and makes
//! them durable; then it changes the image and makes that durable; then it seals the journal. A journal that is
//! damaged was cut before the image was touched: the image is old. A journal without seal was cut while the
//! image changed: [`recover`] puts the old bytes back. A sealed journal stays, for [`undo`].
//!
//! Layout, little-endian: a header of 4096 bytes, the table of files, the records one behind the other (file,
//! offset, length, CRC-32C of the new bytes, the old bytes), and in the last 512 bytes the seal. One journal
//! covers every file of an image: a disk may be cut into extents.

use std::io;

use blockdev::{BlockDevice, BlockDeviceMut, Overlay, check_range};
use ondisk::{crc32c, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 16] = *b"guestmend undo\r\n";
const SEALED: [u8; 16] = *b"guestmend sealed";
const VERSION: u32 = 2;
const HEADER_SIZE: u64 = 4096;
const SEAL_SIZE: u64 = 512;
/// The largest range of one record, in bytes; longer changes become several records.
const MAX_RECORD: u64 = 1 << 20;

/// The header as stored, at byte 0.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    /// 0x00 "guestmend undo\r\n".
    magic: [u8; 16],
    /// 0x10 2.
    version: le::U32,
    /// 0x14 CRC-32C of the header with this field zero.
    header_crc: le::U32,
    /// 0x18 number of files.
    files: le::U64,
    /// 0x20 bytes of the table of files.
    files_size: le::U64,
    /// 0x28 number of records.
    records: le::U64,
    /// 0x30 bytes of the table of files and of all records.
    body_size: le::U64,
    /// 0x38 CRC-32C of those.
    body_crc: le::U32,
}
const _: () = assert!(size_of::<RawHeader>() == 60);

/// The fixed part of an entry of the table of files as stored; the name follows.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawFile {
    /// 0x00 length of the file before the commit, in bytes.
    old_size: le::U64,
    /// 0x08 length of the file after the commit, in bytes.
    new_size: le::U64,
    /// 0x10 bytes in the name.
    name_length: le::U32,
}
const _: () = assert!(size_of::<RawFile>() == 20);

/// The fixed part of a record as stored; the old bytes follow.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRecord {
    /// 0x00 number of the file in the table, from 0.
    file: le::U32,
    /// 0x04 bytes.
    length: le::U32,
    /// 0x08 first byte in the file.
    offset: le::U64,
    /// 0x10 CRC-32C of the bytes that the commit writes.
    new_crc: le::U32,
}
const _: () = assert!(size_of::<RawRecord>() == 20);

/// What a journal says of its image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not a whole journal: the commit was cut before the image was touched.
    Incomplete,
    /// The image may be half written.
    Prepared,
    /// The commit is complete.
    Sealed,
}

/// Why a journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The host failed us.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The image is not as the commit left it.
    #[error(
        "the image changed after the commit (at byte {offset} of {}); undoing would destroy what was written since",
        .name.escape_ascii()
    )]
    Changed {
        /// The file, as the journal names it.
        name: Vec<u8>,
        /// The first byte that differs, or the shorter length.
        offset: u64,
    },
    /// The journal is damaged or was never finished.
    #[error("the journal is not complete; the image was not touched")]
    Incomplete,
    /// A whole header of a version that this program does not know: the journal is kept, for the one that wrote it.
    #[error("the journal is of version {0}, which this program does not know")]
    OtherVersion(u32),
    /// The caller has other files than the journal.
    #[error("the journal is of {0} files")]
    OtherFiles(usize),
}

/// One file of a commit.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// What [`files`] tells about it later: a path relative to the journal's folder.
    pub name: &'a [u8],
    /// What the file is to hold.
    pub overlay: &'a Overlay,
    /// The device below the overlay, open for writing.
    pub file: &'a dyn BlockDeviceMut,
}

/// A file that a journal speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalFile {
    /// A path relative to the journal's folder.
    pub name: Vec<u8>,
    /// Length before the commit, in bytes: what the caller cuts the file to after taking a commit back.
    pub old_size: u64,
    /// Length after the commit, in bytes.
    pub new_size: u64,
}

/// Writes what the overlays change into their files, with the old bytes kept in `journal` first.
///
/// `journal` is empty and growable.
///
/// # Errors
/// Any error of the devices. The journal then says what the files are: [`state`], [`recover`].
pub fn commit(targets: &[Target<'_>], journal: &dyn BlockDeviceMut) -> io::Result<()> {
    let mut table = Vec::new();
    let mut records = Vec::new();
    let mut count = 0;
    for (number, target) in targets.iter().enumerate() {
        let old_size = target.file.size();
        let raw = RawFile {
            old_size: old_size.into(),
            new_size: target.overlay.size().into(),
            name_length: u32::try_from(target.name.len()).map_err(io::Error::other)?.into(),
        };
        table.extend_from_slice(raw.as_bytes());
        table.extend_from_slice(target.name);
        for (offset, length) in pieces(target.overlay) {
            let new = read(target.overlay, offset, length)?;
            // Bytes past the old end have no old value: undoing cuts them off.
            let old_length = old_size.saturating_sub(offset).min(length);
            let old = if old_length == 0 { Vec::new() } else { read(target.file, offset, old_length)? };
            let raw = RawRecord {
                file: u32::try_from(number).map_err(io::Error::other)?.into(),
                length: u32::try_from(old_length).map_err(io::Error::other)?.into(),
                offset: offset.into(),
                new_crc: crc32c(new.get(..old.len()).unwrap_or_default()).into(),
            };
            records.extend_from_slice(raw.as_bytes());
            records.extend_from_slice(&old);
            count += 1;
        }
    }
    let files_size = table.len() as u64;
    table.append(&mut records);
    write_journal(journal, targets.len() as u64, files_size, count, &table)?;
    for target in targets {
        target.file.grow(target.overlay.size())?;
        for (offset, length) in pieces(target.overlay) {
            target.file.write_all_at(&read(target.overlay, offset, length)?, offset)?;
        }
        target.file.flush()?;
    }
    journal.write_all_at(&SEALED, journal.size() - SEAL_SIZE)?;
    journal.flush()
}

/// The changed ranges of the overlay, cut into pieces of at most [`MAX_RECORD`] bytes.
fn pieces(overlay: &Overlay) -> Vec<(u64, u64)> {
    let mut pieces = Vec::new();
    for range in overlay.changed() {
        let mut at = range.start;
        while at < range.end {
            let length = (range.end - at).min(MAX_RECORD);
            pieces.push((at, length));
            at += length;
        }
    }
    pieces
}

fn write_journal(
    journal: &dyn BlockDeviceMut,
    files: u64,
    files_size: u64,
    records: u64,
    body: &[u8],
) -> io::Result<()> {
    let mut header = RawHeader {
        magic: MAGIC,
        version: VERSION.into(),
        header_crc: 0.into(),
        files: files.into(),
        files_size: files_size.into(),
        records: records.into(),
        body_size: (body.len() as u64).into(),
        body_crc: crc32c(body).into(),
    };
    header.header_crc = crc32c(header.as_bytes()).into();
    journal.grow(HEADER_SIZE + (body.len() as u64).next_multiple_of(SEAL_SIZE) + SEAL_SIZE)?;
    journal.write_all_at(body, HEADER_SIZE)?;
    journal.write_all_at(header.as_bytes(), 0)?;
    journal.flush()
}

/// What `journal` says of its image.
///
/// # Errors
/// [`JournalError::Io`]; [`JournalError::OtherVersion`], for what nobody here can tell must not be thrown away.
pub fn state(journal: &dyn BlockDevice) -> Result<State, JournalError> {
    match open(journal) {
        Ok(opened) => Ok(if opened.is_sealed { State::Sealed } else { State::Prepared }),
        Err(JournalError::Incomplete) => Ok(State::Incomplete),
        Err(error) => Err(error),
    }
}

/// The files that a whole journal speaks of, in the order in which [`undo`] and [`recover`] want them.
///
/// # Errors
/// [`JournalError::Incomplete`]; any error of the device.
pub fn files(journal: &dyn BlockDevice) -> Result<Vec<JournalFile>, JournalError> {
    Ok(open(journal)?.files)
}

/// Finishes what a cut commit left behind: puts the old bytes back unless the journal is sealed or incomplete.
/// Returns the state that was found. Running it again does no harm.
///
/// # Errors
/// Any error of the devices; [`JournalError::OtherFiles`].
pub fn recover(targets: &[&dyn BlockDeviceMut], journal: &dyn BlockDevice) -> Result<State, JournalError> {
    match open(journal) {
        Ok(opened) if opened.is_sealed => Ok(State::Sealed),
        Ok(opened) => {
            opened.restore(targets)?;
            Ok(State::Prepared)
        }
        Err(JournalError::Incomplete) => Ok(State::Incomplete),
        Err(error) => Err(error),
    }
}

/// Takes a commit back, sealed or cut. The caller then cuts each file to its [`old_size`](JournalFile::old_size).
///
/// # Errors
/// [`JournalError::Changed`] when a file is not as the whole commit left it; nothing is written then.
pub fn undo(targets: &[&dyn BlockDeviceMut], journal: &dyn BlockDevice) -> Result<(), JournalError> {
    let opened = open(journal)?;
    if opened.is_sealed {
        opened.check(targets)?;
    }
    opened.restore(targets)
}

struct Opened {
    files: Vec<JournalFile>,
    /// The records.
    bytes: Vec<u8>,
    is_sealed: bool,
}

fn open(journal: &dyn BlockDevice) -> Result<Opened, JournalError> {
    if journal.size() < HEADER_SIZE + SEAL_SIZE {
        return Err(JournalError::Incomplete);
    }
    let header = read(journal, 0, size_of::<RawHeader>() as u64)?;
    let mut header = RawHeader::read_from_bytes(&header).map_err(|_| JournalError::Incomplete)?;
    let stored = header.header_crc.get();
    header.header_crc = 0.into();
    if header.magic != MAGIC || crc32c(header.as_bytes()) != stored {
        return Err(JournalError::Incomplete);
    }
    if header.version.get() != VERSION {
        return Err(JournalError::OtherVersion(header.version.get()));
    }
    let size = header.body_size.get();
    if size > journal.size() - HEADER_SIZE - SEAL_SIZE || header.files_size.get() > size {
        return Err(JournalError::Incomplete);
    }
    let mut table = read(journal, HEADER_SIZE, size)?;
    if crc32c(&table) != header.body_crc.get() {
        return Err(JournalError::Incomplete);
    }
    let seal = read(journal, journal.size() - SEAL_SIZE, SEALED.len() as u64)?;
    let bytes = table.split_off(usize::try_from(header.files_size.get()).map_err(io::Error::other)?);
    Ok(Opened { files: decode_files(&table), bytes, is_sealed: seal == SEALED })
}

/// The checksum vouches for the lengths; a wrong one ends the list.
fn decode_files(table: &[u8]) -> Vec<JournalFile> {
    let mut rest = table;
    std::iter::from_fn(move || {
        let (raw, behind) = RawFile::read_from_prefix(rest).ok()?;
        let (name, after) = behind.split_at_checked(usize::try_from(raw.name_length.get()).ok()?)?;
        rest = after;
        let (old_size, new_size) = (raw.old_size.get(), raw.new_size.get());
        Some(JournalFile { name: name.to_vec(), old_size, new_size })
    })
    .collect()
}

impl Opened {
    /// The records with their old bytes. The checksum vouches for the lengths; a wrong one ends the list.
    fn records(&self) -> impl Iterator<Item = (RawRecord, &[u8])> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (raw, behind) = RawRecord::read_from_prefix(rest).ok()?;
            let (old, after) = behind.split_at_checked(usize::try_from(raw.length.get()).ok()?)?;
            rest = after;
            Some((raw, old))
        })
    }

    /// The file that a record is of.
    fn target<'t>(
        &self,
        targets: &[&'t dyn BlockDeviceMut],
        raw: &RawRecord,
    ) -> Result<&'t dyn BlockDeviceMut, JournalError> {
        let number = usize::try_from(raw.file.get()).unwrap_or(usize::MAX);
        targets.get(number).copied().ok_or(JournalError::OtherFiles(self.files.len()))
    }

    /// Whether every file is as the commit left it.
    fn check(&self, targets: &[&dyn BlockDeviceMut]) -> Result<(), JournalError> {
        let changed = |number: usize, offset| {
            let name = self.files.get(number).map(|file| file.name.clone()).unwrap_or_default();
            Err(JournalError::Changed { name, offset })
        };
        for (number, (file, target)) in self.files.iter().zip(targets).enumerate() {
            if target.size() != file.new_size {
                return changed(number, file.new_size.min(target.size()));
            }
        }
        for (raw, _) in self.records().filter(|(_, old)| !old.is_empty()) {
            let now = read(self.target(targets, &raw)?, raw.offset.get(), raw.length.get().into())?;
            if crc32c(&now) != raw.new_crc.get() {
                return changed(usize::try_from(raw.file.get()).unwrap_or(usize::MAX), raw.offset.get());
            }
        }
        Ok(())
    }

    fn restore(&self, targets: &[&dyn BlockDeviceMut]) -> Result<(), JournalError> {
        if targets.len() != self.files.len() {
            return Err(JournalError::OtherFiles(self.files.len()));
        }
        for (raw, old) in self.records().filter(|(_, old)| !old.is_empty()) {
            self.target(targets, &raw)?.write_all_at(old, raw.offset.get())?;
        }
        targets.iter().try_for_each(|target| target.flush())?;
        Ok(())
    }
}

fn read(device: &dyn BlockDevice, offset: u64, length: u64) -> io::Result<Vec<u8>> {
    check_range(device.size(), offset, length)?;
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    device.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use blockdev::{Device, MemoryDevice, Power, PowerCut, Survivors, writable};

    use super::*;

    const SIZE: usize = 3 * 4096 + 100;

    fn old() -> Vec<u8> {
        (0..SIZE).map(|n| (n % 253) as u8).collect()
    }

    /// An overlay on `image` that changes two pages and appends.
    fn change(image: &Device) -> Overlay {
        let overlay = Overlay::new(image.clone());
        overlay.write_all_at(b"new at the start", 10).unwrap();
        overlay.grow(7 * 4096).unwrap();
        overlay.write_all_at(&[7; 5000], SIZE as u64 - 50).unwrap();
        // A range that lies wholly behind the old end.
        overlay.write_all_at(&[8; 100], 6 * 4096).unwrap();
        overlay
    }

    fn new() -> Vec<u8> {
        let overlay = change(&(Arc::new(MemoryDevice::new(old())) as Device));
        read(&overlay, 0, overlay.size()).unwrap()
    }

    /// Commits the same change to both files.
    fn commit_both(files: [&Device; 2], journal: &dyn BlockDeviceMut) -> io::Result<()> {
        let overlays = files.map(change);
        let [a, b] = [0, 1].map(|n| Target {
            name: [b"a".as_slice(), b"b"][n],
            overlay: &overlays[n],
            file: writable(files[n]).unwrap(),
        });
        commit(&[a, b], journal)
    }

    fn committed() -> ([Arc<MemoryDevice>; 2], MemoryDevice) {
        let images = [0, 1].map(|_| Arc::new(MemoryDevice::new(old())));
        let journal = MemoryDevice::new(Vec::new());
        let [a, b] = images.clone().map(|image| image as Device);
        commit_both([&a, &b], &journal).unwrap();
        (images, journal)
    }

    fn targets(images: &[Arc<MemoryDevice>; 2]) -> [&dyn BlockDeviceMut; 2] {
        [images[0].as_ref(), images[1].as_ref()]
    }

    #[test]
    fn commit_and_undo() {
        let (images, journal) = committed();
        for image in &images {
            assert_eq!(image.to_vec(), new());
        }
        assert_eq!(state(&journal).unwrap(), State::Sealed);
        assert_eq!(recover(&targets(&images), &journal).unwrap(), State::Sealed);
        assert_eq!(images[1].to_vec(), new());
        let known = files(&journal).unwrap();
        assert_eq!(known[1], JournalFile { name: b"b".to_vec(), old_size: SIZE as u64, new_size: 7 * 4096 });
        undo(&targets(&images), &journal).unwrap();
        for image in &images {
            assert_eq!(image.to_vec()[..SIZE], old());
        }
        assert!(matches!(undo(&targets(&images)[..1], &journal), Err(JournalError::Changed { .. })));
    }

    #[test]
    fn undo_refuses_an_image_that_changed() {
        let (images, journal) = committed();
        images[1].write_all_at(b"x", 4000).unwrap();
        let before = images.clone().map(|image| image.to_vec());
        let Err(JournalError::Changed { name, offset: 0 }) = undo(&targets(&images), &journal) else {
            panic!()
        };
        assert_eq!(name, b"b");
        assert_eq!(images.map(|image| image.to_vec()), before);
    }

    #[test]
    fn a_cut_at_every_step_leaves_old_or_new() {
        for survivors in [Survivors::All, Survivors::None, Survivors::EveryOther, Survivors::TheOthers] {
            let mut seen = Vec::new();
            for steps in 0.. {
                let images = [0, 1].map(|_| Arc::new(MemoryDevice::new(old())));
                let journal = Arc::new(MemoryDevice::new(Vec::new()));
                let power = Power::new(steps, survivors);
                let cut = |device: Device| Arc::new(PowerCut::with_power(device, power.clone()));
                let [a, b] = images.clone().map(|image| cut(image) as Device);
                let cut_journal = cut(journal.clone());
                let done = commit_both([&a, &b], cut_journal.as_ref());
                let found = recover(&targets(&images), journal.as_ref()).unwrap();
                for image in &images {
                    let (expected, size) =
                        if found == State::Sealed { (new(), 7 * 4096) } else { (old(), SIZE) };
                    let mut after = image.to_vec();
                    after.truncate(size);
                    assert!(after == expected, "cut at step {steps}, {survivors:?}: {found:?}");
                }
                seen.push(found);
                if done.is_ok() {
                    break;
                }
            }
            assert!(seen.contains(&State::Incomplete) && seen.contains(&State::Prepared));
            assert_eq!(seen.last(), Some(&State::Sealed));
        }
    }

    #[test]
    fn a_journal_of_another_version_is_no_leftover() {
        let (images, journal) = committed();
        let mut header = RawHeader::read_from_prefix(&journal.to_vec()).unwrap().0;
        header.version = 1.into();
        header.header_crc = 0.into();
        header.header_crc = crc32c(header.as_bytes()).into();
        journal.write_all_at(header.as_bytes(), 0).unwrap();
        assert!(matches!(state(&journal), Err(JournalError::OtherVersion(1))));
        assert!(matches!(undo(&targets(&images), &journal), Err(JournalError::OtherVersion(1))));
    }

    #[test]
    fn any_damage_to_the_journal_is_incomplete() {
        let (_, journal) = committed();
        let whole = journal.to_vec();
        for at in (0..60).chain(4096..4200) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            assert_eq!(state(&MemoryDevice::new(bytes)).unwrap(), State::Incomplete, "byte {at}");
        }
        for length in [0, 1, 4096, 5000] {
            assert_eq!(state(&MemoryDevice::new(&whole[..length])).unwrap(), State::Incomplete);
        }
    }
}
