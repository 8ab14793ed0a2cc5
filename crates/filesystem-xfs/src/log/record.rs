//! Log record: a header of one or more basic blocks, then operations.
//!
//! XFS Algorithms & Data Structures, "Log Records". Big-endian except `h_crc`. The word that a cycle number
//! displaced from each data block is kept in the header.

use ondisk::{Corrupt, Guid, Result, be, crc32c_raw, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::ring::{BASIC_BLOCK, BASIC_BLOCK_BYTES, Ring};
use crate::number::{index, wide};
use crate::span::{Span, put};

/// `h_magicno`.
pub(super) const MAGIC: u32 = 0xfeed_babe;
/// Bytes of data that the cycle words of one header block cover.
const DATA_PER_HEADER: u32 = 32768;
/// Basic blocks of data that the cycle words of one header block cover.
const BLOCKS_PER_HEADER: usize = 64;
/// Bytes of data in the longest record.
const LONGEST_DATA: u32 = 256 << 10;
/// Basic blocks of the longest record: 256 KiB of data and 8 header blocks.
pub(super) const LONGEST: u64 = 520;
/// Bytes of the first header block that the checksum covers, with the padding that all but i386 count.
const CHECKED: usize = 328;
const CHECKED_I386: usize = 324;
/// Bytes of a further header block that the checksum covers.
const CHECKED_EXTENSION: usize = 260;
/// Byte of `h_crc`.
const CRC_AT: usize = 0x20;
/// `h_fmt` of a little-endian Linux.
const LITTLE_ENDIAN: u32 = 1;

/// `oh_flags` bit of an unmount operation.
const UNMOUNT: u8 = 0x20;

/// The first header block of a record, up to its last field.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawHeader {
    h_magicno: be::U32,               // 0x00
    pub(super) h_cycle: be::U32,      // 0x04
    h_version: be::U32,               // 0x08 1, or 2 with more than one header block
    h_len: be::U32,                   // 0x0c bytes of data
    pub(super) h_lsn: be::U64,        // 0x10 cycle and basic block of this record
    pub(super) h_tail_lsn: be::U64,   // 0x18 the oldest record that recovery needs
    h_crc: le::U32,                   // 0x20
    h_prev_block: be::U32,            // 0x24
    pub(super) h_num_logops: be::U32, // 0x28
    h_cycle_data: [be::U32; 64],      // 0x2c
    h_fmt: be::U32,                   // 0x12c byte order of what was logged
    h_fs_uuid: [u8; 16],              // 0x130
    h_size: be::U32,                  // 0x140 bytes of the longest record, with version 2
}
const _: () = assert!(size_of::<RawHeader>() == 0x144);

impl RawHeader {
    /// The header in a basic block, if it is one.
    pub(super) fn recognise(block: &[u8]) -> Option<Self> {
        let (header, _) = Self::read_from_prefix(block).ok()?;
        (header.h_magicno.get() == MAGIC).then_some(header)
    }

    /// Basic blocks of header.
    pub(super) fn header_blocks(&self) -> u64 {
        match self.h_version.get() & 2 {
            0 => 1,
            _ => u64::from(self.h_size.get().div_ceil(DATA_PER_HEADER)).max(1),
        }
    }

    /// Basic blocks of header and data.
    pub(super) fn blocks(&self) -> u64 {
        self.header_blocks().saturating_add(u64::from(self.h_len.get()).div_ceil(BASIC_BLOCK_BYTES))
    }

    /// The basic block of the oldest record that recovery needs, as the record says.
    pub(super) fn tail(&self) -> u64 {
        self.h_tail_lsn.get() & 0xffff_ffff
    }

    /// Bytes that the longest record has.
    pub(super) fn size(&self) -> u32 {
        if self.h_version.get() & 2 == 0 { DATA_PER_HEADER } else { self.h_size.get().max(DATA_PER_HEADER) }
    }

    /// Checks what must hold before the rest of the record is read.
    fn check(&self, span: &Span<'_>, log: &Ring<'_>) -> Result<(), Corrupt> {
        let version = self.h_version.get();
        if version == 0 || version & !3 != 0 {
            return Err(span.corrupt("h_version", "1 or 2", version));
        }
        if self.h_version.get() & 2 != 0 && self.h_size.get() > LONGEST_DATA {
            return Err(span.corrupt("h_size", format_args!("at most {LONGEST_DATA}"), self.h_size));
        }
        // A record without anything else may be longer than its header says: mkfs.xfs wrote such ones.
        let longest = if self.h_num_logops.get() == 1 { LONGEST_DATA } else { self.size() };
        let length = self.h_len.get();
        if length == 0 || length > longest || self.blocks() > log.blocks {
            return Err(span.corrupt("h_len", format_args!("1..={longest}, within the log"), length));
        }
        Ok(())
    }
}

