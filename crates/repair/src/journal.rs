//! The undo journal: what makes a commit into an image reversible, at every write.
//!
//! A commit first writes the old bytes of every range it will change to a journal beside the image and makes
//! them durable; then it changes the image and makes that durable; then it seals the journal. A journal that is
//! damaged was cut before the image was touched: the image is old. A journal without seal was cut while the
//! image changed: [`recover`] puts the old bytes back. A sealed journal stays, for [`undo`].
//!
//! Layout, little-endian: a header of 4096 bytes, the records one behind the other (offset, length, CRC-32C of
//! the new bytes, the old bytes), and in the last 512 bytes the seal.

use std::io;

use blockdev::{BlockDevice, BlockDeviceMut, Overlay, check_range};
use ondisk::{crc32c, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const MAGIC: [u8; 16] = *b"guestmend undo\r\n";
const SEALED: [u8; 16] = *b"guestmend sealed";
const VERSION: u32 = 1;
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
    /// 0x10 1.
    version: le::U32,
    /// 0x14 CRC-32C of the header with this field zero.
    header_crc: le::U32,
    /// 0x18 length of the image before the commit, in bytes.
    old_size: le::U64,
    /// 0x20 length of the image after the commit, in bytes.
    new_size: le::U64,
    /// 0x28 number of records.
    records: le::U64,
    /// 0x30 bytes of all records.
    records_size: le::U64,
    /// 0x38 CRC-32C of all records.
    records_crc: le::U32,
}
const _: () = assert!(size_of::<RawHeader>() == 60);

/// The fixed part of a record as stored; the old bytes follow.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRecord {
    /// 0x00 first byte in the image.
    offset: le::U64,
    /// 0x08 bytes.
    length: le::U32,
    /// 0x0c CRC-32C of the bytes that the commit writes.
    new_crc: le::U32,
}
const _: () = assert!(size_of::<RawRecord>() == 16);

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
    #[error("the image changed after the commit (at byte {0}); undoing would destroy what was written since")]
    Changed(u64),
    /// The journal is damaged or was never finished.
    #[error("the journal is not complete; the image was not touched")]
    Incomplete,
}

/// Writes what `overlay` changes into `image`, with the old bytes kept in `journal` first.
///
/// `image` is the device below the overlay, opened for writing; `journal` is empty and growable.
///
/// # Errors
/// Any error of the devices. The journal then says what the image is: [`state`], [`recover`].
pub fn commit(overlay: &Overlay, image: &dyn BlockDeviceMut, journal: &dyn BlockDeviceMut) -> io::Result<()> {
    let old_size = image.size();
    let ranges = pieces(overlay);
    let mut records = Vec::new();
    for (offset, length) in &ranges {
        let new = read(overlay, *offset, *length)?;
        // Bytes past the old end have no old value: undoing cuts them off.
        let old_length = old_size.saturating_sub(*offset).min(*length);
        let old = if old_length == 0 { Vec::new() } else { read(image, *offset, old_length)? };
        let raw = RawRecord {
            offset: (*offset).into(),
            length: u32::try_from(old_length).map_err(io::Error::other)?.into(),
            new_crc: crc32c(new.get(..old.len()).unwrap_or_default()).into(),
        };
        records.extend_from_slice(raw.as_bytes());
        records.extend_from_slice(&old);
    }
    write_journal(journal, old_size, overlay.size(), ranges.len() as u64, &records)?;
    image.grow(overlay.size())?;
    for (offset, length) in &ranges {
        image.write_all_at(&read(overlay, *offset, *length)?, *offset)?;
    }
    image.flush()?;
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
    old_size: u64,
    new_size: u64,
    count: u64,
    records: &[u8],
) -> io::Result<()> {
    let mut header = RawHeader {
        magic: MAGIC,
        version: VERSION.into(),
        header_crc: 0.into(),
        old_size: old_size.into(),
        new_size: new_size.into(),
        records: count.into(),
        records_size: (records.len() as u64).into(),
        records_crc: crc32c(records).into(),
    };
    header.header_crc = crc32c(header.as_bytes()).into();
    journal.grow(HEADER_SIZE + (records.len() as u64).next_multiple_of(SEAL_SIZE) + SEAL_SIZE)?;
    journal.write_all_at(records, HEADER_SIZE)?;
    journal.write_all_at(header.as_bytes(), 0)?;
    journal.flush()
}

/// What `journal` says of its image.
///
/// # Errors
/// Only [`JournalError::Io`].
pub fn state(journal: &dyn BlockDevice) -> Result<State, JournalError> {
    match open(journal) {
        Ok(opened) => Ok(if opened.is_sealed { State::Sealed } else { State::Prepared }),
        Err(JournalError::Incomplete) => Ok(State::Incomplete),
        Err(error) => Err(error),
    }
}

/// Finishes what a cut commit left behind: puts the old bytes back unless the journal is sealed or incomplete.
/// Returns the state that was found. Running it again does no harm.
///
/// # Errors
/// Any error of the devices.
pub fn recover(image: &dyn BlockDeviceMut, journal: &dyn BlockDevice) -> Result<(State, u64), JournalError> {
    match open(journal) {
        Ok(opened) if opened.is_sealed => Ok((State::Sealed, opened.header.new_size.get())),
        Ok(opened) => Ok((State::Prepared, opened.restore(image)?)),
        Err(JournalError::Incomplete) => Ok((State::Incomplete, image.size())),
        Err(error) => Err(error),
    }
}

