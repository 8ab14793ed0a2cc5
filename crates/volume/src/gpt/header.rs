//! The header: where the entry array is, and how to trust both.
//!
//! UEFI 2.10 §5.3.2. One sector; the bytes behind the defined fields are kept as they are.

use ondisk::{Corrupt, Guid, crc32, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The largest entry array that is read, in bytes: what Linux' `kmalloc` gives. Tools write 16 KiB.
pub const MAX_ARRAY: u64 = 4 << 20;

/// The header as stored.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawHeader {
    /// 0x00 "EFI PART".
    pub signature: [u8; 8],
    /// 0x08 0x00010000.
    pub revision: le::U32,
    /// 0x0c bytes covered by the checksum, 92..=sector size.
    pub header_size: le::U32,
    /// 0x10 CRC-32 over `header_size` bytes with this field zero.
    pub header_crc32: le::U32,
    /// 0x14 zero.
    pub reserved: le::U32,
    /// 0x18 the sector of this copy.
    pub my_lba: le::U64,
    /// 0x20 the sector of the other copy.
    pub alternate_lba: le::U64,
    /// 0x28 first sector that a partition may use.
    pub first_usable_lba: le::U64,
    /// 0x30 last sector that a partition may use.
    pub last_usable_lba: le::U64,
    /// 0x38 disk GUID.
    pub disk_guid: [u8; 16],
    /// 0x48 first sector of this copy's entry array.
    pub partition_entry_lba: le::U64,
    /// 0x50 entries in the array.
    pub number_of_partition_entries: le::U32,
    /// 0x54 bytes per entry: 128·2ⁿ.
    pub size_of_partition_entry: le::U32,
    /// 0x58 CRC-32 of the array.
    pub partition_entry_array_crc32: le::U32,
}
const _: () = assert!(size_of::<RawHeader>() == 92);

/// A header whose checksum is right, that says its own place, and whose array has a size that can be read.
///
/// The usable range and the other copy's place are as stored: they depend on the disk, and every reader judges
/// them differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// 0x00010000 for every known tool.
    pub revision: u32,
    /// Bytes covered by the checksum, 92..=sector size.
    pub header_size: u32,
    /// Zero.
    pub reserved: u32,
    /// The sector of this copy.
    pub my_lba: u64,
    /// The sector of the other copy.
    pub alternate_lba: u64,
    /// First sector that a partition may use.
    pub first_usable_lba: u64,
    /// Last sector that a partition may use.
    pub last_usable_lba: u64,
    /// Disk GUID.
    pub disk_guid: Guid,
    /// First sector of this copy's entry array.
    pub partition_entry_lba: u64,
    /// Entries in the array, at least 1.
    pub number_of_entries: u32,
    /// Bytes per entry, 128·2ⁿ.
    pub entry_size: u32,
    /// CRC-32 of the array.
    pub array_crc32: u32,
    /// What follows the 92 bytes, to the end of the sector; zero for every known tool.
    pub tail: Vec<u8>,
}

impl Header {
    /// Judges the bytes of one `sector`, the one with the number `lba`; `name` is the structure in messages.
    ///
    /// # Errors
    /// The first field that is wrong: signature, size, checksum, place, or an array that cannot be read.
    pub fn decode(sector: &[u8], lba: u64, name: &'static str) -> Result<Self, Corrupt> {
        let sector_size = u64::try_from(sector.len()).unwrap_or(u64::MAX);
        let at = lba.saturating_mul(sector_size);
        let wrong = |field, expected: String, found: String| Corrupt::new(name, at, field, expected, found);
        let Ok((raw, tail)) = RawHeader::read_from_prefix(sector) else {
            return Err(wrong("sector", "at least 92 bytes".into(), sector_size.to_string()));
        };
        if &raw.signature != b"EFI PART" {
            let found = match raw.signature {
                [0, 0, 0, 0, 0, 0, 0, 0] => "zeros".into(),
                other => format!("\"{}\"", other.escape_ascii()),
            };
            return Err(wrong("signature", "\"EFI PART\"".into(), found));
        }
        let size = usize::try_from(raw.header_size.get()).unwrap_or(usize::MAX);
        let Some(covered) = sector.get(..size).filter(|_| size >= size_of::<RawHeader>()) else {
            return Err(wrong("header_size", format!("92..={sector_size}"), size.to_string()));
        };
        let (computed, stored) = (header_crc(covered), raw.header_crc32.get());
        if computed != stored {
            return Err(Corrupt::checksum(name, at, computed, stored));
        }
        if raw.my_lba.get() != lba {
            return Err(wrong("my_lba", lba.to_string(), raw.my_lba.to_string()));
        }
        let entry_size = raw.size_of_partition_entry.get();
        if entry_size < 128 || !entry_size.is_power_of_two() {
            return Err(wrong("size_of_partition_entry", "128·2ⁿ".into(), entry_size.to_string()));
        }
        let header = Self {
            revision: raw.revision.get(),
            header_size: raw.header_size.get(),
            reserved: raw.reserved.get(),
            my_lba: lba,
            alternate_lba: raw.alternate_lba.get(),
            first_usable_lba: raw.first_usable_lba.get(),
            last_usable_lba: raw.last_usable_lba.get(),
            disk_guid: Guid::from_mixed_endian(raw.disk_guid),
            partition_entry_lba: raw.partition_entry_lba.get(),
            number_of_entries: raw.number_of_partition_entries.get(),
            entry_size,
            array_crc32: raw.partition_entry_array_crc32.get(),
            tail: tail.to_vec(),
        };
        let length = header.array_length();
        if length == 0 || length > MAX_ARRAY {
            let expected = format!("an array of 1..={MAX_ARRAY} bytes");
            return Err(wrong("number_of_partition_entries", expected, format!("{length} bytes")));
        }
        Ok(header)
    }