/// Whether the record at `block` ends at `head` and holds nothing but the mark of an unmount.
pub(super) fn is_unmount(log: &Ring<'_>, block: u64, header: &RawHeader, head: u64) -> Result<bool> {
    let end = log.wrap(block.saturating_add(header.blocks()));
    if header.h_num_logops.get() != 1 || end != head {
        return Ok(false);
    }
    let at = block.saturating_add(header.header_blocks());
    let data = log.read(at)?;
    let flags = Span::new("log operation", log.byte(at), &data).u8(9, "oh_flags")?;
    Ok(flags & UNMOUNT != 0)
}

/// A record with its data as it was before it was written.
#[derive(Debug)]
pub(super) struct Record {
    /// The basic block of its header.
    pub(super) block: u64,
    /// First byte of its data on the device, for messages.
    pub(super) offset: u64,
    pub(super) header: RawHeader,
    pub(super) data: Vec<u8>,
}

impl Record {
    /// The basic block after it, counted on past the end of the ring.
    pub(super) fn end(&self) -> u64 {
        self.block.saturating_add(self.header.blocks())
    }

    /// Reads the record at `block`; its checksum must be right, or missing where `needs_crc` is not set.
    pub(super) fn read(log: &Ring<'_>, block: u64, needs_crc: bool) -> Result<Self> {
        let offset = log.byte(block);
        let first = log.read(block)?;
        let span = Span::new("log record", offset, &first);
        let header = RawHeader::recognise(&first)
            .ok_or_else(|| span.corrupt("h_magicno", format_args!("{MAGIC:#x}"), "something else"))?;
        header.check(&span, log)?;
        let mut bytes = log.read_run(block, header.blocks())?;
        let headers =
            usize::try_from(header.header_blocks()).unwrap_or(usize::MAX).saturating_mul(BASIC_BLOCK);
        let mut data = bytes.split_off(headers.min(bytes.len()));
        data.truncate(index(header.h_len.get()));
        let stored = header.h_crc.get();
        if stored != 0 || needs_crc {
            let computed = checksum(&bytes, &data, CHECKED);
            if stored != computed && stored != checksum(&bytes, &data, CHECKED_I386) {
                return Err(Corrupt::checksum("log record", offset, computed, stored).into());
            }
        }
        restore(&bytes, &mut data);
        let offset = log.byte(block.saturating_add(header.header_blocks()));
        Ok(Self { block, offset, header, data })
    }

    /// Refuses what another file system or another kind of machine wrote.
    pub(super) fn check_writer(&self, log: &Ring<'_>, uuid: Guid) -> Result<()> {
        let found = Guid::from_bytes(self.header.h_fs_uuid);
        if found != uuid {
            return Err(log.corrupt(self.block, "h_fs_uuid", &uuid.to_string(), found).into());
        }
        match self.header.h_fmt.get() {
            LITTLE_ENDIAN => Ok(()),
            other => {
                let feature = format!("recovery of a log in the byte order of another machine ({other})");
                Err(ondisk::Error::unsupported("log", feature))
            }
        }
    }
}

/// The checksum of a record, of which `checked` bytes of the first header block count.
fn checksum(headers: &[u8], data: &[u8], checked: usize) -> u32 {
    let mut state = !0;
    // Of the header blocks only those that the data needs.
    let needed = data.len().div_ceil(index(DATA_PER_HEADER)).max(1);
    for (number, header) in headers.chunks(BASIC_BLOCK).take(needed).enumerate() {
        if number == 0 {
            state = crc32c_raw(state, header.get(..CRC_AT).unwrap_or_default());
            state = crc32c_raw(state, &[0; 4]);
            state = crc32c_raw(state, header.get(CRC_AT.saturating_add(4)..checked).unwrap_or_default());
        } else {
            state = crc32c_raw(state, header.get(..CHECKED_EXTENSION).unwrap_or_default());
        }
    }
    !crc32c_raw(state, data)
}

