//! The content of one attribute: resident, in clusters, with holes, or compressed.

use std::fmt::Display;
use std::sync::{Arc, Mutex, PoisonError};

use ondisk::{Corrupt, Error, Result};

use crate::lznt1;
use crate::number::wide;
use crate::record::{Attribute, Body, NonResident, Record, flags};
use crate::runs::{self, Run};
use crate::span::Span;
use crate::volume::Volume;

const STRUCTURE: &str = "attribute";
/// NTFS compresses 16 clusters of at most 4 KiB together.
const MAX_UNIT: u64 = 64 << 10;

/// A piece of an attribute: the record that holds it, and its index there.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) record: Arc<Record>,
    pub(crate) index: usize,
}

impl Found {
    pub(crate) fn attribute(&self) -> Option<&Attribute> {
        self.record.attributes.get(self.index)
    }

    /// The value, if it is resident.
    pub(crate) fn value(&self) -> Option<&[u8]> {
        match &self.attribute()?.body {
            Body::Resident(range) => Some(self.record.slice(range)),
            Body::NonResident(_) => None,
        }
    }

    pub(crate) fn name(&self) -> &[u8] {
        self.attribute().map_or(&[], |attribute| self.record.slice(&attribute.name))
    }

    pub(crate) fn non_resident(&self) -> Option<&NonResident> {
        match &self.attribute()?.body {
            Body::NonResident(body) => Some(body),
            Body::Resident(_) => None,
        }
    }

    /// First cluster of this piece; 0 for a resident attribute.
    pub(crate) fn lowest_vcn(&self) -> u64 {
        self.non_resident().map_or(0, |body| body.lowest_vcn)
    }

    /// Length and bytes on the device, which the first piece of an attribute says.
    pub(crate) fn sizes(&self) -> (u64, u64) {
        match self.non_resident() {
            Some(body) => (body.data_size, body.compressed_size.unwrap_or(body.allocated_size)),
            None => (wide(self.value().unwrap_or_default().len()), 0),
        }
    }

    fn corrupt(&self, field: &'static str, expected: impl Display, found: impl Display) -> Corrupt {
        Corrupt::new(STRUCTURE, self.record.offset, field, expected, found)
    }
}

/// An attribute whose pieces were put together.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Length in bytes.
    pub(crate) size: u64,
    flags: u16,
    /// First byte of the record that describes it, for messages.
    offset: u64,
    content: Content,
    /// The unit that was decompressed last: a reader of small pieces asks for it again.
    last_unit: Mutex<Option<(u64, Arc<Vec<u8>>)>>,
}

#[derive(Debug)]
enum Content {
    Resident(Vec<u8>),
    Clusters { runs: Vec<Run>, initialized: u64, unit_log: u8 },
}

impl Stream {
    /// Puts the pieces of one attribute together, which are in the order of their clusters.
    pub(crate) fn assemble(pieces: &[Found]) -> Result<Self> {
        let Some((first, attribute)) = pieces.first().and_then(|first| Some((first, first.attribute()?)))
        else {
            return Err(Corrupt::new(STRUCTURE, 0, "pieces", "at least one", 0).into());
        };
        let (offset, flags) = (first.record.offset, attribute.flags);
        let Body::NonResident(head) = &attribute.body else {
            let value = first.value().unwrap_or_default().to_vec();
            if pieces.len() > 1 {
                return Err(first.corrupt("pieces", "one of a resident attribute", pieces.len()).into());
            }
            return Ok(Self {
                size: wide(value.len()),
                flags,
                offset,
                content: Content::Resident(value),
                last_unit: Mutex::default(),
            });
        };
        let mut runs = Vec::new();
        let mut end = 0;
        for piece in pieces {
            let Some(body) = piece.non_resident() else {
                return Err(piece.corrupt("non_resident", 1, 0).into());
            };
            if body.lowest_vcn != end {
                return Err(piece.corrupt("lowest_vcn", end, body.lowest_vcn).into());
            }
            let pairs = Span::new(STRUCTURE, piece.record.offset, piece.record.slice(&body.mapping_pairs));
            end = runs::decode(&pairs, body.lowest_vcn, &mut runs)?;
            // Some writers leave 0 there in an attribute of one piece.
            if body.highest_vcn.wrapping_add(1) != end && !(pieces.len() == 1 && body.highest_vcn == 0) {
                let found = body.highest_vcn;
                return Err(piece
                    .corrupt("highest_vcn", end.wrapping_sub(1).cast_signed(), found.cast_signed())
                    .into());
            }
        }
        let content =
            Content::Clusters { runs, initialized: head.initialized_size, unit_log: head.compression_unit };
        Ok(Self { size: head.data_size, flags, offset, content, last_unit: Mutex::default() })
    }

