//! An array as its members describe it.

use blockdev::Device;
use ondisk::Guid;

use super::superblock::{Role, Version};

/// An array, whether it can be read or not.
#[derive(Debug)]
pub struct Array {
    /// Its identity.
    pub uuid: Guid,
    /// Its name; none in 0.90.
    pub name: Option<String>,
    /// The version of the superblock of its freshest member.
    pub version: Version,
    /// The level as mdadm(8) spells it, or its number.
    pub level: String,
    /// The layout as `mdadm -E` spells it, where the level has layouts.
    pub layout: Option<String>,
    /// Bytes of a chunk; 0 where there are none.
    pub chunk: u64,
    /// Length in bytes, 0 if it cannot be known.
    pub size: u64,
    /// Roles that must be filled for full redundancy.
    pub raid_disks: u32,
    /// All members that were given, in their order, then the roles for which there was none.
    pub members: Vec<ArrayMember>,
    /// Whether a role is not filled.
    pub is_degraded: bool,
    /// Whether it was written when the machine stopped: its copies or its parity may disagree.
    pub is_dirty: bool,
    /// Why the device must not be written to, though its members might be.
    pub read_only: Option<String>,
    /// Its bytes, or why they cannot be known.
    pub device: Result<Device, String>,
}

/// What became of one member, or of a role without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayMember {
    /// The index into what `assemble` was given.
    pub member: Option<usize>,
    /// The role by the member's account.
    pub role: Role,
    /// How it is used.
    pub state: State,
}

/// How a member is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Its data is part of the array.
    InUse,
    /// It missed updates: the others went on without it.
    Stale {
        /// Event counts by which it is behind; 0 if the freshest member knows of its failure.
        behind: u64,
    },
    /// It was being rebuilt, and holds the array's data in part.
    Recovering {
        /// Bytes of its data that were in sync.
        offset: u64,
    },
    /// It waits to replace another.
    Spare,
    /// It calls itself failed.
    Faulty,
    /// It is the write journal.
    Journal,
    /// It is to replace one that still works.
    Replacement,
    /// Another member fills its role.
    Duplicate,
    /// It describes another array under the same identity.
    Foreign(String),
    /// Its superblock cannot be trusted.
    Damaged(String),
    /// No device for this role was given.
    Missing,
}
