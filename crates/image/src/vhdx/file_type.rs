//! VHDX file type identifier: the first 64 KiB, which say what the file is and who made it.
//!
//! MS-VHDX §2.2.1. The creator is UTF-16, little-endian, and for people only.

use blockdev::BlockDevice;
use ondisk::{Result, read_value};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The first eight bytes of every VHDX file.
pub(super) const SIGNATURE: [u8; 8] = *b"vhdxfile";

/// The identifier as stored, as far as any field is defined.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawFileType {
    /// 0x00 `vhdxfile`.
    signature: [u8; 8],
    /// 0x08 the program that made the file, padded with zeros.
    creator: [u8; 512],
}
const _: () = assert!(size_of::<RawFileType>() == 520);

impl RawFileType {
    /// An identifier for a file of ours.
    pub(super) fn new() -> Self {
        let mut creator = [0; 512];
        let name = concat!("guestmend ", env!("CARGO_PKG_VERSION"));
        let units = name.encode_utf16().flat_map(u16::to_le_bytes);
        creator.iter_mut().zip(units).for_each(|(to, from)| *to = from);
        Self { signature: SIGNATURE, creator }
    }

    /// The program that made the file; empty where it does not say.
    fn creator(&self) -> String {
        let units = self.creator.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit));
        let text: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
        String::from_utf16_lossy(&text).replace(char::is_control, "\u{fffd}")
    }
}

/// Who made the file that `device` holds; empty where it does not say.
pub(super) fn creator(device: &dyn BlockDevice) -> Result<String> {
    Ok(read_value::<RawFileType>(device, 0)?.creator())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_creator_is_text() {
        assert_eq!(RawFileType::new().creator(), concat!("guestmend ", env!("CARGO_PKG_VERSION")));
        let mut raw = RawFileType::new();
        raw.creator[2] = 0x1b;
        assert_eq!(raw.creator().chars().nth(1), Some('\u{fffd}'));
        raw.creator.fill(0xd8);
        assert_eq!(raw.creator().chars().count(), 256);
    }
}
