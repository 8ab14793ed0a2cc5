//! qcow2 snapshot table: earlier states of the disk inside the same file.
//!
//! QEMU docs/interop/qcow2, "Snapshots". Big-endian; entries of variable length, each padded to 8 bytes.

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, Parsed, Result, be, read_bytes, read_value};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Header;
use super::geometry::ClusterBits;

const STRUCTURE: &str = "qcow2 snapshot table entry";

/// QEMU's bound on the extra data of one entry, in bytes.
const MAX_EXTRA: u32 = 1024;

/// QEMU's bound on the bytes of the whole table.
const MAX_TABLE: u64 = 64 << 20;

/// The fixed part of an entry.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawSnapshot {
    /// 0x00 cluster-aligned.
    pub l1_table_offset: be::U64,
    /// 0x08 entries in that table.
    pub l1_size: be::U32,
    /// 0x0c bytes in the identifier.
    pub id_str_size: be::U16,
    /// 0x0e bytes in the name.
    pub name_size: be::U16,
    /// 0x10 seconds since the Epoch.
    pub date_sec: be::U32,
    /// 0x14 nanoseconds within that second.
    pub date_nsec: be::U32,
    /// 0x18 time the guest had run, in nanoseconds.
    pub vm_clock_nsec: be::U64,
    /// 0x20 bytes of machine state; superseded by the extra data.
    pub vm_state_size: be::U32,
    /// 0x24 bytes of extra data between this part and the identifier.
    pub extra_data_size: be::U32,
}
const _: () = assert!(size_of::<RawSnapshot>() == 40);

/// One snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) l1_offset: u64,
    pub(crate) l1_entries: u32,
    /// Bytes; `None` when the entry does not say, and the disk had the length it has now.
    pub(crate) virtual_size: Option<u64>,
    pub(crate) vm_state_size: u64,
    pub(crate) taken: u64,
    pub(crate) id: String,
    pub(crate) name: String,
}

/// All snapshots of an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Table {
    pub(crate) entries: Vec<Entry>,
    /// Bytes from the first entry to the end of the last.
    pub(crate) length: u64,
}

/// The table that `header` announces, up to the first broken entry.
pub(crate) fn read_table(device: &dyn BlockDevice, header: &Header) -> Parsed<Table> {
    let mut entries = Vec::new();
    let mut problems = Vec::new();
    let mut at = header.snapshots_offset;
    let end = at.saturating_add(MAX_TABLE);
    for _ in 0..header.snapshots {
        match read_entry(device, at, header.cluster_bits) {
            Ok((entry, next)) if next <= end => {
                entries.push(entry);
                at = next;
            }
            Ok(_) => {
                problems.push(Error::unsupported("qcow2 snapshot table", "a length above 64 MiB"));
                break;
            }
            Err(problem) => {
                problems.push(problem);
                break;
            }
        }
    }
    let length = at.saturating_sub(header.snapshots_offset);
    Parsed { value: Table { entries, length }, problems }
}

/// The entry at byte `at`, and where the next one starts.
fn read_entry(device: &dyn BlockDevice, at: u64, cluster_bits: ClusterBits) -> Result<(Entry, u64)> {
    let raw: RawSnapshot = read_value(device, at)?;
    let l1_offset = raw.l1_table_offset.get();
    if !cluster_bits.is_aligned(l1_offset) {
        let expected = format!("a multiple of {}", cluster_bits.size());
        return Err(Corrupt::new(STRUCTURE, at, "l1_table_offset", expected, l1_offset).into());
    }
    let extra_size = raw.extra_data_size.get();
    if extra_size > MAX_EXTRA {
        let expected = format!("at most {MAX_EXTRA}");
        return Err(Corrupt::new(STRUCTURE, at, "extra_data_size", expected, extra_size).into());
    }
    let mut position = at.saturating_add(40);
    let mut next = |length: u64| {
        let bytes = read_bytes(device, position, usize::try_from(length).unwrap_or(usize::MAX));
        position = position.saturating_add(length);
        bytes
    };
    let extra = next(u64::from(extra_size))?;
    let id = next(u64::from(raw.id_str_size.get()))?;
    let name = next(u64::from(raw.name_size.get()))?;
    let field = |index| extra.as_chunks::<8>().0.get(index).map(|bytes: &[u8; 8]| u64::from_be_bytes(*bytes));
    let entry = Entry {
        l1_offset,
        l1_entries: raw.l1_size.get(),
        virtual_size: field(1),
        vm_state_size: field(0).unwrap_or_else(|| u64::from(raw.vm_state_size.get())),
        taken: u64::from(raw.date_sec.get()),
        id: String::from_utf8_lossy(&id).into_owned(),
        name: String::from_utf8_lossy(&name).into_owned(),
    };
    Ok((entry, position.next_multiple_of(8)))
}

#[cfg(test)]
mod tests {
    use blockdev::MemoryDevice;

    use super::*;

    /// An entry as QEMU 10 writes it: 24 bytes of extra data, identifier `1`, name `first`.
    fn entry() -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&0x5_0000_u64.to_be_bytes());
        bytes.extend_from_slice(&[0, 0, 0, 1, 0, 1, 0, 5]);
        bytes.extend_from_slice(&[0x67, 0x43, 0, 0, 0, 0, 0, 9]);
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 24]);
        bytes.extend_from_slice(&7_u64.to_be_bytes());
        bytes.extend_from_slice(&(1_u64 << 20).to_be_bytes());
        bytes.extend_from_slice(&[0xff; 8]);
        bytes.extend_from_slice(b"1first\0\0");
        bytes
    }

    fn read(bytes: &[u8]) -> std::result::Result<(Entry, u64), String> {
        let device = MemoryDevice::new(bytes);
        read_entry(&device, 0, ClusterBits::new(16).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_good_entry() {
        let expected = Entry {
            l1_offset: 0x5_0000,
            l1_entries: 1,
            virtual_size: Some(1 << 20),
            vm_state_size: 7,
            taken: 0x6743_0000,
            id: "1".to_owned(),
            name: "first".to_owned(),
        };
        assert_eq!(read(&entry()), Ok((expected, 72)));
    }

    #[test]
    fn one_wrong_field_each() {
        let with = |at: usize, byte: u8| {
            let mut bytes = entry();
            bytes[at] = byte;
            read(&bytes).unwrap_err()
        };
        assert_eq!(
            with(6, 2),
            "qcow2 snapshot table entry at byte 0: l1_table_offset is 328192, expected a multiple of 65536"
        );
        assert!(with(38, 9).contains("extra_data_size"));
        assert!(with(14, 1).starts_with("cannot read"));
    }

    #[test]
    fn without_extra_data_the_short_field_counts() {
        let mut bytes = entry();
        bytes[39] = 0;
        bytes[35] = 5;
        bytes.drain(40..64);
        let (entry, next) = read(&bytes).unwrap();
        assert_eq!((entry.virtual_size, entry.vm_state_size, next), (None, 5, 48));
    }
}
