//! What MBR and GPT have in common: a list of byte ranges with a type and an identity.

use blockdev::BlockDevice;
use ondisk::{Parsed, Result};

use crate::{gpt, mbr};

/// The format of a partition table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableKind {
    /// Master boot record with its extended partitions.
    Mbr,
    /// GUID partition table.
    Gpt,
}

impl TableKind {
    /// The name that `blkid` gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mbr => "dos",
            Self::Gpt => "gpt",
        }
    }
}

/// A partition table as Linux reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its format.
    pub kind: TableKind,
    /// Disk GUID, or the MBR's disk signature in 8 hex digits; lower case.
    pub id: String,
    /// In the order of their numbers.
    pub partitions: Vec<Partition>,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The number in the kernel's name for it: `vda1`. From 1; logical partitions start at 5.
    pub number: u32,
    /// First byte on the disk.
    pub start: u64,
    /// Length in bytes; may reach past the end of a damaged disk.
    pub length: u64,
    /// The type: two hex digits of the MBR byte, or the GPT type GUID; lower case.
    pub type_id: String,
    /// The type in words, where it is a common one.
    pub type_name: Option<&'static str>,
    /// The PARTUUID as the kernel and udev spell it.
    pub uuid: String,
    /// The GPT partition name, if it is not empty.
    pub label: Option<String>,
    /// The MBR's active flag, or GPT's legacy-BIOS-bootable attribute.
    pub is_bootable: bool,
}

/// Reads the table that Linux would use: GPT behind a protective MBR, else MBR.
///
/// # Errors
/// Only [`ondisk::Error::Io`]; damage is among the problems. `None` where there is no table.
pub fn read_table(disk: &dyn BlockDevice) -> Result<Option<Parsed<Table>>> {
    match gpt::read(disk)? {
        Some(table) => Ok(Some(table)),
        None => mbr::read(disk),
    }
}
