//! What was found, and which finds are partitions.

use std::collections::BTreeMap;

/// What a candidate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// ext2, ext3, ext4.
    Ext,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
    /// FAT12, FAT16, FAT32.
    Fat,
    /// A FAT file system with a directory `EFI`.
    EfiSystem,
    /// exFAT.
    ExFat,
    /// NTFS.
    Ntfs,
    /// Linux swap.
    Swap,
    /// An LVM2 physical volume.
    Lvm,
    /// A member of a Linux software RAID.
    Raid,
    /// LUKS, version 1 or 2.
    Luks,
    /// An entry of a table that was found away from its place, without a content that is known.
    Entry,
}

impl Kind {
    /// The name that `blkid` gives it, where it gives one.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext => "ext",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Fat | Self::EfiSystem => "vfat",
            Self::ExFat => "exfat",
            Self::Ntfs => "ntfs",
            Self::Swap => "swap",
            Self::Lvm => "LVM2_member",
            Self::Raid => "linux_raid_member",
            Self::Luks => "crypto_LUKS",
            Self::Entry => "partition",
        }
    }

    /// The byte of an MBR entry.
    pub fn mbr_type(self) -> u8 {
        match self {
            Self::Ext | Self::Xfs | Self::Btrfs | Self::Luks | Self::Entry => 0x83,
            Self::Fat => 0x0c,
            Self::EfiSystem => 0xef,
            Self::ExFat | Self::Ntfs => 0x07,
            Self::Swap => 0x82,
            Self::Lvm => 0x8e,
            Self::Raid => 0xfd,
        }
    }

    /// The type GUID of a GPT entry, lower case.
    pub fn gpt_type(self) -> &'static str {
        match self {
            Self::Ext | Self::Xfs | Self::Btrfs | Self::Entry => "0fc63daf-8483-4772-8e79-3d69d8477de4",
            Self::Fat | Self::ExFat | Self::Ntfs => "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7",
            Self::EfiSystem => "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
            Self::Swap => "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f",
            Self::Lvm => "e6d6d379-f507-44c2-a23c-238f2a3df928",
            Self::Raid => "a19d880f-05fc-4d3b-a006-743f0f84911e",
            Self::Luks => "ca7d7ccb-63ed-4c53-861c-1742536059cc",
        }
    }
}

/// Something that starts at a byte of the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// First byte.
    pub start: u64,
    /// Length in bytes as its own structures say; `None` for LUKS, which does not say.
    pub length: Option<u64>,
    /// What it is.
    pub kind: Kind,
    /// Its UUID, as `blkid` spells it.
    pub uuid: Option<String>,
    /// Its label.
    pub label: Option<String>,
    /// Whether the structure at its start is there; else only copies elsewhere say where it starts.
    pub has_primary: bool,
    /// Copies elsewhere that agree.
    pub copies: u32,
    /// Copies elsewhere that its format puts on this disk.
    pub expected_copies: u32,
    /// The table entry that names it, if such was found: the type as spelled in the table, and its length in bytes.
    pub entry: Option<(String, u64)>,
    /// One line for each structure found; the first 16.
    pub evidence: Vec<String>,
    /// Why it is not a partition of this disk: it lies within another candidate, or another one stands in its way.
    pub rejected: Option<String>,
}

