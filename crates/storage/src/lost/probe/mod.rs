//! One small probe for each format, against raw bytes.
//!
//! A probe gets a sector that carries its magic, reads what else it needs, and says where the thing starts. Copies
//! that know their own place lead to the start even when that is lost.

mod btrfs;
mod ext;
mod fat;
mod linux;
mod ntfs;
mod table;
mod xfs;

use blockdev::BlockDevice;
use ondisk::Guid;

use super::Kind;

/// One structure that was found.
#[derive(Debug, Clone)]
pub(super) struct Hit {
    /// Where the whole thing starts.
    pub(super) start: u64,
    pub(super) length: Option<u64>,
    pub(super) kind: Kind,
    pub(super) uuid: Option<String>,
    pub(super) label: Option<String>,
    /// Whether this is the structure at the start.
    pub(super) is_primary: bool,
    /// Copies that there are besides it.
    pub(super) expected_copies: u32,
    pub(super) entry: Option<(String, u64)>,
    pub(super) evidence: String,
}

/// A sector and where it is.
#[derive(Clone, Copy)]
pub(super) struct Sector<'a> {
    pub(super) disk: &'a dyn BlockDevice,
    pub(super) bytes: &'a [u8; 512],
    pub(super) at: u64,
}

impl Sector<'_> {
    /// Bytes anywhere on the disk, if it has them.
    fn read(&self, at: u64, length: u64) -> Option<Vec<u8>> {
        ondisk::read_bytes(self.disk, at, usize::try_from(length).ok()?).ok()
    }
}

/// Whether any magic is in the sector: the test that every sector of the disk has to pass, so only comparisons.
pub(super) fn is_marked(sector: &[u8; 512]) -> bool {
    let [a, b, c, d, ..] = *sector;
    let is_marked_front = matches!(
        [a, b, c, d],
        [b'X', b'F', b'S', b'B']
            | [b'L', b'U', b'K', b'S']
            | [b'S', b'K', b'U', b'L']
            | [b'L', b'A', b'B', b'E']
            | [b'E', b'F', b'I', b' ']
            | [0xfc, 0x4e, 0x2b, 0xa9]
    );
    is_marked_front
        || sector.get(0x38..0x3a) == Some(&[0x53, 0xef])
        || sector.get(0x40..0x48) == Some(b"_BHRfS_M")
        || sector.get(510..512) == Some(&[0x55, 0xaa])
        || sector.get(502..512) == Some(b"SWAPSPACE2")
}

/// Everything that the sector can be.
pub(super) fn all(disk: &dyn BlockDevice, bytes: &[u8; 512], at: u64) -> Vec<Hit> {
    let sector = Sector { disk, bytes, at };
    let single = [
        ext::probe(sector),
        xfs::probe(sector),
        btrfs::probe(sector),
        fat::probe(sector),
        fat::probe_exfat(sector),
        ntfs::probe(sector),
        linux::swap(sector),
        linux::lvm(sector),
        linux::raid(sector),
        linux::luks(sector),
    ];
    let mut hits: Vec<Hit> = single.into_iter().flatten().collect();
    hits.extend(table::gpt(sector));
    // The sector that starts a file system is no record of a chain.
    if hits.is_empty() {
        hits.extend(table::extended(sector));
    }
    hits.retain(|hit| hit.start < disk.size() && hit.length != Some(0));
    hits
}

/// A little-endian number of up to 8 bytes; missing bytes are zero.
fn le(bytes: &[u8], at: usize, length: usize) -> u64 {
    let field = bytes.get(at..at.saturating_add(length)).unwrap_or_default();
    field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// The same, big-endian.
fn be(bytes: &[u8], at: usize, length: usize) -> u64 {
    let field = bytes.get(at..at.saturating_add(length)).unwrap_or_default();
    field.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn guid(bytes: &[u8], at: usize) -> Option<String> {
    let bytes: [u8; 16] = bytes.get(at..at.saturating_add(16))?.try_into().ok()?;
    let guid = Guid::from_bytes(bytes);
    (!guid.is_nil()).then(|| guid.to_string())
}

/// Text up to the first NUL, without blanks at its end.
fn text(bytes: &[u8], at: usize, length: usize) -> Option<String> {
    let field = bytes.get(at..at.saturating_add(length))?;
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let text = String::from_utf8_lossy(field.get(..end)?.trim_ascii_end()).into_owned();
    (!text.is_empty()).then_some(text)
}

/// A length for a line of evidence.
fn size(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >> shift != 0 {
            let tenths = u128::from(bytes).saturating_mul(10) >> shift;
            let (whole, tenth) = (tenths.checked_div(10), tenths.checked_rem(10));
            return match tenth {
                Some(0) | None => format!("{} {unit}", whole.unwrap_or(0)),
                Some(tenth) => format!("{}.{tenth} {unit}", whole.unwrap_or(0)),
            };
        }
    }
    format!("{bytes} bytes")
}

/// A line of evidence: what, where, how large, which.
fn line(what: &str, at: u64, length: Option<u64>, uuid: Option<&String>) -> String {
    let length = length.map(|length| format!(", {}", size(length))).unwrap_or_default();
    let uuid = uuid.map(|uuid| format!(", UUID {uuid}")).unwrap_or_default();
    format!("{what} at byte {at}{length}{uuid}")
}
