//! VHDX metadata: a table of items that say what the disk is.
//!
//! MS-VHDX §2.6. Little-endian. The table fills the first 64 KiB of its region; the offsets of items count
//! from the start of the region.

use std::ops::Range;

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, Guid, Parsed, Result, le, read_bytes, read_value};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::geometry::{Geometry, MIB, length_of};
use super::guid::stored;
use super::parent_locator::ParentLocator;
use crate::Patch;

/// Bytes that the table may fill.
const TABLE_SIZE: u64 = 64 << 10;

/// The specification's bound on the entries.
const MAX_ENTRIES: u16 = 2047;

pub(super) const STRUCTURE: &str = "VHDX metadata table";
const ITEM: &str = "VHDX metadata item";

/// What the table starts with.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawTableHeader {
    /// 0x00 `metadata`.
    signature: [u8; 8],
    /// 0x08 0.
    reserved: le::U16,
    /// 0x0a at most 2047.
    entry_count: le::U16,
    /// 0x0c 0.
    reserved2: [u8; 20],
}
const _: () = assert!(size_of::<RawTableHeader>() == 32);

/// One item.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawEntry {
    /// 0x00 what it is.
    item_id: [u8; 16],
    /// 0x10 at least 64 KiB; 0 for an empty item.
    offset: le::U32,
    /// 0x14 bytes, at most 1 MiB.
    length: le::U32,
    /// 0x18 bit 0 of the user, bit 1 of the virtual disk, bit 2 must be understood.
    flags: le::U32,
    /// 0x1c 0.
    reserved2: le::U32,
}
const _: () = assert!(size_of::<RawEntry>() == 32);

const IS_USER: u32 = 1;
const IS_VIRTUAL_DISK: u32 = 2;
const IS_REQUIRED: u32 = 4;

/// Flags of the item with the file parameters.
const LEAVE_BLOCK_ALLOCATED: u32 = 1;
const HAS_PARENT: u32 = 2;

/// The items that the specification knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    FileParameters,
    VirtualDiskSize,
    VirtualDiskId,
    LogicalSectorSize,
    PhysicalSectorSize,
    ParentLocator,
}

impl Known {
    const ALL: [Self; 6] = [
        Self::FileParameters,
        Self::VirtualDiskSize,
        Self::VirtualDiskId,
        Self::LogicalSectorSize,
        Self::PhysicalSectorSize,
        Self::ParentLocator,
    ];

    fn guid(self) -> Guid {
        Guid(match self {
            // CAA16737-FA36-4D43-B3B6-33F0AA44E76B
            Self::FileParameters => [
                0xca, 0xa1, 0x67, 0x37, 0xfa, 0x36, 0x4d, 0x43, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7,
                0x6b,
            ],
            // 2FA54224-CD1B-4876-B211-5DBED83BF4B8
            Self::VirtualDiskSize => [
                0x2f, 0xa5, 0x42, 0x24, 0xcd, 0x1b, 0x48, 0x76, 0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4,
                0xb8,
            ],
            // BECA12AB-B2E6-4523-93EF-C309E000C746
            Self::VirtualDiskId => [
                0xbe, 0xca, 0x12, 0xab, 0xb2, 0xe6, 0x45, 0x23, 0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7,
                0x46,
            ],
            // 8141BF1D-A96F-4709-BA47-F233A8FAAB5F
            Self::LogicalSectorSize => [
                0x81, 0x41, 0xbf, 0x1d, 0xa9, 0x6f, 0x47, 0x09, 0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab,
                0x5f,
            ],
            // CDA348C7-445D-4471-9CC9-E9885251C556
            Self::PhysicalSectorSize => [
                0xcd, 0xa3, 0x48, 0xc7, 0x44, 0x5d, 0x44, 0x71, 0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5,
                0x56,
            ],
            // A8D35F2D-B30B-454D-ABF7-D3D84834AB0C
            Self::ParentLocator => [
                0xa8, 0xd3, 0x5f, 0x2d, 0xb3, 0x0b, 0x45, 0x4d, 0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab,
                0x0c,
            ],
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::FileParameters => "File Parameters",
            Self::VirtualDiskSize => "Virtual Disk Size",
            Self::VirtualDiskId => "Virtual Disk ID",
            Self::LogicalSectorSize => "Logical Sector Size",
            Self::PhysicalSectorSize => "Physical Sector Size",
            Self::ParentLocator => "Parent Locator",
        }
    }

    fn flags(self) -> u32 {
        match self {
            Self::FileParameters | Self::ParentLocator => IS_REQUIRED,
            _ => IS_REQUIRED | IS_VIRTUAL_DISK,
        }
    }
}

/// What the items say; a value of this type describes a disk that can exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) geometry: Geometry,
    /// All blocks are to stay in the file.
    pub(super) is_fixed: bool,
    /// Physical sector size in bytes; `None` where it is damaged, for nothing here depends on it.
    pub(super) physical_sector_size: Option<u32>,
    /// Present exactly if the geometry has a parent.
    pub(super) parent: Option<ParentLocator>,
}

