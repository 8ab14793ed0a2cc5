//! One file: its first MFT record, and the further ones that its attribute list names.
//!
//! Linux-NTFS documentation, "$ATTRIBUTE_LIST". Little-endian.

use std::sync::Arc;

use filesystem::Inode;
use ondisk::{Corrupt, Error, Result};

use crate::Ntfs;
use crate::mft;
use crate::record::{RECORD_MASK, Record, kind};
use crate::span::{Checked, Span};
use crate::stream::{Found, Stream};
use crate::volume::Volume;

/// Windows allows no longer list.
const MAX_LIST: u64 = 256 << 10;

/// An open file.
#[derive(Debug)]
pub(crate) struct File {
    pub(crate) base: Arc<Record>,
    list: Option<Vec<Entry>>,
}

/// An entry of an attribute list: where a piece of an attribute is.
#[derive(Debug)]
struct Entry {
    kind: u32,
    name: Vec<u8>,
    lowest_vcn: u64,
    /// Reference of the MFT record.
    record: u64,
    id: u16,
}

impl File {
    /// Opens the file that a reference names.
    pub(crate) fn open(ntfs: &Ntfs, inode: Inode) -> Result<Self> {
        let base = ntfs.record(inode.0 & RECORD_MASK)?;
        check(&base, inode)?;
        Self::new(&ntfs.volume, base)
    }

    /// A file by its first record.
    pub(crate) fn new(volume: &Volume, base: Arc<Record>) -> Result<Self> {
        let index = base.attributes.iter().position(|attribute| attribute.kind == kind::ATTRIBUTE_LIST);
        let list = match index {
            None => None,
            Some(index) => Some(list(volume, &Found { record: Arc::clone(&base), index })?),
        };
        Ok(Self { base, list })
    }

    /// The pieces of attributes of one type, in the order of name and clusters; `is_wanted` sees each name
    /// (UTF-16, little-endian) and first cluster before its record is read.
    pub(crate) fn pieces(
        &self,
        read: &dyn Fn(u64) -> Result<Arc<Record>>,
        kind: u32,
        is_wanted: &dyn Fn(&[u8], u64) -> bool,
    ) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        let Some(list) = &self.list else {
            let record = &self.base;
            for (index, attribute) in record.attributes.iter().enumerate() {
                let piece = Found { record: Arc::clone(record), index };
                if attribute.kind == kind && is_wanted(piece.name(), piece.lowest_vcn()) {
                    found.push(piece);
                }
            }
            // What is missing may be behind the damage.
            return match &record.damage {
                Some(damage) if found.is_empty() => Err(damage.clone().into()),
                _ => Ok(found),
            };
        };
        for entry in
            list.iter().filter(|entry| entry.kind == kind && is_wanted(&entry.name, entry.lowest_vcn))
        {
            found.push(self.piece(read, entry)?);
        }
        Ok(found)
    }

    fn piece(&self, read: &dyn Fn(u64) -> Result<Arc<Record>>, entry: &Entry) -> Result<Found> {
        let number = entry.record & RECORD_MASK;
        let record = if number == self.base.number { Arc::clone(&self.base) } else { read(number)? };
        let sequence = entry.record >> 48;
        if sequence != 0 && u64::from(record.sequence) != sequence {
            return Err(record.span().corrupt("sequence_number", sequence, record.sequence).into());
        }
        let is_ours = record.base & RECORD_MASK == self.base.number
            && (record.base >> 48 == 0 || record.base >> 48 == u64::from(self.base.sequence));
        if number != self.base.number && !is_ours {
            let expected = format!("{}, whose attribute list names it", self.base.number);
            return Err(record.span().corrupt("base_mft_record", expected, record.base & RECORD_MASK).into());
        }
        let index = record.attributes.iter().position(|attribute| {
            attribute.kind == entry.kind
                && attribute.id == entry.id
                && record.slice(&attribute.name) == entry.name.as_slice()
        });
        let piece = index.map(|index| Found { record: Arc::clone(&record), index });
        match piece.filter(|piece| piece.lowest_vcn() == entry.lowest_vcn) {
            Some(piece) => Ok(piece),
            None => Err(record
                .damage
                .clone()
                .unwrap_or_else(|| {
                    let expected = format!("type {:#x}, instance {}", entry.kind, entry.id);
                    record.span().corrupt("attributes", expected, "no such attribute")
                })
                .into()),
        }
    }

    /// The attribute of this type and name (UTF-16, little-endian), put together.
    pub(crate) fn stream(&self, ntfs: &Ntfs, kind: u32, name: &[u8]) -> Result<Option<Stream>> {
        let pieces = self.pieces(&|number| ntfs.record(number), kind, &|found, _| found == name)?;
        if pieces.is_empty() { Ok(None) } else { Stream::assemble(&pieces).map(Some) }
    }

    /// The first piece of the attribute of this type and name, which holds its sizes.
    pub(crate) fn first(&self, ntfs: &Ntfs, kind: u32, name: &[u8]) -> Result<Option<Found>> {
        let is_wanted = |found: &[u8], vcn| found == name && vcn == 0;
        Ok(self.pieces(&|number| ntfs.record(number), kind, &is_wanted)?.into_iter().next())
    }

    /// All bytes of an attribute of metadata, at most `limit`.
    pub(crate) fn value(&self, ntfs: &Ntfs, kind: u32, name: &[u8], limit: u64) -> Result<Option<Vec<u8>>> {
        self.stream(ntfs, kind, name)?.map(|stream| whole(&ntfs.volume, &stream, limit)).transpose()
    }
}

