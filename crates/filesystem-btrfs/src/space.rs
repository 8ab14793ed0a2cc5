//! The logical address space: devices, the chunks on them, and tree blocks by address.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use blockdev::Device;
use ondisk::{Corrupt, Error, Guid, Result};

use crate::chunk::{Chunk, Place};
use crate::key::is_file_tree;
use crate::node::{self, Node, Shape};
use crate::number::{narrow, wide};

/// Bytes of tree blocks that each of the two generations of the cache may hold.
const CACHE: usize = 16 << 20;

/// A device that is there.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) devid: u64,
    pub(crate) uuid: Guid,
    pub(crate) device: Device,
}

/// Devices, chunks and the tree blocks that were read.
#[derive(Debug)]
pub(crate) struct Space {
    pub(crate) shape: Shape,
    members: Vec<Member>,
    chunks: BTreeMap<u64, Chunk>,
    cache: Mutex<Cache>,
}

/// What a pointer says about the block it leads to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    /// Logical.
    pub(crate) bytenr: u64,
    pub(crate) level: u8,
    pub(crate) generation: u64,
    /// The tree that the pointer belongs to.
    pub(crate) tree: u64,
}

/// Two generations: when the young one is full, the old one goes and the young one becomes old.
#[derive(Default)]
struct Cache {
    young: HashMap<u64, Arc<Node>>,
    old: HashMap<u64, Arc<Node>>,
    size: usize,
}

impl Cache {
    fn get(&mut self, bytenr: u64) -> Option<Arc<Node>> {
        if let Some(node) = self.young.get(&bytenr) {
            return Some(node.clone());
        }
        let node = self.old.remove(&bytenr)?;
        self.put(bytenr, node.clone());
        Some(node)
    }

    fn put(&mut self, bytenr: u64, node: Arc<Node>) {
        self.size = self.size.saturating_add(node.size());
        if self.size > CACHE {
            self.size = node.size();
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(bytenr, node);
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({} bytes)", self.size)
    }
}

impl Space {
    pub(crate) fn new(shape: Shape, members: Vec<Member>) -> Self {
        Self { shape, members, chunks: BTreeMap::new(), cache: Mutex::default() }
    }

    /// Adds a chunk; refuses one that overlaps another. The same chunk again replaces the first.
    pub(crate) fn add(&mut self, chunk: Chunk, at: u64) -> Result<()> {
        let end = chunk.logical.saturating_add(chunk.length);
        let before = self.chunks.range(..end).next_back().map(|(_, found)| found);
        if let Some(found) = before
            && found.logical != chunk.logical
            && found.logical.saturating_add(found.length) > chunk.logical
        {
            let expected = format!("no overlap with the chunk at {}", found.logical);
            return Err(Corrupt::new("chunk item", at, "logical", expected, chunk.logical).into());
        }
        self.chunks.insert(chunk.logical, chunk);
        Ok(())
    }

    pub(crate) fn member(&self, devid: u64) -> Option<&Member> {
        self.members.iter().find(|member| member.devid == devid)
    }

    fn chunk(&self, logical: u64) -> Result<(&Chunk, u64)> {
        let found = self.chunks.range(..=logical).next_back().map(|(_, chunk)| chunk);
        found
            .and_then(|chunk| {
                let within = logical.checked_sub(chunk.logical)?;
                (within < chunk.length).then_some((chunk, within))
            })
            .ok_or_else(|| {
                Error::unavailable("logical address", format!("no chunk holds the address {logical}"))
            })
    }

    /// How many times the bytes at `logical` are there, devices that are missing included.
    pub(crate) fn copies(&self, logical: u64) -> Result<usize> {
        Ok(self.chunk(logical)?.0.copies())
    }

    /// Where one copy of the bytes at `logical` is.
    pub(crate) fn place(&self, logical: u64, copy: usize) -> Result<Place<'_>> {
        let (chunk, within) = self.chunk(logical)?;
        chunk.place(within, copy).ok_or_else(|| {
            Error::unavailable("logical address", format!("copy {copy} of the address {logical} is nowhere"))
        })
    }

    /// Byte of its device where a copy is; 0 when that cannot be known. For messages.
    pub(crate) fn physical(&self, logical: u64, copy: usize) -> u64 {
        self.place(logical, copy).map_or(0, |place| place.offset)
    }