impl Metadata {
    /// Reads and judges the items of the metadata region. Problems are those that do not prevent reading.
    pub(super) fn read(device: &dyn BlockDevice, region: &Range<u64>) -> Result<Parsed<Self>> {
        let mut problems = Vec::new();
        let table = Table::read(device, region, &mut problems)?;
        let [block_size, flags] = table.words(device, Known::FileParameters)?;
        let [low, high] = table.words(device, Known::VirtualDiskSize)?;
        let [sector_size] = table.words(device, Known::LogicalSectorSize)?;
        let size = u64::from(high) << 32 | u64::from(low);
        let has_parent = flags & HAS_PARENT != 0;
        let corrupt = |known: Known, expected: &str, found: u64| {
            Corrupt::new(ITEM, table.offset(known), known.name(), expected, found)
        };
        let geometry =
            Geometry::new(u64::from(block_size), sector_size, size, has_parent).ok_or_else(|| {
                if Geometry::new(u64::from(block_size), 512, 0, false).is_none() {
                    corrupt(
                        Known::FileParameters,
                        "a block size of 1 to 256 MiB, a power of two",
                        block_size.into(),
                    )
                } else if !matches!(sector_size, 512 | 4096) {
                    corrupt(Known::LogicalSectorSize, "512 or 4096", sector_size.into())
                } else {
                    corrupt(Known::VirtualDiskSize, "whole sectors, at most 64 TiB", size)
                }
            })?;
        if flags & !(LEAVE_BLOCK_ALLOCATED | HAS_PARENT) != 0 {
            problems.push(corrupt(Known::FileParameters, "reserved bits of zero", flags.into()).into());
        }
        let physical_sector_size = match table.words(device, Known::PhysicalSectorSize) {
            Ok([size @ (512 | 4096)]) => Some(size),
            Ok([size]) => {
                problems.push(corrupt(Known::PhysicalSectorSize, "512 or 4096", size.into()).into());
                None
            }
            Err(error) => {
                problems.push(error);
                None
            }
        };
        if let Err(error) = table.words::<4>(device, Known::VirtualDiskId) {
            problems.push(error);
        }
        let parent = match has_parent {
            true => Some(table.parent_locator(device)?),
            false => None,
        };
        if !has_parent && table.find(Known::ParentLocator).is_some() {
            let found = "one, though the file parameters say that there is no parent";
            problems.push(Corrupt::new(ITEM, region.start, "Parent Locator", "none", found).into());
        }
        let is_fixed = flags & LEAVE_BLOCK_ALLOCATED != 0 && !has_parent;
        Ok(Parsed { value: Self { geometry, is_fixed, physical_sector_size, parent }, problems })
    }
}

/// The entries of the table, each with an item that lies in the region.
#[derive(Debug)]
struct Table {
    region: Range<u64>,
    entries: Vec<RawEntry>,
}

