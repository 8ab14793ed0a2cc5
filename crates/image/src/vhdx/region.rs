//! VHDX region table: where the block allocation table and the metadata are.
//!
//! MS-VHDX §2.2.3. Little-endian; offsets and lengths are bytes, multiples of 1 MiB. There are two copies of
//! 64 KiB, which are meant to be the same.

use std::ops::Range;

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, Guid, Result, crc32c, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::geometry::{HEADER_SECTION, MIB, length_of};
use super::guid::stored;

/// Where the copies lie.
pub(super) const OFFSETS: [u64; 2] = [192 << 10, 256 << 10];

/// Bytes in a copy.
pub(super) const SIZE: usize = 64 << 10;

/// The specification's bound on the entries.
const MAX_ENTRIES: u32 = 2047;

pub(super) const STRUCTURE: &str = "VHDX region table";

/// 2DC27766-F623-4200-9D64-115E9BFD4A08
const BAT: Guid =
    Guid([0x2d, 0xc2, 0x77, 0x66, 0xf6, 0x23, 0x42, 0x00, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08]);

/// 8B7CA206-4790-4B9A-B8FE-575F050F886E
const METADATA: Guid =
    Guid([0x8b, 0x7c, 0xa2, 0x06, 0x47, 0x90, 0x4b, 0x9a, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e]);

/// What a table starts with.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawTableHeader {
    /// 0x00 `regi`.
    signature: [u8; 4],
    /// 0x04 CRC-32C over 64 KiB, with this field zero.
    checksum: le::U32,
    /// 0x08 at most 2047.
    entry_count: le::U32,
    /// 0x0c 0.
    reserved: le::U32,
}
const _: () = assert!(size_of::<RawTableHeader>() == 16);

/// One region.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawEntry {
    /// 0x00 what it is.
    guid: [u8; 16],
    /// 0x10 a multiple of 1 MiB, at least 1 MiB.
    file_offset: le::U64,
    /// 0x18 a multiple of 1 MiB.
    length: le::U32,
    /// 0x1c bit 0: who does not know this region must not open the file.
    required: le::U32,
}
const _: () = assert!(size_of::<RawEntry>() == 32);

/// The regions of a file; a value of this type has both that are needed, each aligned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Regions {
    pub(super) bat: Range<u64>,
    pub(super) metadata: Range<u64>,
    /// Regions that are not known here and need not be.
    pub(super) others: Vec<(Guid, Range<u64>)>,
}

impl Regions {
    /// Judges the table of 64 KiB at byte `at`.
    fn decode(bytes: &[u8], at: u64) -> Result<Self> {
        let corrupt =
            |field, expected: &str, found: String| Corrupt::new(STRUCTURE, at, field, expected, found);
        let short = || corrupt("length", "64 KiB", bytes.len().to_string());
        let (raw, entries) = RawTableHeader::read_from_prefix(bytes).map_err(|_| short())?;
        if raw.signature != *b"regi" {
            return Err(corrupt("Signature", "`regi`", format!("{:02x?}", raw.signature)).into());
        }
        let computed = checksum(bytes);
        if computed != raw.checksum.get() {
            return Err(Corrupt::checksum(STRUCTURE, at, computed, raw.checksum.get()).into());
        }
        if raw.entry_count.get() > MAX_ENTRIES {
            return Err(corrupt("EntryCount", "at most 2047", raw.entry_count.to_string()).into());
        }
        let count = usize::try_from(raw.entry_count.get()).unwrap_or(usize::MAX);
        let (mut bat, mut metadata, mut others) = (None, None, Vec::new());
        for entry in entries.as_chunks::<32>().0.iter().take(count) {
            let entry: RawEntry = zerocopy::transmute!(*entry);
            let guid = Guid::from_mixed_endian(entry.guid);
            let range = place(&entry, at)?;
            let known = match guid {
                BAT => &mut bat,
                METADATA => &mut metadata,
                _ if entry.required.get() & 1 != 0 => {
                    return Err(Error::unsupported(STRUCTURE, format!("the required region {guid}")));
                }
                _ => {
                    others.push((guid, range));
                    continue;
                }
            };
            if known.replace(range).is_some() {
                return Err(corrupt("Guid", "each only once", format!("{guid} twice")).into());
            }
        }
        let missing =
            |guid: Guid| corrupt("Guid", "an entry of each known region", format!("none of {guid}"));
        Ok(Self {
            bat: bat.ok_or_else(|| missing(BAT))?,
            metadata: metadata.ok_or_else(|| missing(METADATA))?,
            others,
        })
    }