    /// Fills `buf` from one copy of the bytes at `logical`, unverified.
    pub(crate) fn read(&self, buf: &mut [u8], logical: u64, copy: usize) -> Result<()> {
        let (mut rest, mut logical) = (buf, logical);
        while !rest.is_empty() {
            let place = self.place(logical, copy)?;
            let count = narrow(place.length).min(rest.len());
            let Some((now, later)) = rest.split_at_mut_checked(count) else { break };
            match self.rest_of_row(logical, copy)? {
                None => self.read_place(now, &place)?,
                Some(row) => {
                    now.fill(0);
                    let mut other = vec![0; count];
                    for place in row {
                        self.read_place(&mut other, &place)?;
                        now.iter_mut().zip(&other).for_each(|(byte, other)| *byte ^= other);
                    }
                }
            }
            let length = wide(count);
            logical = logical.checked_add(length).ok_or_else(|| {
                Error::unavailable("logical address", "it runs past the end of all addresses")
            })?;
            rest = later;
        }
        Ok(())
    }

    fn rest_of_row(&self, logical: u64, copy: usize) -> Result<Option<Vec<Place<'_>>>> {
        let (chunk, within) = self.chunk(logical)?;
        Ok(if copy == 0 { None } else { chunk.rest_of_row(within) })
    }

    fn read_place(&self, buf: &mut [u8], place: &Place<'_>) -> Result<()> {
        let device = &self.member(place.stripe.devid).ok_or_else(|| missing(place))?.device;
        let length = wide(buf.len());
        device.read_exact_at(buf, place.offset).map_err(|source| Error::Io {
            offset: place.offset,
            length,
            source,
        })
    }

    /// The tree block that a pointer leads to, from the first copy that is right.
    pub(crate) fn node(&self, expected: &Expected) -> Result<Arc<Node>> {
        let cached = self.cache().get(expected.bytenr);
        if let Some(node) = cached
            && check(&node, expected).is_ok()
        {
            return Ok(node);
        }
        let mut first = None;
        for copy in 0..self.copies(expected.bytenr)? {
            match self.read_node(expected, copy) {
                Ok(node) => {
                    let node = Arc::new(node);
                    self.cache().put(expected.bytenr, node.clone());
                    return Ok(node);
                }
                // Damage says more than a device that is not there.
                Err(error) if first.is_none() || error.as_corrupt().is_some() => first = Some(error),
                Err(_) => {}
            }
        }
        Err(first.unwrap_or_else(|| Error::unavailable(node::STRUCTURE, "there is no copy")))
    }

    fn read_node(&self, expected: &Expected, copy: usize) -> Result<Node> {
        let mut bytes = vec![0; crate::number::index(self.shape.node_size)];
        self.read(&mut bytes, expected.bytenr, copy)?;
        let at = self.physical(expected.bytenr, copy);
        let node = Node::decode(bytes, &self.shape, expected.bytenr, at)?;
        check(&node, expected)?;
        Ok(node)
    }

    /// Reads every copy of a tree block; what is wrong with any is a problem.
    pub(crate) fn check_copies(&self, expected: &Expected, problems: &mut Vec<Error>) {
        let Ok(copies) = self.copies(expected.bytenr) else { return };
        for copy in 0..copies {
            // A missing device is a problem of its own.
            if let Err(error @ Error::Corrupt(_)) = self.read_node(expected, copy) {
                problems.push(error);
            }
        }
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn missing(place: &Place<'_>) -> Error {
    let (devid, uuid) = (place.stripe.devid, place.stripe.device_uuid);
    Error::unavailable("device", format!("device {devid} ({uuid}) is not there"))
}

/// What a block must be to be the one that a pointer meant.
fn check(node: &Node, expected: &Expected) -> Result<(), Corrupt> {
    let wrong =
        |field, expected: u64, found: u64| node.corrupt(field, expected.to_string(), found.to_string());
    if node.level != expected.level {
        return Err(wrong("level", expected.level.into(), node.level.into()));
    }
    if node.generation != expected.generation {
        return Err(wrong("generation", expected.generation, node.generation));
    }
    // Snapshots share blocks, which keep the owner they were made for.
    let is_owner = node.owner == expected.tree || (is_file_tree(node.owner) && is_file_tree(expected.tree));
    if !is_owner {
        return Err(wrong("owner", expected.tree, node.owner));
    }
    Ok(())
}