impl Table {
    fn read(device: &dyn BlockDevice, region: &Range<u64>, problems: &mut Vec<Error>) -> Result<Self> {
        let corrupt = |field, expected: &str, found: String| {
            Corrupt::new(STRUCTURE, region.start, field, expected, found)
        };
        let available = device.size().saturating_sub(region.start).min(TABLE_SIZE);
        if available < TABLE_SIZE {
            return Err(corrupt("length", "64 KiB in the file", available.to_string()).into());
        }
        let raw: RawTableHeader = read_value(device, region.start)?;
        if raw.signature != *b"metadata" {
            return Err(corrupt("Signature", "`metadata`", format!("{:02x?}", raw.signature)).into());
        }
        if raw.entry_count.get() > MAX_ENTRIES {
            return Err(corrupt("EntryCount", "at most 2047", raw.entry_count.to_string()).into());
        }
        // At most 2047, and so within the 64 KiB.
        let length = usize::from(raw.entry_count.get()).saturating_mul(size_of::<RawEntry>());
        let bytes = read_bytes(device, region.start.saturating_add(32), length)?;
        let mut entries: Vec<RawEntry> = Vec::new();
        for entry in bytes.as_chunks::<32>().0 {
            let entry: RawEntry = zerocopy::transmute!(*entry);
            let guid = Guid::from_mixed_endian(entry.item_id);
            let is_user = entry.flags.get() & IS_USER != 0;
            let is_known = !is_user && Known::ALL.iter().any(|known| known.guid() == guid);
            if entry.flags.get() & IS_REQUIRED != 0 && !is_known {
                return Err(Error::unsupported(STRUCTURE, format!("the required item {guid}")));
            }
            let is_twice = |other: &RawEntry| {
                other.item_id == entry.item_id && (other.flags.get() & IS_USER != 0) == is_user
            };
            let verdict = match entries.iter().any(is_twice) {
                true => Err(corrupt("ItemId", "each only once", format!("{guid} twice"))),
                false => check_place(&entry, region),
            };
            match verdict {
                Ok(()) => entries.push(entry),
                Err(corrupt) if is_known => return Err(corrupt.into()),
                Err(corrupt) => problems.push(corrupt.into()),
            }
        }
        let table = Self { region: region.clone(), entries };
        problems.extend(table.overlap().map(Error::from));
        Ok(table)
    }

    /// The first two items that share bytes.
    fn overlap(&self) -> Option<Corrupt> {
        let mut places: Vec<(u32, u32, Guid)> = self
            .entries
            .iter()
            .filter(|entry| entry.length.get() > 0)
            .map(|entry| {
                let (start, guid) = (entry.offset.get(), Guid::from_mixed_endian(entry.item_id));
                (start, start.saturating_add(entry.length.get()), guid)
            })
            .collect();
        places.sort();
        places.array_windows().find_map(|[(_, end, first), (start, _, second)]| {
            (start < end).then(|| {
                let found = format_args!("{start:#x} of {second}, within {first}").to_string();
                Corrupt::new(STRUCTURE, self.region.start, "Offset", "items that do not overlap", found)
            })
        })
    }

    fn find(&self, known: Known) -> Option<&RawEntry> {
        let id = stored(known.guid());
        self.entries.iter().find(|entry| entry.item_id == id && entry.flags.get() & IS_USER == 0)
    }

    /// Where the item lies in the file; the start of the table where there is none.
    fn offset(&self, known: Known) -> u64 {
        let within = self.find(known).map_or(0, |entry| entry.offset.get());
        self.region.start.saturating_add(within.into())
    }

    /// The item, which must be at least `least` bytes long.
    fn item(&self, device: &dyn BlockDevice, known: Known, least: u64) -> Result<Vec<u8>> {
        let corrupt = |expected: String, found: String| {
            Corrupt::new(ITEM, self.offset(known), known.name(), expected, found)
        };
        let entry = self.find(known).ok_or_else(|| corrupt("an item".to_owned(), "none".to_owned()))?;
        let length = u64::from(entry.length.get());
        let offset = self.offset(known);
        let in_file = device.size().saturating_sub(offset).min(length);
        if in_file < least || in_file < length {
            let expected = format!("at least {least} bytes in the file");
            return Err(corrupt(expected, format!("{in_file} of {length}")).into());
        }
        read_bytes(device, offset, usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// The first 32-bit words of the item.
    fn words<const N: usize>(&self, device: &dyn BlockDevice, known: Known) -> Result<[u32; N]> {
        let mut words = [0; N];
        let bytes = self.item(device, known, length_of(&words).saturating_mul(4))?;
        for (word, stored) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*stored);
        }
        Ok(words)
    }

    fn parent_locator(&self, device: &dyn BlockDevice) -> Result<ParentLocator> {
        let bytes = self.item(device, Known::ParentLocator, 1)?;
        ParentLocator::decode(&bytes, self.offset(Known::ParentLocator))
    }
}

