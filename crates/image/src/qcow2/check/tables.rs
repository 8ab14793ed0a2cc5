//! L1 and L2 tables: what they refer to, and whether their entries are legal.

use std::collections::{BTreeMap, HashMap};

use ondisk::{Result, read_bytes};

use super::super::entry::{COPIED, Content, EntryFormat, L1_RESERVED, L2Entry, OFFSET};
use super::super::header::feature;
use super::super::snapshot::Table;
use super::counts::{Added, Owner};
use super::run::Checking;
use crate::Problem;

/// Clusters used twice by the active tables that are told one by one.
const MAX_SHARED: usize = 1000;

/// Bytes of an L1 table that are read at once.
const L1_PIECE: u64 = 1 << 20;

/// What the walk found that later steps need.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// Every L2 table, with the uses that L1 tables make of it.
    pub(super) tables: BTreeMap<u64, Uses>,
}

/// The L1 entries that point to one L2 table.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Uses {
    /// The index in the active L1 table, and the entry as stored.
    pub(super) active: Option<(u64, u64)>,
    /// How many entries, of all tables.
    pub(super) references: u32,
    /// An entry for uncompressed data is without COPIED.
    pub(super) has_unflagged: bool,
}

/// Follows the active tables and those of every snapshot.
pub(super) fn walk(checking: &mut Checking, snapshots: &Table) -> Result<Walked> {
    let header = &checking.header;
    let active = (header.l1_offset, header.l1_entries);
    let mut walked = Walked::default();
    follow_l1(checking, active, true, &mut walked)?;
    for entry in &snapshots.entries {
        follow_l1(checking, (entry.l1_offset, entry.l1_entries), false, &mut walked)?;
    }
    let format = entry_format(checking);
    let mut shared = HashMap::new();
    for (offset, uses) in &mut walked.tables {
        follow_l2(checking, format, *offset, uses, &mut shared)?;
    }
    tell_shared(checking, format, &walked, shared)?;
    Ok(walked)
}

pub(super) fn entry_format(checking: &Checking) -> EntryFormat {
    EntryFormat {
        cluster_bits: checking.header.cluster_bits,
        version: checking.header.version,
        is_extended: checking.header.has(feature::EXTENDED_L2),
        has_data_file: checking.header.has(feature::DATA_FILE),
    }
}

fn follow_l1(
    checking: &mut Checking,
    (offset, entries): (u64, u32),
    is_active: bool,
    walked: &mut Walked,
) -> Result<()> {
    let length = u64::from(entries).saturating_mul(8);
    if length == 0 || !checking.claim(offset, length, 1, Owner::L1Table) {
        return Ok(());
    }
    let mut done = 0;
    while done < length {
        let piece = L1_PIECE.min(length.saturating_sub(done));
        let at = offset.saturating_add(done);
        if !checking.is_hole(at, piece) {
            let available = checking.file.size().saturating_sub(at).min(piece);
            let bytes = read_bytes(&*checking.file, at, usize::try_from(available).unwrap_or(0))?;
            for (entry, index) in bytes.as_chunks::<8>().0.iter().zip(done / 8..) {
                follow_l1_entry(checking, u64::from_be_bytes(*entry), (offset, index), is_active, walked);
            }
        }
        done = done.saturating_add(piece);
    }
    Ok(())
}

fn follow_l1_entry(
    checking: &mut Checking,
    entry: u64,
    (table, index): (u64, u64),
    is_active: bool,
    walked: &mut Walked,
) {
    let at = table.saturating_add(index.saturating_mul(8));
    let span = checking.header.l2_span();
    let start = index.saturating_mul(span);
    let guest = checking.on_disk(start..start.saturating_add(span)).filter(|_| is_active);
    if entry & L1_RESERVED & !OFFSET != 0 {
        let problem =
            Problem::error("qcow2 L1 table entry", at, format!("reserved bits are set: {entry:#x}"));
        checking.report.add(problem);
    }
    let offset = entry & OFFSET;
    if offset == 0 {
        if entry & COPIED != 0 {
            let summary = "COPIED is set, and there is no L2 table: its offset may have been lost";
            let problem = Problem::error("qcow2 L1 table entry", at, summary);
            checking.report.add(problem.affecting("this part of the disk reads as what lies below", guest));
        }
        return;
    }
    let bits = checking.header.cluster_bits;
    let ends_in_file = offset.saturating_add(bits.size()) <= checking.file.size();
    if !bits.is_aligned(offset) || !ends_in_file {
        let summary = format!("the L2 table lies at {offset:#x}: unaligned, or past the end of the file");
        let problem = Problem::error("qcow2 L1 table entry", at, summary);
        checking.report.add(problem.affecting("this part of the disk cannot be read", guest));
        return;
    }
    let uses = walked.tables.entry(offset).or_default();
    uses.references = uses.references.saturating_add(1);
    if !is_active {
        return;
    }
    if let Some((first, _)) = uses.active {
        let summary = format!("the L2 table at {offset:#x} is also that of entry {first}");
        let problem = Problem::error("qcow2 L1 table entry", at, summary);
        checking.report.add(problem.affecting("a write to one part of the disk changes the other", guest));
    } else {
        uses.active = Some((index, entry));
    }
}

