//! The protective MBR: what keeps tools that know no GPT from taking the disk for empty.
//!
//! UEFI 2.10 §5.2.3: one entry of type 0xEE from sector 1 to the end of the disk, or to 2³² − 1. Hybrid MBRs
//! have other entries beside it, against the specification.

use ondisk::Corrupt;

use crate::mbr::{PROTECTIVE, RawBootSector};

/// What sector 0 says about the table behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtectiveKind {
    /// Only an entry of type 0xEE.
    Protective,
    /// An entry of type 0xEE, and others.
    Hybrid,
    /// No entry of type 0xEE, or no boot signature: Linux and GRUB do not look for a GPT.
    Missing,
}

/// Sector 0 of a disk with a GPT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtectiveMbr {
    /// What it is.
    pub kind: ProtectiveKind,
    /// First sector of the entry, 1 in a good one.
    pub start_lba: u64,
    /// Sectors of the entry: those of the disk that the table was made for, less one, or 2³² − 1.
    pub sectors: u64,
    /// Whether it carries the active flag: against the specification, and what some BIOSes need.
    pub is_active: bool,
    /// The other entries of a hybrid MBR: type, first sector, sectors.
    pub others: Vec<(u8, u64, u64)>,
    /// The 512 bytes; empty when they could not be read.
    pub bytes: Vec<u8>,
    /// What is wrong with it.
    pub problems: Vec<Corrupt>,
}

impl ProtectiveMbr {
    /// Judges sector 0 of a disk whose last sector is `last_lba`.
    pub(crate) fn of(sector: Option<&RawBootSector>, bytes: Vec<u8>, last_lba: u64) -> Self {
        let wrong = |field, expected: String, found: String| {
            Corrupt::new("protective MBR", 0, field, expected, found)
        };
        let mut mbr = Self {
            kind: ProtectiveKind::Missing,
            start_lba: 0,
            sectors: 0,
            is_active: false,
            others: Vec::new(),
            bytes,
            problems: Vec::new(),
        };
        let Some(sector) = sector else {
            mbr.problems.push(wrong("signature", "55 aa".into(), "a sector that cannot be read".into()));
            return mbr;
        };
        let all = || sector.entries.iter().filter(|entry| entry.partition_type == PROTECTIVE);
        // Linux takes the first that starts at sector 1.
        let entry = all().find(|entry| entry.start.get() == 1).or_else(|| all().next());
        if sector.signature != [0x55, 0xaa] {
            mbr.problems.push(wrong("signature", "55 aa".into(), format!("{:02x?}", sector.signature)));
        }
        let Some(entry) = entry else {
            mbr.problems.push(wrong("partition type", "an entry of type ee".into(), "none".into()));
            return mbr;
        };
        (mbr.start_lba, mbr.sectors) = (entry.start.get().into(), entry.sectors.get().into());
        mbr.is_active = entry.boot_indicator == 0x80;
        let others = sector.entries.iter().filter(|entry| !matches!(entry.partition_type, 0 | PROTECTIVE));
        mbr.others = others
            .map(|entry| (entry.partition_type, entry.start.get().into(), entry.sectors.get().into()))
            .collect();
        if sector.signature == [0x55, 0xaa] {
            let is_hybrid = !mbr.others.is_empty();
            mbr.kind = if is_hybrid { ProtectiveKind::Hybrid } else { ProtectiveKind::Protective };
        }
        if mbr.start_lba != 1 {
            mbr.problems.push(wrong("first sector", "1".into(), mbr.start_lba.to_string()));
        }
        let whole = last_lba.min(u64::from(u32::MAX));
        if mbr.kind == ProtectiveKind::Protective
            && mbr.sectors != whole
            && mbr.sectors != u64::from(u32::MAX)
        {
            mbr.problems.push(wrong("sectors", whole.to_string(), mbr.sectors.to_string()));
        }
        mbr
    }

    /// Whether any entry of type 0xEE stands in it, however wrong.
    pub fn has_entry(&self) -> bool {
        self.start_lba != 0 || self.sectors != 0 || self.kind != ProtectiveKind::Missing
    }
}
