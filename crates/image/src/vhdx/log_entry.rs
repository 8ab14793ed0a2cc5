//! VHDX log entry: writes of whole sectors that must reach their places together.
//!
//! MS-VHDX §2.3.1. Little-endian; offsets and lengths are bytes, multiples of 4 KiB. An entry is a header with
//! descriptors, more sectors of descriptors, and one sector of data for each data descriptor. Each sector of
//! data carries the entry's sequence number in place of its first 8 and last 4 bytes, which the descriptor
//! keeps.

use ondisk::{Guid, crc32c, crc32c_raw, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::geometry::{SECTOR, SECTOR_SIZE, length_of};
use super::guid::stored;

/// Descriptors in the sector of the header.
pub(super) const FIRST_DESCRIPTORS: u64 = 126;

/// Descriptors in a further sector.
const DESCRIPTORS: u64 = 128;

/// The header as stored.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    /// 0x00 `loge`.
    signature: [u8; 4],
    /// 0x04 CRC-32C over the whole entry, with this field zero.
    checksum: le::U32,
    /// 0x08 bytes in the whole entry.
    entry_length: le::U32,
    /// 0x0c where in the log the oldest entry lies that is still needed.
    tail: le::U32,
    /// 0x10 one more than that of the entry before; never 0.
    sequence_number: le::U64,
    /// 0x18 data and zero descriptors together.
    descriptor_count: le::U32,
    /// 0x1c 0.
    reserved: le::U32,
    /// 0x20 that of the header, or the entry is an old one.
    log_guid: [u8; 16],
    /// 0x30 the file is at least this long, or it was truncated.
    flushed_file_offset: le::U64,
    /// 0x38 everything in use ends before this.
    last_file_offset: le::U64,
}
const _: () = assert!(size_of::<RawHeader>() == 64);

/// A descriptor as stored: of data, or of zeros.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawDescriptor {
    /// 0x00 `desc` or `zero`.
    signature: [u8; 4],
    /// 0x04 the last bytes of the sector; 0 for zeros.
    trailing: [u8; 4],
    /// 0x08 the first bytes of the sector; the length of the zeros.
    leading: [u8; 8],
    /// 0x10 where in the file.
    file_offset: le::U64,
    /// 0x18 that of the header.
    sequence_number: le::U64,
}
const _: () = assert!(size_of::<RawDescriptor>() == 32);

/// A header whose fields agree with each other; whether the checksum fits is another question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EntryHeader {
    pub(super) checksum: u32,
    /// Bytes in the whole entry, at most those of the log.
    pub(super) length: u64,
    /// Where in the log the sequence starts that this entry may end.
    pub(super) tail: u64,
    pub(super) sequence: u64,
    pub(super) descriptors: u64,
    pub(super) flushed_file_offset: u64,
    pub(super) last_file_offset: u64,
}

impl EntryHeader {
    /// Judges the first sector of an entry in a log of `log_length` bytes. `None` for what is no entry, or one
    /// of another log.
    pub(super) fn decode(sector: &[u8], log_guid: Guid, log_length: u64) -> Option<Self> {
        let (raw, _) = RawHeader::read_from_prefix(sector).ok()?;
        let header = Self {
            checksum: raw.checksum.get(),
            length: raw.entry_length.get().into(),
            tail: raw.tail.get().into(),
            sequence: raw.sequence_number.get(),
            descriptors: raw.descriptor_count.get().into(),
            flushed_file_offset: raw.flushed_file_offset.get(),
            last_file_offset: raw.last_file_offset.get(),
        };
        let is_entry = raw.signature == *b"loge"
            && raw.log_guid == stored(log_guid)
            && header.sequence != 0
            && header.length.is_multiple_of(SECTOR)
            && header.length <= log_length
            && header.descriptor_sectors().saturating_mul(SECTOR) <= header.length
            && header.tail.is_multiple_of(SECTOR)
            && header.tail < log_length;
        is_entry.then_some(header)
    }

    /// Sectors that hold the header and the descriptors.
    pub(super) fn descriptor_sectors(&self) -> u64 {
        descriptor_sectors(self.descriptors)
    }

    /// How many descriptors sector `number` of the entry holds, and their bytes.
    pub(super) fn descriptors_in<'a>(
        &self,
        number: u64,
        sector: &'a [u8],
    ) -> impl Iterator<Item = Option<Descriptor>> + use<'a> {
        let (skipped, before) = match number.checked_sub(1) {
            None => (size_of::<RawHeader>(), 0),
            Some(full) => (0, full.saturating_mul(DESCRIPTORS).saturating_add(FIRST_DESCRIPTORS)),
        };
        let left = usize::try_from(self.descriptors.saturating_sub(before)).unwrap_or(usize::MAX);
        let stored = sector.get(skipped..).unwrap_or_default().as_chunks::<32>().0.iter().take(left);
        let sequence = self.sequence;
        stored.map(move |bytes| Descriptor::decode(zerocopy::transmute!(*bytes), sequence))
    }

    /// Whether a sector of data belongs to this entry.
    pub(super) fn owns(&self, sector: &[u8]) -> bool {
        let [s0, s1, s2, s3, s4, s5, s6, s7] = self.sequence.to_le_bytes();
        sector.len() == SECTOR_SIZE
            && sector.starts_with(b"data")
            && sector.get(4..8) == Some(&[s4, s5, s6, s7])
            && sector.ends_with(&[s0, s1, s2, s3])
    }
}

