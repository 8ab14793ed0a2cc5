//! What MBR and GPT have in common: a list of byte ranges with a type and an identity.

use blockdev::BlockDevice;
use ondisk::{Corrupt, Parsed, Result};

use crate::gpt::Gpt;
use crate::judge::{Judgement, Judges, Source};
use crate::{gpt, judge, mbr};

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

/// A partition table: as Linux reads it, or, where Linux takes none, what a good copy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its format.
    pub kind: TableKind,
    /// Disk GUID, or the MBR's disk signature in 8 hex digits; lower case.
    pub id: String,
    /// In the order of their numbers.
    pub partitions: Vec<Partition>,
    /// Who would accept the disk's table, and what each would see.
    pub judges: Judges,
    /// Both copies of a GPT, each part with its verdict.
    pub gpt: Option<Box<Gpt>>,
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
    /// GPT's attribute bits; 0 in an MBR.
    pub attributes: u64,
}

/// Reads the table that Linux would use: GPT behind a protective MBR, else MBR. Where Linux would use none, what
/// is left of a GPT, or an MBR that lacks only its boot signature.
///
/// # Errors
/// Only [`ondisk::Error::Io`]; damage is among the problems. `None` where there is no table.
pub fn read_table(disk: &dyn BlockDevice) -> Result<Option<Parsed<Table>>> {
    let judges = judge::all(disk);
    let gpt = gpt::read(disk)?;
    let is_mbr = matches!(judges.linux, Judgement::Accepts { source: Source::Mbr, .. });
    if is_mbr && let Some(mut table) = mbr::read(disk)? {
        if let Some(gpt) = gpt {
            let at = gpt.value.sector_size;
            let found = "a GPT without a protective MBR, which Linux does not use";
            table.problems.push(Corrupt::new("MBR", at, "content", "no second table", found).into());
            table.value.gpt = Some(Box::new(gpt.value));
        }
        table.value.judges = judges;
        return Ok(Some(table));
    }
    if let Some(gpt) = gpt {
        return Ok(Some(gpt.map(|gpt| gpt.into_table(judges))));
    }
    Ok(mbr::read(disk)?.map(|mut table| {
        table.value.judges = judges;
        table
    }))
}
