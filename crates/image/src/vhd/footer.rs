//! VHD footer: what kind of disk a file holds, and how long it is.
//!
//! Specification, "Hard Disk Footer Format". Big-endian, 512 bytes at the end of the file; versions before
//! Virtual PC 2004 wrote only the first 511. Dynamic and differencing disks have a copy at byte 0, so either
//! recovers the other. The checksum is the ones' complement of the sum of all bytes, its own left out.

use blockdev::BlockDevice;
use ondisk::{Corrupt, Guid, Result, be, read_bytes};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::geometry::Sizes;

/// The first eight bytes of every footer.
pub(super) const COOKIE: [u8; 8] = *b"conectix";

/// Bytes of a footer.
pub(super) const LENGTH: u64 = 512;
/// Bytes of a footer of old versions.
const OLD_LENGTH: u64 = 511;

/// Where the checksum is within a footer.
pub(super) const CHECKSUM_AT: usize = 64;

/// 2000-01-01 in seconds since the Epoch: where the format's time starts.
pub(super) const EPOCH: u64 = 946_684_800;

pub(super) const STRUCTURE: &str = "VHD footer";
pub(super) const COPY: &str = "VHD footer copy";

/// The footer as stored.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawFooter {
    /// 0x00 `conectix`.
    pub cookie: [u8; 8],
    /// 0x08 bit 0: a temporary disk; bit 1 is always set.
    pub features: be::U32,
    /// 0x0c 0x0001_0000.
    pub file_format_version: be::U32,
    /// 0x10 where the dynamic header lies; all ones for a fixed disk.
    pub data_offset: be::U64,
    /// 0x18 when the disk was made: seconds since 2000-01-01.
    pub time_stamp: be::U32,
    /// 0x1c who made it: `vpc `, `qemu`, `win `.
    pub creator_application: [u8; 4],
    /// 0x20 major version in the upper half.
    pub creator_version: be::U32,
    /// 0x24 `Wi2k` or `Mac `.
    pub creator_host_os: [u8; 4],
    /// 0x28 length of the disk in bytes when it was made.
    pub original_size: be::U64,
    /// 0x30 length of the disk in bytes; not every writer believes it.
    pub current_size: be::U64,
    /// 0x38 of the geometry.
    pub cylinders: be::U16,
    /// 0x3a of the geometry.
    pub heads: u8,
    /// 0x3b of the geometry.
    pub sectors_per_track: u8,
    /// 0x3c 2 fixed, 3 dynamic, 4 differencing.
    pub disk_type: be::U32,
    /// 0x40 over the whole footer.
    pub checksum: be::U32,
    /// 0x44 by which a child knows its parent.
    pub unique_id: [u8; 16],
    /// 0x54 1 while a saved state of a machine goes with the disk.
    pub saved_state: u8,
    /// 0x55 zeros.
    pub reserved: [u8; 427],
}
const _: () = assert!(size_of::<RawFooter>() == 512);

/// How the bytes of the disk are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskType {
    /// As they are, from byte 0 of the file on.
    Fixed,
    /// In blocks.
    Dynamic,
    /// In blocks, over a parent.
    Differencing,
}

/// A footer that says what the file is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Footer {
    pub(super) raw: RawFooter,
    pub(super) disk_type: DiskType,
    pub(super) sizes: Sizes,
}

/// One of the two places where a footer may be.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) structure: &'static str,
    /// First byte in the file.
    pub(super) at: u64,
    /// As stored, a byte that an old footer lacks read as zero.
    pub(super) raw: RawFooter,
    /// What is wrong with it, if anything; a footer may be understood all the same.
    pub(super) footer: Option<Footer>,
    pub(super) problem: Option<Corrupt>,
}

/// Both places.
#[derive(Debug)]
pub(super) struct Footers {
    /// At byte 0; `None` where the disk starts, or might.
    pub(super) copy: Option<Place>,
    /// At the end; `None` when nothing there looks like a footer.
    pub(super) end: Option<Place>,
}

/// The ones' complement of the sum of all bytes, four of them read as zero.
pub(super) fn checksum(bytes: &[u8], own: usize) -> u32 {
    let end = own.saturating_add(4);
    let others = bytes.iter().enumerate().filter(|(at, _)| !(own..end).contains(at));
    !others.fold(0_u32, |sum, (_, byte)| sum.wrapping_add(u32::from(*byte)))
}