impl Candidate {
    /// First byte behind it; its start, where the length is not known.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.length.or(self.entry.as_ref().map(|entry| entry.1)).unwrap_or(0))
    }

    fn is_aligned(&self) -> bool {
        // 1 MiB as tools do it since 2009; before, whole tracks of 63 sectors.
        self.start & 0xf_ffff == 0 || self.start.checked_rem(63 * 512) == Some(0)
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end().max(other.start.saturating_add(1))
            && other.start < self.end().max(self.start.saturating_add(1))
    }

    fn contains(&self, other: &Self) -> bool {
        self.start <= other.start && other.end() <= self.end() && other.start < self.end()
    }

    /// Better first: the primary or every copy is there, it is more than an entry of a table, larger, and so on.
    fn rank(&self) -> impl Ord + use<> {
        let is_whole = self.has_primary || (self.expected_copies > 0 && self.copies >= self.expected_copies);
        let container = matches!(self.kind, Kind::Raid | Kind::Lvm | Kind::Luks);
        std::cmp::Reverse((
            is_whole,
            self.kind != Kind::Entry,
            self.end().saturating_sub(self.start),
            container,
            self.entry.is_some(),
            self.is_aligned(),
            self.copies,
        ))
    }
}

/// Says of each candidate whether it is a partition. In the order of rank (see there), a candidate is taken unless it
/// meets one that was taken before. A candidate that has two or more aligned ones with a primary within it, which fill
/// three quarters of it, is what was there before them, unless a table names it.
pub(super) fn decide(candidates: &mut [Candidate], disk_size: u64) {
    let stale: Vec<bool> = candidates.iter().map(|candidate| is_stale(candidate, candidates)).collect();
    for (candidate, is_stale) in candidates.iter_mut().zip(stale) {
        if is_stale {
            candidate.rejected = Some("older than the partitions within it".into());
        } else if candidate.end() > disk_size && !candidate.has_primary {
            candidate.rejected = Some("reaches past the end of the disk".into());
        }
    }
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|index| candidates.get(*index).map(|candidate| (candidate.rank(), candidate.start)));
    // Taken ones by start; they do not overlap, so a neighbour on either side is all that can be met.
    let mut taken: BTreeMap<u64, usize> = BTreeMap::new();
    for index in order {
        let Some(candidate) = candidates.get(index).filter(|candidate| candidate.rejected.is_none()) else {
            continue;
        };
        let before = taken.range(..=candidate.start).next_back().map(|(_, index)| *index);
        let after = taken.range(candidate.start..).next().map(|(_, index)| *index);
        let met = [before, after].into_iter().flatten().filter_map(|index| candidates.get(index));
        let why = met.filter(|other| other.overlaps(candidate)).map(|other| reason(other, candidate)).next();
        if why.is_none() {
            taken.insert(candidate.start, index);
        }
        if let Some(candidate) = candidates.get_mut(index) {
            candidate.rejected = why;
        }
    }
}

fn reason(taken: &Candidate, candidate: &Candidate) -> String {
    let relation = if taken.contains(candidate) { "inside" } else { "overlaps" };
    format!("{relation} the {} at byte {}", taken.kind.name(), taken.start)
}

/// Candidates that are compared with each other; more are noise.
const MAX_COMPARED: usize = 2048;

fn is_stale(outer: &Candidate, all: &[Candidate]) -> bool {
    if outer.entry.is_some() || all.len() > MAX_COMPARED {
        return false;
    }
    let mut inner: Vec<&Candidate> = all
        .iter()
        .filter(|other| {
            other.has_primary
                && other.is_aligned()
                && other.kind != Kind::Entry
                && outer.contains(other)
                && outer.end().saturating_sub(outer.start) > other.end().saturating_sub(other.start)
        })
        .collect();
    inner.sort_by_key(|other| (other.start, std::cmp::Reverse(other.end())));
    let (mut count, mut covered, mut reached) = (0_u32, 0_u64, 0_u64);
    for other in inner {
        if other.start >= reached {
            count = count.saturating_add(1);
            covered = covered.saturating_add(other.end().saturating_sub(other.start));
            reached = other.end();
        }
    }
    let length = outer.end().saturating_sub(outer.start);
    // The physical volumes and arrays that hold volumes with file systems are not older than these.
    let is_container = matches!(outer.kind, Kind::Lvm | Kind::Raid | Kind::Luks);
    !is_container && count >= 2 && covered >= length.saturating_sub(length >> 2)
}
