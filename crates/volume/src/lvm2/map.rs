//! From extents to bytes: the device of a logical volume.
//!
//! One function per kind of segment; what a volume is made of are physical volumes and other volumes of the group.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use blockdev::{Concat, Device, Part, Slice};

use super::group::{MapTarget, PvRef, Role, Segment};
use super::read_only::{Broken, ReadOnly};
use super::{cache, mirror, raid_legs, snapshot, thin};
use crate::raid::{Layout, array};

/// How deep volumes may lie on each other; lvm2 itself gets to six (thin on cache on RAID on linear).
const MAX_DEPTH: usize = 16;
/// The most reads that one read may cause, by legs of legs of legs.
const MAX_WEIGHT: u64 = 1024;

/// Bytes, or why not.
pub(crate) type Mapping = std::result::Result<Device, String>;

/// A volume's bytes with what should be known of them.
#[derive(Debug, Clone)]
pub(crate) struct Mapped {
    pub(crate) device: Mapping,
    pub(crate) notes: Vec<String>,
    /// Reads below that one read may cause.
    pub(crate) weight: u64,
}

/// What an entry of type `snapshot` says: `cow` keeps what `origin` was.
struct Tie {
    origin: String,
    /// Sectors.
    chunk_size: u64,
    is_merging: bool,
}

/// A pool, or why not, with its weight.
type KnownPool = (Result<Arc<thin::Pool>, String>, u64);

pub(crate) struct Mapper<'a> {
    /// Bytes.
    extent_size: u64,
    pvs: BTreeMap<&'a str, &'a PvRef>,
    segments: &'a BTreeMap<&'a str, Vec<Segment>>,
    /// By the name of the store.
    ties: BTreeMap<String, Tie>,
    roles: BTreeMap<String, Role>,
    /// What is known; `None` while it is being found out.
    known: RefCell<BTreeMap<String, Option<Mapped>>>,
    depth: Cell<usize>,
    pools: RefCell<BTreeMap<String, KnownPool>>,
    /// What the parts taken so far for the volume at hand weigh.
    parts_weight: Cell<u64>,
}

impl<'a> Mapper<'a> {
    pub(crate) fn new(
        extent_size: u64,
        pvs: &'a [PvRef],
        segments: &'a BTreeMap<&'a str, Vec<Segment>>,
    ) -> Self {
        let mut ties = BTreeMap::new();
        let mut roles = BTreeMap::new();
        for (name, segment) in segments.iter().flat_map(|(name, all)| all.iter().map(move |one| (name, one)))
        {
            if segment.kind == "snapshot" {
                let merging = segment.section.string("merging_store");
                let cow = segment.section.string("cow_store").or(merging);
                if let (Some(cow), Some(origin)) = (cow, segment.section.string("origin")) {
                    let chunk_size = segment.section.number("chunk_size").unwrap_or(0);
                    let tie = Tie { origin: origin.to_owned(), chunk_size, is_merging: merging.is_some() };
                    ties.insert(cow.to_owned(), tie);
                    roles.insert(cow.to_owned(), Role { kind: "snapshot", of: origin.to_owned() });
                }
            } else {
                for (kind, part) in parts_of(segment) {
                    roles.entry(part.to_owned()).or_insert_with(|| Role { kind, of: (*name).to_owned() });
                }
            }
        }
        let pvs = pvs.iter().map(|pv| (pv.name.as_str(), pv)).collect();
        let known = RefCell::new(BTreeMap::new());
        Self {
            extent_size,
            pvs,
            segments,
            ties,
            roles,
            known,
            depth: Cell::new(0),
            pools: RefCell::default(),
            parts_weight: Cell::new(0),
        }
    }

    pub(crate) fn segments_of(&self, name: &str) -> &'a [Segment] {
        self.segments.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether the entry only ties a snapshot to its origin.
    pub(crate) fn is_snapshot_tie(&self, name: &str) -> bool {
        matches!(self.segments_of(name), [segment] if segment.kind == "snapshot")
    }

    pub(crate) fn snapshot_origin(&self, name: &str) -> Option<&str> {
        self.ties.get(name).map(|tie| tie.origin.as_str())
    }

    pub(crate) fn role(&self, name: &str) -> Option<Role> {
        self.roles.get(name).cloned()
    }

    /// Bytes of `extents`.
    pub(crate) fn bytes(&self, extents: u64) -> Result<u64, String> {
        extents.checked_mul(self.extent_size).ok_or_else(|| format!("{extents} extents are too many bytes"))
    }

