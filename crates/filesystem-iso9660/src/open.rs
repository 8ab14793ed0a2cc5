//! Recognising, opening: the functions behind [`FORMAT`](crate::FORMAT).

use blockdev::{BlockDevice, Device};
use filesystem::{FileSystem, FsInfo, Identity, Opened, Replayed};
use ondisk::{Corrupt, Error, Parsed, Result};

use crate::descriptor::{self, FIRST};
use crate::read::{Iso, Names};

const KIND: &str = "iso9660";

/// Discs that have a UDF tree as well are UDF, as `blkid` says.
pub(crate) fn probe(device: &dyn BlockDevice) -> Result<Option<Identity>> {
    let found = descriptor::read(device)?.filter(|found| !found.has_udf);
    Ok(found.map(|found| Identity {
        kind: KIND,
        uuid: found.uuid,
        label: found.label,
        size: found.primary.size,
    }))
}

pub(crate) fn open(device: Device) -> Result<Opened> {
    let Some(found) = descriptor::read(device.as_ref())? else {
        let expected = "a primary one from the sixteenth sector on";
        return Err(Corrupt::new("ISO 9660 volume descriptor", FIRST, "type", expected, "none").into());
    };
    let mut problems: Vec<Error> = Vec::new();
    if found.primary.size > device.size() {
        let expected = format!("at most the device's {} bytes", device.size());
        let size = format!("{} bytes", found.primary.size);
        problems.push(
            Corrupt::new("ISO 9660 volume descriptor", FIRST, "volume space size", expected, size).into(),
        );
    }
    let mut info = FsInfo {
        kind: KIND,
        uuid: found.uuid,
        label: found.label,
        block_size: found.primary.block_size,
        size: found.primary.size,
        free: Some(0),
        needs_recovery: false,
        features: Vec::new(),
    };
    // As Linux chooses: Rock Ridge, else Joliet, else plain names.
    let (names, tree) = match (Names::rock_ridge(device.as_ref(), &found.primary), found.joliet) {
        (Ok(Some(names)), _) => (names, found.primary),
        (Ok(None), Some(joliet)) => (Names::Joliet, joliet),
        (Ok(None), None) => (Names::Plain, found.primary),
        (Err(error), joliet) => {
            problems.push(error);
            joliet.map_or((Names::Plain, found.primary), |joliet| (Names::Joliet, joliet))
        }
    };
    info.features.push(names.name().to_owned());
    let value: Box<dyn FileSystem> = Box::new(Iso::new(device, names, &tree, info));
    Ok(Parsed { value, problems })
}

/// There is no journal.
pub(crate) fn replay(device: Device) -> Result<Replayed> {
    Ok(Replayed { device, transactions: 0 })
}
