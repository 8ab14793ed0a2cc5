//! What Rock Ridge stores behind a record's name, and in the areas that continue it.
//!
//! SUSP 1.12 §5, RRIP 1.12 §4. Entries begin with two letters, a length and a version.

use blockdev::BlockDevice;
use filesystem::Timestamp;
use ondisk::{Corrupt, Result, read_bytes};

use crate::field::{u8_at, u32_at};
use crate::number::index;
use crate::time;

/// Areas that continue one record.
const MAX_AREAS: usize = 64;
/// Bytes of one area: that of the largest block.
const MAX_AREA: u32 = 2048;
/// Bytes of a symlink's target, a page of the kernel's without its end.
const MAX_TARGET: usize = 4095;

/// What a record says in Rock Ridge.
#[derive(Debug, Clone, Default)]
pub(crate) struct RockRidge {
    pub(crate) posix: Option<Posix>,
    /// Both halves of a device number.
    pub(crate) device: Option<(u32, u32)>,
    pub(crate) name: Option<Vec<u8>>,
    pub(crate) target: Option<Vec<u8>>,
    /// The block of the directory that this record stands for.
    pub(crate) child: Option<u32>,
    /// A directory that was moved here, and is shown where another record points to it.
    pub(crate) is_moved: bool,
    pub(crate) created: Option<Timestamp>,
    pub(crate) modified: Option<Timestamp>,
    pub(crate) accessed: Option<Timestamp>,
    pub(crate) changed: Option<Timestamp>,
    /// The content is compressed or has holes that are not stored.
    pub(crate) packed: Option<&'static str>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Posix {
    pub(crate) mode: u32,
    pub(crate) links: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// How many bytes come before the entries, if the first record of the root says that there are any: an `SP` entry.
pub(crate) fn marker(system_use: &[u8]) -> Option<usize> {
    // CD-ROM XA puts 14 bytes before it.
    [0, 14].into_iter().find_map(|at| {
        let entry = system_use.get(at..)?.get(..7)?;
        (entry.starts_with(b"SP\x07\x01\xbe\xef")).then(|| usize::from(u8_at(entry, 6).unwrap_or(0)))
    })
}

/// Reads all entries; `areas` counts down the areas that may still be read.
pub(crate) fn read(
    device: &dyn BlockDevice,
    system_use: &[u8],
    block_size: u32,
    areas: &mut usize,
) -> Result<RockRidge> {
    let mut found = RockRidge::default();
    let mut parts = Parts::default();
    let mut next = entries(system_use, &mut found, &mut parts);
    for _ in 0..MAX_AREAS {
        let Some((block, offset, length)) = next else { break };
        let at = u64::from(block).saturating_mul(block_size.into()).saturating_add(offset.into());
        let corrupt =
            |expected: &str, found| Corrupt::new("ISO 9660 continuation area", at, "length", expected, found);
        if length > MAX_AREA {
            return Err(corrupt("2048 bytes or less", length).into());
        }
        *areas = areas.checked_sub(1).ok_or_else(|| corrupt("fewer areas in one directory", length))?;
        next = entries(&read_bytes(device, at, index(length))?, &mut found, &mut parts);
    }
    found.name = parts.name;
    found.target = parts.target.filter(|target| target.len() <= MAX_TARGET);
    Ok(found)
}

/// What is put together from several entries.
#[derive(Default)]
struct Parts {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    /// Whether the last component of the target ends, and so needs a slash before the next.
    has_ended: bool,
}

/// Takes the entries of one area; returns where the next is.
fn entries(mut bytes: &[u8], found: &mut RockRidge, parts: &mut Parts) -> Option<(u32, u32, u32)> {
    let mut next = None;
    while let Some(length) = u8_at(bytes, 2).map(usize::from).filter(|length| *length >= 4) {
        let (Some(entry), Some(rest)) = (bytes.get(..length), bytes.get(length..)) else { break };
        let number = |at| u32_at(entry, at);
        match entry.get(..2).unwrap_or_default() {
            b"ST" => return None,
            b"CE" => {
                let place = number(4).zip(number(12)).zip(number(20));
                next = place.map(|((block, at), size)| (block, at, size));
            }
            b"PX" => {
                if let (Some(mode), Some(links), Some(uid), Some(gid)) =
                    (number(4), number(12), number(20), number(28))
                {
                    found.posix = Some(Posix { mode, links, uid, gid });
                }
            }
            b"PN" => found.device = number(4).zip(number(12)),
            b"CL" => found.child = number(4),
            b"RE" => found.is_moved = true,
            b"SF" => found.packed = Some("a sparse file of Rock Ridge"),
            b"ZF" => found.packed = Some("a file that zisofs compressed"),
            b"NM" => name(entry, parts),
            b"SL" => target(entry, parts),
            b"TF" => times(entry, found),
            _ => {}
        }
        bytes = rest;
    }
    next
}

fn name(entry: &[u8], parts: &mut Parts) {
    // `.` and `..` are said by flags, and are not names.
    if u8_at(entry, 4).is_none_or(|flags| flags & 6 != 0) {
        return;
    }
    let part = entry.get(5..).unwrap_or_default();
    let end = part.iter().position(|byte| matches!(byte, 0 | b'/')).unwrap_or(part.len());
    let name = parts.name.get_or_insert_default();
    if name.len() < 1024 {
        name.extend(part.get(..end).unwrap_or_default());
    }
}

fn target(entry: &[u8], parts: &mut Parts) {
    let mut rest = entry.get(5..).unwrap_or_default();
    let path = parts.target.get_or_insert_default();
    while let (Some(flags), Some(length)) = (u8_at(rest, 0), u8_at(rest, 1)) {
        let end = usize::from(length).saturating_add(2);
        let Some(content) = rest.get(2..end) else { return };
        if path.len() > MAX_TARGET {
            return;
        }
        if parts.has_ended {
            path.push(b'/');
        }
        match flags & 0x0e {
            0 => path.extend(content),
            2 => path.push(b'.'),
            4 => path.extend(b".."),
            8 => path.push(b'/'),
            _ => {}
        }
        parts.has_ended = flags & 9 == 0;
        rest = rest.get(end..).unwrap_or_default();
    }
}

fn times(entry: &[u8], found: &mut RockRidge) {
    let Some(flags) = u8_at(entry, 4) else { return };
    let size = if flags & 0x80 == 0 { 7_usize } else { 17 };
    let mut rest = entry.get(5..).unwrap_or_default();
    for bit in 0..4 {
        if flags >> bit & 1 == 0 {
            continue;
        }
        let Some(bytes) = rest.get(..size) else { return };
        let time = if size == 7 { time::short(bytes) } else { time::long(bytes) };
        match bit {
            0 => found.created = time,
            1 => found.modified = time,
            2 => found.accessed = time,
            _ => found.changed = time,
        }
        rest = rest.get(size..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(bytes: &[u8]) -> RockRidge {
        read(&blockdev::MemoryDevice::new(vec![0; 4096]), bytes, 2048, &mut 9).unwrap()
    }

    #[test]
    fn names_and_targets_in_pieces() {
        let found = read_all(
            b"NM\x08\x01\x01abcNM\x07\x01\0deXX\x04\x01SL\x0b\x01\x01\x08\0\x01\x02ab\
            SL\x10\x01\0\0\x02cd\x02\0\x04\0\0\x01eST\x04\x01NM\x06\x01\0z",
        );
        assert_eq!(found.name.as_deref(), Some(b"abcde".as_slice()));
        assert_eq!(found.target.as_deref(), Some(b"/abcd/./../e".as_slice()));
        assert!(!found.is_moved && found.child.is_none());
        assert_eq!(read_all(b"NM\x0a\x01\0a/../").name.as_deref(), Some(b"a".as_slice()));
        assert_eq!(read_all(b"NM\x05\x01\x02").name, None);
        assert_eq!((marker(b"SP\x07\x01\xbe\xef\x05"), marker(b"SP\x07\x01\xbe\xee\x05")), (Some(5), None));
    }

    #[test]
    fn continuation_areas_end() {
        // An area that names itself.
        let mut area = b"CE\x1c\x01".to_vec();
        area.resize(28, 0);
        area[20] = 28;
        let mut device = vec![0; 4096];
        device[..28].copy_from_slice(&area);
        let device = blockdev::MemoryDevice::new(device);
        assert!(read(&device, &area, 2048, &mut 1000).is_ok());
        let error = read(&device, &area, 2048, &mut 9).unwrap_err().to_string();
        assert!(error.contains("fewer areas"), "{error}");
        area[22] = 1;
        let error = read(&device, &area, 2048, &mut 9).unwrap_err().to_string();
        assert!(error.contains("2048 bytes or less"), "{error}");
    }
}
