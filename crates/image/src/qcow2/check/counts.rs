//! How often each host cluster is referred to, and by what.

use std::collections::HashMap;

/// Clusters in a chunk; chunks exist only where something refers to a cluster.
pub(super) const CHUNK: u64 = 1024;
const CHUNK_LENGTH: usize = 1024;

/// Chunks that are kept at most: 1 GiB, the references of 16 TiB in clusters of 64 KiB.
const MAX_CHUNKS: usize = 256 << 10;

/// What a host cluster is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Header,
    L1Table,
    L2Table,
    RefcountTable,
    RefcountBlock,
    SnapshotTable,
    Bitmaps,
    Encryption,
    Data,
    Compressed,
}

/// By their number in a [`Count`].
const OWNERS: [Owner; 10] = [
    Owner::Header,
    Owner::L1Table,
    Owner::L2Table,
    Owner::RefcountTable,
    Owner::RefcountBlock,
    Owner::SnapshotTable,
    Owner::Bitmaps,
    Owner::Encryption,
    Owner::Data,
    Owner::Compressed,
];

impl Owner {
    /// In the specification's words.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::L1Table => "L1 table",
            Self::L2Table => "L2 table",
            Self::RefcountTable => "refcount table",
            Self::RefcountBlock => "refcount block",
            Self::SnapshotTable => "snapshot table",
            Self::Bitmaps => "bitmaps",
            Self::Encryption => "encryption header",
            Self::Data => "guest data",
            Self::Compressed => "compressed guest data",
        }
    }

    /// Whether two of this kind may use one cluster: data of snapshots, neighbours that are compressed.
    fn is_shareable(self) -> bool {
        matches!(self, Self::Data | Self::Compressed)
    }

    /// From 1; 0 is for nobody.
    fn code(self) -> u32 {
        let position = OWNERS.iter().position(|owner| *owner == self).unwrap_or(0);
        u32::try_from(position).unwrap_or(0).saturating_add(1)
    }
}

/// References to one host cluster: bits 0–3 the owner, bit 4 whether the active tables use it as data, the others
/// the number. Four bytes, for there are many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count(u32);

const ACTIVE: u32 = 1 << 4;
const ONE: u32 = 1 << 5;

impl Count {
    pub(super) fn references(self) -> u32 {
        self.0 / ONE
    }

    pub(super) fn owner(self) -> Option<Owner> {
        let code = usize::try_from(self.0 & 0xf).ok()?;
        OWNERS.get(code.checked_sub(1)?).copied()
    }
}

/// References to host clusters, by number of the cluster.
#[derive(Debug)]
pub(super) struct Counts {
    /// Where the chunk with each number is.
    index: HashMap<u64, usize>,
    chunks: Vec<(u64, Box<[Count; CHUNK_LENGTH]>)>,
    /// The chunk of the last reference: neighbours follow each other.
    last: usize,
    /// Whether any cluster of guest data has more than one reference.
    has_shared_data: bool,
    is_full: bool,
}

/// What [`Counts::add`] met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Added {
    /// Who uses the cluster for something else already; the first owner stays.
    pub(super) conflict: Option<Owner>,
    /// Whether the active tables used it as data before.
    pub(super) was_active: bool,
}

impl Counts {
    pub(super) fn new() -> Self {
        Self { index: HashMap::new(), chunks: Vec::new(), last: 0, has_shared_data: false, is_full: false }
    }

    /// Adds `references`, from the active tables as data if `is_active`.
    pub(super) fn add(&mut self, cluster: u64, references: u32, owner: Owner, is_active: bool) -> Added {
        let nothing = Added { conflict: None, was_active: false };
        let Some(count) = self.entry(cluster) else { return nothing };
        let (code, before) = (owner.code(), *count);
        let present = before.0 & 0xf;
        count.0 = count.0.saturating_add(references.saturating_mul(ONE));
        if present == 0 {
            count.0 |= code;
        }
        if is_active {
            count.0 |= ACTIVE;
        }
        let conflict = present != 0 && (present != code || !owner.is_shareable());
        let is_shared = owner == Owner::Data && count.references() > 1;
        self.has_shared_data |= is_shared;
        Added {
            conflict: if conflict { before.owner() } else { None },
            was_active: is_active && before.0 & ACTIVE != 0,
        }
    }

