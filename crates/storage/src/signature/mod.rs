//! Things that are recognised by a signature and not opened.
//!
//! Types, identities and usages are spelled as `blkid -p` of util-linux spells them; so is the order: what owns a
//! device before what may only be left over on it.

mod apple;
mod crypto;
mod device_mapper;
mod firmware_raid;
mod hpfs;
mod iso9660;
mod linux;
mod probe;
mod table;
mod udf;
mod ufs;
mod unix;
mod windows;
mod zfs;

use std::fmt::Display;

use blockdev::BlockDevice;
use filesystem::Result;

pub(crate) use probe::Probe;

/// What a signature says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The type as `blkid` names it: `swap`, `crypto_LUKS`.
    pub kind: &'static str,
    /// What it is for.
    pub usage: Usage,
    /// The version of the format, where it is known.
    pub version: Option<String>,
    /// The UUID as `blkid` spells it.
    pub uuid: Option<String>,
    /// The UUID of this member of a set.
    pub sub_uuid: Option<String>,
    /// The label without padding.
    pub label: Option<Vec<u8>>,
}

/// What something on a device is for; the words of `blkid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// Holds files.
    FileSystem,
    /// A part of a volume over several devices.
    Raid,
    /// Encrypted, or what checks integrity.
    Crypto,
    /// Anything else: swap, logs, caches.
    Other,
}

impl Usage {
    /// The word of `blkid`.
    pub fn name(self) -> &'static str {
        match self {
            Self::FileSystem => "filesystem",
            Self::Raid => "raid",
            Self::Crypto => "crypto",
            Self::Other => "other",
        }
    }
}

impl Signature {
    fn new(kind: &'static str, usage: Usage) -> Self {
        Self { kind, usage, version: None, uuid: None, sub_uuid: None, label: None }
    }

    fn version(self, version: impl Display) -> Self {
        Self { version: Some(format!("{version}")), ..self }
    }

    fn uuid(self, uuid: Option<String>) -> Self {
        Self { uuid, ..self }
    }

    fn sub_uuid(self, sub_uuid: Option<String>) -> Self {
        Self { sub_uuid, ..self }
    }

    fn label(self, label: Option<Vec<u8>>) -> Self {
        Self { label, ..self }
    }
}

type Recogniser = fn(&Probe<'_>) -> Option<Signature>;

/// What contains other devices, and so must be seen before what may shine through it.
static CONTAINERS: &[Recogniser] = &[
    firmware_raid::recognise,
    linux::bcache,
    linux::drbd,
    device_mapper::recognise,
    crypto::luks,
    crypto::bitlocker,
    unix::vmfs_volume,
    linux::ubi,
];

/// File systems, swap and the rest.
static FILE_SYSTEMS: &[Recogniser] = &[
    linux::swap,
    linux::xfs_log,
    linux::ext_journal,
    linux::reiserfs,
    linux::jfs,
    udf::recognise,
    iso9660::recognise,
    zfs::recognise,
    apple::hfs,
    ufs::recognise,
    hpfs::recognise,
    windows::refs,
    linux::cramfs,
    linux::romfs,
    linux::gfs,
    linux::ocfs2,
    unix::vxfs,
    linux::squashfs,
    linux::ubifs,
    linux::bcachefs,
    unix::vmfs,
    linux::nilfs2,
    windows::exfat,
    linux::f2fs,
    unix::mpool,
    apple::apfs,
    linux::zonefs,
    linux::erofs,
    linux::scoutfs,
    linux::minix,
];

/// Things that contain other devices.
///
/// # Errors
/// The device cannot be read where a signature may be.
pub(crate) fn container(device: &dyn BlockDevice) -> Result<Option<Signature>> {
    first(device, CONTAINERS)
}

/// File systems and swap.
///
/// # Errors
/// As [`container`].
pub(crate) fn file_system(device: &dyn BlockDevice) -> Result<Option<Signature>> {
    first(device, FILE_SYSTEMS)
}

fn first(device: &dyn BlockDevice, recognisers: &[Recogniser]) -> Result<Option<Signature>> {
    let probe = Probe::new(device);
    let found = recognisers.iter().find_map(|recognise| recognise(&probe));
    match (found, probe.into_error()) {
        (Some(found), _) => Ok(Some(found)),
        (None, Some(error)) => Err(error),
        (None, None) => Ok(None),
    }
}

/// Whether the start of a device can hardly be anything but encrypted or overwritten with noise: no signature tells, as
/// VeraCrypt and plain dm-crypt want it.
///
/// # Errors
/// The device cannot be read.
pub(crate) fn is_noise(device: &dyn BlockDevice) -> Result<bool> {
    crypto::is_noise(device)
}

/// The name of a partition table that is not read.
///
/// # Errors
/// As [`container`].
pub(crate) fn table(device: &dyn BlockDevice) -> Result<Option<&'static str>> {
    let probe = Probe::new(device);
    let found = table::recognise(&probe);
    match (found, probe.into_error()) {
        (None, Some(error)) => Err(error),
        (found, _) => Ok(found),
    }
}

#[cfg(test)]
mod tests;