    /// How many runs are held in memory.
    pub(crate) fn weight(&self) -> usize {
        match &self.content {
            Content::Resident(value) => value.len() >> 5,
            Content::Clusters { runs, .. } => runs.len(),
        }
    }

    pub(crate) fn runs(&self) -> &[Run] {
        match &self.content {
            Content::Resident(_) => &[],
            Content::Clusters { runs, .. } => runs,
        }
    }

    fn corrupt(&self, field: &'static str, expected: impl Display, found: impl Display) -> Corrupt {
        Corrupt::new(STRUCTURE, self.offset, field, expected, found)
    }

    /// The part of `buf` that lies before the end of the stream at `offset`.
    pub(crate) fn clip<'a>(&self, buf: &'a mut [u8], offset: u64) -> &'a mut [u8] {
        let available = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = available.min(buf.len());
        buf.get_mut(..length).unwrap_or_default()
    }

    /// Fills `buf` from byte `offset` of a stream that is not encrypted; all of it lies before the end.
    pub(crate) fn read(&self, volume: &Volume, buf: &mut [u8], offset: u64) -> Result<()> {
        if self.flags & flags::ENCRYPTED != 0 {
            return Err(Error::unsupported("file", "EFS encryption"));
        }
        let Content::Clusters { initialized, unit_log, .. } = &self.content else {
            return self.read_resident(buf, offset);
        };
        let valid = usize::try_from(initialized.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (valid, zeros) = buf.split_at_mut(valid.min(buf.len()));
        zeros.fill(0);
        match self.flags & flags::COMPRESSION_MASK {
            0 => self.read_clusters(volume, valid, offset, Volume::read),
            flags::LZNT1 if *unit_log != 0 => self.read_compressed(volume, valid, offset),
            // Written before anything was compressed.
            flags::LZNT1 => self.read_clusters(volume, valid, offset, Volume::read),
            other => Err(Error::unsupported("attribute", format!("compression method {other}"))),
        }
    }

    /// The same for metadata, which is never compressed.
    pub(crate) fn read_metadata(&self, volume: &Volume, buf: &mut [u8], offset: u64) -> Result<()> {
        if offset.checked_add(wide(buf.len())).is_none_or(|end| end > self.size) {
            let found = format!("{} bytes at byte {offset}", buf.len());
            return Err(self
                .corrupt("data_size", format!("a place within {} bytes", self.size), found)
                .into());
        }
        if self.flags & (flags::COMPRESSION_MASK | flags::ENCRYPTED) != 0 {
            return Err(self.corrupt("flags", "neither compressed nor encrypted", self.flags).into());
        }
        match &self.content {
            Content::Resident(_) => self.read_resident(buf, offset),
            Content::Clusters { .. } => self.read_clusters(volume, buf, offset, Volume::read_metadata),
        }
    }

    fn read_resident(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let Content::Resident(value) = &self.content else { return Ok(()) };
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let source = value.get(start..).and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(source.ok_or_else(|| self.corrupt("value_length", "a place within", offset))?);
        Ok(())
    }

    /// The run at a cluster of the stream.
    fn run(&self, vcn: u64) -> Result<Run> {
        runs::find(self.runs(), vcn).ok_or_else(|| {
            let end = self.runs().last().map_or(0, Run::end);
            self.corrupt("mapping_pairs", format!("a run for cluster {vcn}"), format!("{end} clusters"))
                .into()
        })
    }

    /// Where a run that is not a hole begins, in bytes.
    fn place(&self, volume: &Volume, run: Run, lcn: u64) -> Result<u64> {
        let geometry = &volume.geometry;
        let last = lcn.checked_add(run.count.saturating_sub(1));
        match (geometry.byte(lcn), last.and_then(|last| geometry.byte(last))) {
            (Some(start), Some(_)) => Ok(start),
            _ => {
                let expected = format!("clusters below {}", geometry.clusters);
                Err(self.corrupt("mapping_pairs", expected, format!("{} from {lcn}", run.count)).into())
            }
        }
    }

    fn read_clusters(
        &self,
        volume: &Volume,
        buf: &mut [u8],
        offset: u64,
        read: impl Fn(&Volume, &mut [u8], u64) -> Result<()>,
    ) -> Result<()> {
        let geometry = &volume.geometry;
        let (mut rest, mut at) = (buf, offset);
        while !rest.is_empty() {
            let run = self.run(at >> geometry.cluster_log)?;
            let skip = at.saturating_sub(geometry.bytes(run.vcn));
            let held = geometry.bytes(run.count).saturating_sub(skip);
            let length = usize::try_from(held).unwrap_or(usize::MAX).min(rest.len());
            let (piece, after) = rest.split_at_mut(length);
            match run.lcn {
                None => piece.fill(0),
                Some(lcn) => read(volume, piece, self.place(volume, run, lcn)?.saturating_add(skip))?,
            }
            rest = after;
            at = at.saturating_add(wide(length));
        }
        Ok(())
    }

    fn read_compressed(&self, volume: &Volume, buf: &mut [u8], offset: u64) -> Result<()> {
        let Content::Clusters { unit_log, .. } = &self.content else { return Ok(()) };
        let unit_clusters = 1_u64.checked_shl(u32::from(*unit_log)).unwrap_or(u64::MAX);
        let unit_size = volume.geometry.bytes(unit_clusters);
        if unit_size > MAX_UNIT {
            return Err(Error::unsupported("attribute", format!("compression units of {unit_size} bytes")));
        }
        let unit_log = u32::from(*unit_log).saturating_add(volume.geometry.cluster_log);
        let (mut rest, mut at) = (buf, offset);
        while !rest.is_empty() {
            let unit = at >> unit_log;
            let start = unit.checked_shl(unit_log).unwrap_or_default();
            let skip = usize::try_from(at.saturating_sub(start)).unwrap_or_default();
            let length = usize::try_from(unit_size).unwrap_or_default().saturating_sub(skip).min(rest.len());
            let (piece, after) = rest.split_at_mut(length);
            let first = unit.saturating_mul(unit_clusters);
            match self.stored_clusters(first, unit_clusters)? {
                0 => piece.fill(0),
                stored if stored == unit_clusters => self.read_clusters(volume, piece, at, Volume::read)?,
                stored => {
                    let plain = self.unit(unit, || self.decompress(volume, start, stored, unit_size))?;
                    let source = plain.get(skip..).and_then(|rest| rest.get(..length)).unwrap_or_default();
                    piece.copy_from_slice(source);
                }
            }
            rest = after;
            at = at.saturating_add(wide(length));
        }
        Ok(())
    }

    /// A decompressed unit, from the cache or made now.
    fn unit(&self, unit: u64, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<Arc<Vec<u8>>> {
        let lock = || self.last_unit.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plain)) = lock().as_ref().filter(|(number, _)| *number == unit) {
            return Ok(Arc::clone(plain));
        }
        let plain = Arc::new(make()?);
        *lock() = Some((unit, Arc::clone(&plain)));
        Ok(plain)
    }

    /// How many clusters of a unit are on the volume; the others, behind them, are a hole.
    fn stored_clusters(&self, first: u64, count: u64) -> Result<u64> {
        let end = first.saturating_add(count);
        let (mut vcn, mut stored) = (first, 0_u64);
        while vcn < end {
            let run = self.run(vcn)?;
            let next = run.end().min(end);
            if run.lcn.is_some() {
                if stored != vcn.saturating_sub(first) {
                    return Err(self
                        .corrupt("mapping_pairs", "no cluster behind the hole of a unit", vcn)
                        .into());
                }
                stored = next.saturating_sub(first);
            }
            vcn = next;
        }
        Ok(stored)
    }

    fn decompress(&self, volume: &Volume, start: u64, stored: u64, unit_size: u64) -> Result<Vec<u8>> {
        let length = |bytes: u64| usize::try_from(bytes).unwrap_or_default();
        let mut packed = vec![0; length(volume.geometry.bytes(stored).min(MAX_UNIT))];
        self.read_clusters(volume, &mut packed, start, Volume::read)?;
        let mut plain = vec![0; length(unit_size)];
        lznt1::decompress(&packed, &mut plain).map_err(|(at, rule)| {
            let place = format!("byte {at} of the unit at byte {start}");
            Error::from(self.corrupt("compressed data", rule, place))
        })?;
        Ok(plain)
    }
}
