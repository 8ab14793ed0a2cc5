//! HFS, HFS+ and APFS.

use super::probe::Bytes;
use super::{Probe, Signature, Usage};

/// HFS (Inside Macintosh: Files) and HFS+ (Apple TN1150), the latter also inside the former's wrapper. Big-endian.
pub(super) fn hfs(probe: &Probe<'_>) -> Option<Signature> {
    let header = probe.at(0x400, 512)?;
    if header.has(0, b"BD") {
        if header.has(124, b"H+") || header.has(124, b"HX") {
            let block = u64::from(header.u32_be(20));
            let first = u64::from(header.u16_be(28)) * 512 + u64::from(header.u16_be(126)) * block;
            let inner = probe.at(first + 0x400, 512)?;
            return is_plus(&inner).then(|| plus(probe, &inner, first));
        }
        let length = usize::from(header.u8(36).min(27));
        return Some(Signature::new("hfs", Usage::FileSystem).label(header.text(37, length)));
    }
    is_plus(&header).then(|| plus(probe, &header, 0))
}

fn is_plus(header: &Bytes) -> bool {
    (header.has(0, b"H+") || header.has(0, b"HX")) && header.u32_be(40).is_power_of_two()
}

fn plus(probe: &Probe<'_>, header: &Bytes, first: u64) -> Signature {
    Signature::new("hfsplus", Usage::FileSystem).label(root_name(probe, header, first))
}

/// The name of the root folder: the key of the first record of the catalogue's first leaf.
fn root_name(probe: &Probe<'_>, header: &Bytes, first: u64) -> Option<Vec<u8>> {
    let block = u64::from(header.u32_be(40));
    let extents: Vec<(u64, u64)> = (0..8)
        .map(|index| 288 + index * 8)
        .map(|at| (u64::from(header.u32_be(at)), u64::from(header.u32_be(at + 4))))
        .collect();
    let at = first.checked_add(extents.first()?.0.checked_mul(block)?)?;
    let tree = probe.at(at, 256)?;
    let node_size = u64::from(tree.u16_be(32));
    let leaf = u64::from(tree.u32_be(24));
    if tree.u8(8) != 1 || node_size < 512 || leaf == 0 {
        return None;
    }
    // The leaf's place within the file, in whatever extent holds it.
    let mut offset = leaf * node_size;
    for (start, count) in extents {
        let length = count * block;
        if offset < length {
            let node = probe.at(first.checked_add(start.checked_mul(block)?)?.checked_add(offset)?, 512)?;
            // A leaf, whose first key belongs to the parent of the root folder.
            let is_root = node.u8(8) == 0xff && node.u32_be(16) == 1;
            let length = usize::from(node.u16_be(20)).min(255) * 2;
            return is_root.then(|| node.utf16_be(22, length)).flatten();
        }
        offset -= length;
    }
    None
}

/// Apple File System Reference: a container superblock in block 0.
pub(super) fn apfs(probe: &Probe<'_>) -> Option<Signature> {
    let superblock = probe.at(0, 128).filter(|block| block.has(32, b"NXSB"))?;
    // An object of type 1 without a subtype.
    let is_superblock = superblock.u16(24) == 1 && superblock.u32(28) == 0;
    is_superblock.then(|| Signature::new("apfs", Usage::FileSystem).uuid(superblock.guid(72)))
}
