//! The BSD fast file system, UFS1 and UFS2, of either byte order.

use super::{Probe, Signature, Usage};

pub(super) fn recognise(probe: &Probe<'_>) -> Option<Signature> {
    for place in [0_u64, 8, 64, 256] {
        let Some(superblock) = probe.at(place << 10, 1536) else { continue };
        // fs_magic.
        let (little, big) = (superblock.u32(1372), superblock.u32_be(1372));
        let Some((magic, is_little)) = [(little, true), (big, false)]
            .into_iter()
            .find(|(magic, _)| [0x0001_1954, 0x1954_0119, 0x0009_5014, 0x0019_5612].contains(magic))
        else {
            continue;
        };
        let word = |at| if is_little { superblock.u32(at) } else { superblock.u32_be(at) };
        let is_second = magic == 0x1954_0119;
        let (high, low) = (word(144), word(148));
        let uuid = (high != 0 || low != 0).then(|| format!("{high:08x}{low:08x}"));
        let label = is_second.then(|| superblock.text(680, 32)).flatten();
        let version = if is_second { 2 } else { 1 };
        return Some(Signature::new("ufs", Usage::FileSystem).version(version).uuid(uuid).label(label));
    }
    None
}
