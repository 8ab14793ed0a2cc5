//! A file system format, as the list of formats knows it.

use blockdev::{BlockDevice, Device};

use crate::{FileSystem, Parsed, Result};

/// One entry of the list of formats: how to recognise, open and replay it.
#[derive(Debug)]
pub struct Format {
    /// The name that `blkid` and fstab use: `ext4`, `xfs`.
    pub name: &'static str,
    /// Recognises the format from its superblock alone; `None` when it is something else.
    pub probe: fn(&dyn BlockDevice) -> Result<Option<Identity>>,
    /// Opens it as a boot loader would: the journal is not replayed.
    pub open: fn(Device) -> Result<Opened>,
    /// The device as the kernel will see it after its own recovery, in memory; nothing is written.
    pub replay: fn(Device) -> Result<Replayed>,
    /// For a format that can lie on several devices: how to tell which belong together, and to open them.
    pub set: Option<Set>,
}

/// The part of a format that can lie on several devices.
#[derive(Debug)]
pub struct Set {
    /// What a device says of the set that it belongs to, by its superblock alone.
    pub member: fn(&dyn BlockDevice) -> Result<Option<SetMember>>,
    /// Opens the devices that are there, in any order, as [`Format::open`] does; what is missing is a problem.
    pub open: fn(Vec<Device>) -> Result<Opened>,
    /// The trees in it that can be mounted by themselves, the top level first.
    pub subvolumes: fn(Vec<Device>) -> Result<Vec<Subvolume>>,
    /// As `open`, with this subvolume as root.
    pub open_subvolume: fn(Vec<Device>, u64) -> Result<Opened>,
}

/// A tree of its own within a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subvolume {
    /// What `subvolid=` takes.
    pub id: u64,
    /// What `subvol=` takes, without a slash at its start; empty for the top level.
    pub path: Vec<u8>,
    /// Whether it is mounted when no other is asked for.
    pub is_default: bool,
    /// Whether it was made from another.
    pub is_snapshot: bool,
}

/// One of the devices of a file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetMember {
    /// What all of them have in common.
    pub set: String,
    /// The number of this one.
    pub number: u64,
    /// How many there should be.
    pub count: u64,
}

/// A reader, and what was wrong on the way to it.
pub type Opened = Parsed<Box<dyn FileSystem>>;

/// What names a file system.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// The type as `blkid` names it, which may be narrower than the format: `ext3` of the ext4 code.
    pub kind: &'static str,
    /// The UUID, spelled as `blkid` spells it for this format; case matters.
    pub uuid: Option<String>,
    /// The label without padding; any bytes, not always UTF-8.
    pub label: Option<Vec<u8>>,
    /// Size of the file system in bytes, which may be less than its device.
    pub size: u64,
}

/// What [`Format::replay`] found.
#[derive(Debug)]
pub struct Replayed {
    /// The device after recovery: the one given when there was nothing to do, else an overlay on it.
    pub device: Device,
    /// Transactions that were replayed; 0 for a clean journal.
    pub transactions: u64,
}
