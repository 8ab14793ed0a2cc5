//! VHDX log: finding what was written to it last, and replaying that.
//!
//! MS-VHDX §2.3.2 and §2.3.3. A ring of entries. Those that may not have reached their places yet are the
//! active sequence: it ends with the newest entry, the head, which names the oldest, the tail. The log is
//! never trusted: every field and checksum is looked at first, and what is read, kept and replayed is bounded
//! by the log's length, which the file must hold.
//!
//! QEMU differs: it takes the sequence whose first entry is the newest and does not join one across the end of
//! the ring, so it loses entries there; it fails on more than one sector of descriptors; and it takes a log without any valid sequence for an empty one, where
//! the specification wants the file refused.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use blockdev::{BlockDevice, BlockDeviceMut, Device, ExtentKind, Overlay};
use ondisk::{Corrupt, Error, Guid, Result};

use super::geometry::{SECTOR, SECTOR_SIZE, length_of};
use super::header::{self, Header};
use super::log_entry::{Checksum, Descriptor, EntryHeader, restore};
use super::region;
use super::space::Taken;

pub(super) const STRUCTURE: &str = "VHDX log";
const ENTRY: &str = "VHDX log entry";

/// Bytes that are read at once.
const PIECE: u64 = 64 << 10;

/// How often every byte of the log may be checksummed. Entries that overlap would otherwise cost a square.
const MAX_PASSES: u64 = 16;

/// Bytes that a replay may keep in memory. A log of Hyper-V or QEMU has 1 MiB in all.
const MAX_REPLAYED: u64 = 256 << 20;

/// No file can be that long: twice the longest disk.
const MAX_FILE: u64 = 128 << 40;

/// Where the log lies, and which entries are its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Log {
    offset: u64,
    length: u64,
    guid: Guid,
}

/// Valid entries that follow each other, from the tail to the head; never empty.
#[derive(Debug, Clone)]
pub(super) struct Sequence {
    /// Each with its place in the log.
    entries: Vec<(u64, EntryHeader)>,
}

/// The file with its log laid over it.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) overlay: Overlay,
    /// How many entries were replayed.
    pub(super) entries: usize,
    /// How many of their descriptors changed anything.
    pub(super) writes: u64,
    /// The file is shorter than the newest entry says that it was.
    pub(super) truncated: Option<Corrupt>,
}

/// Replays the log of a file with this header, if it is active.
///
/// # Errors
/// A log without a valid sequence, or one that would write where it must not; a host that cannot read it.
pub(super) fn open(file: &Device, at: u64, header: &Header) -> Result<Option<Replay>> {
    if !header.is_log_active() {
        return Ok(None);
    }
    if header.log_version != 0 {
        return Err(Error::unsupported(
            STRUCTURE,
            format!("version {} of an active log", header.log_version),
        ));
    }
    header.check_log(at, file.size())?;
    let log = Log { offset: header.log_offset, length: header.log_length, guid: header.log_guid };
    let sequence = log.active_sequence(&**file)?.ok_or_else(|| {
        let expected = format!("a valid sequence of entries of log {}", log.guid);
        Corrupt::new(STRUCTURE, log.offset, "active sequence", expected, "none")
    })?;
    log.replay(file, &sequence).map(Some)
}

impl Log {
    /// The newest valid sequence.
    fn active_sequence(&self, file: &dyn BlockDevice) -> Result<Option<Sequence>> {
        let mut entries: BTreeMap<u64, EntryHeader> = BTreeMap::new();
        let mut budget = self.length.saturating_mul(MAX_PASSES);
        for at in self.candidates(file)? {
            if let Some(header) = self.validate(file, at, &mut budget)? {
                entries.insert(at, header);
            }
        }
        let next = |at: u64, header: &EntryHeader| {
            let next = self.wrap(at.saturating_add(header.length));
            let follows = |next: &&EntryHeader| Some(next.sequence) == header.sequence.checked_add(1);
            entries.get(&next).filter(follows).map(|header| (next, *header))
        };
        // Where the run that contains an entry ends. Followers come first, for their numbers are higher.
        let mut descending: Vec<(u64, EntryHeader)> =
            entries.iter().map(|(at, header)| (*at, *header)).collect();
        descending.sort_by_key(|(at, header)| (Reverse(header.sequence), *at));
        let mut ends: BTreeMap<u64, u64> = BTreeMap::new();
        for (at, header) in &descending {
            let end = next(*at, header).and_then(|(next, _)| ends.get(&next)).copied().unwrap_or(*at);
            ends.insert(*at, end);
        }
        let is_complete = |(head, header): &&(u64, EntryHeader)| {
            ends.get(head) == Some(head) && ends.get(&header.tail) == Some(head)
        };
        let Some((_, head)) = descending.iter().find(is_complete) else { return Ok(None) };
        let mut sequence = Vec::new();
        let mut entry = entries.get(&head.tail).map(|header| (head.tail, *header));
        while let Some((at, header)) = entry {
            sequence.push((at, header));
            entry = next(at, &header);
        }
        Ok(Some(Sequence { entries: sequence }))
    }

