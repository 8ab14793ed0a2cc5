//! What Linux' own drivers read; offsets as in their headers.

use super::probe::Bytes;
use super::{Probe, Signature, Usage};

fn file_system(kind: &'static str) -> Signature {
    Signature::new(kind, Usage::FileSystem)
}

/// Of bcache, and of bcachefs before it had its own.
const BCACHE: [u8; 16] =
    [0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81];
const BCACHEFS: [u8; 16] =
    [0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9, 0xd9, 0x6a, 0x60, 0xcf, 0x80, 0x3d, 0xf7, 0xef];

/// Versions of bcache's superblock end here; those of bcachefs begin above.
const BCACHE_VERSIONS: u64 = 6;

/// A backing or a cache device: `include/uapi/linux/bcache.h`.
pub(super) fn bcache(probe: &Probe<'_>) -> Option<Signature> {
    let superblock = probe.at(4096, 256).filter(|block| block.has(24, &BCACHE))?;
    let version = superblock.u64(16);
    (version <= BCACHE_VERSIONS)
        .then(|| Signature::new("bcache", Usage::Other).version(version).uuid(superblock.guid(40)))
}

/// `fs/bcachefs/bcachefs_format.h`.
pub(super) fn bcachefs(probe: &Probe<'_>) -> Option<Signature> {
    let superblock = probe.at(4096, 256)?;
    let is_bcachefs = superblock.has(24, &BCACHEFS)
        || (superblock.has(24, &BCACHE) && superblock.u64(16) > BCACHE_VERSIONS);
    is_bcachefs.then(|| file_system("bcachefs").uuid(superblock.guid(56)).label(superblock.text(72, 32)))
}

/// A replicated device with internal metadata at its end: `drbd_int.h`. Big-endian.
pub(super) fn drbd(probe: &Probe<'_>) -> Option<Signature> {
    let metadata = probe.before_end(4096, 4096)?;
    let (version, at) = match metadata.u32_be(60) {
        0x8374_026b | 0x8374_026c => ("v08", 40),
        0x8374_026d | 0x8374_026e => ("v09", 48),
        _ => return None,
    };
    let uuid = format!("{:x}", metadata.u64_be(at));
    Some(Signature::new("drbd", Usage::Raid).version(version).uuid(Some(uuid)))
}

/// Raw flash: `drivers/mtd/ubi/ubi-media.h`. Big-endian.
pub(super) fn ubi(probe: &Probe<'_>) -> Option<Signature> {
    let header = probe.at(0, 64).filter(|header| header.has(0, b"UBI#"))?;
    let uuid = header.u32_be(24).to_string();
    Some(Signature::new("ubi", Usage::Raid).version(header.u8(4)).uuid(Some(uuid)))
}

