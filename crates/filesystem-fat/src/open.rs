//! Recognising, opening: the functions behind [`FORMAT`](crate::FORMAT).

use blockdev::{BlockDevice, Device};
use filesystem::{FileSystem, FsInfo, Identity, Opened, Replayed};
use ondisk::{Corrupt, Error, Parsed, Result, read_bytes, read_value};
use zerocopy::IntoBytes;

use crate::boot_sector::{BootSector, RawBootSector, Width, is_claimed};
use crate::directory;
use crate::read::Fat;
use crate::table::{self, Table};

const KIND: &str = "vfat";

/// Clusters of a FAT32 root directory that are searched for a label.
const LABEL_CLUSTERS: u64 = 100;
/// Bytes of each table that are compared at opening.
const COMPARED: u64 = 1 << 20;

/// What the boot sector says, with the label of the root directory: that in the boot sector is often stale.
pub(crate) fn probe(device: &dyn BlockDevice) -> Result<Option<Identity>> {
    if device.size() < 512 {
        return Ok(None);
    }
    let raw: RawBootSector = read_value(device, 0)?;
    if !is_claimed(&raw) {
        return Ok(None);
    }
    let Ok(boot) = BootSector::decode(&raw) else { return Ok(None) };
    Ok(Some(Identity { kind: KIND, uuid: uuid(&boot), label: label(device, &boot), size: boot.size }))
}

fn uuid(boot: &BootSector) -> Option<String> {
    let [a, b, c, d] = boot.serial?;
    Some(format!("{d:02X}{c:02X}-{b:02X}{a:02X}"))
}

/// Only what lies on the way is read; what cannot be read has no label.
fn label(device: &dyn BlockDevice, boot: &BootSector) -> Option<Vec<u8>> {
    if boot.width != Width::Fat32 {
        let (at, length) = boot.root;
        return directory::label(&read_bytes(device, at, usize::try_from(length).ok()?).ok()?);
    }
    let mut cluster = boot.root_cluster;
    for _ in 0..LABEL_CLUSTERS {
        let at = boot.cluster_at(cluster)?;
        let bytes = read_bytes(device, at, usize::try_from(boot.cluster).ok()?).ok()?;
        if let Some(label) = directory::label(&bytes) {
            return Some(label);
        }
        let entry = boot.tables_start.checked_add(u64::from(cluster).checked_mul(4)?)?;
        let entry = read_bytes(device, entry, 4).ok()?;
        cluster = u32::from_le_bytes(entry.try_into().ok()?) & 0x0fff_ffff;
    }
    None
}

pub(crate) fn open(device: Device) -> Result<Opened> {
    let boot = BootSector::read(device.as_ref())?;
    let table = Table::new(device.clone(), &boot);
    let mut problems = Vec::new();
    if boot.size > device.size() {
        let expected = format!("at most the device's {} bytes", device.size());
        let found = format!("{} bytes", boot.size);
        problems.push(Corrupt::new("FAT boot sector", 0, "BPB_TotSec32", expected, found).into());
    }
    problems.extend(table::compare(device.as_ref(), &boot, COMPARED));
    problems.extend(table.check_first().err());
    problems.extend(backup(device.as_ref(), &boot));
    let (was_unmounted, is_without_errors) = match table.state() {
        Ok(state) => state,
        Err(error) => {
            problems.push(error);
            (true, true)
        }
    };
    let info = FsInfo {
        kind: KIND,
        uuid: uuid(&boot),
        label: label(device.as_ref(), &boot),
        block_size: u32::try_from(boot.cluster).unwrap_or(u32::MAX),
        size: boot.size,
        free: free(device.as_ref(), &boot),
        needs_recovery: boot.is_dirty || !was_unmounted,
        features: features(&boot, was_unmounted, is_without_errors),
    };
    let value: Box<dyn FileSystem> = Box::new(Fat::new(device, boot, table, info));
    Ok(Parsed { value, problems })
}

/// There is no journal.
pub(crate) fn replay(device: Device) -> Result<Replayed> {
    Ok(Replayed { device, transactions: 0 })
}

fn features(boot: &BootSector, was_unmounted: bool, is_without_errors: bool) -> Vec<String> {
    let mut features = vec![boot.width.name().to_owned()];
    if boot.is_dirty || !was_unmounted {
        features.push("not unmounted".into());
    }
    if !is_without_errors {
        features.push("disk errors met".into());
    }
    features
}

/// The copy of the boot sector must say the same, but for the state that only one of them keeps.
fn backup(device: &dyn BlockDevice, boot: &BootSector) -> Option<Error> {
    let at = boot.backup?;
    let read = |at| read_value::<RawBootSector>(device, at);
    let (first, second) = match (read(0), read(at)) {
        (Ok(first), Ok(second)) => (first, second),
        (Err(error), _) | (_, Err(error)) => return Some(error),
    };
    let differs = first
        .as_bytes()
        .iter()
        .zip(second.as_bytes())
        .enumerate()
        .find(|(index, (first, second))| first != second && *index != 0x41)?;
    let offset = at.saturating_add(u64::try_from(differs.0).unwrap_or(0));
    let (expected, found) = (format!("{:02x}", differs.1.0), format!("{:02x}", differs.1.1));
    Some(Corrupt::new("FAT backup boot sector", offset, "byte", expected, found).into())
}

/// What the information sector counts; it may be stale.
fn free(device: &dyn BlockDevice, boot: &BootSector) -> Option<u64> {
    let bytes = read_bytes(device, boot.information?, 512).ok()?;
    let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    if word(0)? != 0x4161_5252 || word(484)? != 0x6141_7272 {
        return None;
    }
    let clusters = word(488).filter(|clusters| *clusters <= boot.clusters)?;
    u64::from(clusters).checked_mul(boot.cluster)
}