    /// Places in the log where an entry of it may start. Holes of the file hold none.
    fn candidates(&self, file: &dyn BlockDevice) -> Result<Vec<u64>> {
        let mut found = Vec::new();
        let mut at = 0;
        while at < self.length {
            let offset = self.offset.saturating_add(at);
            let extent = file.extent_at(offset).map_err(|source| Error::Io { offset, length: 1, source })?;
            let hole = extent.length.saturating_sub(extent.length % SECTOR);
            if extent.kind == ExtentKind::Zero && hole > 0 {
                at = at.saturating_add(hole);
                continue;
            }
            let piece = self.read(file, at, PIECE.min(self.length.saturating_sub(at)))?;
            for (sector, at) in piece.chunks(SECTOR_SIZE).zip((at..).step_by(SECTOR_SIZE)) {
                if EntryHeader::decode(sector, self.guid, self.length).is_some() {
                    found.push(at);
                }
            }
            at = at.saturating_add(PIECE);
        }
        Ok(found)
    }

    /// The header of the entry at `at`, if all of the entry is valid.
    fn validate(&self, file: &dyn BlockDevice, at: u64, budget: &mut u64) -> Result<Option<EntryHeader>> {
        let Some(header) = EntryHeader::decode(&self.read(file, at, SECTOR)?, self.guid, self.length) else {
            return Ok(None);
        };
        *budget = budget.checked_sub(header.length).ok_or_else(|| {
            let expected = "entries that do not overlap";
            Corrupt::new(STRUCTURE, self.offset, "entries", expected, "many that overlap")
        })?;
        let mut checksum = Checksum::new();
        let mut data_sectors = header.length / SECTOR;
        data_sectors = data_sectors.saturating_sub(header.descriptor_sectors());
        let mut expected_data = 0_u64;
        let mut number = 0_u64;
        while number < header.length / SECTOR {
            let start = number.saturating_mul(SECTOR);
            let piece = self.read(
                file,
                self.wrap(at.saturating_add(start)),
                PIECE.min(header.length.saturating_sub(start)),
            )?;
            for sector in piece.chunks(SECTOR_SIZE) {
                if number == 0 {
                    checksum.add_first(sector);
                } else {
                    checksum.add(sector);
                }
                if number < header.descriptor_sectors() {
                    for descriptor in header.descriptors_in(number, sector) {
                        match descriptor {
                            None => return Ok(None),
                            Some(Descriptor::Data { .. }) => expected_data = expected_data.saturating_add(1),
                            Some(Descriptor::Zero { .. }) => {}
                        }
                    }
                    if expected_data > data_sectors {
                        return Ok(None);
                    }
                } else if number.saturating_sub(header.descriptor_sectors()) < expected_data
                    && !header.owns(sector)
                {
                    return Ok(None);
                }
                number = number.saturating_add(1);
            }
        }
        Ok((checksum.value() == header.checksum).then_some(header))
    }

    /// Lays the writes of a sequence over the file, in order.
    fn replay(&self, file: &Device, sequence: &Sequence) -> Result<Replay> {
        let overlay = Overlay::new(file.clone());
        let kept_out = Taken::new([0..region_tables(), self.offset..self.offset.saturating_add(self.length)]);
        let mut replayer = Replayer { overlay: &overlay, kept_out, kept: 0, writes: 0 };
        for (at, header) in &sequence.entries {
            self.replay_entry(&**file, *at, header, &mut replayer)?;
        }
        let writes = replayer.writes;
        let mut truncated = None;
        if let Some((at, head)) = sequence.entries.last() {
            let at = self.offset.saturating_add(*at);
            grow(&overlay, head.last_file_offset, at, "LastFileOffset")?;
            if head.flushed_file_offset > file.size() {
                let expected = format!("at most {}, the length of the file", file.size());
                let found = head.flushed_file_offset;
                truncated = Some(Corrupt::new(ENTRY, at, "FlushedFileOffset", expected, found));
            }
        }
        Ok(Replay { overlay, entries: sequence.entries.len(), writes, truncated })
    }

