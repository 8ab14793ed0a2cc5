//! Recognising, opening and replaying: the functions behind [`FORMAT`](crate::FORMAT).

use std::sync::Arc;

use blockdev::{BlockDevice, Device};
use filesystem::{FileSystem, FsInfo, Identity, Opened, Replayed};
use ondisk::{Corrupt, Error, Parsed, Result, read_bytes, read_value};

use crate::boot_sector::{self, Geometry, RawBootSector};
use crate::cache::Cache;
use crate::file::File;
use crate::log_file::Log;
use crate::mft::{self, MIRRORED, number};
use crate::name;
use crate::number::{index, wide};
use crate::record::{Body, Record, kind};
use crate::state::{self, Hibernation, State};
use crate::upcase::UpCase;
use crate::volume::Volume;
use crate::{KIND, Ntfs};

/// What the boot sector and the volume's record say, checked only as far as a guess needs.
pub(crate) fn probe(device: &dyn BlockDevice) -> Result<Option<Identity>> {
    if device.size() < wide(boot_sector::LENGTH) {
        return Ok(None);
    }
    let raw: RawBootSector = read_value(device, 0)?;
    let Ok(geometry) = Geometry::decode(&raw, 0) else { return Ok(None) };
    Ok(Some(Identity {
        kind: KIND,
        uuid: Some(geometry.uuid()),
        label: label(device, &geometry).ok().flatten(),
        size: geometry.size,
    }))
}

/// The label, without the MFT's own runs: record 3 is in its first clusters.
fn label(device: &dyn BlockDevice, geometry: &Geometry) -> Result<Option<Vec<u8>>> {
    let length = index(geometry.record_size);
    let offset = geometry.mft.saturating_add(number::VOLUME.saturating_mul(wide(length)));
    let record = Record::decode(number::VOLUME, offset, read_bytes(device, offset, length)?)?;
    let name = record.attributes.iter().find(|attribute| attribute.kind == kind::VOLUME_NAME);
    Ok(name.and_then(|attribute| match &attribute.body {
        Body::Resident(range) => Some(name::to_bytes(record.slice(range))).filter(|label| !label.is_empty()),
        Body::NonResident(_) => None,
    }))
}

/// Opens it as a boot loader would.
pub(crate) fn open(device: Device) -> Result<Opened> {
    Ok(Ntfs::open(device)?.map(|ntfs| -> Box<dyn FileSystem> { Box::new(ntfs) }))
}

/// The device, if there is nothing to replay; only Windows can replay its journal.
pub(crate) fn replay(device: Device) -> Result<Replayed> {
    let state = Ntfs::open(Arc::clone(&device))?.value.state;
    match state.log {
        Log::Empty | Log::Clean { .. } => Ok(Replayed { device, transactions: 0 }),
        Log::NeedsReplay { .. } => Err(cannot_replay()),
        Log::Unknown => Err(Error::unavailable("$LogFile", "its restart pages are damaged")),
    }
}

fn cannot_replay() -> Error {
    Error::unsupported("$LogFile", "replaying the changes that Windows had not finished")
}

impl Ntfs {
    /// Opens a volume as [`FORMAT`](crate::FORMAT) does, and says more of it: see [`Ntfs::state`].
    ///
    /// The boot sector's copy and the MFT's mirror serve where the first copies cannot; that, and every
    /// difference between them, is among the problems.
    ///
    /// # Errors
    /// No boot sector, or no MFT.
    pub fn open(device: Device) -> Result<Parsed<Self>> {
        let mut problems = Vec::new();
        let geometry = geometry(&*device, &mut problems)?;
        problems.extend(boot_sector::shorter_device(&geometry, device.size()).map(Error::from));
        let volume = Volume::new(device, geometry);
        let (mft, damage) = mft::open(&volume)?;
        problems.extend(damage);
        problems.extend(mirror(&volume, &mft).err());
        let mut ntfs = Self {
            volume,
            mft,
            upcase: UpCase::none(),
            info: FsInfo::default(),
            state: State {
                version: (0, 0),
                is_dirty: None,
                log: Log::Unknown,
                hibernation: Hibernation::Unknown,
            },
            cache: Cache::default(),
        };
        match UpCase::read(&ntfs) {
            Ok(upcase) => ntfs.upcase = upcase,
            Err(error) => {
                ntfs.upcase = UpCase::builtin();
                problems.push(error);
            }
        }
        let file = state::volume_file(&ntfs).map_err(|error| problems.push(error)).ok();
        ntfs.state = state::read(&ntfs, file.as_ref(), &mut problems);
        if matches!(ntfs.state.log, Log::NeedsReplay { .. }) {
            problems.push(cannot_replay());
        }
        if ntfs.state.is_kept_by_windows() {
            let reason =
                "Windows was hibernated or shut down with Fast Startup, and still holds a part of it";
            problems.push(Error::unavailable("the newest state of the volume", reason));
        }
        ntfs.info = info(&ntfs.volume.geometry, &ntfs.state, file.and_then(|file| file.label));
        Ok(Parsed { value: ntfs, problems })
    }

