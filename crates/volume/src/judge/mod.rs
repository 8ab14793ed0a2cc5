//! Who would accept the table of a disk, and what each would see: Linux, GRUB, OVMF.
//!
//! Each judge reads the disk by its own rules, in its own order, whatever the others say. They are separate from
//! the readers in [`crate::gpt`] and [`crate::mbr`], which look for all there is.

mod grub;
mod linux;
mod ovmf;

use blockdev::BlockDevice;

use crate::sectors::Sectors;

/// What a judge took its partitions from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The master boot record and its chains.
    Mbr,
    /// The copy of the GPT behind sector 0.
    GptPrimary,
    /// The copy of the GPT in the last sector.
    GptBackup,
}

impl Source {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mbr => "MBR",
            Self::GptPrimary => "primary GPT",
            Self::GptBackup => "backup GPT",
        }
    }
}

/// A partition as a judge sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The number it gets there.
    pub number: u32,
    /// First byte on the disk.
    pub start: u64,
    /// Length in bytes: cut at the end of the disk by Linux, which also gives extended partitions 1 KiB.
    pub length: u64,
}

/// What one judge says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// There is a table.
    Accepts {
        /// Where it stands.
        source: Source,
        /// What is in it, by number; may be nothing.
        partitions: Vec<Seen>,
        /// What the judge minds or does on the way: an error behind the partitions, a copy that it writes anew.
        remark: Option<String>,
    },
    /// There is none, and why.
    Rejects {
        /// The check that fails.
        reason: String,
    },
}

impl Default for Judgement {
    fn default() -> Self {
        Self::Rejects { reason: "not judged".into() }
    }
}

impl Judgement {
    /// Whether there is a table.
    pub fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepts { .. })
    }

    /// What it sees; nothing where it rejects.
    pub fn partitions(&self) -> &[Seen] {
        match self {
            Self::Accepts { partitions, .. } => partitions,
            Self::Rejects { .. } => &[],
        }
    }

    fn rejects(reason: impl Into<String>) -> Self {
        Self::Rejects { reason: reason.into() }
    }
}

impl std::fmt::Display for Judgement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Accepts { source, partitions, remark } => {
                write!(f, "{}, {} partitions", source.name(), partitions.len())?;
                remark.as_ref().map_or(Ok(()), |remark| write!(f, "; {remark}"))
            }
            Self::Rejects { reason } => write!(f, "none: {reason}"),
        }
    }
}

/// The three judges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judges {
    /// The kernel, without `gpt` on its command line.
    pub linux: Judgement,
    /// GRUB 2.06 and later, with part_gpt and part_msdos.
    pub grub: Judgement,
    /// EDK2's PartitionDxe.
    pub ovmf: Judgement,
}

/// Asks all three.
pub fn all(disk: &dyn BlockDevice) -> Judges {
    Judges {
        linux: linux::judge(&mut Sectors::new(disk)),
        grub: grub::judge(&mut Sectors::new(disk)),
        ovmf: ovmf::judge(&mut Sectors::new(disk)),
    }
}

/// A little-endian number of up to 8 bytes at `at`; missing bytes are zero.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let field = bytes.get(at..at.saturating_add(length)).unwrap_or_default();
    field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}
