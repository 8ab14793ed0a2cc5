//! Extended attributes: behind the fields of an inode, in a block of their own, and in inodes of their own.
//!
//! Linux `Documentation/filesystems/ext4/attributes.rst`. Little-endian. A list of entries grows from the
//! front, the values from the back; a word of zeros ends the list.

use filesystem::FileKind;
use ondisk::{Corrupt, Error, Result, crc32c_raw, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::disk::Disk;
use crate::inode::{Inode, flags};
use crate::units::{FsBlock, to_usize, widen};
use crate::{content, posix_acl};

/// `h_magic`, of blocks and of the area in the inode.
pub const MAGIC: u32 = 0xea02_0000;

/// Linux never hands out a longer value, in bytes.
const MAX_VALUE: u32 = 65536;

/// `e_name_index` and name of the entry that holds inline data past the first 60 bytes.
const INLINE_DATA: (u8, &[u8]) = (7, b"data");

/// What `e_name_index` stands for. Indices 2, 3 and 8 are whole names.
const PREFIXES: &[(u8, &str)] = &[
    (0, ""),
    (1, "user."),
    (2, "system.posix_acl_access"),
    (3, "system.posix_acl_default"),
    (4, "trusted."),
    (5, "lustre."),
    (6, "security."),
    (7, "system."),
    (8, "system.richacl"),
    (9, "encryption."),
    (10, "gnu."),
];

/// An entry as stored; its name follows.
#[expect(missing_docs, reason = "the fields carry the documentation's names")]
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawEntry {
    pub e_name_len: u8,        // 0x0
    pub e_name_index: u8,      // 0x1
    pub e_value_offs: le::U16, // 0x2 from the first entry in an inode, from its start in a block
    pub e_value_inum: le::U32, // 0x4 the inode that holds the value, or 0
    pub e_value_size: le::U32, // 0x8 bytes
    pub e_hash: le::U32,       // 0xc
}

const _: () = assert!(size_of::<RawEntry>() == 16);

/// The head of a block of attributes.
#[expect(missing_docs, reason = "the fields carry the documentation's names")]
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawHeader {
    pub h_magic: le::U32,         // 0x00
    pub h_refcount: le::U32,      // 0x04 inodes that share this block
    pub h_blocks: le::U32,        // 0x08 always 1
    pub h_hash: le::U32,          // 0x0c
    pub h_checksum: le::U32,      // 0x10 CRC-32C over the block number, 64 bits, and the block
    pub h_reserved: [le::U32; 3], // 0x14
}

const _: () = assert!(size_of::<RawHeader>() == 32);

/// One attribute.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The fields as stored.
    pub raw: RawEntry,
    /// The name after its prefix.
    pub name: Vec<u8>,
    /// The value, when it is stored beside the entries.
    pub value: Vec<u8>,
}

impl Entry {
    fn is_inline_data(&self) -> bool {
        (self.raw.e_name_index, self.name.as_slice()) == INLINE_DATA
    }

    /// The full name: `security.selinux`.
    fn full_name(&self) -> Result<Vec<u8>> {
        let index = self.raw.e_name_index;
        let known = PREFIXES.iter().find(|(number, _)| *number == index);
        let (_, prefix) =
            known.ok_or_else(|| Error::unsupported("extended attribute", format!("name index {index}")))?;
        Ok([prefix.as_bytes(), &self.name].concat())
    }
}

