//! Every version of a group's metadata that can still be found: in the rings of metadata areas, in backups.
//!
//! lvm2 writes each new text behind the last one, at the next 512-byte boundary, and goes on behind the header
//! when it reaches the end of the area. Old texts stay until they are overwritten; no checksum of theirs is kept,
//! so each must be whole by its own grammar.

use blockdev::BlockDevice;
use ondisk::{Corrupt, Result, read_bytes};

use super::label::PhysicalVolume;
use super::metadata_area::{HEADER_SIZE, MAX_TEXT, MetadataArea, Place};
use super::text::{self, Section};

/// Texts begin at multiples of this many bytes from the start of their area.
const ALIGNMENT: usize = 512;
/// The part of an area that is searched; lvm2's default area is 1 MiB.
const MAX_RING: u64 = 64 << 20;
/// Parsing stops after this many times the size of the ring, so that a crafted one costs no more.
const MAX_EFFORT: usize = 8;

/// One version of the metadata of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The group's sequence number; the highest is the newest.
    pub sequence: u64,
    /// The name of the group.
    pub group: String,
    /// The UUID of the group, with dashes.
    pub group_uuid: String,
    /// What lvm2 was doing: `Created *after* executing 'lvcreate …'`.
    pub description: Option<String>,
    /// Seconds since 1970.
    pub creation_time: Option<u64>,
    /// The host that wrote it.
    pub creation_host: Option<String>,
    /// The text, without its NUL.
    pub text: Vec<u8>,
    /// Where it was found; `None` for a backup.
    pub place: Option<Place>,
    /// Whether the header of its area names it as the present one.
    pub is_committed: bool,
}

/// Every version in all metadata areas of `pv`, the newest first, equal texts once.
///
/// Reads the areas whole; that is not part of opening.
///
/// # Errors
/// [`ondisk::Error::Io`].
pub fn history(pv: &PhysicalVolume) -> Result<Vec<HistoryEntry>> {
    let mut entries = Vec::new();
    for area in &pv.areas {
        entries.extend(area_history(pv.device.as_ref(), area)?);
    }
    Ok(newest_first(entries))
}

/// The texts of a file from `/etc/lvm/backup` or `/etc/lvm/archive`, which is the same text in another order.
///
/// # Errors
/// [`Corrupt`] when it is not one whole description of one group.
pub fn parse_backup(bytes: &[u8]) -> Result<HistoryEntry, Corrupt> {
    let corrupt = |found: String| Corrupt::new("LVM2 backup", 0, "text", "a volume group", found);
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_TEXT) {
        return Err(corrupt(format!("{} bytes", bytes.len())));
    }
    let root = text::parse(bytes).map_err(|error| corrupt(error.to_string()))?;
    let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = bytes.get(..length).unwrap_or_default();
    entry(&root, text, None, false).ok_or_else(|| corrupt("no section with an id and a seqno".into()))
}

/// The versions in one area, in the order of their places.
fn area_history(device: &dyn BlockDevice, area: &MetadataArea) -> Result<Vec<HistoryEntry>> {
    let end = area.offset.saturating_add(area.size).min(device.size());
    let start = area.offset.saturating_add(HEADER_SIZE);
    let length = usize::try_from(end.saturating_sub(start).min(MAX_RING)).unwrap_or(0);
    let ring = read_bytes(device, start.min(end), length)?;
    let committed = area.committed.as_ref().filter(|_| !area.is_ignored).map(|text| text.place.offset);
    let mut entries = Vec::new();
    let mut effort = length.saturating_mul(MAX_EFFORT);
    for at in (0..length).step_by(ALIGNMENT) {
        if !looks_like_start(ring.get(at..).unwrap_or_default()) {
            continue;
        }
        let Some((text, is_split)) = take_text(&ring, at) else { continue };
        let Some(left) = effort.checked_sub(text.len()) else { break };
        effort = left;
        let Ok(root) = text::parse(&text) else { continue };
        let offset = u64::try_from(at).unwrap_or(u64::MAX).saturating_add(HEADER_SIZE);
        let size = u64::try_from(text.len()).unwrap_or(u64::MAX).saturating_add(1);
        let place = Place { area: area.offset, offset, size, is_split };
        entries.extend(entry(&root, &text, Some(place), committed == Some(offset)));
    }
    Ok(entries)
}

/// Whether a group's section can begin here: `name {`.
fn looks_like_start(bytes: &[u8]) -> bool {
    let is_name = |byte: &&u8| byte.is_ascii_alphanumeric() || b"_-.+".contains(byte);
    let name = bytes.iter().take(128).take_while(is_name).count();
    name > 0 && bytes.get(name..).is_some_and(|rest| rest.starts_with(b" {\n"))
}

/// The bytes from `at` to the next NUL, going round the end once, and whether they did.
fn take_text(ring: &[u8], at: usize) -> Option<(Vec<u8>, bool)> {
    let (front, back) = ring.split_at_checked(at)?;
    if let Some(end) = back.iter().position(|byte| *byte == 0) {
        return Some((back.get(..end)?.to_vec(), false));
    }
    let end = front.iter().position(|byte| *byte == 0)?;
    let mut text = back.to_vec();
    text.extend_from_slice(front.get(..end)?);
    Some((text, true))
}

/// Judges whether `root` is one whole description of one group.
fn entry(root: &Section, text: &[u8], place: Option<Place>, is_committed: bool) -> Option<HistoryEntry> {
    if root.string("contents") != Some("Text Format Volume Group") {
        return None;
    }
    let mut groups = root.sections.iter().filter(|(_, section)| is_group(section));
    let (name, group) = groups.next()?;
    if groups.next().is_some() {
        return None;
    }
    Some(HistoryEntry {
        sequence: group.number("seqno")?,
        group: name.clone(),
        group_uuid: group.string("id")?.to_owned(),
        description: root.string("description").map(str::to_owned).filter(|text| !text.is_empty()),
        creation_time: root.number("creation_time"),
        creation_host: root.string("creation_host").map(str::to_owned),
        text: text.to_vec(),
        place,
        is_committed,
    })
}

fn is_group(section: &Section) -> bool {
    section.string("id").is_some_and(|id| id.len() == 38)
        && section.number("seqno").is_some()
        && section.number("extent_size").is_some_and(|size| size > 0)
        && section.sections.contains_key("physical_volumes")
}

/// Sorts, and keeps one of equal texts: the committed one.
fn newest_first(mut entries: Vec<HistoryEntry>) -> Vec<HistoryEntry> {
    entries.sort_by(|a, b| {
        let key = |entry: &HistoryEntry| (entry.sequence, entry.is_committed);
        key(b).cmp(&key(a)).then_with(|| a.group_uuid.cmp(&b.group_uuid)).then_with(|| a.text.cmp(&b.text))
    });
    // Equal texts share their sequence number; few have the same one.
    let mut kept: Vec<HistoryEntry> = Vec::new();
    for entry in entries {
        let mut equals = kept.iter().rev().take_while(|known| known.sequence == entry.sequence);
        if !equals.any(|known| known.text == entry.text) {
            kept.push(entry);
        }
    }
    kept
}