    /// The state in which Windows left the volume.
    pub fn state(&self) -> &State {
        &self.state
    }
}

fn info(geometry: &Geometry, state: &State, label: Option<Vec<u8>>) -> FsInfo {
    let (major, minor) = state.version;
    let mut features = vec![format!("version {major}.{minor}")];
    if state.is_dirty == Some(true) {
        features.push("dirty".into());
    }
    if state.is_kept_by_windows() {
        features.push("kept by Windows".into());
    }
    FsInfo {
        kind: KIND,
        uuid: Some(geometry.uuid()),
        label,
        block_size: u32::try_from(geometry.cluster_size()).unwrap_or(u32::MAX),
        size: geometry.size,
        free: None,
        needs_recovery: matches!(state.log, Log::NeedsReplay { .. } | Log::Unknown),
        features,
    }
}

/// The sizes by the boot sector, or by its copy at the end of the device.
fn geometry(device: &dyn BlockDevice, problems: &mut Vec<Error>) -> Result<Geometry> {
    let raw: RawBootSector = read_value(device, 0)?;
    match Geometry::decode(&raw, 0) {
        Ok(geometry) => {
            problems.extend(backup(device, &geometry).err());
            Ok(geometry)
        }
        Err(damage) => {
            for offset in boot_sector::places_of_copies(device.size()) {
                let Ok(raw) = read_value::<RawBootSector>(device, offset) else { continue };
                let Ok(geometry) = Geometry::decode(&raw, offset) else { continue };
                if geometry.backup() == offset {
                    problems.push(damage.into());
                    return Ok(geometry);
                }
            }
            Err(damage.into())
        }
    }
}

/// Compares the copy of the boot sector.
fn backup(device: &dyn BlockDevice, geometry: &Geometry) -> Result<()> {
    let offset = geometry.backup();
    let length = boot_sector::length_of_copy(geometry);
    if offset.saturating_add(wide(length)) > device.size() {
        let expected = format!("at byte {offset}");
        let found = format!("the end of the device at byte {}", device.size());
        return Err(Corrupt::new("copy of the NTFS boot sector", offset, "place", expected, found).into());
    }
    let primary = read_bytes(device, 0, length)?;
    let copy = read_bytes(device, offset, length)?;
    boot_sector::difference(&primary, &copy, offset).map_or(Ok(()), |damage| Err(damage.into()))
}

/// Compares the first records of the MFT with their mirror.
fn mirror(volume: &Volume, mft: &crate::stream::Stream) -> Result<()> {
    const STRUCTURE: &str = "$MFTMirr";
    let geometry = &volume.geometry;
    // The mirror's record says where the mirror is, and so does the boot sector.
    let record = Arc::new(mft::read(volume, mft, number::MFT_MIRROR)?);
    let file = File::new(volume, record)?;
    let read = |number| mft::read(volume, mft, number).map(Arc::new);
    let pieces = file.pieces(&read, kind::DATA, &|name, _| name.is_empty())?;
    let stream = crate::stream::Stream::assemble(&pieces)?;
    let place = mft::place(volume, &stream, 0);
    if place != geometry.mft_mirror {
        let expected = format!("byte {place}, which record 1 says");
        return Err(Corrupt::new("NTFS boot sector", 0, "mftmirr_lcn", expected, geometry.mft_mirror).into());
    }
    let length = index(geometry.record_size);
    for number in 0..MIRRORED {
        let at = number.saturating_mul(wide(length));
        let (mut original, mut copy) = (vec![0; length], vec![0; length]);
        mft.read_metadata(volume, &mut original, at)?;
        stream.read_metadata(volume, &mut copy, at)?;
        // Update sequences differ where a record was written twice.
        let decode = |bytes| Record::decode(number, geometry.mft_mirror.saturating_add(at), bytes);
        let copy = decode(copy)?;
        let Ok(original) = decode(original) else { continue };
        if significant(&original) != significant(&copy) {
            let expected = format!("a copy of record {number} of the MFT");
            return Err(Corrupt::new(STRUCTURE, copy.offset, "content", expected, "another").into());
        }
    }
    Ok(())
}

/// A record without what every write changes: its update sequence and its LSN.
fn significant(record: &Record) -> (&[u8], Vec<(u32, &[u8])>) {
    let body = |body: &Body| match body {
        Body::Resident(range) => range.clone(),
        Body::NonResident(body) => body.mapping_pairs.clone(),
    };
    let attributes = record.attributes.iter();
    let attributes =
        attributes.map(|attribute| (attribute.kind, record.slice(&body(&attribute.body)))).collect();
    // From the sequence number to the base record.
    (record.bytes.get(16..40).unwrap_or_default(), attributes)
}
