//! Veritas, VMware and mpool.

use super::{Probe, Signature, Usage};

/// Veritas, little-endian at 1 KiB or big-endian at 8 KiB.
pub(super) fn vxfs(probe: &Probe<'_>) -> Option<Signature> {
    const MAGIC: u32 = 0xa501_fcf5;
    let little = probe.at(0x400, 8).filter(|block| block.u32(0) == MAGIC).map(|block| block.u32(4));
    let big = || probe.at(0x2000, 8).filter(|block| block.u32_be(0) == MAGIC).map(|block| block.u32_be(4));
    let version = little.or_else(big)?;
    Some(Signature::new("vxfs", Usage::FileSystem).version(version))
}

/// A member of a VMFS volume. The volume's own UUID is text in the first MiB of its data.
pub(super) fn vmfs_volume(probe: &Probe<'_>) -> Option<Signature> {
    let header = probe.at(1 << 20, 256).filter(|header| header.u32(0) == 0xc001_d00d)?;
    let uuid = probe.at((1 << 20) + 512 + 20, 35).and_then(|text| text.string(0, 35));
    Some(
        Signature::new("VMFS_volume_member", Usage::Raid)
            .version(header.u32(4))
            .uuid(uuid)
            .sub_uuid(Some(vmware_uuid(header.part(130, 16)))),
    )
}

/// A VMFS file system.
pub(super) fn vmfs(probe: &Probe<'_>) -> Option<Signature> {
    let info = probe.at(2 << 20, 256).filter(|info| info.u32(0) == 0x2fab_f15e)?;
    Some(
        Signature::new("VMFS", Usage::FileSystem)
            .version(format!("{}.{}", info.u32(4), info.u8(8)))
            .uuid(Some(vmware_uuid(info.part(9, 16))))
            .label(info.text(29, 128)),
    )
}

/// Two words and a half, little-endian, and six bytes in order.
fn vmware_uuid(bytes: &[u8]) -> String {
    const ORDER: [usize; 16] = [3, 2, 1, 0, 7, 6, 5, 4, 9, 8, 10, 11, 12, 13, 14, 15];
    let mut text = String::new();
    for (position, index) in ORDER.into_iter().enumerate() {
        if matches!(position, 4 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{:02x}", bytes.get(index).copied().unwrap_or(0)));
    }
    text
}

/// A media pool of HSE.
pub(super) fn mpool(probe: &Probe<'_>) -> Option<Signature> {
    let superblock = probe.at(0, 64).filter(|block| block.has(0, b"mpoolDev"))?;
    let found = Signature::new("mpool", Usage::FileSystem).uuid(superblock.guid(40));
    Some(found.label(superblock.text(8, 32)))
}