    /// The 64 KiB that name these regions, all others left out.
    pub(super) fn encode(bat: &Range<u64>, metadata: &Range<u64>) -> Vec<u8> {
        let entry = |guid, range: &Range<u64>| RawEntry {
            guid: stored(guid),
            file_offset: range.start.into(),
            length: u32::try_from(range.end.saturating_sub(range.start)).unwrap_or(u32::MAX).into(),
            required: 1.into(),
        };
        let header = RawTableHeader {
            signature: *b"regi",
            checksum: 0.into(),
            entry_count: 2.into(),
            reserved: 0.into(),
        };
        let parts =
            [header.as_bytes(), entry(BAT, bat).as_bytes(), entry(METADATA, metadata).as_bytes()].concat();
        let mut bytes = vec![0; SIZE];
        bytes.iter_mut().zip(parts).for_each(|(to, from)| *to = from);
        let sum = checksum(&bytes).to_le_bytes();
        bytes.iter_mut().skip(4).zip(sum).for_each(|(to, from)| *to = from);
        bytes
    }
}

/// The bytes of the file that an entry names.
fn place(entry: &RawEntry, at: u64) -> std::result::Result<Range<u64>, Corrupt> {
    let start = entry.file_offset.get();
    let length = u64::from(entry.length.get());
    let refused = |field, expected, found| {
        let found = format_args!("{found:#x} of region {}", Guid::from_mixed_endian(entry.guid)).to_string();
        Corrupt::new(STRUCTURE, at, field, expected, found)
    };
    if !start.is_multiple_of(MIB) || start < HEADER_SECTION {
        return Err(refused("FileOffset", "a multiple of 1 MiB, at least 1 MiB", start));
    }
    if !length.is_multiple_of(MIB) || length == 0 {
        return Err(refused("Length", "a multiple of 1 MiB", length));
    }
    let end = start.checked_add(length);
    Ok(start..end.ok_or_else(|| refused("FileOffset", "a region that ends below 2^64", start))?)
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut bytes = bytes.to_vec();
    if let Some(field) = bytes.get_mut(4..8) {
        field.fill(0);
    }
    crc32c(&bytes)
}

/// Both copies, each with its verdict.
#[derive(Debug)]
pub(super) struct RegionTables {
    pub(super) copies: [Result<Regions>; 2],
    /// As stored; empty where the file is too short.
    pub(super) bytes: [Vec<u8>; 2],
}

impl RegionTables {
    /// Reads both copies. A copy that the file is too short for is damaged, and no error of the host.
    pub(super) fn read(device: &dyn BlockDevice) -> Result<Self> {
        let bytes = |offset: u64| {
            let mut bytes = vec![0; SIZE];
            let length = length_of(&bytes);
            if device.size().saturating_sub(offset) < length {
                return Ok(Vec::new());
            }
            let failed = |source| Error::Io { offset, length, source };
            device.read_exact_at(&mut bytes, offset).map(|()| bytes).map_err(failed)
        };
        let [first, second] = OFFSETS;
        let bytes = [bytes(first)?, bytes(second)?];
        let [one, two] = &bytes;
        Ok(Self { copies: [Regions::decode(one, first), Regions::decode(two, second)], bytes })
    }

