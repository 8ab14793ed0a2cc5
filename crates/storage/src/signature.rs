//! Things that are recognised by a signature and not opened.
//!
//! Offsets as in the formats' own headers; identities spelled as `blkid` spells them.

use blockdev::BlockDevice;
use filesystem::Result;
use ondisk::{Guid, read_bytes};

/// What a signature says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The type as `blkid` names it: `swap`, `crypto_LUKS`.
    pub kind: &'static str,
    /// The UUID as `blkid` spells it.
    pub uuid: Option<String>,
    /// The label without padding.
    pub label: Option<Vec<u8>>,
}

/// Things that contain other devices, and so must be seen before what may shine through them.
pub(crate) fn container(device: &dyn BlockDevice) -> Result<Option<Signature>> {
    if let Some(header) = bytes(device, 0, 208)?
        && header.starts_with(b"LUKS\xba\xbe")
    {
        let uuid = text(&header[168..208]).and_then(|uuid| String::from_utf8(uuid).ok());
        return Ok(Some(Signature { kind: "crypto_LUKS", uuid, label: None }));
    }
    for at in [4096, 0, device.size().saturating_sub(8192) & !4095] {
        if let Some(superblock) = bytes(device, at, 64)?
            && superblock.starts_with(&0xa92b_4efc_u32.to_le_bytes())
            && superblock[4..8] == 1_u32.to_le_bytes()
        {
            let label = text(&superblock[32..64]);
            return Ok(Some(Signature { kind: "linux_raid_member", uuid: guid(&superblock[16..32]), label }));
        }
    }
    Ok(None)
}

/// File systems and swap.
pub(crate) fn file_system(device: &dyn BlockDevice) -> Result<Option<Signature>> {
    for page in [4096_u64, 65_536] {
        if let Some(magic) = bytes(device, page - 10, 10)?
            && magic == b"SWAPSPACE2"
            && let Some(header) = bytes(device, 1024, 44)?
        {
            return Ok(Some(Signature {
                kind: "swap",
                uuid: guid(&header[12..28]),
                label: text(&header[28..44]),
            }));
        }
    }
    if let Some(superblock) = bytes(device, 0x1_0000, 0x22b)?
        && &superblock[0x40..0x48] == b"_BHRfS_M"
    {
        let label = text(&superblock[0x12b..0x22b]);
        return Ok(Some(Signature { kind: "btrfs", uuid: guid(&superblock[0x20..0x30]), label }));
    }
    let Some(sector) = bytes(device, 0, 512)? else { return Ok(None) };
    if &sector[3..11] == b"NTFS    " {
        let uuid = sector[72..80].iter().rev().map(|byte| format!("{byte:02X}")).collect();
        return Ok(Some(Signature { kind: "ntfs", uuid: Some(uuid), label: None }));
    }
    let fat = [(82, 67, 71), (54, 39, 43)].into_iter().find(|(kind, ..)| sector[*kind..].starts_with(b"FAT"));
    if let Some((_, serial, label)) = fat
        && sector[510..] == [0x55, 0xaa]
    {
        let [a, b, c, d] = [sector[serial + 3], sector[serial + 2], sector[serial + 1], sector[serial]];
        let label = text(&sector[label..label + 11]).filter(|label| label != b"NO NAME");
        return Ok(Some(Signature {
            kind: "vfat",
            uuid: Some(format!("{a:02X}{b:02X}-{c:02X}{d:02X}")),
            label,
        }));
    }
    Ok(None)
}

/// The bytes, or `None` where the device is too small for them.
fn bytes(device: &dyn BlockDevice, at: u64, length: usize) -> Result<Option<Vec<u8>>> {
    if at.checked_add(length as u64).is_none_or(|end| end > device.size()) {
        return Ok(None);
    }
    read_bytes(device, at, length).map(Some)
}

fn guid(bytes: &[u8]) -> Option<String> {
    let guid = Guid::from_bytes(bytes.try_into().ok()?);
    (!guid.is_nil()).then(|| guid.to_string())
}

/// A padded text: up to the first NUL, trailing blanks removed, `None` when nothing is left.
fn text(padded: &[u8]) -> Option<Vec<u8>> {
    let end = padded.iter().position(|byte| *byte == 0).unwrap_or(padded.len());
    let text = padded[..end].trim_ascii_end();
    (!text.is_empty()).then(|| text.to_vec())
}

#[cfg(test)]
mod tests {
    use blockdev::MemoryDevice;

    use super::*;

    fn device(parts: &[(usize, &[u8])]) -> MemoryDevice {
        let mut content = vec![0; 1 << 20];
        for (at, part) in parts {
            content[*at..*at + part.len()].copy_from_slice(part);
        }
        MemoryDevice::new(content)
    }

    #[test]
    fn signatures() {
        let swap = device(&[(4086, b"SWAPSPACE2"), (1036, &[0x11; 16]), (1052, b"swap0")]);
        let found = file_system(&swap).unwrap().unwrap();
        assert_eq!((found.kind, found.label), ("swap", Some(b"swap0".to_vec())));
        assert_eq!(found.uuid.as_deref(), Some("11111111-1111-1111-1111-111111111111"));
        let esp = device(&[
            (82, b"FAT32   "),
            (67, &[0xee, 0xee, 0x33, 0x33]),
            (71, b"ESP        "),
            (510, &[0x55, 0xaa]),
        ]);
        let found = file_system(&esp).unwrap().unwrap();
        assert_eq!((found.kind, found.uuid.as_deref()), ("vfat", Some("3333-EEEE")));
        assert_eq!(found.label.as_deref(), Some(b"ESP".as_slice()));
        let luks = device(&[(0, b"LUKS\xba\xbe\0\x02"), (168, b"0a0b")]);
        assert_eq!(container(&luks).unwrap().unwrap().uuid.as_deref(), Some("0a0b"));
        assert_eq!(container(&device(&[])).unwrap(), None);
        assert_eq!(file_system(&MemoryDevice::new(vec![0; 10])).unwrap(), None);
    }
}
