//! Another name for the parent: one line of the descriptor.

use ondisk::read_bytes;

use super::descriptor;
use super::header::RawHeader;
use super::open::embedded;
use crate::arithmetic::length_of;
use crate::open::Source;
use crate::{ImageFormat, Patch, Result};

const KEY: &[u8] = b"parentfilenamehint";

/// One patch of the descriptor. A text of its own keeps its length or grows; blank lines fill what gets shorter.
pub(super) fn rename_parent(source: &Source, name: &[u8], format: &ImageFormat) -> Result<Vec<Patch>> {
    let refused = |reason: &str| source.not_renamable(name, reason);
    if format.name != "vmdk" {
        return Err(refused("the parent of a VMDK must be one"));
    }
    if name.iter().any(|byte| *byte == b'"' || byte.is_ascii_control()) || !name.is_ascii() {
        return Err(refused("the descriptor can hold only plain characters"));
    }
    let failed = source.failed("vmdk");
    let file = &*source.device;
    let head = usize::try_from(file.size()).unwrap_or(usize::MAX).min(size_of::<RawHeader>());
    let start = read_bytes(file, 0, head).map_err(&failed)?;
    let place = embedded(file, &start).map_err(&failed)?;
    let (at, room) = match &place {
        Some((range, _)) => (range.start, Some(range.end.saturating_sub(range.start))),
        None => (0, None),
    };
    let available = file.size().saturating_sub(at).min(room.unwrap_or(u64::MAX)).min(descriptor::MAX_SIZE);
    let stored = read_bytes(file, at, usize::try_from(available).unwrap_or(0)).map_err(&failed)?;
    let text = stored.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut renamed = Vec::new();
    let mut is_found = false;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let key = line.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        if is_found || !key.eq_ignore_ascii_case(KEY) {
            renamed.extend_from_slice(line);
            continue;
        }
        is_found = true;
        let end: &[u8] = if line.ends_with(b"\r\n") { b"\r\n" } else { b"\n" };
        renamed.extend_from_slice(&[b"parentFileNameHint=\"", name, b"\"", end].concat());
    }
    if !is_found {
        return Err(refused("it was made from nothing"));
    }
    match room {
        Some(room) if length_of(&renamed) > room => return Err(refused("the name does not fit")),
        // What is behind the text stays zero, and what was text becomes it.
        Some(_) => renamed.resize(renamed.len().max(text.len()), 0),
        None => renamed.resize(renamed.len().max(stored.len()), b'\n'),
    }
    Ok(vec![Patch { file: 0, offset: at, bytes: renamed }])
}
