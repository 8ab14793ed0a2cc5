//! `$Secure`: the security descriptors of all files, each once, found by a number.
//!
//! Linux-NTFS documentation, "$Secure". Little-endian.

use std::cmp::Ordering;

use ondisk::{Corrupt, Result};

use crate::Ntfs;
use crate::file::File;
use crate::index::{Index, Turn};
use crate::mft::{self, number};
use crate::name;
use crate::record::kind;
use crate::span::Span;

/// In front of each descriptor: hash, number, place and length.
const HEADER: usize = 20;
const MAX_LENGTH: u32 = 64 << 10;

/// The descriptor with this number, in the self-relative form of [MS-DTYP] §2.4.6.
pub(crate) fn descriptor(ntfs: &Ntfs, id: u32) -> Result<Option<Vec<u8>>> {
    let file = File::open(ntfs, mft::inode(number::SECURE))?;
    let Some(index) = Index::open(ntfs, &file, "$SII")? else { return Ok(None) };
    let mut found = None;
    index.search(&mut |entry| {
        let key = Span::new("$SII entry", file.base.offset, entry.key).u32(0, "security_id")?;
        Ok(match key.cmp(&id) {
            Ordering::Less => Turn::After,
            Ordering::Greater => Turn::Before,
            Ordering::Equal => {
                let span = Span::new("$SII entry", file.base.offset, entry.bytes);
                let data = span.length16(0, "data_offset")?;
                let place = span.u64(data.saturating_add(8), "data_offset")?;
                found = Some((place, span.u32(data.saturating_add(16), "data_offset")?));
                Turn::Found
            }
        })
    })?;
    let Some((place, length)) = found else { return Ok(None) };
    let wrong = |field, expected: String, found: u32| {
        Corrupt::new("$SDS entry", file.base.offset, field, expected, found)
    };
    let size = usize::try_from(length).ok().filter(|size| *size > HEADER && length <= MAX_LENGTH);
    let size = size.ok_or_else(|| wrong("length", format!("21..={MAX_LENGTH}"), length))?;
    let Some(stream) = file.stream(ntfs, kind::DATA, &name::ascii("$SDS"))? else { return Ok(None) };
    let mut bytes = vec![0; size];
    stream.read_metadata(&ntfs.volume, &mut bytes, place)?;
    let stored = Span::new("$SDS entry", file.base.offset, &bytes).u32(4, "security_id")?;
    if stored != id {
        return Err(wrong("security_id", id.to_string(), stored).into());
    }
    Ok(Some(bytes.split_off(HEADER)))
}