impl RawFooter {
    pub(super) fn computed_checksum(&self) -> u32 {
        checksum(self.as_bytes(), CHECKSUM_AT)
    }

    pub(super) fn identity(&self) -> String {
        format!("UUID {}", Guid::from_bytes(self.unique_id))
    }
}

impl Place {
    /// Judges the footer at byte `at`.
    pub(super) fn new(structure: &'static str, at: u64, raw: RawFooter) -> Self {
        let (footer, problem) = match decode(structure, at, &raw) {
            Ok(footer) if raw.computed_checksum() == raw.checksum.get() => (Some(footer), None),
            Ok(footer) => {
                let problem = Corrupt::checksum(structure, at, raw.computed_checksum(), raw.checksum.get());
                (Some(footer), Some(problem))
            }
            Err(problem) => (None, Some(problem)),
        };
        Self { structure, at, raw, footer, problem }
    }

    /// The footer, if nothing is wrong with it.
    pub(super) fn sound(&self) -> Option<&Footer> {
        self.footer.as_ref().filter(|_| self.problem.is_none())
    }

    fn looks_like_one(&self) -> bool {
        self.raw.cookie == COOKIE
    }
}

/// Everything but the checksum: bytes that no footer has by accident.
fn decode(structure: &'static str, at: u64, raw: &RawFooter) -> Result<Footer, Corrupt> {
    let corrupt = |field, expected: &str, found: String| Corrupt::new(structure, at, field, expected, found);
    if raw.cookie != COOKIE {
        return Err(corrupt("cookie", "`conectix`", format!("{:02x?}", raw.cookie)));
    }
    let version = raw.file_format_version.get();
    if version.wrapping_shr(16) != 1 {
        return Err(corrupt("file_format_version", "0x10000", format!("{version:#x}")));
    }
    let disk_type = match raw.disk_type.get() {
        2 => DiskType::Fixed,
        3 => DiskType::Dynamic,
        4 => DiskType::Differencing,
        other => return Err(corrupt("disk_type", "2, 3 or 4", other.to_string())),
    };
    Ok(Footer { raw: *raw, disk_type, sizes: Sizes::of(raw) })
}

/// The footer that ends `bytes`, the last ones of a file, and how many bytes it has.
pub(super) fn at_end(bytes: &[u8]) -> Option<(RawFooter, u64)> {
    let whole = bytes.last_chunk::<512>().map(|whole| (zerocopy::transmute!(*whole), LENGTH));
    let old = bytes.last_chunk::<511>().map(|old| {
        let mut padded = [0; 512];
        padded.iter_mut().zip(old).for_each(|(to, from)| *to = *from);
        (zerocopy::transmute!(padded), OLD_LENGTH)
    });
    [whole, old].into_iter().flatten().find(|(raw, _): &(RawFooter, u64)| raw.cookie == COOKIE)
}

impl Footers {
    /// Reads both places of `device`.
    pub(super) fn read(device: &dyn BlockDevice) -> Result<Self> {
        let size = device.size();
        let bytes = |offset, length| read_bytes(device, offset, usize::try_from(length).unwrap_or(0));
        let start = bytes(0, size.min(LENGTH))?;
        let copy = start.first_chunk::<512>().map(|raw| Place::new(COPY, 0, zerocopy::transmute!(*raw)));
        let tail = bytes(size.saturating_sub(LENGTH), size.min(LENGTH))?;
        let end = at_end(&tail).map(|(raw, length)| Place::new(STRUCTURE, size.saturating_sub(length), raw));
        // A file of one footer alone has it at both ends.
        Ok(Self { copy: copy.filter(Place::looks_like_one), end })
    }

    /// The footer to go by: a sound one before one with a wrong checksum, the copy first, as QEMU has it. A fixed
    /// disk has no copy: what looks like one is the guest's.
    pub(super) fn chosen(&self) -> Option<&Place> {
        let copy = self
            .copy
            .as_ref()
            .filter(|place| place.footer.as_ref().is_none_or(|footer| footer.disk_type != DiskType::Fixed));
        let places = [copy, self.end.as_ref()];
        let sound = places.into_iter().flatten().find(|place| place.sound().is_some());
        sound.or_else(|| places.into_iter().flatten().find(|place| place.footer.is_some()))
    }
}

