//! A metadata area: a header and a ring of metadata texts.
//!
//! lvm2 `lib/format_text/layout.h`. The header's first `raw_locn` names the committed text; a text that
//! reaches the end of the area goes on behind the header.

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, Parsed, Result, le, lvm_crc, read_bytes};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the header; the ring starts behind it.
pub(crate) const HEADER_SIZE: u64 = 512;
/// The largest text that is read; lvm2's own default area holds 1 MiB.
pub(crate) const MAX_TEXT: u64 = 16 << 20;
/// `raw_locn.flags`: the area is ignored, its text stale.
const IGNORED: u32 = 1;

/// The header as stored, with the two locations that are ever used.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawMdaHeader {
    /// 0x00 checksum of the 512 bytes from 0x04 on.
    checksum_xl: le::U32,
    /// 0x04 " LVM2 x[5A%r0N*>".
    magic: [u8; 16],
    /// 0x14 1.
    version: le::U32,
    /// 0x18 first byte of the area on the device.
    start: le::U64,
    /// 0x20 bytes of the area, header included.
    size: le::U64,
    /// 0x28 committed, then precommitted.
    raw_locns: [RawLocation; 2],
}
const _: () = assert!(size_of::<RawMdaHeader>() == 0x58);

/// Where a text lies, as stored.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawLocation {
    /// 0x00 bytes from the start of the area.
    offset: le::U64,
    /// 0x08 bytes, the NUL at the end included.
    size: le::U64,
    /// 0x10 checksum of the text.
    checksum: le::U32,
    /// 0x14 bit 0: ignored.
    flags: le::U32,
}

/// One metadata area, whatever state it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataArea {
    /// First byte on the device.
    pub offset: u64,
    /// Bytes, the header included, as the physical volume header says.
    pub size: u64,
    /// What is wrong with the area's header; nothing of it is believed then.
    pub header: std::result::Result<(), Corrupt>,
    /// Whether the area is out of use (`vgchange --metadatacopies`); its texts are old then.
    pub is_ignored: bool,
    /// The text that counts, if one was ever written.
    pub committed: Option<MetadataText>,
    /// A text that was written and not yet declared valid: a change was interrupted.
    pub precommitted: Option<MetadataText>,
}

/// A text that an area's header names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataText {
    /// Where it lies.
    pub place: Place,
    /// The text up to its NUL, or why it is not what the header says; parsing it may still fail.
    pub text: std::result::Result<Vec<u8>, Corrupt>,
}

/// Where a text lies in an area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// First byte of the area on the device.
    pub area: u64,
    /// First byte of the text within the area.
    pub offset: u64,
    /// Bytes, the NUL included.
    pub size: u64,
    /// Whether it goes on behind the header, having reached the end of the area.
    pub is_split: bool,
}

/// Reads the area at byte `at`. Never fails: damage is a verdict in the value, and a problem.
pub(crate) fn read(device: &dyn BlockDevice, at: u64, size: u64) -> Parsed<MetadataArea> {
    let mut value = MetadataArea {
        offset: at,
        size,
        header: Ok(()),
        is_ignored: false,
        committed: None,
        precommitted: None,
    };
    let mut problems: Vec<Error> = Vec::new();
    let raw = match read_header(device, at) {
        Ok(raw) => raw,
        Err(error) => {
            value.header = Err(match &error {
                Error::Corrupt(corrupt) => (**corrupt).clone(),
                other => Corrupt::new(NAME, at, "sector", "readable", other),
            });
            return Parsed { value, problems: vec![error] };
        }
    };
    if raw.size.get() != size {
        problems.push(Corrupt::new(NAME, at, "size", size, raw.size).into());
    }
    let area_size = raw.size.get().min(size);
    let [committed, precommitted] = raw.raw_locns;
    value.is_ignored = committed.flags.get() & IGNORED != 0;
    // The list ends at the first entry without an offset, except that the second may stand alone.
    value.committed = read_text(device, at, area_size, &committed);
    value.precommitted = read_text(device, at, area_size, &precommitted);
    if !value.is_ignored {
        let texts = value.committed.iter().chain(&value.precommitted);
        problems.extend(texts.filter_map(|text| Some(text.text.as_ref().err()?.clone().into())));
    }
    Parsed { value, problems }
}

const NAME: &str = "LVM2 metadata area header";

fn read_header(device: &dyn BlockDevice, at: u64) -> Result<RawMdaHeader> {
    let sector = read_bytes(device, at, 512)?;
    let Ok((header, _)) = RawMdaHeader::read_from_prefix(&sector) else {
        return Err(Corrupt::new(NAME, at, "size", 512, sector.len()).into());
    };
    let computed = lvm_crc(sector.get(4..).unwrap_or_default());
    if computed != header.checksum_xl.get() {
        return Err(Corrupt::checksum(NAME, at, computed, header.checksum_xl.get()).into());
    }
    if &header.magic != b" LVM2 x[5A%r0N*>" {
        return Err(Corrupt::new(NAME, at, "magic", "\" LVM2 x[5A%r0N*>\"", "something else").into());
    }
    if header.version.get() != 1 {
        return Err(Error::unsupported(NAME, format!("version {}", header.version)));
    }
    if header.start.get() != at {
        return Err(Corrupt::new(NAME, at, "start", at, header.start).into());
    }
    Ok(header)
}

/// The size that the header at byte `at` gives its area, if it is a good header.
pub(crate) fn recorded_size(device: &dyn BlockDevice, at: u64) -> Option<u64> {
    read_header(device, at).ok().map(|header| header.size.get())
}

/// `None` for an empty slot.
fn read_text(device: &dyn BlockDevice, at: u64, area: u64, raw: &RawLocation) -> Option<MetadataText> {
    let (offset, size) = (raw.offset.get(), raw.size.get());
    if offset == 0 {
        return None;
    }
    let is_split = offset.saturating_add(size) > area;
    let place = Place { area: at, offset, size, is_split };
    let text = read_ring(device, at, area, offset, size).and_then(|mut text| {
        let computed = lvm_crc(&text);
        if computed != raw.checksum.get() {
            let text_at = at.saturating_add(offset);
            return Err(Corrupt::checksum("LVM2 metadata text", text_at, computed, raw.checksum.get()));
        }
        let length = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        text.truncate(length);
        Ok(text)
    });
    Some(MetadataText { place, text })
}

/// `size` bytes from `offset` within the area, going on behind the header where the area ends.
fn read_ring(
    device: &dyn BlockDevice,
    at: u64,
    area: u64,
    offset: u64,
    size: u64,
) -> std::result::Result<Vec<u8>, Corrupt> {
    let ring = area.saturating_sub(HEADER_SIZE);
    if !(HEADER_SIZE..area).contains(&offset) || size > ring || size > MAX_TEXT {
        let expected = format!("a text within {HEADER_SIZE}..{area}");
        return Err(Corrupt::new(NAME, at, "raw_locn", expected, format_args!("{size} bytes at {offset}")));
    }
    let first = size.min(area.saturating_sub(offset));
    let to_len = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let rest = to_len(size.saturating_sub(first));
    let unreadable = |error: Error| Corrupt::new("LVM2 metadata text", at, "text", "readable", error);
    let mut text = read_bytes(device, at.saturating_add(offset), to_len(first)).map_err(unreadable)?;
    if rest > 0 {
        let rest = read_bytes(device, at.saturating_add(HEADER_SIZE), rest).map_err(unreadable)?;
        text.extend(rest);
    }
    Ok(text)
}