/// Takes a list of entries apart: it begins at `first` in `bytes`, values are counted from `base`, and `bytes`
/// begin at byte `offset` of the device.
///
/// # Errors
/// `Corrupt`.
fn decode(
    structure: &'static str,
    bytes: &[u8],
    offset: u64,
    first: usize,
    base: usize,
) -> Result<Vec<Entry>, Corrupt> {
    let mut entries = Vec::new();
    let mut rest = bytes.get(first..).unwrap_or_default();
    let mut values_length: u64 = 0;
    let mut places: Vec<(usize, usize)> = Vec::new();
    loop {
        let at = offset.saturating_add(widen(bytes.len().saturating_sub(rest.len())));
        let corrupt =
            |field, expected: String, found: u64| Corrupt::new(structure, at, field, expected, found);
        match rest.first_chunk::<4>() {
            Some([0, 0, 0, 0]) => {
                let end = bytes.len().saturating_sub(rest.len()).saturating_add(4);
                judge_places(structure, offset, end, places)?;
                return Ok(entries);
            }
            Some(_) => {}
            None => return Err(corrupt("end of list", "four bytes of zeros".into(), widen(rest.len()))),
        }
        let too_long = || corrupt("e_name_len", format!("an entry within {} bytes", rest.len()), 0);
        let (raw, after) = RawEntry::read_from_prefix(rest).map_err(|_| too_long())?;
        let name = after.get(..raw.e_name_len.into()).ok_or_else(too_long)?.to_vec();
        let value = if raw.e_value_inum.get() == 0 && raw.e_value_size.get() != 0 {
            values_length = values_length.saturating_add(raw.e_value_size.get().into());
            if values_length > widen(bytes.len()) {
                let expected = format!("together at most {} bytes", bytes.len());
                return Err(corrupt("e_value_size", expected, raw.e_value_size.get().into()));
            }
            let values = bytes.get(base..).unwrap_or_default();
            let from = values.get(raw.e_value_offs.get().into()..);
            let length = to_usize(raw.e_value_size.get());
            let value = from.and_then(|from| from.get(..length));
            let start = base.saturating_add(raw.e_value_offs.get().into());
            places.push((start, start.saturating_add(length)));
            value
                .ok_or_else(|| {
                    let expected = format!("{} bytes within {}", raw.e_value_size, values.len());
                    corrupt("e_value_offs", expected, raw.e_value_offs.get().into())
                })?
                .to_vec()
        } else {
            Vec::new()
        };
        rest = after.get(usize::from(raw.e_name_len).next_multiple_of(4)..).unwrap_or_default();
        entries.push(Entry { raw, name, value });
    }
}

/// Values lie behind the list, which ends at byte `end`, and none over another.
fn judge_places(
    structure: &'static str,
    offset: u64,
    end: usize,
    mut places: Vec<(usize, usize)>,
) -> Result<(), Corrupt> {
    places.sort_unstable();
    let mut free = end;
    for (start, stop) in places {
        if start < free {
            let expected = format!("a place of its own from byte {free} on");
            return Err(Corrupt::new(structure, offset, "e_value_offs", expected, start));
        }
        free = stop;
    }
    Ok(())
}

/// The entries behind the fields of an inode.
fn decode_area(inode: &Inode) -> Result<Vec<Entry>, Corrupt> {
    let area = inode.attribute_area();
    match le::U32::read_from_prefix(area) {
        Ok((magic, _)) if magic.get() == MAGIC => {
            decode("inode attributes", area, inode.attribute_offset(), 4, 4)
        }
        // Anything but the magic number means that there are none.
        _ => Ok(Vec::new()),
    }
}

fn decode_block(disk: &Disk, block: FsBlock) -> Result<Vec<Entry>> {
    const STRUCTURE: &str = "attribute block";
    let offset = disk.offset_of(block);
    if !disk.superblock.holds(block, 1) {
        let expected = format!("within {} blocks", disk.superblock.blocks);
        return Err(Corrupt::new("inode", offset, "i_file_acl", expected, block).into());
    }
    let bytes = disk.metadata_block(block)?;
    let (header, _) = RawHeader::read_from_prefix(&bytes)
        .map_err(|_| Corrupt::new(STRUCTURE, offset, "length", "at least 32", bytes.len()))?;
    if header.h_magic.get() != MAGIC {
        let found = format!("{:#010x}", header.h_magic);
        return Err(Corrupt::new(STRUCTURE, offset, "h_magic", format_args!("{MAGIC:#010x}"), found).into());
    }
    if header.h_blocks.get() != 1 {
        return Err(Corrupt::new(STRUCTURE, offset, "h_blocks", 1, header.h_blocks).into());
    }
    if let Some(seed) = disk.superblock.checksums.seed() {
        let stored = header.h_checksum.get();
        let mut zeroed = header;
        zeroed.h_checksum.set(0);
        let state = crc32c_raw(crc32c_raw(seed, &block.0.to_le_bytes()), zeroed.as_bytes());
        let computed = crc32c_raw(state, bytes.get(size_of::<RawHeader>()..).unwrap_or_default());
        if computed != stored {
            return Err(Corrupt::checksum(STRUCTURE, offset, computed, stored).into());
        }
    }
    Ok(decode(STRUCTURE, &bytes, offset, size_of::<RawHeader>(), 0)?)
}

