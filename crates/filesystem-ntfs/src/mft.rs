//! Master file table: the file that holds the records of all files, its own first.

use std::sync::Arc;

use filesystem::Inode;
use ondisk::{Corrupt, Error, Result};

use crate::file::File;
use crate::number::{index, wide};
use crate::record::{Body, RECORD_MASK, Record, kind};
use crate::stream::{Found, Stream};
use crate::volume::Volume;

/// Numbers of the records that every volume has.
pub(crate) mod number {
    pub(crate) const MFT_MIRROR: u64 = 1;
    pub(crate) const LOG_FILE: u64 = 2;
    pub(crate) const VOLUME: u64 = 3;
    pub(crate) const ROOT: u64 = 5;
    pub(crate) const SECURE: u64 = 9;
    pub(crate) const UPCASE: u64 = 10;
    /// The first that a file may have: chkdsk uses those below 24 too.
    pub(crate) const FIRST_USER: u64 = 16;
}

/// Records that the mirror holds at least.
pub(crate) const MIRRORED: u64 = 4;

/// The low bits of a sequence number that an [`Inode`] carries: some users keep its upper two bits for themselves.
pub(crate) fn short_sequence(sequence: u16) -> u64 {
    u64::from(sequence & 0x3fff)
}

/// A file reference as an inode: the number of the record below, its sequence number above.
pub(crate) fn inode(reference: u64) -> Inode {
    Inode(reference & (RECORD_MASK | 0x3fff << 48))
}

/// Reads record `number` through the runs of the MFT.
pub(crate) fn read(volume: &Volume, mft: &Stream, number: u64) -> Result<Record> {
    let length = index(volume.geometry.record_size);
    let records = mft.size >> volume.geometry.record_size.trailing_zeros();
    if number >= records {
        return Err(
            Corrupt::new("MFT", volume.geometry.mft, "record", format!("below {records}"), number).into()
        );
    }
    let at = number.saturating_mul(wide(length));
    let mut bytes = vec![0; length];
    mft.read_metadata(volume, &mut bytes, at)?;
    Ok(Record::decode(number, place(volume, mft, at), bytes)?)
}

/// Where a byte of a stream is on the device, for messages; 0 where it is nowhere.
pub(crate) fn place(volume: &Volume, stream: &Stream, at: u64) -> u64 {
    let geometry = &volume.geometry;
    crate::runs::find(stream.runs(), at >> geometry.cluster_log)
        .and_then(|run| {
            Some(geometry.bytes(run.lcn?).saturating_add(at.saturating_sub(geometry.bytes(run.vcn))))
        })
        .unwrap_or_default()
}

/// Reads record `number` of the part of the MFT, or of its mirror, that begins at byte `start`.
pub(crate) fn read_directly(volume: &Volume, start: u64, number: u64) -> Result<Record> {
    let length = index(volume.geometry.record_size);
    let offset = start.saturating_add(number.saturating_mul(wide(length)));
    let mut bytes = vec![0; length];
    volume.read_metadata(&mut bytes, offset)?;
    Ok(Record::decode(number, offset, bytes)?)
}

/// The MFT's own data, from record 0; the mirror serves where that is damaged, and the damage is returned too.
pub(crate) fn open(volume: &Volume) -> Result<(Stream, Option<Error>)> {
    let try_open = |start| -> Result<Stream> { assemble(volume, read_directly(volume, start, 0)?) };
    match try_open(volume.geometry.mft) {
        Ok(stream) => Ok((stream, None)),
        Err(error) => match try_open(volume.geometry.mft_mirror) {
            Ok(stream) => Ok((stream, Some(error))),
            Err(_) => Err(error),
        },
    }
}

/// The further records that describe the MFT lie in the part of it that those before them describe.
fn assemble(volume: &Volume, record: Record) -> Result<Stream> {
    let record = Arc::new(record);
    let index = record.attributes.iter().position(|attribute| {
        attribute.kind == kind::DATA
            && attribute.name.is_empty()
            && matches!(&attribute.body, Body::NonResident(body) if body.lowest_vcn == 0)
    });
    let Some(index) = index else {
        let damage = record.damage.clone();
        let missing = || record.span().corrupt("attributes", "non-resident $DATA", "none");
        return Err(damage.unwrap_or_else(missing).into());
    };
    let first = Found { record: Arc::clone(&record), index };
    let start = Stream::assemble(std::slice::from_ref(&first))?;
    if !record.attributes.iter().any(|attribute| attribute.kind == kind::ATTRIBUTE_LIST) {
        return Ok(start);
    }
    // Records are needed in the order of the clusters that they add, so one pass finds each in what is known.
    let file = File::new(volume, Arc::clone(&record))?;
    let known = std::cell::RefCell::new((start, vec![first]));
    let read_known = |number| -> Result<Arc<Record>> {
        let (stream, _) = &*known.borrow();
        read(volume, stream, number).map(Arc::new)
    };
    let wanted = std::cell::RefCell::new(Vec::new());
    file.pieces(&read_known, kind::DATA, &|name, vcn| {
        if name.is_empty() && vcn > 0 {
            wanted.borrow_mut().push(vcn);
        }
        false
    })?;
    for vcn in wanted.into_inner() {
        let more = file.pieces(&read_known, kind::DATA, &|name, found| name.is_empty() && found == vcn)?;
        let mut pieces = known.borrow().1.clone();
        pieces.extend(more);
        let stream = Stream::assemble(&pieces)?;
        *known.borrow_mut() = (stream, pieces);
    }
    Ok(known.into_inner().0)
}