fn follow_l2(
    checking: &mut Checking,
    format: EntryFormat,
    offset: u64,
    uses: &mut Uses,
    shared: &mut HashMap<u64, Vec<u64>>,
) -> Result<()> {
    let bits = checking.header.cluster_bits;
    if !checking.claim(offset, bits.size(), uses.references, Owner::L2Table)
        || checking.is_hole(offset, bits.size())
    {
        return Ok(());
    }
    let is_plain = !format.is_extended && !format.has_data_file;
    let is_active = uses.active.is_some();
    // A cluster that starts before this ends in the file.
    let file_end = checking.file.size().saturating_sub(bits.size().saturating_sub(1));
    let mut plain: u64 = 0;
    for (number, entry) in read_l2(checking, format, offset)? {
        let host = entry.word & OFFSET;
        // Nearly all entries: plain data in one place of its own.
        if is_plain && entry.word == host | COPIED && host != 0 && bits.is_aligned(host) && host < file_end {
            let added = checking.counts.add(bits.number(host), uses.references, Owner::Data, is_active);
            if added.conflict.is_none() && !added.was_active {
                plain = plain.saturating_add(1);
                continue;
            }
            tell_added(checking, host, added, Owner::Data, shared);
            plain = plain.saturating_add(1);
            continue;
        }
        uses.has_unflagged |= entry.word & COPIED == 0 && host != 0;
        let guest = guest_of(checking, *uses, number);
        follow_entry(checking, format, (offset, number), entry, guest, uses.references, shared);
    }
    if is_active {
        let bytes = plain.saturating_mul(bits.size());
        checking.report.allocated = checking.report.allocated.saturating_add(bytes);
    }
    Ok(())
}

/// Tells who else uses a host cluster of data.
fn tell_added(
    checking: &mut Checking,
    host: u64,
    added: Added,
    owner: Owner,
    shared: &mut HashMap<u64, Vec<u64>>,
) {
    if let Some(other) = added.conflict {
        let summary = format!("used as {} and as {}", owner.name(), other.name());
        let problem = Problem::error("qcow2 host cluster", host, summary);
        checking.report.add(problem.affecting("a write to one destroys the other", []));
    }
    if added.was_active && shared.len() < MAX_SHARED {
        shared.entry(host).or_default();
    }
}

/// The entries of an L2 table that are not zero, with their numbers.
pub(super) fn read_l2(checking: &Checking, format: EntryFormat, offset: u64) -> Result<Vec<(u64, L2Entry)>> {
    let bytes = read_bytes(&*checking.file, offset, checking.header.cluster_bits.buffer_size())?;
    let words = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_be_bytes(*word));
    if !format.is_extended {
        return Ok((0..)
            .zip(words)
            .filter(|(_, word)| *word != 0)
            .map(|(n, word)| (n, L2Entry { word, bitmap: 0 }))
            .collect());
    }
    let words: Vec<u64> = words.collect();
    let pairs =
        words.as_chunks::<2>().0.iter().map(|[word, bitmap]| L2Entry { word: *word, bitmap: *bitmap });
    Ok((0..).zip(pairs).filter(|(_, entry)| entry.word != 0 || entry.bitmap != 0).collect())
}

/// The first guest byte of an entry, if the active tables use it.
pub(super) fn guest_of(checking: &Checking, uses: Uses, number: u64) -> Option<u64> {
    let (index, _) = uses.active?;
    let within = number.saturating_mul(checking.header.cluster_size());
    Some(index.saturating_mul(checking.header.l2_span()).saturating_add(within))
}

/// First byte of entry `number` in the table at `table`.
pub(super) fn entry_offset(format: EntryFormat, table: u64, number: u64) -> u64 {
    table.saturating_add(number.saturating_mul(if format.is_extended { 16 } else { 8 }))
}

