//! MFT record: the head of a file, or a further piece of one, and the attributes in it.
//!
//! Linux-NTFS documentation, "File Record" and "Attribute"; layouts as in `fs/ntfs3/ntfs.h`. Little-endian.

use std::ops::Range;

use ondisk::Corrupt;

use crate::fixup;
use crate::number::wide;
use crate::span::{Checked, Span};

const STRUCTURE: &str = "MFT record";

/// Types of attributes.
pub(crate) mod kind {
    pub(crate) const STANDARD_INFORMATION: u32 = 0x10;
    pub(crate) const ATTRIBUTE_LIST: u32 = 0x20;
    pub(crate) const FILE_NAME: u32 = 0x30;
    pub(crate) const SECURITY_DESCRIPTOR: u32 = 0x50;
    pub(crate) const VOLUME_NAME: u32 = 0x60;
    pub(crate) const VOLUME_INFORMATION: u32 = 0x70;
    pub(crate) const DATA: u32 = 0x80;
    pub(crate) const INDEX_ROOT: u32 = 0x90;
    pub(crate) const INDEX_ALLOCATION: u32 = 0xa0;
    pub(crate) const REPARSE_POINT: u32 = 0xc0;
    pub(crate) const END: u32 = 0xffff_ffff;
}

/// Flags of attributes.
pub(crate) mod flags {
    pub(crate) const COMPRESSION_MASK: u16 = 0x00ff;
    pub(crate) const LZNT1: u16 = 0x0001;
    pub(crate) const ENCRYPTED: u16 = 0x4000;
    pub(crate) const SPARSE: u16 = 0x8000;
}

const IN_USE: u16 = 1;
const IS_DIRECTORY: u16 = 2;

/// The low 48 bits of a file reference: the number of the MFT record.
pub(crate) const RECORD_MASK: u64 = (1 << 48) - 1;

/// A record that passed its update sequence.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) number: u64,
    /// First byte on the device.
    pub(crate) offset: u64,
    /// The bytes, with the update sequence undone.
    pub(crate) bytes: Vec<u8>,
    pub(crate) sequence: u16,
    /// Names of the file, DOS names included.
    pub(crate) links: u16,
    flags: u16,
    /// The record that this one belongs to; 0 for the first of a file.
    pub(crate) base: u64,
    pub(crate) attributes: Vec<Attribute>,
    /// Why the attributes end early.
    pub(crate) damage: Option<Corrupt>,
}

/// The head of an attribute; ranges are of the record's bytes.
#[derive(Debug, Clone)]
pub(crate) struct Attribute {
    pub(crate) kind: u32,
    pub(crate) name: Range<usize>,
    pub(crate) flags: u16,
    pub(crate) id: u16,
    pub(crate) body: Body,
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    Resident(Range<usize>),
    NonResident(NonResident),
}

/// What a non-resident attribute says of its clusters. Sizes are bytes, and stand in the first piece only.
#[derive(Debug, Clone)]
pub(crate) struct NonResident {
    pub(crate) lowest_vcn: u64,
    /// As stored: the last cluster, one less than the first for none.
    pub(crate) highest_vcn: u64,
    pub(crate) mapping_pairs: Range<usize>,
    /// Binary logarithm of the clusters that are compressed together; 0 for none.
    pub(crate) compression_unit: u8,
    pub(crate) allocated_size: u64,
    pub(crate) data_size: u64,
    pub(crate) initialized_size: u64,
    /// Bytes on the device, where that is less than `allocated_size`.
    pub(crate) compressed_size: Option<u64>,
}

impl Record {
    /// Judges the bytes that were read from `offset` as record `number`.
    pub(crate) fn decode(number: u64, offset: u64, mut bytes: Vec<u8>) -> Checked<Self> {
        let span = Span::new(STRUCTURE, offset, &bytes);
        let magic = span.slice(0, 4, "magic")?;
        if magic != b"FILE" {
            return Err(span.corrupt("magic", "FILE", magic.escape_ascii()));
        }
        fixup::apply(STRUCTURE, offset, &mut bytes)?;
        let span = Span::new(STRUCTURE, offset, &bytes);
        let in_use = span.length32(24, "bytes_in_use")?;
        if in_use > bytes.len() {
            return Err(span.corrupt("bytes_in_use", format_args!("at most {}", bytes.len()), in_use));
        }
        // Before version 3.1 the update sequence takes the place of the number.
        if span.u16(4, "usa_ofs")? >= 48
            && u64::from(span.u32(44, "mft_record_number")?) != number & 0xffff_ffff
        {
            return Err(span.corrupt("mft_record_number", number, span.u32(44, "mft_record_number")?));
        }
        let mut record = Self {
            number,
            offset,
            sequence: span.u16(16, "sequence_number")?,
            links: span.u16(18, "link_count")?,
            flags: span.u16(22, "flags")?,
            base: span.u64(32, "base_mft_record")?,
            attributes: Vec::new(),
            damage: None,
            bytes: Vec::new(),
        };
        let first = span.length16(20, "attrs_offset")?;
        let span = Span::new(STRUCTURE, offset, bytes.get(..in_use).unwrap_or_default());
        record.damage = attributes(&span, first, &mut record.attributes).err();
        record.bytes = bytes;
        Ok(record)
    }