/// What to write, and where in the file, so that the metadata name the parent as `locator` does.
///
/// `None` when there is no locator yet, or no room for the new one behind all items.
///
/// # Errors
/// Damage of the table.
pub(super) fn renamed_parent(
    device: &dyn BlockDevice,
    region: &Range<u64>,
    locator: &ParentLocator,
) -> Result<Option<Vec<Patch>>> {
    let table = Table::read(device, region, &mut Vec::new())?;
    let id = stored(Known::ParentLocator.guid());
    let is_it = |entry: &RawEntry| entry.item_id == id && entry.flags.get() & IS_USER == 0;
    let count: RawTableHeader = read_value(device, region.start)?;
    let length = usize::from(count.entry_count.get()).saturating_mul(size_of::<RawEntry>());
    let first = region.start.saturating_add(32);
    let bytes = read_bytes(device, first, length)?;
    let entries = bytes.as_chunks::<32>().0.iter().zip(0_u64..);
    let found =
        entries.map(|(entry, number)| (zerocopy::transmute!(*entry), number)).find(|(entry, _)| is_it(entry));
    let Some((mut entry, number)): Option<(RawEntry, u64)> = found else { return Ok(None) };
    let item = locator.encode();
    let end = |entry: &RawEntry| entry.offset.get().saturating_add(entry.length.get());
    if item.len() > usize::try_from(entry.length.get()).unwrap_or(0) {
        // Behind all items there is room: the region has a MiB, and items a few KiB.
        let last = table.entries.iter().map(end).max().unwrap_or(0).next_multiple_of(8);
        let room = region.end.saturating_sub(region.start).saturating_sub(u64::from(last));
        if length_of(&item) > room {
            return Ok(None);
        }
        entry.offset = last.into();
    }
    entry.length = u32::try_from(item.len()).unwrap_or(u32::MAX).into();
    let at = region.start.saturating_add(u64::from(entry.offset.get()));
    let entry_at = first.saturating_add(number.saturating_mul(32));
    let patch = |offset, bytes| Patch { file: 0, offset, bytes };
    Ok(Some(vec![patch(at, item), patch(entry_at, entry.as_bytes().to_vec())]))
}

/// Whether the item of an entry lies where items may lie.
fn check_place(entry: &RawEntry, region: &Range<u64>) -> std::result::Result<(), Corrupt> {
    let (offset, length) = (u64::from(entry.offset.get()), u64::from(entry.length.get()));
    let refused = |field, expected: &str, found: u64| {
        let found = format_args!("{found:#x} of item {}", Guid::from_mixed_endian(entry.item_id)).to_string();
        Corrupt::new(STRUCTURE, region.start, field, expected, found)
    };
    if length > MIB {
        return Err(refused("Length", "at most 1 MiB", length));
    }
    let is_in_region =
        offset >= TABLE_SIZE && offset.saturating_add(length) <= region.end.saturating_sub(region.start);
    match (offset, length) {
        (0, 0) => Ok(()),
        _ if is_in_region => Ok(()),
        _ => Err(refused("Offset", "an item within the region, behind its first 64 KiB", offset)),
    }
}

/// The first bytes of a metadata region: the table, and the items from 64 KiB on.
pub(super) fn encode(
    geometry: Geometry,
    is_fixed: bool,
    physical_sector_size: u32,
    disk_id: Guid,
    parent: Option<&ParentLocator>,
) -> Vec<u8> {
    let flags =
        if is_fixed { LEAVE_BLOCK_ALLOCATED } else { 0 } | if parent.is_some() { HAS_PARENT } else { 0 };
    // At most 256 MiB and 4096.
    let small = |size: u64| u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes();
    let mut items: Vec<(Known, Vec<u8>)> = vec![
        (Known::FileParameters, [small(geometry.block_size()), flags.to_le_bytes()].concat()),
        (Known::VirtualDiskSize, geometry.size().to_le_bytes().to_vec()),
        (Known::VirtualDiskId, stored(disk_id).to_vec()),
        (Known::LogicalSectorSize, small(geometry.sector_size()).to_vec()),
        (Known::PhysicalSectorSize, physical_sector_size.to_le_bytes().to_vec()),
    ];
    items.extend(parent.map(|parent| (Known::ParentLocator, parent.encode())));
    let header = RawTableHeader {
        signature: *b"metadata",
        reserved: 0.into(),
        entry_count: u16::try_from(items.len()).unwrap_or(u16::MAX).into(),
        reserved2: [0; 20],
    };
    let mut table = header.as_bytes().to_vec();
    let mut contents: Vec<u8> = Vec::new();
    let table_size = usize::try_from(TABLE_SIZE).unwrap_or(0);
    for (known, content) in &items {
        let entry = RawEntry {
            item_id: stored(known.guid()),
            offset: u32::try_from(table_size.saturating_add(contents.len())).unwrap_or(u32::MAX).into(),
            length: u32::try_from(content.len()).unwrap_or(u32::MAX).into(),
            flags: known.flags().into(),
            reserved2: 0.into(),
        };
        table.extend_from_slice(entry.as_bytes());
        contents.extend_from_slice(content);
    }
    table.resize(table_size, 0);
    table.extend_from_slice(&contents);
    table
}