/// Sectors that a header and this many descriptors fill.
pub(super) fn descriptor_sectors(descriptors: u64) -> u64 {
    descriptors.saturating_sub(FIRST_DESCRIPTORS).div_ceil(DESCRIPTORS).saturating_add(1)
}

/// One write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Descriptor {
    /// The next sector of data goes to this byte of the file.
    Data {
        /// Byte of the file.
        offset: u64,
        /// The first bytes, which the sector lacks.
        leading: [u8; 8],
        /// The last bytes, which the sector lacks.
        trailing: [u8; 4],
    },
    /// Zeros go to these bytes of the file.
    Zero {
        /// First byte in the file.
        offset: u64,
        /// Length in bytes.
        length: u64,
    },
}

impl Descriptor {
    fn decode(raw: RawDescriptor, sequence: u64) -> Option<Self> {
        let offset = raw.file_offset.get();
        let descriptor = match &raw.signature {
            b"desc" => Self::Data { offset, leading: raw.leading, trailing: raw.trailing },
            b"zero" => Self::Zero { offset, length: u64::from_le_bytes(raw.leading) },
            _ => return None,
        };
        let end = offset.checked_add(descriptor.length())?;
        let is_aligned = offset.is_multiple_of(SECTOR) && end.is_multiple_of(SECTOR);
        (is_aligned && raw.sequence_number.get() == sequence).then_some(descriptor)
    }

    /// First byte of the file that is written.
    pub(super) fn offset(&self) -> u64 {
        match *self {
            Self::Data { offset, .. } | Self::Zero { offset, .. } => offset,
        }
    }

    /// How many bytes of the file are written.
    pub(super) fn length(&self) -> u64 {
        match *self {
            Self::Data { .. } => SECTOR,
            Self::Zero { length, .. } => length,
        }
    }
}

/// Puts back into a sector of data what its descriptor keeps.
pub(super) fn restore(sector: &mut [u8], leading: [u8; 8], trailing: [u8; 4]) {
    if let Some(start) = sector.first_chunk_mut() {
        *start = leading;
    }
    if let Some(end) = sector.last_chunk_mut() {
        *end = trailing;
    }
}

/// A checksum that grows with each piece of an entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Checksum(u32);

impl Checksum {
    pub(super) fn new() -> Self {
        Self(!0)
    }

    /// Adds the first sector, whose checksum field counts as zero.
    pub(super) fn add_first(&mut self, sector: &[u8]) {
        let (start, rest) = sector.split_at(sector.len().min(4));
        self.add(start);
        self.add(&[0; 4]);
        self.add(rest.get(4..).unwrap_or_default());
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.0 = crc32c_raw(self.0, bytes);
    }

    pub(super) fn value(self) -> u32 {
        !self.0
    }
}

/// What an entry that we write says of itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewEntry {
    pub(super) log_guid: Guid,
    pub(super) sequence: u64,
    /// Where in the log the sequence starts.
    pub(super) tail: u32,
    /// Length of the file in bytes, which is durable.
    pub(super) flushed_file_offset: u64,
    /// First byte behind everything in use.
    pub(super) last_file_offset: u64,
}