    pub(crate) fn is_in_use(&self) -> bool {
        self.flags & IN_USE != 0
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.flags & IS_DIRECTORY != 0
    }

    /// Bytes of this record that a decoder has found within it.
    pub(crate) fn slice(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }

    pub(crate) fn span(&self) -> Span<'_> {
        Span::new(STRUCTURE, self.offset, &self.bytes)
    }
}

/// The attributes up to the end mark or the first that is damaged.
fn attributes(span: &Span<'_>, first: usize, found: &mut Vec<Attribute>) -> Checked<()> {
    let mut at = first;
    if at < 42 || !at.is_multiple_of(4) {
        return Err(span.corrupt("attrs_offset", "a multiple of 4 behind the header", at));
    }
    while span.u32(at, "attribute type")? != kind::END {
        let length = span.length32(at.saturating_add(4), "attribute length")?;
        let bytes = span.slice(at, length, "attribute length")?;
        if length < 24 || !length.is_multiple_of(8) {
            return Err(span.corrupt("attribute length", "a multiple of 8 of at least 24", length));
        }
        let here = Span::new("attribute", span.offset.saturating_add(wide(at)), bytes);
        found.push(Attribute::decode(&here, at)?);
        at = at.saturating_add(length);
    }
    Ok(())
}

impl Attribute {
    /// Judges an attribute that begins at byte `start` of its record.
    fn decode(span: &Span<'_>, start: usize) -> Checked<Self> {
        let part = |at: usize, length: usize, field| {
            span.slice(at, length, field)?;
            let begin = start.saturating_add(at);
            Ok::<_, Corrupt>(begin..begin.saturating_add(length))
        };
        let name_length = usize::from(span.u8(9, "name_length")?).saturating_mul(2);
        let name = match name_length {
            0 => start..start,
            length => part(span.length16(10, "name_offset")?, length, "name_offset")?,
        };
        let body = match span.u8(8, "non_resident")? {
            0 => {
                let length = span.length32(16, "value_length")?;
                Body::Resident(part(span.length16(20, "value_offset")?, length, "value_length")?)
            }
            1 => Body::NonResident(NonResident::decode(span, start)?),
            other => return Err(span.corrupt("non_resident", "0 or 1", other)),
        };
        let (kind, flags, id) = (span.u32(0, "type")?, span.u16(12, "flags")?, span.u16(14, "instance")?);
        Ok(Self { kind, name, flags, id, body })
    }
}

impl NonResident {
    fn decode(span: &Span<'_>, start: usize) -> Checked<Self> {
        let (lowest_vcn, highest_vcn) = (span.u64(16, "lowest_vcn")?, span.u64(24, "highest_vcn")?);
        if lowest_vcn > i64::MAX.unsigned_abs() || highest_vcn.wrapping_add(1) < lowest_vcn {
            let expected = format!("at least {lowest_vcn} - 1");
            return Err(span.corrupt("highest_vcn", expected, highest_vcn));
        }
        let pairs = span.length16(32, "mapping_pairs_offset")?;
        if pairs < 64 || pairs > span.bytes.len() {
            let expected = format!("64..={}", span.bytes.len());
            return Err(span.corrupt("mapping_pairs_offset", expected, pairs));
        }
        let (data_size, initialized_size) = (span.u64(48, "data_size")?, span.u64(56, "initialized_size")?);
        if lowest_vcn == 0 && data_size > i64::MAX.unsigned_abs() {
            return Err(span.corrupt("data_size", "less than 2^63", data_size));
        }
        let has_compressed = lowest_vcn == 0
            && span.u16(12, "flags")? & (flags::LZNT1 | flags::SPARSE) != 0
            && span.u8(34, "compression_unit")? != 0;
        let compressed_size = if has_compressed { Some(span.u64(64, "compressed_size")?) } else { None };
        Ok(Self {
            lowest_vcn,
            highest_vcn,
            mapping_pairs: start.saturating_add(pairs)..start.saturating_add(span.bytes.len()),
            compression_unit: span.u8(34, "compression_unit")?,
            allocated_size: span.u64(40, "allocated_size")?,
            data_size,
            initialized_size,
            compressed_size,
        })
    }
}
