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
                if let Some(item) =
                    open.as_ref().and_then(|open| open.items.iter().find(|item| !item.is_whole()))
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
            return Err(Corrupt::new(
                "log transaction",
                span.offset,
                "th_magic",
                "\"TRAN\"",
                "something else",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::record::tests::header;

    fn operation(number: u32, flags: u8, data: &[u8]) -> Vec<u8> {
        let mut bytes = number.to_be_bytes().to_vec();
        bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&[CLIENT_TRANSACTION, flags, 0, 0]);
        bytes.extend_from_slice(data);
        bytes
    }

    fn start(number: u32) -> Vec<u8> {
        let mut header = MAGIC.to_le_bytes().to_vec();
        header.resize(TRANSACTION_HEADER, 0);
        [operation(number, flags::START, &[]), operation(number, 0, &header)].concat()
    }

    /// The regions of the items of all transactions that these records commit.
    fn committed(records: &[Vec<Vec<u8>>]) -> Result<Vec<Vec<Vec<u8>>>> {
        let mut assembler = Assembler::default();
        let mut found = Vec::new();
        for operations in records {
            let mut header = header(2, 32768);
            header.h_num_logops = 100.into();
            let record = Record { block: 0, offset: 0, header, data: operations.concat() };
            assembler.add(&record, &mut |transaction| {
                found.push(transaction.items.into_iter().flat_map(|item| item.regions).collect());
                Ok(())
            })?;
        }
        Ok(found)
    }

    const ONE: &[u8] = &[0x3c, 0x12, 1, 0, 5, 5];
    const TWO: &[u8] = &[0x3c, 0x12, 2, 0, 6, 6];

    #[test]
    fn transactions_are_put_together_from_mixed_operations() {
        let records = [
            vec![operation(9, 0, ONE), start(1), operation(1, 0, TWO), start(2), operation(2, 0, ONE)],
            vec![operation(1, flags::CONTINUE, b"ab"), operation(2, flags::COMMIT, &[])],
            vec![
                operation(1, flags::WAS_CONTINUED | flags::CONTINUE, b"cd"),
                operation(1, flags::WAS_CONTINUED | flags::END, b"ef"),
                operation(1, flags::COMMIT, &[]),
                start(3),
                operation(3, 0, ONE),
            ],
        ];
        let expected = vec![vec![ONE.to_vec()], vec![TWO.to_vec(), b"abcdef".to_vec()]];
        assert_eq!(committed(&records).unwrap(), expected);
    }

    #[test]
    fn one_bad_field_is_named() {
        let field =
            |operations: Vec<Vec<u8>>| committed(&[operations]).unwrap_err().as_corrupt().unwrap().field;
        assert_eq!(field(vec![start(1), operation(1, flags::START, &[])]), "oh_flags");
        assert_eq!(field(vec![start(1), operation(1, flags::WAS_CONTINUED, b"ab")]), "oh_flags");
        assert_eq!(field(vec![start(1), operation(1, 0, &[0, 0, 0, 0])]), "size");
        assert_eq!(field(vec![start(1), operation(1, 0, &[0])]), "size");
        assert_eq!(field(vec![start(1), operation(1, 0, TWO), operation(1, flags::COMMIT, &[])]), "item");
        assert_eq!(field(vec![operation(1, flags::START, &[]), operation(1, 0, &[7; 16])]), "th_magic");
        assert_eq!(field(vec![operation(1, flags::START, &[]), operation(1, 0, &[7; 17])]), "th_magic");
        let mut long = start(1);
        long[7] = 200;
        assert_eq!(field(vec![long]), "oh_len");
        let mut other = start(1);
        other[8] = 3;
        assert_eq!(field(vec![other]), "oh_clientid");
    }
}