/// The block as it is with one user less; `None` when it had only one, and is free now.
///
/// # Errors
/// `Io`, `Corrupt`; `Unsupported` when values lie in inodes, which have users of their own.
pub(crate) fn released(disk: &Disk, block: FsBlock) -> Result<Option<Vec<u8>>> {
    if decode_block(disk, block)?.iter().any(|entry| entry.raw.e_value_inum.get() != 0) {
        return Err(Error::unsupported("attribute block", "letting go of values in inodes"));
    }
    let mut bytes = disk.block(block)?;
    let Ok((header, _)) = RawHeader::mut_from_prefix(&mut bytes) else { return Ok(None) };
    let users = header.h_refcount.get();
    if users <= 1 {
        return Ok(None);
    }
    header.h_refcount.set(users.saturating_sub(1));
    if let Some(seed) = disk.superblock.checksums.seed() {
        header.h_checksum.set(0);
        let computed = crc32c_raw(crc32c_raw(seed, &block.0.to_le_bytes()), &bytes);
        if let Ok((header, _)) = RawHeader::mut_from_prefix(&mut bytes) {
            header.h_checksum.set(computed);
        }
    }
    Ok(Some(bytes))
}

/// All attributes of an inode with full names; ACLs in the form that Linux' system calls show.
///
/// # Errors
/// `Io`, `Corrupt`, `Unsupported` for a name index that this code does not know.
pub fn list(disk: &Disk, inode: &Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut entries = decode_area(inode)?;
    if let Some(block) = inode.attribute_block(&disk.superblock) {
        entries.extend(decode_block(disk, block)?);
    }
    let mut attributes = Vec::new();
    // Inline data is the content of the file, not an attribute of it.
    for entry in entries.iter().filter(|entry| !entry.is_inline_data()) {
        let value = match entry.raw.e_value_inum.get() {
            0 => entry.value.clone(),
            number => value_inode(disk, inode, entry, number)?,
        };
        let value = if matches!(entry.raw.e_name_index, 2 | 3) {
            posix_acl::for_users(&value, inode.offset)?
        } else {
            value
        };
        attributes.push((entry.full_name()?, value));
    }
    Ok(attributes)
}

/// A value that an inode holds. The time of its last access is the checksum of the value; Lustre stores the
/// owner's number in place of the time of its last change instead.
fn value_inode(disk: &Disk, owner: &Inode, entry: &Entry, number: u32) -> Result<Vec<u8>> {
    let holder = disk.inode_of_kind(number, FileKind::Regular, "a regular file that holds a value")?;
    let corrupt = |field, expected: String, found: u64| {
        Error::from(Corrupt::new("attribute inode", holder.offset, field, expected, found))
    };
    let size = entry.raw.e_value_size.get();
    if !holder.has_flag(flags::EA_INODE) {
        let found = holder.raw.i_flags.get().into();
        return Err(corrupt("i_flags", format!("{:#x} set", flags::EA_INODE), found));
    }
    if size > MAX_VALUE || holder.size != u64::from(size) {
        return Err(corrupt("i_size", format!("{size}, at most {MAX_VALUE}"), holder.size));
    }
    let mut value = vec![0; to_usize(size)];
    content::read_at(disk, &holder, &mut value, 0)?;
    let is_lustre = holder.raw.i_mtime.get().cast_unsigned() == owner.number
        && holder.raw.i_generation.get() == owner.raw.i_generation.get();
    let (computed, stored) =
        (crc32c_raw(disk.superblock.seed, &value), holder.raw.i_atime.get().cast_unsigned());
    if computed != stored && !is_lustre {
        return Err(Corrupt::checksum("attribute inode", holder.offset, computed, stored).into());
    }
    Ok(value)
}

/// What inline data continues with after the first 60 bytes. Also where that is nothing there is an entry.
///
/// # Errors
/// `Corrupt`.
pub fn inline_data(inode: &Inode) -> Result<Vec<u8>, Corrupt> {
    let Some(entry) = decode_area(inode)?.into_iter().find(Entry::is_inline_data) else {
        let offset = inode.attribute_offset();
        let expected = "there, as the inode says";
        return Err(Corrupt::new("inode attributes", offset, "system.data", expected, "not there"));
    };
    judge_inline_data(inode, &entry)?;
    Ok(entry.value)
}

fn judge_inline_data(inode: &Inode, entry: &Entry) -> Result<(), Corrupt> {
    if entry.raw.e_value_inum.get() == 0 {
        return Ok(());
    }
    let (field, found) = ("e_value_inum", entry.raw.e_value_inum);
    Err(Corrupt::new("inode attributes", inode.attribute_offset(), field, "0 for inline data", found))
}

