//! How often each host cluster is referred to, and by what.

use std::collections::BTreeMap;

/// Clusters in a chunk; chunks exist only where something refers to a cluster.
const CHUNK: u64 = 4096;
const CHUNK_LENGTH: usize = 4096;

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
}

/// References to host clusters, by number of the cluster.
#[derive(Debug, Default)]
pub(super) struct Counts(BTreeMap<u64, Box<[Count; CHUNK_LENGTH]>>);

/// References to one host cluster.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Count {
    pub(super) references: u32,
    pub(super) owner: Option<Owner>,
    /// Whether the active tables refer to it as guest data.
    pub(super) is_active: bool,
}

impl Counts {
    /// Adds `references`. Returns who uses the cluster for something else already; the first owner stays.
    pub(super) fn add(&mut self, cluster: u64, references: u32, owner: Owner) -> Option<Owner> {
        let count = self.entry(cluster)?;
        count.references = count.references.saturating_add(references);
        match count.owner {
            Some(present) if present != owner || !owner.is_shareable() => Some(present),
            Some(_) => None,
            None => {
                count.owner = Some(owner);
                None
            }
        }
    }

    /// Notes that the active tables use this cluster as data. Returns whether they did before.
    pub(super) fn activate(&mut self, cluster: u64) -> bool {
        self.entry(cluster).is_some_and(|count| std::mem::replace(&mut count.is_active, true))
    }

    pub(super) fn get(&self, cluster: u64) -> Count {
        let within = usize::try_from(cluster % CHUNK).unwrap_or(0);
        let chunk = self.0.get(&(cluster / CHUNK));
        chunk.and_then(|chunk| chunk.get(within)).copied().unwrap_or_default()
    }

    /// Clusters with references, ascending.
    pub(super) fn used(&self) -> impl Iterator<Item = (u64, Count)> {
        self.0.iter().flat_map(|(number, chunk)| {
            let first = number.saturating_mul(CHUNK);
            (first..).zip(chunk.iter().copied()).filter(|(_, count)| count.references > 0)
        })
    }

    /// The number behind the last cluster in use.
    pub(super) fn end(&self) -> u64 {
        let Some((number, chunk)) = self.0.last_key_value() else { return 0 };
        let used =
            chunk.iter().rposition(|count| count.references > 0).map_or(0, |last| last.saturating_add(1));
        number.saturating_mul(CHUNK).saturating_add(u64::try_from(used).unwrap_or(0))
    }

    fn entry(&mut self, cluster: u64) -> Option<&mut Count> {
        let chunk =
            self.0.entry(cluster / CHUNK).or_insert_with(|| Box::new([Count::default(); CHUNK_LENGTH]));
        chunk.get_mut(usize::try_from(cluster % CHUNK).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_and_references() {
        let mut counts = Counts::default();
        assert_eq!(counts.add(5000, 1, Owner::Data), None);
        assert_eq!(counts.add(5000, 2, Owner::Data), None);
        assert_eq!(counts.add(5000, 1, Owner::L2Table), Some(Owner::Data));
        assert_eq!(counts.add(7, 1, Owner::L2Table), None);
        assert_eq!(counts.add(7, 1, Owner::L2Table), Some(Owner::L2Table));
        assert_eq!(counts.get(5000).references, 4);
        assert_eq!(counts.get(5001).references, 0);
        assert!(!counts.activate(5000) && counts.activate(5000));
        assert_eq!(counts.used().map(|(cluster, _)| cluster).collect::<Vec<_>>(), [7, 5000]);
        assert_eq!(counts.end(), 5001);
    }
}