    fn replay_entry(
        &self,
        file: &dyn BlockDevice,
        at: u64,
        header: &EntryHeader,
        replayer: &mut Replayer<'_>,
    ) -> Result<()> {
        let entry_offset = self.offset.saturating_add(at);
        let mut data_at = at.saturating_add(header.descriptor_sectors().saturating_mul(SECTOR));
        for number in 0..header.descriptor_sectors() {
            let sector_at = at.saturating_add(number.saturating_mul(SECTOR));
            let descriptors = self.read(file, self.wrap(sector_at), SECTOR)?;
            for descriptor in header.descriptors_in(number, &descriptors).flatten() {
                replayer.check(&descriptor, entry_offset)?;
                match descriptor {
                    Descriptor::Zero { offset, length } => replayer.zero(offset, length, entry_offset)?,
                    Descriptor::Data { offset, leading, trailing } => {
                        let mut sector = self.read(file, self.wrap(data_at), SECTOR)?;
                        restore(&mut sector, leading, trailing);
                        replayer.write(&sector, offset, entry_offset)?;
                        data_at = data_at.saturating_add(SECTOR);
                    }
                }
            }
        }
        Ok(())
    }

    /// A place in the ring.
    fn wrap(&self, at: u64) -> u64 {
        at.checked_rem(self.length).unwrap_or(0)
    }

    /// Bytes of the ring, from its end on from its start; no more than a piece at once.
    fn read(&self, file: &dyn BlockDevice, at: u64, length: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        let first = usize::try_from(self.length.saturating_sub(at).min(length)).unwrap_or(usize::MAX);
        let (start, rest) = bytes.split_at_mut(first);
        for (part, at) in [(start, at), (rest, 0)] {
            let (offset, length) = (self.offset.saturating_add(at), length_of(part));
            file.read_exact_at(part, offset).map_err(|source| Error::Io { offset, length, source })?;
        }
        Ok(bytes)
    }
}

/// Headers are not written through the log, so nothing below the region tables is.
fn region_tables() -> u64 {
    let [_, second_header] = header::OFFSETS;
    let [first_table, _] = region::OFFSETS;
    second_header.max(first_table)
}

/// What a replay writes to, and how much it may.
struct Replayer<'a> {
    overlay: &'a Overlay,
    kept_out: Taken,
    /// Bytes kept in memory so far.
    kept: u64,
    writes: u64,
}

impl Replayer<'_> {
    /// Refuses a write to where the log must not write.
    fn check(&mut self, descriptor: &Descriptor, entry: u64) -> Result<()> {
        self.writes = self.writes.saturating_add(1);
        let range = descriptor.offset()..descriptor.offset().saturating_add(descriptor.length());
        if !range.is_empty() && self.kept_out.touches(&range) {
            let expected = "a place outside of the headers and the log";
            let found = format_args!("{:#x}", range.start).to_string();
            return Err(Corrupt::new(ENTRY, entry, "FileOffset", expected, found).into());
        }
        Ok(())
    }

    /// A sector to its place.
    fn write(&mut self, bytes: &[u8], offset: u64, entry: u64) -> Result<()> {
        let length = length_of(bytes);
        self.keep(length)?;
        grow(self.overlay, offset.saturating_add(length), entry, "FileOffset")?;
        self.overlay.write_all_at(bytes, offset).map_err(|source| Error::Write { offset, length, source })
    }

    /// Writes zeros where there may be others.
    fn zero(&mut self, offset: u64, length: u64, entry: u64) -> Result<()> {
        let end = offset.saturating_add(length);
        // What grows is zero already.
        let stop = end.min(self.overlay.size());
        grow(self.overlay, end, entry, "FileOffset")?;
        let mut at = offset;
        while at < stop {
            let extent =
                self.overlay.extent_at(at).map_err(|source| Error::Io { offset: at, length: 1, source })?;
            let length = extent.length.min(stop.saturating_sub(at)).min(PIECE);
            if extent.kind == ExtentKind::Zero {
                at = at.saturating_add(extent.length);
                continue;
            }
            let zeros = vec![0; usize::try_from(length).unwrap_or(0)];
            self.write(&zeros, at, entry)?;
            at = at.saturating_add(length);
        }
        Ok(())
    }

    fn keep(&mut self, length: u64) -> Result<()> {
        self.kept = self.kept.saturating_add(length);
        if self.kept > MAX_REPLAYED {
            let feature = format!("a log that changes more than {} MiB", MAX_REPLAYED >> 20);
            return Err(Error::unsupported(STRUCTURE, feature));
        }
        Ok(())
    }
}

/// Extends the overlay to `size` bytes, if a file can be that long.
fn grow(overlay: &Overlay, size: u64, entry: u64, field: &'static str) -> Result<()> {
    if size > MAX_FILE {
        let expected = format!("at most {MAX_FILE:#x}");
        return Err(Corrupt::new(ENTRY, entry, field, expected, format_args!("{size:#x}")).into());
    }
    overlay.grow(size).map_err(|source| Error::Write { offset: size, length: 0, source })
}