/// Where the word that was displaced from data block `number` is kept, in bytes from the first header.
fn kept_at(number: usize) -> usize {
    let (header, word) = (number / BLOCKS_PER_HEADER, number % BLOCKS_PER_HEADER);
    let start = if header == 0 { 0x2c } else { 4 };
    header.saturating_mul(BASIC_BLOCK).saturating_add(start).saturating_add(word.saturating_mul(4))
}

/// Puts the displaced words back.
fn restore(headers: &[u8], data: &mut [u8]) {
    for (number, block) in data.chunks_mut(BASIC_BLOCK).enumerate() {
        let at = kept_at(number);
        if let (Some(word), Some(first)) = (headers.get(at..at.saturating_add(4)), block.get_mut(..4)) {
            first.copy_from_slice(word);
        }
    }
}

/// What a new record takes from the log it goes to.
#[derive(Debug, Clone)]
pub(super) struct Template {
    /// The last record of the log.
    pub(super) last: RawHeader,
    /// The block of that record.
    pub(super) last_block: u64,
    /// Where the new record goes.
    pub(super) head: u64,
    /// The cycle there.
    pub(super) cycle: u32,
    /// A record is a multiple of so many bytes.
    pub(super) unit: usize,
}

/// The basic blocks of a record that holds `operations` and needs nothing before it; `None` when it would be
/// too long.
pub(super) fn encode(log: &Ring<'_>, template: &Template, operations: &[Vec<u8>]) -> Option<Vec<u8>> {
    let headers = usize::try_from(template.last.header_blocks()).ok()?.checked_mul(BASIC_BLOCK)?;
    let mut data = operations.concat();
    let total = headers.checked_add(data.len())?.checked_next_multiple_of(template.unit.max(BASIC_BLOCK))?;
    let length = u32::try_from(total.checked_sub(headers)?).ok()?;
    if length > template.last.size() || wide(total / BASIC_BLOCK) > log.blocks {
        return None;
    }
    data.resize(index(length), 0);
    let lsn = lsn(template.cycle, template.head);
    let mut header = template.last.clone();
    header.h_cycle = template.cycle.into();
    header.h_len = length.into();
    header.h_lsn = lsn.into();
    header.h_tail_lsn = lsn.into();
    header.h_crc = 0.into();
    header.h_prev_block = u32::try_from(template.last_block).ok()?.into();
    header.h_num_logops = u32::try_from(operations.len()).ok()?.into();
    header.h_cycle_data = [0.into(); 64];
    let mut bytes = vec![0; headers];
    put(&mut bytes, 0, header.as_bytes());
    for (number, block) in data.chunks_mut(BASIC_BLOCK).enumerate() {
        if let Some(first) = block.get_mut(..4) {
            put(&mut bytes, kept_at(number), first);
        }
    }
    bytes.extend(data);
    // Blocks past the end of the ring belong to the next cycle.
    for (number, block) in bytes.chunks_mut(BASIC_BLOCK).enumerate().skip(1) {
        let is_past = template.head.saturating_add(wide(number)) >= log.blocks;
        put(block, 0, &template.cycle.wrapping_add(u32::from(is_past)).to_be_bytes());
    }
    if template.last.h_crc.get() != 0 {
        let (headers, data) = bytes.split_at(headers.min(bytes.len()));
        let crc = checksum(headers, data, CHECKED);
        put(&mut bytes, CRC_AT, &crc.to_le_bytes());
    }
    Some(bytes)
}

/// A header without data, as the kernel puts over blocks that a crash left half-written.
pub(super) fn encode_empty(template: &Template, block: u64, cycle: u32) -> Vec<u8> {
    let mut header = template.last.clone();
    header.h_cycle = cycle.into();
    header.h_len = 0.into();
    header.h_lsn = lsn(cycle, block).into();
    header.h_tail_lsn = lsn(template.cycle, template.head).into();
    header.h_crc = 0.into();
    header.h_prev_block = 0.into();
    header.h_num_logops = 0.into();
    header.h_cycle_data = [0.into(); 64];
    header.h_size = 0.into();
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(BASIC_BLOCK, 0);
    bytes
}

/// A log sequence number: the cycle and the basic block.
pub(super) fn lsn(cycle: u32, block: u64) -> u64 {
    u64::from(cycle) << 32 | block & 0xffff_ffff
}

#[cfg(test)]
pub(super) mod tests {
    use blockdev::{BlockDeviceMut, MemoryDevice};