    /// The sector, with a fresh checksum; `decode(encode(h)) == h`.
    pub fn encode(&self) -> Vec<u8> {
        let mut raw = RawHeader {
            signature: *b"EFI PART",
            revision: self.revision.into(),
            header_size: self.header_size.into(),
            header_crc32: 0.into(),
            reserved: self.reserved.into(),
            my_lba: self.my_lba.into(),
            alternate_lba: self.alternate_lba.into(),
            first_usable_lba: self.first_usable_lba.into(),
            last_usable_lba: self.last_usable_lba.into(),
            // The conversion is its own inverse.
            disk_guid: Guid::from_mixed_endian(self.disk_guid.0).0,
            partition_entry_lba: self.partition_entry_lba.into(),
            number_of_partition_entries: self.number_of_entries.into(),
            size_of_partition_entry: self.entry_size.into(),
            partition_entry_array_crc32: self.array_crc32.into(),
        };
        let mut sector = [raw.as_bytes(), &self.tail].concat();
        let size = usize::try_from(self.header_size).unwrap_or(usize::MAX).min(sector.len());
        raw.header_crc32 = header_crc(sector.get(..size).unwrap_or_default()).into();
        if let Some(start) = sector.get_mut(..size_of::<RawHeader>()) {
            start.copy_from_slice(raw.as_bytes());
        }
        sector
    }

    /// The array's length in bytes.
    pub fn array_length(&self) -> u64 {
        u64::from(self.number_of_entries).saturating_mul(u64::from(self.entry_size))
    }

    /// The sectors that the array takes, the last one perhaps in part.
    pub fn array_sectors(&self, sector_size: u64) -> u64 {
        self.array_length().checked_div(sector_size).unwrap_or(0).saturating_add(u64::from(
            self.array_length().checked_rem(sector_size).is_some_and(|rest| rest != 0),
        ))
    }
}

/// The checksum over `covered`, the header's own field read as zero.
fn header_crc(covered: &[u8]) -> u32 {
    let mut bytes = covered.to_vec();
    if let Some(field) = bytes.get_mut(0x10..0x14) {
        field.fill(0);
    }
    crc32(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The primary header of a 64 MiB disk, written by sgdisk 1.0.9 (128 entries, three partitions).
    const SGDISK: &str = include_str!("header.hex");

    fn sector() -> Vec<u8> {
        let digits: Vec<u8> = SGDISK.bytes().filter(u8::is_ascii_hexdigit).collect();
        let mut bytes: Vec<u8> = digits
            .chunks_exact(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        bytes.resize(512, 0);
        bytes
    }

    #[test]
    fn decode_and_encode_are_inverse() {
        let header = Header::decode(&sector(), 1, "GPT primary header").unwrap();
        assert_eq!((header.alternate_lba, header.first_usable_lba), (131_071, 34));
        assert_eq!((header.number_of_entries, header.entry_size), (128, 128));
        assert_eq!(
            (header.array_length(), header.array_sectors(512), header.array_sectors(4096)),
            (16384, 32, 4)
        );
        assert_eq!(header.encode(), sector());
        assert_eq!(Header::decode(&header.encode(), 1, "").unwrap(), header);
    }

    #[test]
    fn one_field_changed_at_a_time() {
        let check = |at: usize, bytes: &[u8], fix: bool, field: &str| {
            let mut sector = sector();
            sector[at..at + bytes.len()].copy_from_slice(bytes);
            if fix {
                let crc = header_crc(&sector[..92]);
                sector[0x10..0x14].copy_from_slice(&crc.to_le_bytes());
            }
            assert_eq!(Header::decode(&sector, 1, "GPT primary header").unwrap_err().field, field);
        };
        check(0, b"X", true, "signature");
        check(0xc, &[91, 0, 0, 0], true, "header_size");
        check(0xc, &[1, 2, 0, 0], true, "header_size");
        check(0xc, &[0xff; 4], true, "header_size");
        check(0x38, &[1], false, "checksum");
        check(0x10, &[0; 4], false, "checksum");
        check(0x18, &[2], true, "my_lba");
        check(0x54, &[0; 4], true, "size_of_partition_entry");
        check(0x54, &[0x80, 1, 0, 0], true, "size_of_partition_entry");
        check(0x50, &[0; 4], true, "number_of_partition_entries");
        check(0x50, &[0xff; 4], true, "number_of_partition_entries");
    }
}