    /// What a user of the volume `name` sees: a snapshot's content, not its store.
    pub(crate) fn volume(&self, name: &str) -> Mapped {
        if let Some(tie) = self.ties.get(name) {
            let (origin, store) = (self.real(&tie.origin), self.real(name));
            let mut notes = origin.notes;
            notes.extend(store.notes);
            let device = match (origin.device, store.device) {
                _ if tie.is_merging => Err(format!("a snapshot that is being merged into {}", tie.origin)),
                (Ok(origin), Ok(store)) => snapshot::open(origin, store, tie.chunk_size),
                (Err(reason), _) => Err(format!("origin {}: {reason}", tie.origin)),
                (_, Err(reason)) => Err(reason),
            };
            return Mapped { device, notes, weight: 1 };
        }
        let mut mapped = self.real(name);
        let mut snapshots = self.ties.iter().filter(|(_, tie)| tie.origin == name).peekable();
        if let (Some(_), Ok(device)) = (snapshots.peek(), &mapped.device) {
            mapped.device = match snapshots.find(|(_, tie)| tie.is_merging) {
                Some((store, _)) => Err(format!("snapshot {store} is being merged into it")),
                // A write would have to save the old content to every snapshot first.
                None => Ok(Arc::new(ReadOnly::new(device.clone()))),
            };
        }
        mapped
    }

    /// The bytes that the segments of `name` describe.
    pub(crate) fn real(&self, name: &str) -> Mapped {
        let refused = |reason: String| Mapped { device: Err(reason), notes: Vec::new(), weight: 1 };
        if let Some(known) = self.known.borrow().get(name) {
            return known.clone().unwrap_or_else(|| refused(format!("{name} is made of itself")));
        }
        if !self.segments.contains_key(name) {
            return refused(format!("there is no volume {name}"));
        }
        if self.depth.get() >= MAX_DEPTH {
            return refused(format!("volumes lie more than {MAX_DEPTH} deep on each other"));
        }
        self.depth.set(self.depth.get().saturating_add(1));
        self.known.borrow_mut().insert(name.to_owned(), None);
        let mut notes = Vec::new();
        let mut weight = 1;
        let outer = self.parts_weight.replace(0);
        let mut device = self.assemble(name, &mut notes, &mut weight);
        weight = weight.saturating_add(self.parts_weight.replace(outer));
        if weight > MAX_WEIGHT {
            device = Err(format!("one read would cause up to {weight}"));
            weight = 1;
        }
        let mapped = Mapped { device, notes, weight };
        self.known.borrow_mut().insert(name.to_owned(), Some(mapped.clone()));
        self.depth.set(self.depth.get().saturating_sub(1));
        mapped
    }

    fn assemble(&self, name: &str, notes: &mut Vec<String>, weight: &mut u64) -> Mapping {
        let segments = self.segments_of(name);
        if segments.iter().all(|segment| segment.kind == "error") && !segments.is_empty() {
            return Err("every read of it fails (segment type error)".into());
        }
        let mut parts = Vec::new();
        let mut next = 0_u64;
        for segment in segments {
            if segment.start != next {
                return Err(format!("a segment starts at extent {}, expected {next}", segment.start));
            }
            next = next.checked_add(segment.count).ok_or("too many extents")?;
            let part = self.segment(segment, notes, weight).map_err(|reason| {
                if segments.len() > 1 { format!("extents from {}: {reason}", segment.start) } else { reason }
            })?;
            parts.push(part);
        }
        if let [Part { device: Some(device), offset: 0, length }] = parts.as_slice()
            && *length == device.size()
        {
            return Ok(device.clone());
        }
        if next == 0 {
            return Err("it has no extents".into());
        }
        self.bytes(next)?;
        Ok(Arc::new(Concat::new(parts).map_err(|error| error.to_string())?))
    }

    fn segment(&self, segment: &Segment, notes: &mut Vec<String>, weight: &mut u64) -> Result<Part, String> {
        if let Some(flag) = segment.flags.iter().find(|flag| !is_harmless(flag)) {
            return Err(format!("segment type {}+{flag} is not supported", segment.kind));
        }
        let size = self.bytes(segment.usable())?;
        let device = match segment.kind.as_str() {
            "linear" | "striped" => match segment.targets.as_slice() {
                [target] => return self.target(target, size, weight),
                targets => self.striped(segment, targets, size, weight)?,
            },
            "zero" => return Ok(Part { device: None, offset: 0, length: size }),
            "error" => Arc::new(Broken::new(size)),
            "mirror" => mirror::open(self, segment, size, notes, weight)?,
            kind if kind.starts_with("raid") => raid_legs::open(self, segment, size, notes, weight)?,
            "thin" => thin::open(self, segment, size, notes)?,
            "cache" => cache::open(self, segment, size, notes)?,
            "thin-pool" => return Err("a thin pool is read through its volumes".into()),
            "cache-pool" => return Err("a cache pool is read through the volume that it caches".into()),
            kind => return Err(format!("segment type {kind} is not supported")),
        };
        Ok(Part { device: Some(device), offset: 0, length: size })
    }

    /// `size` bytes from where a stripe or leg begins.
    pub(crate) fn target(&self, target: &MapTarget, size: u64, weight: &mut u64) -> Result<Part, String> {
        let start = self.bytes(target.start)?;
        let (device, offset) = match self.pvs.get(target.name.as_str()) {
            Some(pv) => {
                let device = pv.device.clone().ok_or_else(|| {
                    let hint = pv.device_hint.as_deref().unwrap_or("no known path");
                    format!("physical volume {} (was {hint}) is missing", pv.uuid)
                })?;
                (device, pv.extents_start.checked_add(start).ok_or("an extent past any device")?)
            }
            None => {
                let below = self.real(&target.name);
                *weight = (*weight).max(below.weight);
                (below.device.map_err(|reason| format!("{}: {reason}", target.name))?, start)
            }
        };
        blockdev::check_range(device.size(), offset, size)
            .map_err(|error| format!("{}: {error}", target.name))?;
        Ok(Part { device: Some(device), offset, length: size })
    }