/// Takes a sealed commit back; returns the length in bytes that the image had before, to which the caller
/// truncates it.
///
/// # Errors
/// [`JournalError::Changed`] when the image is not as the commit left it; nothing is written then.
pub fn undo(image: &dyn BlockDeviceMut, journal: &dyn BlockDevice) -> Result<u64, JournalError> {
    let opened = open(journal)?;
    if opened.is_sealed {
        if image.size() != opened.header.new_size.get() {
            return Err(JournalError::Changed(opened.header.new_size.get().min(image.size())));
        }
        for (raw, _) in opened.records().filter(|(_, old)| !old.is_empty()) {
            let now = read(image, raw.offset.get(), raw.length.get().into())?;
            if crc32c(&now) != raw.new_crc.get() {
                return Err(JournalError::Changed(raw.offset.get()));
            }
        }
    }
    opened.restore(image)
}

struct Opened {
    header: RawHeader,
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
    if header.magic != MAGIC || header.version.get() != VERSION || crc32c(header.as_bytes()) != stored {
        return Err(JournalError::Incomplete);
    }
    let size = header.records_size.get();
    if size > journal.size() - HEADER_SIZE - SEAL_SIZE {
        return Err(JournalError::Incomplete);
    }
    let bytes = read(journal, HEADER_SIZE, size)?;
    if crc32c(&bytes) != header.records_crc.get() {
        return Err(JournalError::Incomplete);
    }
    let seal = read(journal, journal.size() - SEAL_SIZE, SEALED.len() as u64)?;
    Ok(Opened { header, bytes, is_sealed: seal == SEALED })
}

impl Opened {
    /// The records with their old bytes. The checksum vouches for the lengths; a wrong one ends the list.
    fn records(&self) -> impl Iterator<Item = (RawRecord, &[u8])> {
        let mut rest = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (raw, behind) = RawRecord::read_from_prefix(rest).ok()?;
            let length = usize::try_from(raw.length.get()).ok()?;
            let old = behind.get(..length)?;
            rest = behind.get(length..)?;
            Some((raw, old))
        })
    }

    fn restore(&self, image: &dyn BlockDeviceMut) -> Result<u64, JournalError> {
        for (raw, old) in self.records().filter(|(_, old)| !old.is_empty()) {
            image.write_all_at(old, raw.offset.get())?;
        }
        image.flush()?;
        Ok(self.header.old_size.get())
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

    use blockdev::{Device, MemoryDevice, Power, PowerCut, Survivors};

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

    #[test]
    fn commit_and_undo() {
        let image = Arc::new(MemoryDevice::new(old()));
        let journal = MemoryDevice::new(Vec::new());
        commit(&change(&(image.clone() as Device)), image.as_ref(), &journal).unwrap();
        assert_eq!(image.to_vec(), new());
        assert_eq!(state(&journal).unwrap(), State::Sealed);
        assert_eq!(recover(image.as_ref(), &journal).unwrap(), (State::Sealed, 7 * 4096));
        assert_eq!(image.to_vec(), new());
        assert_eq!(undo(image.as_ref(), &journal).unwrap(), SIZE as u64);
        assert_eq!(image.to_vec()[..SIZE], old());
    }

    #[test]
    fn undo_refuses_an_image_that_changed() {
        let image = Arc::new(MemoryDevice::new(old()));
        let journal = MemoryDevice::new(Vec::new());
        commit(&change(&(image.clone() as Device)), image.as_ref(), &journal).unwrap();
        image.write_all_at(b"x", 4000).unwrap();
        let before = image.to_vec();
        assert!(matches!(undo(image.as_ref(), &journal), Err(JournalError::Changed(0))));
        assert_eq!(image.to_vec(), before);
    }

    #[test]
    fn a_cut_at_every_step_leaves_old_or_new() {
        for survivors in [Survivors::All, Survivors::None, Survivors::EveryOther] {
            let mut seen = Vec::new();
            for steps in 0.. {
                let image = Arc::new(MemoryDevice::new(old()));
                let journal = Arc::new(MemoryDevice::new(Vec::new()));
                let power = Power::new(steps, survivors);
                let cut = |device: Device| Arc::new(PowerCut::with_power(device, power.clone()));
                let (cut_image, cut_journal) = (cut(image.clone()), cut(journal.clone()));
                let overlay = change(&(cut_image.clone() as Device));
                let done = commit(&overlay, cut_image.as_ref(), cut_journal.as_ref());
                let (found, size) = recover(image.as_ref(), journal.as_ref()).unwrap();
                let mut after = image.to_vec();
                after.truncate(usize::try_from(size).unwrap());
                let expected = if found == State::Sealed { new() } else { old() };
                assert!(after == expected, "cut at step {steps}, {survivors:?}: {found:?}");
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
    fn any_damage_to_the_journal_is_incomplete() {
        let image = Arc::new(MemoryDevice::new(old()));
        let journal = MemoryDevice::new(Vec::new());
        commit(&change(&(image.clone() as Device)), image.as_ref(), &journal).unwrap();
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