    /// The number of the copy that counts, and its content: the first valid one, as for QEMU.
    ///
    /// # Errors
    /// Damage when there is none, which names what is wrong with each; an unknown region that is required.
    pub(super) fn current(&self) -> Result<(usize, &Regions)> {
        match &self.copies {
            [Ok(first), _] => Ok((0, first)),
            [Err(Error::Unsupported { structure, feature }), _]
            | [Err(_), Err(Error::Unsupported { structure, feature })] => {
                Err(Error::unsupported(structure, feature))
            }
            [Err(_), Ok(second)] => Ok((1, second)),
            [Err(first), Err(second)] => {
                let [at, _] = OFFSETS;
                let found = format_args!("{first}; {second}").to_string();
                Err(Corrupt::new(STRUCTURE, at, "copies", "one that is valid", found).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use blockdev::MemoryDevice;

    use super::*;

    fn table() -> Vec<u8> {
        Regions::encode(&(3 * MIB..4 * MIB), &(2 * MIB..3 * MIB))
    }

    /// A table with `change` made and the checksum right again.
    fn changed(change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = table();
        change(&mut bytes);
        let sum = checksum(&bytes).to_le_bytes();
        bytes[4..8].copy_from_slice(&sum);
        bytes
    }

    fn verdict(bytes: &[u8]) -> String {
        match Regions::decode(bytes, 0) {
            Ok(regions) => format!("{} others", regions.others.len()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn encoding_and_decoding_agree() {
        let regions = Regions::decode(&table(), 0).unwrap();
        assert_eq!((regions.bat, regions.metadata), (3 * MIB..4 * MIB, 2 * MIB..3 * MIB));
    }

    #[test]
    fn each_field_is_judged() {
        let mut torn = table();
        torn[60_000] = 1;
        assert!(verdict(&torn).contains("checksum"));
        let mut other = table();
        other[0] = b'R';
        assert!(verdict(&other).contains("Signature"));
        for (at, byte, expected) in [
            (9, 8, "EntryCount is 2050"),
            (32, 1, "FileOffset is 0x300001"),
            (34, 0, "FileOffset is 0x0"),
            (40, 1, "Length is 0x100001"),
            (42, 0, "Length is 0x0"),
            (8, 1, "none of 8b7ca206"),
            (16, 0, "the required region 2dc27700-f623-4200-9d64-115e9bfd4a08 is not supported"),
        ] {
            let said = verdict(&changed(|bytes| bytes[at] = byte));
            assert!(said.contains(expected), "{said}");
        }
        let said = verdict(&changed(|bytes| bytes.copy_within(16..32, 48)));
        assert!(said.contains("2dc27766-f623-4200-9d64-115e9bfd4a08 twice"), "{said}");
        let said = verdict(&changed(|bytes| bytes[32..40].fill(0xff)));
        assert!(said.contains("FileOffset"), "{said}");
        let said =
            verdict(&changed(|bytes| bytes[32..40].copy_from_slice(&(u64::MAX - MIB + 1).to_le_bytes())));
        assert!(said.contains("below 2^64"), "{said}");
        let unknown = changed(|bytes| {
            bytes[8] = 3;
            bytes.copy_within(48..80, 80);
            bytes[80] = 9;
            bytes[108] = 0;
        });
        assert_eq!(verdict(&unknown), "1 others");
    }

    #[test]
    fn the_first_valid_copy_counts() {
        let current = |copies: [&[u8]; 2]| {
            let mut bytes = vec![0; 320 << 10];
            for (at, copy) in OFFSETS.iter().zip(copies) {
                bytes[*at as usize..][..SIZE].copy_from_slice(copy);
            }
            let tables = RegionTables::read(&MemoryDevice::new(bytes)).unwrap();
            tables.current().map(|(number, _)| number).map_err(|error| error.to_string())
        };
        let (good, zeros) = (table(), vec![0; SIZE]);
        let strange = changed(|bytes| bytes[16] = 0);
        assert_eq!(current([&good, &zeros]), Ok(0));
        assert_eq!(current([&zeros, &good]), Ok(1));
        assert!(current([&zeros, &zeros]).unwrap_err().contains("at byte 262144"));
        assert!(current([&strange, &good]).unwrap_err().contains("required region"));
        assert_eq!(current([&good, &strange]), Ok(0));
        let tables = RegionTables::read(&MemoryDevice::new(vec![0; 1000])).unwrap();
        assert!(tables.current().is_err());
    }
}