    use super::*;

    /// The header of a record of a log with this UUID, of which all records are made here.
    pub(in super::super) fn header(version: u32, size: u32) -> RawHeader {
        let mut header = RawHeader::read_from_bytes(&[0; 0x144]).unwrap();
        header.h_magicno = MAGIC.into();
        header.h_cycle = 7.into();
        header.h_version = version.into();
        header.h_size = size.into();
        header.h_fmt = LITTLE_ENDIAN.into();
        header.h_fs_uuid = [9; 16];
        // Only says that checksums are used.
        header.h_crc = 1.into();
        header
    }

    /// Writes a record to block `head` of an otherwise empty log of `blocks` blocks.
    pub(in super::super) fn log_with(
        blocks: usize,
        template: &Template,
        operations: &[Vec<u8>],
    ) -> MemoryDevice {
        let device = MemoryDevice::new(vec![0; blocks * 512]);
        let log = Ring { device: &device, offset: 0, blocks: blocks as u64 };
        let bytes = encode(&log, template, operations).unwrap();
        for (number, block) in bytes.chunks(512).enumerate() {
            device.write_all_at(block, log.byte(template.head + number as u64)).unwrap();
        }
        device
    }

    fn template(version: u32, size: u32, head: u64, unit: usize) -> Template {
        Template { last: header(version, size), last_block: 0, head, cycle: 7, unit }
    }

    #[test]
    fn records_are_read_as_they_were_made() {
        let long: Vec<u8> = (0..100_000_u32).map(|byte| byte as u8).collect();
        for (version, size, head, unit, content) in [
            (1, 0, 3, 512, &long[..300]),
            (2, 32768, 3, 4096, &long[..20_000]),
            (2, 256 << 10, 10, 512, &long[..300]),
            (2, 256 << 10, 10, 512, &long[..]),
            // Over the end of the ring, in the data and in the header.
            (2, 32768, 255, 512, &long[..5000]),
            (2, 256 << 10, 252, 512, &long[..100_000]),
        ] {
            let template = template(version, size, head, unit);
            let device = log_with(256, &template, &[content.to_vec()]);
            let log = Ring { device: &device, offset: 0, blocks: 256 };
            let record = Record::read(&log, head, true).unwrap();
            assert!(record.data.starts_with(content), "version {version}, {size}, at {head}");
            assert_eq!((record.header.blocks() * 512) % unit as u64, 0);
            assert_eq!(record.header.h_lsn.get(), 7 << 32 | head);
            record.check_writer(&log, Guid([9; 16])).unwrap();
            let cycles: Vec<u32> = (head..record.end()).map(|block| log.cycle(block).unwrap()).collect();
            let expected: Vec<u32> = (head..record.end()).map(|block| 7 + u32::from(block >= 256)).collect();
            assert_eq!(cycles, expected);
        }
        assert!(
            encode(
                &Ring { device: &MemoryDevice::new(vec![0; 512]), offset: 0, blocks: 1024 },
                &template(2, 32768, 0, 512),
                std::slice::from_ref(&long)
            )
            .is_none()
        );
    }

    #[test]
    fn one_bad_field_is_named() {
        let field = |at: usize, value: &[u8], needs_crc: bool| {
            let device = log_with(64, &template(2, 32768, 0, 512), &[vec![5; 900]]);
            device.write_all_at(value, at as u64).unwrap();
            let log = Ring { device: &device, offset: 0, blocks: 64 };
            match Record::read(&log, 0, needs_crc) {
                Ok(_) => "",
                Err(error) => error.as_corrupt().unwrap().field,
            }
        };
        assert_eq!(field(0, &[1], true), "h_magicno");
        assert_eq!(field(8, &[0, 0, 0, 4], true), "h_version");
        assert_eq!(field(8, &[0, 0, 0, 0], true), "h_version");
        assert_eq!(field(0xc, &[0, 0, 0, 0], true), "h_len");
        assert_eq!(field(0xc, &[0, 0, 0xff, 0], true), "h_len");
        assert_eq!(field(0x140, &[0xff, 0, 0, 0], true), "h_size");
        assert_eq!(field(0x2c, &[1], true), "checksum");
        assert_eq!(field(700, &[1], true), "checksum");
        assert_eq!(field(0x20, &[0; 4], true), "checksum");
        // Version 4 may have none.
        assert_eq!(field(0x20, &[0; 4], false), "");
    }
}
