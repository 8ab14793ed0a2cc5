//! HPFS.

use super::probe::serial;
use super::{Probe, Signature, Usage};

/// OS/2's file system: a superblock at sector 16 and a spare block behind it.
pub(super) fn recognise(probe: &Probe<'_>) -> Option<Signature> {
    let superblock = probe.at(0x2000, 512).filter(|block| block.has(0, b"\x49\xe8\x95\xf9"))?;
    probe.at(0x2200, 4).filter(|block| block.has(0, b"\x49\x18\x91\xf9"))?;
    let boot = probe.at(0, 512)?;
    let has_identity = boot.has(510, b"\x55\xaa") && boot.u8(0x26) == 0x28;
    Some(
        Signature::new("hpfs", Usage::FileSystem)
            .version(superblock.u8(8))
            .uuid(has_identity.then(|| serial(boot.part(0x27, 4))).flatten())
            .label(has_identity.then(|| boot.text(0x2b, 11)).flatten()),
    )
}