fn follow_entry(
    checking: &mut Checking,
    format: EntryFormat,
    (table, number): (u64, u64),
    entry: L2Entry,
    guest: Option<u64>,
    references: u32,
    shared: &mut HashMap<u64, Vec<u64>>,
) {
    let bits = checking.header.cluster_bits;
    let at = entry_offset(format, table, number);
    let range = guest.and_then(|guest| checking.on_disk(guest..guest.saturating_add(bits.size())));
    let broken = |summary: String, effect: &str| {
        Problem::error("qcow2 L2 table entry", at, summary).affecting(effect, range.clone())
    };
    if format.reserved_bits(entry.word) != 0 {
        checking.report.add(broken(format!("reserved bits are set: {:#x}", entry.word), ""));
    }
    // An entry of snapshots alone has no guest byte to hold a data file's offset against.
    let place = guest.unwrap_or(entry.word & OFFSET);
    if let Err(damage) = parts_are_legal(format, entry, place) {
        let summary = format!("{} is {:#x}, expected {}", damage.field, damage.found, damage.expected);
        checking.report.add(broken(summary, "this cluster cannot be read"));
        return;
    }
    if let Ok(Some(compressed)) = format.compressed_range(entry.word) {
        if guest.is_some() {
            checking.report.compressed = checking.report.compressed.saturating_add(bits.size());
            checking.report.allocated = checking.report.allocated.saturating_add(bits.size());
        }
        if entry.word & COPIED != 0 {
            checking.report.add(broken("COPIED is set for a compressed cluster".to_owned(), ""));
        }
        if compressed.offset >= checking.file.size() {
            let summary =
                format!("the compressed data lies at {:#x}, past the end of the file", compressed.offset);
            checking.report.add(broken(summary, "this cluster reads as zeros"));
        }
        checking.claim(compressed.offset, compressed.length, references, Owner::Compressed);
        return;
    }
    let Ok(Some(host)) = format.host(entry.word, place) else { return };
    let is_data = !matches!(format.content(entry, 0, place), Ok(Content::Zero)) || format.is_extended;
    if guest.is_some() && is_data {
        checking.report.allocated = checking.report.allocated.saturating_add(bits.size());
    }
    if format.has_data_file {
        return;
    }
    if host.saturating_add(bits.size()).saturating_sub(checking.file.size().max(host)) >= bits.size()
        && host >= checking.file.size()
    {
        let summary = format!("the host cluster {host:#x} lies past the end of the file");
        checking.report.add(broken(summary, "this cluster reads as zeros"));
        return;
    }
    let added = checking.counts.add(bits.number(host), references, Owner::Data, guest.is_some());
    tell_added(checking, host, added, Owner::Data, shared);
}

/// Whether every part of the cluster has a legal meaning.
fn parts_are_legal(
    format: EntryFormat,
    entry: L2Entry,
    guest: u64,
) -> std::result::Result<(), super::super::entry::Damage> {
    if !format.is_extended || entry.word & (1 << 62) != 0 {
        return format.content(entry, 0, guest).map(|_| ());
    }
    (0..32).try_for_each(|part| format.content(entry, part, guest).map(|_| ()))
}

/// Names, for each host cluster that the active tables use more than once, every place of the disk that does.
fn tell_shared(
    checking: &mut Checking,
    format: EntryFormat,
    walked: &Walked,
    mut shared: HashMap<u64, Vec<u64>>,
) -> Result<()> {
    if shared.is_empty() {
        return Ok(());
    }
    for (offset, uses) in walked.tables.iter().filter(|(_, uses)| uses.active.is_some()) {
        for (number, entry) in read_l2(checking, format, *offset)? {
            if let (Some(places), Some(guest)) =
                (shared.get_mut(&(entry.word & OFFSET)), guest_of(checking, *uses, number))
            {
                places.push(guest);
            }
        }
    }
    let size = checking.header.cluster_size();
    let mut shared: Vec<_> = shared.into_iter().collect();
    shared.sort_unstable();
    for (host, places) in shared {
        let guest: Vec<_> =
            places.iter().filter_map(|at| checking.on_disk(*at..at.saturating_add(size))).collect();
        let summary = format!("used for {} places of the disk", places.len());
        let problem = Problem::error("qcow2 host cluster", host, summary);
        checking.report.add(problem.affecting("all but one of them read wrong bytes", guest));
    }
    Ok(())
}
