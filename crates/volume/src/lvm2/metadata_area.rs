//! A metadata area: a header and a ring of metadata texts.
//!
//! lvm2 `lib/format_text/layout.h`. The header's first `raw_locn` names the committed text; a text that
//! reaches the end of the area goes on behind the header.

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, Result, le, lvm_crc, read_bytes, read_value};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the header; the ring starts behind it.
const HEADER_SIZE: u64 = 512;
/// The largest text that is read; lvm2's own default area holds 1 MiB.
const MAX_TEXT: u64 = 64 << 20;
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

/// One metadata text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataCopy {
    /// First byte of the area it lies in, on the physical volume.
    pub area: u64,
    /// The text, up to its NUL.
    pub text: Vec<u8>,
}

/// The committed text of the area at byte `at`; `None` when the area is ignored or was never written.
pub(crate) fn read_committed(device: &dyn BlockDevice, at: u64, size: u64) -> Result<Option<MetadataCopy>> {
    const NAME: &str = "LVM2 metadata area header";
    let header: RawMdaHeader = read_value(device, at)?;
    let sector = read_bytes(device, at, 512)?;
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
    let [committed, _] = header.raw_locns;
    if committed.offset.get() == 0 || committed.flags.get() & IGNORED != 0 {
        return Ok(None);
    }
    let area_size = header.size.get().min(size);
    let text = read_ring(device, at, area_size, committed.offset.get(), committed.size.get())?;
    let computed = lvm_crc(&text);
    if computed != committed.checksum.get() {
        let text_at = at.saturating_add(committed.offset.get());
        return Err(
            Corrupt::checksum("LVM2 metadata text", text_at, computed, committed.checksum.get()).into()
        );
    }
    let length = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
    let text = text.get(..length).unwrap_or_default().to_vec();
    Ok(Some(MetadataCopy { area: at, text }))
}

/// `size` bytes from `offset` within the area, going on behind the header where the area ends.
fn read_ring(device: &dyn BlockDevice, at: u64, area: u64, offset: u64, size: u64) -> Result<Vec<u8>> {
    let ring = area.saturating_sub(HEADER_SIZE);
    if !(HEADER_SIZE..area).contains(&offset) || size > ring || size > MAX_TEXT {
        let expected = format!("a text within {HEADER_SIZE}..{area}");
        return Err(Corrupt::new(
            "LVM2 metadata area header",
            at,
            "raw_locn",
            expected,
            format!("{size} bytes at {offset}"),
        )
        .into());
    }
    let first = size.min(area.saturating_sub(offset));
    let to_len = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut text = read_bytes(device, at.saturating_add(offset), to_len(first))?;
    let rest = to_len(size.saturating_sub(first));
    text.extend(read_bytes(device, at.saturating_add(HEADER_SIZE), rest)?);
    Ok(text)
}