/// Stores `value` as what inline data continues with, or takes the entry away. Returns false, with nothing
/// changed, when there is no room.
///
/// # Errors
/// `Corrupt`.
pub fn set_inline_data(inode: &mut Inode, value: Option<&[u8]>) -> Result<bool, Corrupt> {
    let mut entries = decode_area(inode)?;
    match value {
        None => entries.retain(|entry| !entry.is_inline_data()),
        Some(value) => {
            let Some(entry) = entries.iter_mut().find(|entry| entry.is_inline_data()) else {
                return Ok(false);
            };
            judge_inline_data(inode, entry)?;
            entry.value = value.to_vec();
            // 0 means that nobody computed it.
            entry.raw.e_hash.set(0);
        }
    }
    let mut area = vec![0; inode.attribute_area().len()];
    if encode_area(&entries, &mut area).is_none() {
        return Ok(false);
    }
    inode.attribute_area_mut().copy_from_slice(&area);
    Ok(true)
}

/// Stores entries in an area of zeros; `None` when they do not fit.
fn encode_area(entries: &[Entry], area: &mut [u8]) -> Option<()> {
    if entries.is_empty() {
        return Some(());
    }
    area.first_chunk_mut::<4>()?.copy_from_slice(&MAGIC.to_le_bytes());
    let area = area.get_mut(4..)?;
    let mut first_free: usize = 0;
    let mut last_free = area.len() & !3;
    for entry in entries {
        let mut raw = entry.raw.clone();
        if raw.e_value_inum.get() == 0 {
            raw.e_value_size.set(u32::try_from(entry.value.len()).ok()?);
            last_free = last_free.checked_sub(entry.value.len().checked_next_multiple_of(4)?)?;
            let offset = if entry.value.is_empty() { 0 } else { u16::try_from(last_free).ok()? };
            raw.e_value_offs.set(offset);
            area.get_mut(last_free..)?.get_mut(..entry.value.len())?.copy_from_slice(&entry.value);
        }
        raw.write_to_prefix(area.get_mut(first_free..)?).ok()?;
        let name_at = first_free.checked_add(size_of::<RawEntry>())?;
        area.get_mut(name_at..)?.get_mut(..entry.name.len())?.copy_from_slice(&entry.name);
        first_free = name_at.checked_add(entry.name.len().checked_next_multiple_of(4)?)?;
        // The word of zeros that ends the list.
        if first_free.checked_add(4)? > last_free {
            return None;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name_index: u8, name: &[u8], value: &[u8]) -> Entry {
        let raw = RawEntry {
            e_name_len: name.len() as u8,
            e_name_index: name_index,
            e_value_offs: 0.into(),
            e_value_inum: 0.into(),
            e_value_size: 0.into(),
            e_hash: 0.into(),
        };
        Entry { raw, name: name.to_vec(), value: value.to_vec() }
    }

    #[test]
    fn decode_undoes_encode_until_it_is_full() {
        for length in 0..60 {
            let entries = [entry(7, b"data", &vec![5; length]), entry(6, b"selinux", b"label")];
            let mut area = vec![0; 96];
            // 4 magic, 16 + 4 and 16 + 8 for the entries, 4 for the end, 8 for "label".
            let fits = length <= 96 - 4 - 20 - 24 - 4 - 8;
            assert_eq!(encode_area(&entries, &mut area).is_some(), fits, "{length}");
            if fits {
                let found = decode("test", &area, 0, 4, 4).unwrap();
                assert_eq!(found.len(), 2);
                assert_eq!((&found[0].value, &found[1].value), (&entries[0].value, &entries[1].value));
                assert_eq!(found[1].full_name().unwrap(), b"security.selinux");
            }
        }
    }

    #[test]
    fn damage_is_named() {
        let mut area = vec![0; 64];
        encode_area(&[entry(1, b"a", b"value")], &mut area).unwrap();
        let field = |change: fn(&mut Vec<u8>)| {
            let mut area = area.clone();
            change(&mut area);
            decode("test", &area, 0, 4, 4).map(|entries| entries.len()).map_err(|corrupt| corrupt.field)
        };
        assert_eq!(field(|_| ()), Ok(1));
        assert_eq!(field(|area| area[4] = 200), Err("e_name_len"));
        assert_eq!(field(|area| area[6] = 57), Err("e_value_offs"));
        assert_eq!(field(|area| area[14] = 1), Err("e_value_size"));
        assert_eq!(field(|area| area[24] = 200), Err("e_name_len"));
    }
}