    /// As [`target`](Self::target), as a device; for a leg among several, whose costs add up.
    pub(crate) fn leg(&self, target: &MapTarget, size: u64, weight: &mut u64) -> Mapping {
        let mut own = 1;
        let part = self.target(target, size, &mut own)?;
        *weight = weight.saturating_add(own);
        let device = part.device.ok_or("a leg without a device")?;
        Ok(Arc::new(Slice::new(device, part.offset, part.length).map_err(|error| error.to_string())?))
    }

    fn striped(&self, segment: &Segment, targets: &[MapTarget], size: u64, weight: &mut u64) -> Mapping {
        let count = u64::try_from(targets.len()).unwrap_or(0);
        let each = segment.count.checked_div(count).ok_or("no stripes")?;
        if each.checked_mul(count) != Some(segment.count) {
            return Err(format!("{} extents over {count} stripes", segment.count));
        }
        let each = self.bytes(each)?;
        // A read goes to one stripe, or to several that it covers.
        let mut costs = 0;
        let members = targets
            .iter()
            .map(|target| self.leg(target, each, &mut costs).map(Some))
            .collect::<Result<_, _>>()?;
        *weight = (*weight).max(costs);
        let chunk = segment.section.number("stripe_size").unwrap_or(0).saturating_mul(512);
        array(Layout::Striped, chunk, size, members).map_err(|error| error.to_string())
    }

    /// The thin pool `name`, opened once for all of its volumes.
    pub(crate) fn pool(&self, name: &str) -> Result<Arc<thin::Pool>, String> {
        let known = self.pools.borrow().get(name).cloned();
        if let Some((pool, weight)) = known {
            self.add_weight(weight);
            return pool;
        }
        let before = self.parts_weight.get();
        let pool = thin::open_pool(self, name);
        let weight = self.parts_weight.get().saturating_sub(before);
        self.pools.borrow_mut().insert(name.to_owned(), (pool.clone(), weight));
        pool
    }

    fn add_weight(&self, weight: u64) {
        self.parts_weight.set(self.parts_weight.get().saturating_add(weight));
    }

    /// A volume that a segment names as one of its parts.
    pub(crate) fn part(&self, segment: &Segment, key: &str, notes: &mut Vec<String>) -> Mapping {
        let name = segment.section.string(key).ok_or_else(|| format!("{key} is not named"))?;
        let mapped = self.real(name);
        self.add_weight(mapped.weight);
        notes.extend(mapped.notes.into_iter().map(|note| format!("{name}: {note}")));
        mapped.device.map_err(|reason| format!("{name}: {reason}"))
    }
}

/// What lvm2 writes behind a plus sign without moving a byte of data. `RESHAPE` and its kin stay unless the RAID
/// superblocks say that nothing is moving, which [`raid_legs`] finds out.
fn is_harmless(flag: &str) -> bool {
    matches!(
        flag,
        "METADATA_FORMAT"
            | "CROP_METADATA"
            | "CACHE_USES_CACHEVOL"
            | "RESHAPE"
            | "RESHAPE_DATA_OFFSET"
            | "RESHAPE_DELTA_DISKS_PLUS"
            | "RESHAPE_DELTA_DISKS_MINUS"
    )
}

/// The volumes that a segment is made of, and what each is for it.
fn parts_of(segment: &Segment) -> Vec<(&'static str, &str)> {
    let mut parts = Vec::new();
    let image = match segment.kind.as_str() {
        "mirror" => "mirror image",
        kind if kind.starts_with("raid") => "raid image",
        _ => "part",
    };
    for target in &segment.targets {
        let kind = if target.name.contains("_rmeta_") { "raid metadata" } else { image };
        parts.push((kind, target.name.as_str()));
    }
    let keys: &[(&'static str, &str)] = match segment.kind.as_str() {
        "mirror" => &[("mirror log", "mirror_log")],
        "thin-pool" => &[("thin pool data", "pool"), ("thin pool metadata", "metadata")],
        "thin" => &[("external origin", "external_origin")],
        "cache" => &[("cache origin", "origin"), ("cache pool", "cache_pool")],
        "cache-pool" => &[("cache pool data", "data"), ("cache pool metadata", "metadata")],
        "writecache" => &[("writecache origin", "origin"), ("writecache", "writecache")],
        "integrity" => &[("integrity origin", "origin"), ("integrity metadata", "meta_dev")],
        "vdo" => &[("vdo pool", "vdo_pool")],
        "vdo-pool" => &[("vdo pool data", "data")],
        _ => &[],
    };
    parts.extend(keys.iter().filter_map(|(kind, key)| Some((*kind, segment.section.string(key)?))));
    parts
}
