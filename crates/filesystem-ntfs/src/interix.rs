//! Interix files: how Services for Unix, and ntfs-3g by default, keep symlinks and devices in NTFS.
//!
//! A system file whose data begins with a mark. Layout as in ntfs-3g's `layout.h`. Little-endian.

use filesystem::FileKind;

use crate::name;
use crate::span::Span;

/// Data longer than this is no symlink.
pub(crate) const MAX_LENGTH: u64 = 8 + 2 * 4096;

/// What the data of a system file makes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Interix {
    /// A symlink with this target.
    Symlink(Vec<u8>),
    /// A device node.
    Device(FileKind, (u32, u32)),
}

impl Interix {
    /// Recognises data of at most [`MAX_LENGTH`] bytes.
    pub(crate) fn decode(data: &[u8]) -> Option<Self> {
        let (mark, rest) = data.split_first_chunk::<8>()?;
        let device = |kind| {
            let span = Span::new("Interix file", 0, rest);
            let part = |at| span.u64(at, "device").ok().and_then(|part| u32::try_from(part).ok());
            (rest.len() == 16).then_some(())?;
            Some(Self::Device(kind, (part(0)?, part(8)?)))
        };
        match mark {
            b"IntxLNK\x01" if !rest.is_empty() => Some(Self::Symlink(name::to_bytes(rest))),
            b"IntxCHR\0" => device(FileKind::CharDevice),
            b"IntxBLK\0" => device(FileKind::BlockDevice),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes() {
        assert_eq!(Interix::decode(b"IntxLNK\x01/\0x\0"), Some(Interix::Symlink(b"/x".to_vec())));
        let mut device = b"IntxCHR\0".to_vec();
        device.extend([4_u64.to_le_bytes(), 65_u64.to_le_bytes()].concat());
        assert_eq!(Interix::decode(&device), Some(Interix::Device(FileKind::CharDevice, (4, 65))));
        device.push(0);
        assert_eq!(Interix::decode(&device), None);
        assert_eq!(Interix::decode(b"IntxLNK\x01"), None);
        assert_eq!(Interix::decode(b"IntxLN"), None);
    }
}