/// Swap, or a hibernated system in it, for each size of a page: `include/linux/swap.h`.
pub(super) fn swap(probe: &Probe<'_>) -> Option<Signature> {
    const HIBERNATED: [&[u8]; 4] = [b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001"];
    for page in [4096_u64, 8192, 16384, 32768, 65536] {
        let Some(magic) = probe.at(page - 10, 10) else { break };
        let is_hibernated = HIBERNATED.iter().any(|name| magic.has(0, name));
        if magic.has(0, b"SWAP-SPACE") {
            return Some(Signature::new("swap", Usage::Other).version(0));
        }
        if magic.has(0, b"SWAPSPACE2") || is_hibernated {
            let kind = if is_hibernated { "swsuspend" } else { "swap" };
            let header = probe.at(1024, 512)?;
            let version = [header.u32(0), header.u32_be(0)].into_iter().find(|version| *version == 1);
            let found = Signature::new(kind, Usage::Other).uuid(header.guid(12)).label(header.text(28, 16));
            return Some(if version == Some(1) { found.version(1) } else { found });
        }
    }
    None
}

/// A log of its own: log record headers near the start, `fs/xfs/libxfs/xfs_log_format.h`. Big-endian.
pub(super) fn xfs_log(probe: &Probe<'_>) -> Option<Signature> {
    let is_header = |record: &Bytes| {
        let (version, length) = (record.u32_be(8), record.u32_be(12));
        record.u32_be(0) == 0xfeed_babe && matches!(version, 1 | 2) && length > 0 && length <= 256 << 10
    };
    // The record wraps: any of the first sectors may hold the header.
    let has_log = (0..128).any(|sector| probe.at(sector * 512, 16).is_some_and(|record| is_header(&record)));
    has_log.then(|| Signature::new("xfs_external_log", Usage::Other))
}

/// A journal of its own: an ext superblock with `INCOMPAT_JOURNAL_DEV`.
pub(super) fn ext_journal(probe: &Probe<'_>) -> Option<Signature> {
    let superblock =
        probe.at(1024, 1024).filter(|block| block.u16(56) == 0xef53 && block.u32(96) & 8 != 0)?;
    Some(Signature::new("jbd", Usage::Other).uuid(superblock.guid(104)).label(superblock.text(120, 16)))
}

/// Version 3 at 64 KiB or (3.5) 8 KiB, version 4 at 64 KiB.
pub(super) fn reiserfs(probe: &Probe<'_>) -> Option<Signature> {
    if let Some(superblock) = probe.at(0x10000, 128).filter(|block| block.has(0, b"ReIsEr4")) {
        let found = file_system("reiser4").version(4).uuid(superblock.guid(20));
        return Some(found.label(superblock.text(36, 16)));
    }
    for at in [0x10000, 0x2000] {
        let Some(superblock) = probe.at(at, 128) else { continue };
        let version = match superblock.part(0x34, 9) {
            name if name.starts_with(b"ReIsErFs") => "3.5",
            name if name.starts_with(b"ReIsEr2Fs") => "3.6",
            name if name.starts_with(b"ReIsEr3Fs") => "JR",
            _ => continue,
        };
        let found = file_system("reiserfs").version(version);
        // The old format has neither.
        return Some(match version {
            "3.5" => found,
            _ => found.uuid(superblock.guid(84)).label(superblock.text(100, 16)),
        });
    }
    None
}

/// `fs/jfs/jfs_superblock.h`.
pub(super) fn jfs(probe: &Probe<'_>) -> Option<Signature> {
    let superblock = probe.at(0x8000, 256).filter(|block| block.has(0, b"JFS1"))?;
    let (block_size, log) = (superblock.u32(24), u32::from(superblock.u16(28)));
    let is_sane = log < 32 && 1_u32 << log == block_size;
    is_sane.then(|| file_system("jfs").uuid(superblock.guid(136)).label(superblock.text(152, 16)))
}

/// `include/uapi/linux/cramfs_fs.h`, of either byte order.
pub(super) fn cramfs(probe: &Probe<'_>) -> Option<Signature> {
    let superblock = probe.at(0, 64)?;
    let flags = match (superblock.u32(0), superblock.u32_be(0)) {
        (0x28cd_3d45, _) => superblock.u32(8),
        (_, 0x28cd_3d45) => superblock.u32_be(8),
        _ => return None,
    };
    superblock.has(16, b"Compressed ROMFS").then(|| {
        file_system("cramfs").version(if flags & 1 != 0 { 2 } else { 1 }).label(superblock.text(48, 16))
    })
}

pub(super) fn romfs(probe: &Probe<'_>) -> Option<Signature> {
    let superblock = probe.at(0, 64).filter(|block| block.has(0, b"-rom1fs-"))?;
    Some(file_system("romfs").label(superblock.text(16, 16)))
}

/// GFS and GFS2: `include/uapi/linux/gfs2_ondisk.h`. Big-endian. The label is the lock table.
pub(super) fn gfs(probe: &Probe<'_>) -> Option<Signature> {
    let superblock = probe.at(0x10000, 512).filter(|block| block.u32_be(0) == 0x0116_1970)?;
    match superblock.u32_be(24) {
        1309 => Some(file_system("gfs").label(superblock.text(160, 64))),
        1801..=1899 => Some(file_system("gfs2").uuid(superblock.guid(256)).label(superblock.text(160, 64))),
        _ => None,
    }
}

/// `fs/ocfs2/ocfs2_fs.h`: the superblock is the inode in block 2.
pub(super) fn ocfs2(probe: &Probe<'_>) -> Option<Signature> {
    let superblock = [0x400, 0x800, 0x1000, 0x2000]
        .into_iter()
        .find_map(|at| probe.at(at, 512).filter(|inode| inode.has(0, b"OCFSV2")))?;
    let version = format!("{}.{}", superblock.u16(192), superblock.u16(194));
    Some(file_system("ocfs2").version(version).uuid(superblock.guid(336)).label(superblock.text(272, 64)))
}

/// `fs/squashfs/squashfs_fs.h`; versions before 4 in either byte order.
pub(super) fn squashfs(probe: &Probe<'_>) -> Option<Signature> {
    let superblock = probe.at(0, 96)?;
    let (major, minor) = if superblock.has(0, b"hsqs") {
        (superblock.u16(28), superblock.u16(30))
    } else if superblock.has(0, b"sqsh") {
        (superblock.u16_be(28), superblock.u16_be(30))
    } else {
        return None;
    };
    let kind = if major > 3 { "squashfs" } else { "squashfs3" };
    Some(file_system(kind).version(format!("{major}.{minor}")))
}

/// `fs/ubifs/ubifs-media.h`.
pub(super) fn ubifs(probe: &Probe<'_>) -> Option<Signature> {
    let node = probe.at(0, 128).filter(|node| node.u32(0) == 0x0610_1831 && node.u8(20) == 6)?;
    let version = format!("w{}r{}", node.u32(80), node.u32(124));
    Some(file_system("ubifs").version(version).uuid(node.guid(108)))
}

/// `include/uapi/linux/nilfs2_ondisk.h`: at 1 KiB, and a second copy at the end.
pub(super) fn nilfs2(probe: &Probe<'_>) -> Option<Signature> {
    let second = (probe.size() >> 12).checked_sub(1)? << 12;
    let superblock = [0x400, second].into_iter().find_map(|at| {
        let block = probe.at(at, 1024)?;
        // A magic of two bytes needs more: a sane size of the superblock and of the file system.
        let is_sane =
            block.u16(6) == 0x3434 && (256..=1024).contains(&block.u16(8)) && block.u64(32) <= probe.size();
        is_sane.then_some(block)
    })?;
    Some(file_system("nilfs2").uuid(superblock.guid(152)).label(superblock.text(168, 80)))
}

/// `include/linux/f2fs_fs.h`.
pub(super) fn f2fs(probe: &Probe<'_>) -> Option<Signature> {
    let superblock = probe.at(0x400, 1024).filter(|block| block.u32(0) == 0xf2f5_2010)?;
    let found = file_system("f2fs").version(format!("{}.{}", superblock.u16(4), superblock.u16(6)));
    Some(found.uuid(superblock.guid(108)).label(superblock.utf16_le(124, 512)))
}

/// `fs/zonefs/zonefs.h`.
pub(super) fn zonefs(probe: &Probe<'_>) -> Option<Signature> {
    let superblock = probe.at(0, 96).filter(|block| block.has(0, b"SFOZ"))?;
    Some(file_system("zonefs").uuid(superblock.guid(72)).label(superblock.text(8, 64)))
}

/// `fs/erofs/erofs_fs.h`.
pub(super) fn erofs(probe: &Probe<'_>) -> Option<Signature> {
    let superblock = probe.at(1024, 128).filter(|block| block.u32(0) == 0xe0f5_e1e2)?;
    Some(file_system("erofs").uuid(superblock.guid(48)).label(superblock.text(64, 16)))
}

/// A metadata or data device of scoutfs.
pub(super) fn scoutfs(probe: &Probe<'_>) -> Option<Signature> {
    let superblock = probe.at(0x10000, 128).filter(|block| block.u32(4) == 0x103c_428b)?;
    let kind = if superblock.u64(48) & 1 != 0 { "scoutfs_meta" } else { "scoutfs_data" };
    Some(file_system(kind).version(superblock.u64(40)).uuid(superblock.guid(56)))
}

/// `include/uapi/linux/minix_fs.h`, versions 1 to 3, of either byte order. The magic is short, so all numbers count.
pub(super) fn minix(probe: &Probe<'_>) -> Option<Signature> {
    let block = probe.at(0x400, 64)?;
    for is_little in [true, false] {
        let half = |at| u64::from(if is_little { block.u16(at) } else { block.u16_be(at) });
        let word = |at| u64::from(if is_little { block.u32(at) } else { block.u32_be(at) });
        let (version, inodes, zones, first, shift) = match (half(16), half(24)) {
            (0x137f | 0x138f, _) => (1, half(0), half(2), half(8), half(10)),
            (0x2468 | 0x2478, _) => (2, half(0), word(20), half(8), half(10)),
            (_, 0x4d5a) => (3, word(0), word(20), half(12), half(14)),
            _ => continue,
        };
        let (inode_map, zone_map) = if version == 3 { (half(6), half(8)) } else { (half(4), half(6)) };
        let is_sane = shift == 0
            && inodes > 0
            && first >= 4
            && zones > first
            && inode_map * 8192 > inodes
            && zone_map * 8192 + first > zones
            && zones * 1024 <= probe.size();
        if is_sane {
            return Some(file_system("minix").version(version));
        }
    }
    None
}
