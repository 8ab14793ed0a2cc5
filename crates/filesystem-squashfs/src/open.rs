//! Recognising, opening: the functions behind [`FORMAT`](crate::FORMAT).

use blockdev::{BlockDevice, Device};
use filesystem::{FileSystem, FsInfo, Identity, Opened, Replayed};
use ondisk::{Corrupt, Parsed, Result, read_value};

use crate::read::Squashfs;
use crate::superblock::{MAGIC, RawSuperblock, Superblock};

const KIND: &str = "squashfs";

/// Neither a UUID nor a label is stored.
pub(crate) fn probe(device: &dyn BlockDevice) -> Result<Option<Identity>> {
    if device.size() < 96 {
        return Ok(None);
    }
    let raw: RawSuperblock = read_value(device, 0)?;
    if raw.magic.get() != MAGIC || raw.major.get() != 4 {
        return Ok(None);
    }
    Ok(Some(Identity { kind: KIND, uuid: None, label: None, size: raw.bytes_used.get() }))
}

pub(crate) fn open(device: Device) -> Result<Opened> {
    let superblock = Superblock::decode(&read_value(device.as_ref(), 0)?)?;
    let mut problems = Vec::new();
    if superblock.size > device.size() {
        let expected = format!("at most the device's {} bytes", device.size());
        let found = format!("{} bytes", superblock.size);
        problems.push(Corrupt::new("squashfs superblock", 0, "bytes_used", expected, found).into());
    }
    let info = FsInfo {
        kind: KIND,
        uuid: None,
        label: None,
        block_size: superblock.block_size,
        size: superblock.size,
        free: Some(0),
        needs_recovery: false,
        features: features(&superblock),
    };
    let fs = Squashfs::new(device, superblock, info);
    problems.extend(fs.try_root());
    let value: Box<dyn FileSystem> = Box::new(fs);
    Ok(Parsed { value, problems })
}

/// There is no journal.
pub(crate) fn replay(device: Device) -> Result<Replayed> {
    Ok(Replayed { device, transactions: 0 })
}

/// As `unsquashfs -s` speaks of them.
fn features(superblock: &Superblock) -> Vec<String> {
    let mut features = vec![superblock.compression.name().to_owned()];
    for (bit, name) in [
        (0x001, "uncompressed inodes"),
        (0x002, "uncompressed data"),
        (0x008, "uncompressed fragments"),
        (0x010, "no fragments"),
        (0x020, "always fragments"),
        (0x040, "duplicates removed"),
        (0x080, "exportable"),
        (0x100, "uncompressed xattrs"),
        (0x200, "no xattrs"),
        (0x400, "compressor options"),
        (0x800, "uncompressed ids"),
    ] {
        if superblock.flags & bit != 0 {
            features.push(name.to_owned());
        }
    }
    features
}