#[cfg(test)]
mod tests {
    use blockdev::MemoryDevice;

    use super::*;

    fn region() -> Vec<u8> {
        let geometry = Geometry::new(2 * MIB, 512, 10 << 20, false).unwrap();
        let mut bytes = encode(geometry, true, 4096, Guid([7; 16]), None);
        bytes.resize(1 << 20, 0);
        bytes
    }

    /// What is said after these bytes were changed.
    fn verdict(changes: &[(usize, &[u8])]) -> String {
        let mut bytes = region();
        for (at, change) in changes {
            bytes[*at..at + change.len()].copy_from_slice(change);
        }
        match Metadata::read(&MemoryDevice::new(bytes), &(0..MIB)) {
            Ok(parsed) => parsed.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn encoding_and_decoding_agree() {
        let parent = ParentLocator { linkage: Some("{x}".to_owned()), ..ParentLocator::default() };
        for parent in [None, Some(parent)] {
            let geometry = Geometry::new(2 * MIB, 4096, 10 << 20, parent.is_some()).unwrap();
            let mut bytes = encode(geometry, true, 4096, Guid([7; 16]), parent.as_ref());
            bytes.resize(1 << 20, 0);
            let parsed = Metadata::read(&MemoryDevice::new(bytes), &(0..MIB)).unwrap();
            assert!(parsed.problems.is_empty(), "{:?}", parsed.problems);
            let is_fixed = parent.is_none();
            let expected = Metadata { geometry, is_fixed, physical_sector_size: Some(4096), parent };
            assert_eq!(parsed.value, expected);
        }
    }

    #[test]
    fn each_field_is_judged() {
        assert_eq!(verdict(&[]), "");
        let items = 64 << 10;
        for (at, change, expected) in [
            (0, &b"M"[..], "Signature"),
            (10, &[0xff, 0xff], "EntryCount is 65535, expected at most 2047"),
            (10, &[4, 0], "Physical Sector Size is none"),
            (10, &[3, 0], "Logical Sector Size is none"),
            (48, &[0xff, 0xff, 0], "Offset is 0xffff of item caa16737"),
            (52, &[0, 0, 0x20], "Length is 0x200000"),
            (52, &[4], "File Parameters is 4 of 4, expected at least 8 bytes"),
            (52, &[9], "do not overlap"),
            (64, &stored(Known::FileParameters.guid()), "caa16737-fa36-4d43-b3b6-33f0aa44e76b twice"),
            (32, &[0], "the required item caa16700-fa36-4d43-b3b6-33f0aa44e76b is not supported"),
            (items, &[0, 0, 0x30, 0], "File Parameters is 3145728"),
            (items + 4, &[2], "Parent Locator is none"),
            (items + 4, &[4], "reserved bits"),
            (items + 8, &[1], "Virtual Disk Size is 10485761"),
            (items + 8, &[0xff; 8], "Virtual Disk Size"),
            (items + 32, &[0, 1], "Logical Sector Size is 256"),
            (items + 36, &[0, 1], "Physical Sector Size is 256"),
        ] {
            let said = verdict(&[(at, change)]);
            assert!(said.contains(expected), "{expected}: {said}");
        }
        // An item of the user may have any number.
        let said = verdict(&[(56, &[1])]);
        assert!(said.contains("File Parameters is none"), "{said}");
    }

    #[test]
    fn a_region_past_the_end_is_damage() {
        let device = MemoryDevice::new(vec![0; 1000]);
        let error = Metadata::read(&device, &(MIB..2 * MIB)).unwrap_err();
        assert_eq!(error.as_corrupt().unwrap().field, "length");
    }
}