/// All bytes of a stream of metadata, at most `limit`.
pub(crate) fn whole(volume: &Volume, stream: &Stream, limit: u64) -> Result<Vec<u8>> {
    let length = usize::try_from(stream.size).ok().filter(|_| stream.size <= limit);
    let Some(length) = length else {
        return Err(Error::unsupported("attribute", format!("a value of {} bytes", stream.size)));
    };
    let mut value = vec![0; length];
    stream.read_metadata(volume, &mut value, 0)?;
    Ok(value)
}

/// Whether a record is the one that a reference meant.
fn check(record: &Record, inode: Inode) -> Checked<()> {
    let span = record.span();
    if !record.is_in_use() {
        return Err(span.corrupt("flags", "a record in use", "a deleted file"));
    }
    if record.base != 0 {
        let expected = "0: the first record of a file";
        return Err(span.corrupt("base_mft_record", expected, record.base & RECORD_MASK));
    }
    let (expected, found) = (inode.0 >> 48, mft::short_sequence(record.sequence));
    if expected != 0 && expected != found {
        return Err(span.corrupt(
            "sequence_number",
            format_args!("{expected} of the entry that leads here"),
            found,
        ));
    }
    Ok(())
}

fn list(volume: &Volume, found: &Found) -> Result<Vec<Entry>> {
    let stream = Stream::assemble(std::slice::from_ref(found))?;
    if stream.size > MAX_LIST {
        let offset = found.record.offset;
        let expected = format!("at most {MAX_LIST} bytes");
        return Err(Corrupt::new("attribute list", offset, "data_size", expected, stream.size).into());
    }
    let bytes = whole(volume, &stream, MAX_LIST)?;
    Ok(entries(&Span::new("attribute list", found.record.offset, &bytes))?)
}

fn entries(span: &Span<'_>) -> Checked<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut at = 0_usize;
    while at < span.bytes.len() {
        let length = span.length16(at.saturating_add(4), "length")?;
        let bytes = span.slice(at, length, "length")?;
        if length < 26 {
            return Err(span.corrupt("length", "at least 26", length));
        }
        let here = Span { bytes, ..*span };
        let name_length = usize::from(here.u8(6, "name_length")?).saturating_mul(2);
        entries.push(Entry {
            kind: here.u32(0, "type")?,
            name: here.slice(usize::from(here.u8(7, "name_offset")?), name_length, "name_offset")?.to_vec(),
            lowest_vcn: here.u64(8, "lowest_vcn")?,
            record: here.u64(16, "mft_reference")?,
            id: here.u16(24, "instance")?,
        });
        at = at.saturating_add(length);
    }
    entries.sort_by(|one, other| {
        (one.kind, &one.name, one.lowest_vcn).cmp(&(other.kind, &other.name, other.lowest_vcn))
    });
    Ok(entries)
}
