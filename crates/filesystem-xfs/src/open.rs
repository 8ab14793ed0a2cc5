//! Recognising, opening and replaying: the functions behind [`FORMAT`](crate::FORMAT).

use std::sync::Mutex;

use blockdev::{BlockDevice, Device};
use filesystem::{FileSystem, FsInfo, Identity, Opened, Replayed};
use ondisk::{Corrupt, Error, Guid, Parsed, Result};

use crate::Xfs;
use crate::log::{self, State};
use crate::secondary;
use crate::superblock::{self, Superblock};

const KIND: &str = "xfs";

/// What the primary superblock says, checked only as far as a guess needs.
pub(crate) fn probe(device: &dyn BlockDevice) -> Result<Option<Identity>> {
    let Some(raw) = superblock::peek(device)? else { return Ok(None) };
    let label = raw.label();
    Ok(Some(Identity {
        kind: KIND,
        uuid: Some(Guid::from_bytes(raw.sb_uuid).to_string()),
        label: (!label.is_empty()).then_some(label),
        size: raw.sb_dblocks.get().saturating_mul(u64::from(raw.sb_blocksize.get())),
    }))
}

/// Opens it as a boot loader would.
pub(crate) fn open(device: Device) -> Result<Opened> {
    Ok(open_xfs(device)?.map(|xfs| -> Box<dyn FileSystem> { Box::new(xfs) }))
}

/// The device after recovery.
#[expect(clippy::needless_pass_by_value, reason = "the list of formats asks for it")]
pub(crate) fn replay(device: Device) -> Result<Replayed> {
    log::replay(&device)
}

pub(crate) fn open_xfs(device: Device) -> Result<Parsed<Xfs>> {
    let superblock = Superblock::read(&*device)?;
    let mut problems: Vec<Error> = Vec::new();
    problems.extend(shorter_device(&*device, &superblock).map(Error::from));
    problems.extend(unfinished(&superblock).map(Error::from));
    match secondary::problems(&*device, &superblock) {
        Ok(found) => problems.extend(found.into_iter().map(Error::from)),
        Err(error) => problems.push(error),
    }
    let state = log::state(&*device, &superblock).unwrap_or_else(|error| {
        problems.push(error);
        State::Dirty
    });
    match state {
        State::External => problems.push(Error::unsupported("log", "an external log")),
        State::Settled => problems.push(log::unfinished(&*device, &superblock)),
        State::Clean | State::Dirty => {}
    }
    let info = info(&superblock, state);
    let (cache, writing) = (Mutex::default(), Mutex::default());
    Ok(Parsed { value: Xfs { device, superblock, info, log: state, cache, writing }, problems })
}

/// A device that lost its end still has files worth reading.
fn shorter_device(device: &dyn BlockDevice, superblock: &Superblock) -> Option<Corrupt> {
    let (needed, present) = (superblock.geometry.size(), device.size());
    let expected = format!("at most the device's {present} bytes");
    (needed > present)
        .then(|| Corrupt::new("superblock", 0, "sb_dblocks", expected, format_args!("{needed} bytes")))
}

fn unfinished(superblock: &Superblock) -> Option<Corrupt> {
    let expected = "0: mkfs.xfs or xfs_repair has finished";
    superblock.in_progress.then(|| Corrupt::new("superblock", 0, "sb_inprogress", expected, 1))
}

fn info(superblock: &Superblock, state: State) -> FsInfo {
    let geometry = &superblock.geometry;
    FsInfo {
        kind: KIND,
        uuid: Some(superblock.uuid.to_string()),
        label: (!superblock.label.is_empty()).then(|| superblock.label.clone()),
        block_size: u32::try_from(geometry.block_size()).unwrap_or(u32::MAX),
        size: geometry.size(),
        free: Some(geometry.bytes(superblock.free_blocks)),
        needs_recovery: state == State::Dirty,
        features: superblock.features.names(),
    }
}
