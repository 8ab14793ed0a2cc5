//! The entry array: one entry of 128·2ⁿ bytes per partition.
//!
//! UEFI 2.10 §5.3.3.

use ondisk::{Guid, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// One entry as stored; longer entries continue with reserved bytes.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawEntry {
    /// 0x00 type GUID; all zeros is unused.
    pub partition_type_guid: [u8; 16],
    /// 0x10 the partition's own GUID.
    pub unique_partition_guid: [u8; 16],
    /// 0x20 first sector.
    pub starting_lba: le::U64,
    /// 0x28 last sector, inclusive.
    pub ending_lba: le::U64,
    /// 0x30 bit 0 required by the platform, bit 1 no block I/O by firmware, bit 2 legacy BIOS bootable.
    pub attributes: le::U64,
    /// 0x38 name in UTF-16LE, NUL-padded.
    pub partition_name: [le::U16; 36],
}
const _: () = assert!(size_of::<RawEntry>() == 128);

impl RawEntry {
    /// Whether it describes a partition.
    pub fn is_used(&self) -> bool {
        self.partition_type_guid != [0; 16]
    }
}

/// An entry in use. Its range is as stored: it may be empty or lie anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// From 1, the place in the array.
    pub number: u32,
    /// What it holds.
    pub type_guid: Guid,
    /// PARTUUID.
    pub unique_guid: Guid,
    /// First sector.
    pub first_lba: u64,
    /// Last sector, inclusive.
    pub last_lba: u64,
    /// Bit 0 required by the platform, bit 1 no block I/O by firmware, bit 2 legacy BIOS bootable.
    pub attributes: u64,
    /// The name; what is not UTF-16 is replaced.
    pub name: String,
}

impl Entry {
    /// Length in sectors; 0 where the end lies before the start.
    pub fn sectors(&self) -> u64 {
        self.last_lba.checked_sub(self.first_lba).map_or(0, |count| count.saturating_add(1))
    }
}

/// An array whose checksum is right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryArray {
    /// As stored, unused entries and reserved bytes included.
    pub bytes: Vec<u8>,
    /// The entries in use, by number.
    pub entries: Vec<Entry>,
}

impl EntryArray {
    /// Takes `bytes` apart in steps of `entry_size`, which is at least 128.
    pub fn decode(bytes: Vec<u8>, entry_size: u32) -> Self {
        let step = usize::try_from(entry_size).unwrap_or(usize::MAX).max(size_of::<RawEntry>());
        let entries = (1_u32..)
            .zip(bytes.chunks_exact(step))
            .filter_map(|(number, bytes)| {
                let (raw, _) = RawEntry::read_from_prefix(bytes).ok()?;
                raw.is_used().then(|| Entry {
                    number,
                    type_guid: Guid::from_mixed_endian(raw.partition_type_guid),
                    unique_guid: Guid::from_mixed_endian(raw.unique_partition_guid),
                    first_lba: raw.starting_lba.get(),
                    last_lba: raw.ending_lba.get(),
                    attributes: raw.attributes.get(),
                    name: name(&raw.partition_name),
                })
            })
            .collect();
        Self { bytes, entries }
    }
}

fn name(units: &[le::U16]) -> String {
    let units: Vec<u16> = units.iter().map(|unit| unit.get()).take_while(|unit| *unit != 0).collect();
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_256_bytes() {
        let mut bytes = vec![0; 1024];
        bytes[512] = 1;
        bytes[512 + 0x20] = 40;
        bytes[512 + 0x28] = 47;
        bytes[512 + 0x38..512 + 0x3c].copy_from_slice(&[b'a', 0, 0xfc, 0]);
        let array = EntryArray::decode(bytes, 256);
        let [entry] = array.entries.as_slice() else { panic!("{array:?}") };
        assert_eq!((entry.number, entry.sectors(), entry.name.as_str()), (3, 8, "aü"));
    }

    #[test]
    fn an_end_before_the_start_is_no_sector() {
        let entry =
            Entry { first_lba: 9, last_lba: 8, ..EntryArray::decode(vec![1; 128], 128).entries[0].clone() };
        assert_eq!(entry.sectors(), 0);
        let all = Entry { first_lba: 0, last_lba: u64::MAX, ..entry };
        assert_eq!(all.sectors(), u64::MAX);
    }
}
