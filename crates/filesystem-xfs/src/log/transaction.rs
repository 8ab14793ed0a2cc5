//! Transactions, put together from the operations that log records hold.
//!
//! XFS Algorithms & Data Structures, "Log Operations". An operation carries a region of an item or a part of
//! one; a transaction may reach over many records, and operations of several may be mixed.

use std::collections::HashMap;

use ondisk::{Corrupt, Result};

use super::item::Item;
use super::record::Record;
use crate::number::index;
use crate::span::{Checked, Span};

/// Bytes of the header of an operation.
pub(super) const HEADER: usize = 12;
/// `th_magic`, in the byte order of the machine.
pub(super) const MAGIC: u32 = 0x5452_414e;
/// Bytes of `struct xfs_trans_header`.
const TRANSACTION_HEADER: usize = 16;
/// Regions of one item.
const MOST_REGIONS: u16 = 257;

/// `oh_clientid` of transactions, and of the log itself.
pub(super) const CLIENT_TRANSACTION: u8 = 0x69;
pub(super) const CLIENT_LOG: u8 = 0xaa;

/// `oh_flags` bits.
pub(super) mod flags {
    pub(in super::super) const START: u8 = 0x01;
    pub(in super::super) const COMMIT: u8 = 0x02;
    pub(super) const CONTINUE: u8 = 0x04;
    pub(super) const WAS_CONTINUED: u8 = 0x08;
    pub(super) const END: u8 = 0x10;
    pub(in super::super) const UNMOUNT: u8 = 0x20;
}

/// A committed transaction.
#[derive(Debug)]
pub(super) struct Transaction {
    /// Where it began.
    pub(super) lsn: u64,
    /// First byte on the device of the record that committed it, for messages.
    pub(super) offset: u64,
    pub(super) items: Vec<Item>,
}

/// A transaction that is not committed yet.
#[derive(Debug, Default)]
struct Open {
    lsn: u64,
    header: Vec<u8>,
    items: Vec<Item>,
}

/// All transactions that are not committed yet, by their number.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    open: HashMap<u32, Open>,
}

impl Assembler {
    /// Takes the operations of the next record; gives every transaction that it commits to `commit`.
    pub(super) fn add(
        &mut self,
        record: &Record,
        commit: &mut dyn FnMut(Transaction) -> Result<()>,
    ) -> Result<()> {
        let span = Span::new("log operation", record.offset, &record.data);
        let mut at = 0_usize;
        let mut left = record.header.h_num_logops.get();
        while left > 0 && at < record.data.len() {
            let number = span.u32(at, "oh_tid")?;
            let length = index(span.u32(at.saturating_add(4), "oh_len")?);
            let client = span.u8(at.saturating_add(8), "oh_clientid")?;
            let flags = span.u8(at.saturating_add(9), "oh_flags")?;
            if client != CLIENT_TRANSACTION && client != CLIENT_LOG {
                return Err(span.corrupt("oh_clientid", "0x69 or 0xaa", format_args!("{client:#x}")).into());
            }
            let data = span.slice(at.saturating_add(HEADER), length, "oh_len")?;
            if let Some(items) = self.operation(&span, number, flags, data, record.header.h_lsn.get())? {
                commit(Transaction { lsn: items.lsn, offset: record.offset, items: items.items })?;
            }
            at = at.saturating_add(HEADER).saturating_add(length);
            left = left.saturating_sub(1);
        }
        Ok(())
    }

    /// Takes one operation; a transaction that it commits.
    fn operation(
        &mut self,
        span: &Span<'_>,
        number: u32,
        flags: u8,
        data: &[u8],
        lsn: u64,
    ) -> Checked<Option<Open>> {
        let Some(open) = self.open.get_mut(&number) else {
            // What began before the tail has reached its place.
            if flags & flags::START != 0 {
                self.open.insert(number, Open { lsn, ..Open::default() });
            }
            return Ok(None);
        };
        let mut kind = flags & !flags::END;
        if kind & flags::WAS_CONTINUED != 0 {
            kind &= !flags::CONTINUE;
        }
        match kind {
            0 | flags::CONTINUE => open.region(span, data)?,
            flags::WAS_CONTINUED => open.more(span, data)?,
            flags::COMMIT => {
                let open = self.open.remove(&number);
                if let Some(item) = open.as_ref().and_then(|open| open.items.iter().find(|item| !item.is_whole()))
                {
                    return Err(span.corrupt("item", "all its regions", item.regions.len()));
                }
                return Ok(open);
            }
            flags::UNMOUNT => {
                self.open.remove(&number);
            }
            _ => return Err(span.corrupt("oh_flags", "one kind of operation", format_args!("{flags:#x}"))),
        }
        Ok(None)
    }
}

impl Open {
    /// A whole region, or the first part of one.
    fn region(&mut self, span: &Span<'_>, data: &[u8]) -> Checked<()> {
        if data.is_empty() {
            return Ok(());
        }
        if self.header.len() < TRANSACTION_HEADER {
            return self.header_part(span, data);
        }
        match self.items.last_mut() {
            Some(item) if !item.is_whole() => item.regions.push(data.to_vec()),
            _ => {
                let first = Span::new("log item", span.offset, data);
                let count = first.value::<ondisk::le::U16>(2, "size")?.get();
                if count == 0 || count > MOST_REGIONS {
                    return Err(first.corrupt("size", format_args!("1..={MOST_REGIONS} regions"), count));
                }
                self.items.push(Item { count: usize::from(count), regions: vec![data.to_vec()] });
            }
        }
        Ok(())
    }

    /// The next part of the last region.
    fn more(&mut self, span: &Span<'_>, data: &[u8]) -> Checked<()> {
        if data.is_empty() {
            return Ok(());
        }
        if self.header.len() < TRANSACTION_HEADER {
            return self.header_part(span, data);
        }
        match self.items.last_mut().and_then(|item| item.regions.last_mut()) {
            Some(region) => region.extend_from_slice(data),
            None => return Err(span.corrupt("oh_flags", "a region before its continuation", "none")),
        }
        Ok(())
    }

    fn header_part(&mut self, span: &Span<'_>, data: &[u8]) -> Checked<()> {
        let is_first = self.header.is_empty();
        self.header.extend_from_slice(data);
        if self.header.len() > TRANSACTION_HEADER {
            return Err(span.corrupt("th_magic", "a header of 16 bytes", self.header.len()));
        }
        let magic = Span::new("log transaction", span.offset, &self.header);
        if is_first && data.len() >= 4 && magic.value::<ondisk::le::U32>(0, "th_magic")?.get() != MAGIC {
            return Err(Corrupt::new("log transaction", span.offset, "th_magic", "\"TRAN\"", "something else"));
        }
        Ok(())
    }
}