/// What is wrong with the footers of a disk that reads by the `chosen` one. A disk in blocks has two that agree.
pub(super) fn problems(footers: &Footers, chosen: &Place, file_size: u64) -> Vec<Corrupt> {
    let is_fixed = chosen.footer.as_ref().is_some_and(|footer| footer.disk_type == DiskType::Fixed);
    if is_fixed {
        return chosen.problem.iter().cloned().collect();
    }
    let missing = |structure, at| Corrupt::new(structure, at, "cookie", "`conectix`", "something else");
    let mut problems = Vec::new();
    match &footers.copy {
        Some(place) => problems.extend(place.problem.clone()),
        None => problems.push(missing(COPY, 0)),
    }
    match &footers.end {
        Some(place) => problems.extend(place.problem.clone()),
        None => problems.push(missing(STRUCTURE, file_size.saturating_sub(LENGTH))),
    }
    if let (Some(copy), Some(end)) = (&footers.copy, &footers.end)
        && copy.sound().is_some()
        && end.sound().is_some()
        && copy.raw.as_bytes() != end.raw.as_bytes()
    {
        let expected = "the same as the copy at byte 0";
        problems.push(Corrupt::new(STRUCTURE, end.at, "content", expected, "something else"));
    }
    problems
}

impl Footer {
    /// What the disk is, for people.
    pub(super) fn describe(&self) -> Vec<String> {
        let raw = &self.raw;
        let kind = match self.disk_type {
            DiskType::Fixed => "fixed",
            DiskType::Dynamic => "dynamic",
            DiskType::Differencing => "differencing",
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(|c: char| c.is_control(), " ");
        let version = raw.creator_version.get();
        let creator = format!(
            "creator `{}` {}.{}",
            text(&raw.creator_application).trim_end(),
            version.wrapping_shr(16),
            version & 0xffff
        );
        let geometry = format!("geometry {}/{}/{}", raw.cylinders, raw.heads, raw.sectors_per_track);
        let by_geometry = format!("size by geometry {}", self.sizes.geometry);
        let by_field = format!("size by field {}", self.sizes.field);
        vec![kind.to_owned(), creator, geometry, by_geometry, by_field]
    }

    /// What a person should know before relying on the disk.
    pub(super) fn notes(&self) -> Vec<String> {
        let Sizes { field, geometry, is_by_geometry } = self.sizes;
        let mut notes = Vec::new();
        if is_by_geometry && field != geometry {
            let creator = String::from_utf8_lossy(&self.raw.creator_application).into_owned();
            notes.push(format!(
                "the disk has {geometry} bytes by its geometry, which counts for disks of `{}`, and {field} by its \
                 size field",
                creator.trim_end()
            ));
        }
        if self.raw.saved_state == 1 {
            notes.push("belongs to a saved state of a machine, which any write makes invalid".to_owned());
        }
        if self.raw.features.get() & 1 == 1 {
            notes.push("marked temporary: it may be deleted when its machine stops".to_owned());
        }
        notes
    }
}

/// A time of the format as a date and a time of day, in UTC.
pub(super) fn date(time_stamp: u32) -> String {
    let seconds = u64::from(time_stamp);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years of 2000 start in March here, so that the odd day is the last of a year; 2000-03-01 is day 60.
    let (mut year, mut day) = (1999_u64, days.saturating_add(306));
    loop {
        let next = year.saturating_add(1);
        let is_leap = next.is_multiple_of(4) && (!next.is_multiple_of(100) || next.is_multiple_of(400));
        let length = if is_leap { 366 } else { 365 };
        if day < length {
            break;
        }
        day = day.saturating_sub(length);
        year = next;
    }
    let month = day.saturating_mul(5).saturating_add(2) / 153;
    let day = day.saturating_sub(month.saturating_mul(153).saturating_add(2) / 5).saturating_add(1);
    let (year, month) = if month < 10 {
        (year, month.saturating_add(3))
    } else {
        (year.saturating_add(1), month.saturating_sub(9))
    };
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// Whether the last bytes of a file of `size` bytes are the footer of a fixed disk that fills the file exactly.
pub(super) fn is_of_fixed_disk(end: &[u8], size: u64) -> bool {
    let Some((raw, length)) = at_end(end) else { return false };
    let place = Place::new(STRUCTURE, size.saturating_sub(length), raw);
    let Some(footer) = place.sound() else { return false };
    footer.disk_type == DiskType::Fixed && raw.current_size.get() == place.at && place.at > 0
}

/// A footer for a new disk, with its checksum.
pub(super) fn sealed(mut raw: RawFooter) -> RawFooter {
    raw.checksum = raw.computed_checksum().into();
    raw
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The footer of a disk that Windows made: 4 MiB, dynamic.
    fn windows() -> RawFooter {
        sealed(RawFooter {
            cookie: COOKIE,
            features: 2.into(),
            file_format_version: 0x1_0000.into(),
            data_offset: 512.into(),
            time_stamp: 0x2715_ab0a.into(),
            creator_application: *b"win ",
            creator_version: 0xa_0000.into(),
            creator_host_os: *b"Wi2k",
            original_size: 0x40_0000.into(),
            current_size: 0x40_0000.into(),
            cylinders: 0x78.into(),
            heads: 4,
            sectors_per_track: 0x11,
            disk_type: 3.into(),
            checksum: 0.into(),
            unique_id: [
                0xb7, 0x1b, 0x95, 0x77, 0xb8, 0x8c, 0x16, 0x46, 0x99, 0x3c, 0x47, 0x17, 0x98, 0xca, 0x53,
                0xee,
            ],
            saved_state: 0,
            reserved: [0; 427],
        })
    }

    #[test]
    fn a_good_footer() {
        let raw = windows();
        // As Windows computed it.
        assert_eq!(raw.checksum.get(), 0xffff_f073);
        let place = Place::new(COPY, 0, raw);
        let footer = place.sound().unwrap();
        assert_eq!(footer.disk_type, DiskType::Dynamic);
        assert_eq!(footer.sizes, Sizes { field: 4 << 20, geometry: 4_177_920, is_by_geometry: false });
        assert!(footer.notes().is_empty());
        let vpc = Place::new(COPY, 0, sealed(RawFooter { creator_application: *b"vpc ", ..raw }));
        assert_eq!(vpc.sound().unwrap().sizes.disk(), 4_177_920);
        assert!(vpc.sound().unwrap().notes()[0].contains("4177920 bytes by its geometry"));
    }

    #[test]
    fn one_wrong_field_each() {
        let problem = |raw| Place::new(COPY, 0, raw).problem.unwrap().to_string();
        let raw = windows();
        assert!(problem(RawFooter { cookie: *b"conectiX", ..raw }).contains("cookie"));
        assert!(
            problem(RawFooter { disk_type: 6.into(), ..raw }).contains("disk_type is 6, expected 2, 3 or 4")
        );
        assert!(
            problem(RawFooter { file_format_version: 0x2_0000.into(), ..raw })
                .contains("file_format_version")
        );
        let stale = Place::new(COPY, 0, RawFooter { time_stamp: 7.into(), ..raw });
        assert!(stale.footer.is_some() && stale.sound().is_none());
        assert!(stale.problem.unwrap().to_string().contains("checksum is 0xfffff073"));
    }

    #[test]
    fn an_old_footer_has_511_bytes() {
        let raw = sealed(RawFooter { disk_type: 2.into(), current_size: 1024.into(), ..windows() });
        let mut file = vec![9; 1024];
        file.extend_from_slice(&raw.as_bytes()[..511]);
        let end = &file[file.len() - 512..];
        assert_eq!(at_end(end).unwrap().1, 511);
        assert!(is_of_fixed_disk(end, file.len() as u64));
        assert!(!is_of_fixed_disk(end, file.len() as u64 + 1));
        assert!(!is_of_fixed_disk(&end[..511], file.len() as u64));
    }

    #[test]
    fn dates() {
        assert_eq!(date(0), "2000-01-01 00:00:00 UTC");
        assert_eq!(date(59 * 86_400 + 86_399), "2000-02-29 23:59:59 UTC");
        assert_eq!(date(60 * 86_400), "2000-03-01 00:00:00 UTC");
        assert_eq!(date(366 * 86_400 - 1), "2000-12-31 23:59:59 UTC");
        assert_eq!(date(0x2715_ab0a), "2020-10-11 11:37:46 UTC");
        assert_eq!(date(u32::MAX), "2136-02-07 06:28:15 UTC");
    }
}