impl NewEntry {
    /// The entry that writes these sectors, each with its place in the file.
    pub(super) fn encode(&self, sectors: &[(u64, [u8; SECTOR_SIZE])]) -> Vec<u8> {
        let descriptors = length_of(sectors);
        let start = usize::try_from(descriptor_sectors(descriptors)).unwrap_or(usize::MAX);
        let start = start.saturating_mul(SECTOR_SIZE);
        let length = start.saturating_add(sectors.len().saturating_mul(SECTOR_SIZE));
        let raw = RawHeader {
            signature: *b"loge",
            checksum: 0.into(),
            entry_length: u32::try_from(length).unwrap_or(u32::MAX).into(),
            tail: self.tail.into(),
            sequence_number: self.sequence.into(),
            descriptor_count: u32::try_from(descriptors).unwrap_or(u32::MAX).into(),
            reserved: 0.into(),
            log_guid: stored(self.log_guid),
            flushed_file_offset: self.flushed_file_offset.into(),
            last_file_offset: self.last_file_offset.into(),
        };
        let mut entry = raw.as_bytes().to_vec();
        entry.reserve(length);
        for (offset, sector) in sectors {
            let descriptor = RawDescriptor {
                signature: *b"desc",
                trailing: sector.last_chunk().copied().unwrap_or_default(),
                leading: sector.first_chunk().copied().unwrap_or_default(),
                file_offset: (*offset).into(),
                sequence_number: self.sequence.into(),
            };
            entry.extend_from_slice(descriptor.as_bytes());
        }
        entry.resize(start, 0);
        let [s0, s1, s2, s3, high @ ..] = self.sequence.to_le_bytes();
        for (_, sector) in sectors {
            let mut sector = *sector;
            let [h0, h1, h2, h3] = high;
            restore(&mut sector, [b'd', b'a', b't', b'a', h0, h1, h2, h3], [s0, s1, s2, s3]);
            entry.extend_from_slice(&sector);
        }
        let checksum = crc32c(&entry).to_le_bytes();
        entry.iter_mut().skip(4).zip(checksum).for_each(|(to, from)| *to = from);
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: u64 = 1 << 20;

    fn entry(count: u64) -> Vec<u8> {
        let new = NewEntry {
            log_guid: Guid([5; 16]),
            sequence: 0x1_0000_0007,
            tail: 8192,
            flushed_file_offset: 1 << 22,
            last_file_offset: 1 << 23,
        };
        let sectors: Vec<_> =
            (0..count).map(|number| (number * 4096, [number as u8 + 1; SECTOR_SIZE])).collect();
        new.encode(&sectors)
    }

    fn header(bytes: &[u8]) -> Option<EntryHeader> {
        EntryHeader::decode(bytes, Guid([5; 16]), LOG)
    }

    #[test]
    fn descriptors_fill_sectors() {
        let counts = [0, 1, 126, 127, 254, 255, u64::MAX].map(descriptor_sectors);
        assert_eq!(counts[..6], [1, 1, 1, 2, 2, 3]);
        assert!(counts[6] > 1 << 50);
    }

    #[test]
    fn encoding_and_decoding_agree() {
        for count in [0, 1, 126, 127, 200] {
            let bytes = entry(count);
            let header = header(&bytes).unwrap();
            assert_eq!((header.length, header.descriptors), (bytes.len() as u64, count));
            let mut checksum = Checksum::new();
            let mut sectors = bytes.chunks(SECTOR_SIZE);
            let first = sectors.next().unwrap();
            checksum.add_first(first);
            let mut descriptors: Vec<_> = header.descriptors_in(0, first).collect();
            for number in 1..header.descriptor_sectors() {
                let sector = sectors.next().unwrap();
                checksum.add(sector);
                descriptors.extend(header.descriptors_in(number, sector));
            }
            assert_eq!(descriptors.len() as u64, count);
            for (number, descriptor) in descriptors.into_iter().enumerate() {
                let Some(Descriptor::Data { offset, leading, trailing }) = descriptor else {
                    panic!("{descriptor:?}")
                };
                assert_eq!(offset, number as u64 * 4096);
                let mut sector = sectors.next().unwrap().to_vec();
                assert!(header.owns(&sector));
                checksum.add(&sector);
                restore(&mut sector, leading, trailing);
                assert_eq!(sector, [number as u8 + 1; SECTOR_SIZE]);
            }
            assert_eq!(checksum.value(), header.checksum);
        }
    }

    #[test]
    fn each_field_is_judged() {
        for (at, change) in [
            (0, &b"L"[..]),
            (8, &[1]),
            (8, &[0, 0, 0, 1]),
            (8, &[0, 0, 0, 0]),
            (12, &[1]),
            (12, &[0, 0, 0x10]),
            (16, &[0; 8]),
            (24, &[0xff, 0xff, 0xff, 0xff]),
            (32, &[6]),
        ] {
            let mut bytes = entry(2);
            bytes[at..at + change.len()].copy_from_slice(change);
            assert_eq!(header(&bytes), None, "{at}");
        }
        let good = entry(2);
        let first = |bytes: &[u8]| header(&good).unwrap().descriptors_in(0, bytes).next().unwrap();
        for (at, change) in
            [(64, &b"D"[..]), (80, &[1]), (88, &[1]), (80, &[0, 0xf0, 255, 255, 255, 255, 255, 255])]
        {
            let mut bytes = good.clone();
            bytes[at..at + change.len()].copy_from_slice(change);
            assert_eq!(first(&bytes), None, "{at}");
        }
        let mut zero = good.clone();
        zero[64..80].copy_from_slice(b"zero\0\0\0\0\0\x20\0\0\0\0\0\0");
        assert_eq!(first(&zero), Some(Descriptor::Zero { offset: 0, length: 8192 }));
        zero[72] = 1;
        assert_eq!(first(&zero), None);
    }
}