    pub(super) fn get(&self, cluster: u64) -> Count {
        let within = usize::try_from(cluster % CHUNK).unwrap_or(0);
        self.chunk(cluster / CHUNK).and_then(|chunk| chunk.get(within)).copied().unwrap_or_default()
    }

    /// The references of `CHUNK` clusters from `first` on, a multiple of it; `None` when there are none at all.
    pub(super) fn run(&self, first: u64) -> Option<&[Count]> {
        self.chunk(first / CHUNK)
    }

    /// Whether more clusters were referred to than are kept: what was counted is then not all.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    pub(super) fn has_shared_data(&self) -> bool {
        self.has_shared_data
    }

    /// Clusters with references, ascending.
    pub(super) fn used(&self) -> impl Iterator<Item = (u64, Count)> {
        let mut order: Vec<(u64, usize)> =
            self.index.iter().map(|(number, place)| (*number, *place)).collect();
        order.sort_unstable();
        order.into_iter().filter_map(|(number, place)| Some((number, self.chunks.get(place)?))).flat_map(
            |(number, (_, chunk))| {
                let first = number.saturating_mul(CHUNK);
                (first..).zip(chunk.iter().copied()).filter(|(_, count)| count.references() > 0)
            },
        )
    }

    /// The number behind the last cluster in use.
    pub(super) fn end(&self) -> u64 {
        let Some(number) = self.index.keys().max() else { return 0 };
        let chunk = self.chunk(*number).unwrap_or_default();
        let used =
            chunk.iter().rposition(|count| count.references() > 0).map_or(0, |last| last.saturating_add(1));
        number.saturating_mul(CHUNK).saturating_add(u64::try_from(used).unwrap_or(0))
    }

    fn chunk(&self, number: u64) -> Option<&[Count]> {
        self.chunks.get(*self.index.get(&number)?).map(|(_, chunk)| chunk.as_slice())
    }

    fn entry(&mut self, cluster: u64) -> Option<&mut Count> {
        let number = cluster / CHUNK;
        let is_last = self.chunks.get(self.last).is_some_and(|(last, _)| *last == number);
        if !is_last {
            self.last = match self.index.get(&number) {
                Some(place) => *place,
                None if self.chunks.len() >= MAX_CHUNKS => {
                    self.is_full = true;
                    return None;
                }
                None => {
                    self.chunks.push((number, Box::new([Count::default(); CHUNK_LENGTH])));
                    let place = self.chunks.len().saturating_sub(1);
                    self.index.insert(number, place);
                    place
                }
            };
        }
        let (_, chunk) = self.chunks.get_mut(self.last)?;
        chunk.get_mut(usize::try_from(cluster % CHUNK).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_and_references() {
        let mut counts = Counts::new();
        let mut add = |cluster, references, owner| counts.add(cluster, references, owner, false).conflict;
        assert_eq!(add(5000, 1, Owner::Data), None);
        assert_eq!(add(5000, 2, Owner::Data), None);
        assert_eq!(add(5000, 1, Owner::L2Table), Some(Owner::Data));
        assert_eq!(add(7, 1, Owner::L2Table), None);
        assert_eq!(add(7, 1, Owner::L2Table), Some(Owner::L2Table));
        assert_eq!(counts.get(5000).references(), 4);
        assert_eq!(counts.get(5000).owner(), Some(Owner::Data));
        assert_eq!(counts.get(5001), Count::default());
        assert!(counts.has_shared_data());
        assert!(!counts.add(9, 1, Owner::Data, true).was_active);
        assert!(counts.add(9, 1, Owner::Data, true).was_active);
        assert_eq!(counts.used().map(|(cluster, _)| cluster).collect::<Vec<_>>(), [7, 9, 5000]);
        assert_eq!(counts.end(), 5001);
    }

    #[test]
    fn every_owner_has_its_number() {
        for owner in OWNERS {
            let mut counts = Counts::new();
            counts.add(1, 1, owner, false);
            assert_eq!(counts.get(1).owner(), Some(owner));
        }
    }
}
