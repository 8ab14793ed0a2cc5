//! Subvolumes and snapshots: trees of files, and where each hangs in another.
//!
//! On-disk format documentation, "Root item", "Root ref"; `struct btrfs_root_item`, `struct btrfs_root_ref`.
//! Little-endian. Items written before kernel 3.6 end before the second generation.

use std::collections::HashMap;

use filesystem::Inode;
use ondisk::{Corrupt, Error, Guid, Result, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::directory;
use crate::key::{Key, RawKey, is_file_tree, kind, object};
use crate::node::{Item, MAX_LEVEL};
use crate::number::wide;
use crate::space::Space;
use crate::superblock::RootPlace;
use crate::tree::{self, Cursor, Root};

const STRUCTURE: &str = "root item";

/// The part of a root item that is always there.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRoot {
    inode: [u8; 160],       // 0x00
    generation: le::U64,    // 0xa0 of the root block
    root_dirid: le::U64,    // 0xa8 inode of the root directory
    bytenr: le::U64,        // 0xb0 logical
    byte_limit: le::U64,    // 0xb8
    bytes_used: le::U64,    // 0xc0
    last_snapshot: le::U64, // 0xc8
    flags: le::U64,         // 0xd0 1 for read-only
    refs: le::U32,          // 0xd8 0 while it is being deleted
    drop_progress: RawKey,  // 0xdc
    drop_level: u8,         // 0xed
    level: u8,              // 0xee
}
const _: () = assert!(size_of::<RawRoot>() == 0xef);

/// What newer kernels add.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRootUuids {
    generation_v2: le::U64,  // 0xef as `generation`, else this part is stale
    uuid: [u8; 16],          // 0xf7
    parent_uuid: [u8; 16],   // 0x107 of what a snapshot was taken of
    received_uuid: [u8; 16], // 0x117
}
const _: () = assert!(size_of::<RawRootUuids>() == 56);

/// `struct btrfs_root_ref`; the name follows.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRef {
    dirid: le::U64,    // 0x00 the directory, in the parent
    sequence: le::U64, // 0x08
    name_len: le::U16, // 0x10
}
const _: () = assert!(size_of::<RawRef>() == 18);

/// `struct btrfs_inode_ref`; the name follows.
#[derive(Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawInodeRef {
    index: le::U64,    // 0x00
    name_len: le::U16, // 0x08
}
const _: () = assert!(size_of::<RawInodeRef>() == 10);

/// `BTRFS_ROOT_SUBVOL_RDONLY`.
const READ_ONLY: u64 = 1;

/// Components that a path may have: more than 4096 bytes hold.
const MAX_COMPONENTS: usize = 2048;

/// A subvolume, as `btrfs subvolume list` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subvolume {
    /// Its number: 5 for the top level, others from 256 on.
    pub id: u64,
    /// From the top level, without a slash at its start, and empty for the top level itself; `None` where the way
    /// up is damaged, or the subvolume is deleted already.
    pub path: Option<Vec<u8>>,
    /// The number of the subvolume that it hangs in; `None` for the top level.
    pub parent: Option<u64>,
    /// Its UUID; nil for the top level of older file systems.
    pub uuid: Guid,
    /// Of what it was a snapshot of.
    pub parent_uuid: Option<Guid>,
    /// Whether it can be written.
    pub is_read_only: bool,
    /// Whether it is mounted when no other is asked for.
    pub is_default: bool,
    /// Whether its deletion has begun, so that no directory lists it any more.
    pub is_deleted: bool,
}

impl Subvolume {
    /// Whether it was made from another.
    pub fn is_snapshot(&self) -> bool {
        self.parent_uuid.is_some()
    }
}

/// What a root item says.
#[derive(Debug, Clone)]
pub(crate) struct RootItem {
    pub(crate) root: Root,
    pub(crate) root_dir: u64,
    pub(crate) is_deleted: bool,
    is_read_only: bool,
    uuid: Guid,
    parent_uuid: Guid,
}

impl RootItem {
    fn decode(item: &Item<'_>) -> Result<Self> {
        let corrupt =
            |field, expected: &str, found: u64| Corrupt::new(STRUCTURE, item.at, field, expected, found);
        let (raw, rest) = RawRoot::ref_from_prefix(item.data)
            .map_err(|_| corrupt("size", "at least 239 bytes", wide(item.data.len())))?;
        if raw.level > MAX_LEVEL {
            return Err(corrupt("level", "0..=7", raw.level.into()).into());
        }
        let generation = raw.generation.get();
        let uuids = RawRootUuids::ref_from_prefix(rest)
            .ok()
            .map(|(uuids, _)| uuids)
            .filter(|uuids| uuids.generation_v2.get() == generation);
        let uuid = |choose: fn(&RawRootUuids) -> [u8; 16]| Guid::from_bytes(uuids.map_or([0; 16], choose));
        let place = RootPlace { bytenr: raw.bytenr.get(), level: raw.level, generation };
        Ok(Self {
            root: Root { id: item.key.objectid, place },
            root_dir: raw.root_dirid.get(),
            is_deleted: raw.refs.get() == 0,
            is_read_only: raw.flags.get() & READ_ONLY != 0,
            uuid: uuid(|uuids| uuids.uuid),
            parent_uuid: uuid(|uuids| uuids.parent_uuid),
        })
    }

    /// Finds the tree `id` in the tree of roots: the last item with this number.
    pub(crate) fn find(space: &Space, roots: &Root, id: u64) -> Result<Option<Self>> {
        let last = Cursor::seek_back(space, roots, &Key::new(id, kind::ROOT_ITEM, u64::MAX))?;
        let item = last.as_ref().and_then(Cursor::item);
        item.filter(|item| item.key.objectid == id && item.key.kind == kind::ROOT_ITEM)
            .map(|item| Self::decode(&item))
            .transpose()
    }
}

/// The number of the subvolume that the kernel mounts when no other is asked for.
pub(crate) fn default_id(space: &Space, roots: &Root, root_dir: u64) -> Result<u64> {
    let name = b"default";
    let key = Key::new(root_dir, kind::DIR_ITEM, directory::name_hash(name));
    let found = tree::with_item(space, roots, &key, |item| {
        Ok(directory::entries(&item)?
            .iter()
            .find(|entry| entry.name == name)
            .map(|entry| entry.location.objectid))
    })?;
    Ok(found.flatten().unwrap_or(object::FS_TREE))
}

/// Whether the directory `dir` of the tree `parent` really lists the subvolume `id` under `name`; in a snapshot
/// it does not, though the entry is there.
pub(crate) fn is_listed(
    space: &Space,
    roots: &Root,
    (parent, dir, name): (u64, u64, &[u8]),
    id: u64,
) -> Result<bool> {
    let key = Key::new(parent, kind::ROOT_REF, id);
    let found = tree::with_item(space, roots, &key, |item| {
        let (raw, found) = root_ref(&item)?;
        Ok(raw == dir && found == name)
    })?;
    Ok(found == Some(true))
}

fn root_ref<'a>(item: &Item<'a>) -> Result<(u64, &'a [u8])> {
    let (raw, rest) = RawRef::ref_from_prefix(item.data)
        .map_err(|_| Corrupt::new("root ref", item.at, "size", "at least 18 bytes", item.data.len()))?;
    let name = rest.get(..usize::from(raw.name_len.get())).ok_or_else(|| {
        Corrupt::new("root ref", item.at, "name_len", "within the item", raw.name_len.get())
    })?;
    Ok((raw.dirid.get(), name))
}

/// Every subvolume; what cannot be read on the way is a problem.
pub(crate) fn list(space: &Space, roots: &Root, default: u64, problems: &mut Vec<Error>) -> Vec<Subvolume> {
    let mut items: Vec<RootItem> = Vec::new();
    let range = (
        Key::new(object::FS_TREE, kind::ROOT_ITEM, 0),
        Key::new(object::LAST_FREE, kind::ROOT_ITEM, u64::MAX),
    );
    let walked = tree::for_each(space, roots, range, |item| {
        if item.key.kind == kind::ROOT_ITEM && is_file_tree(item.key.objectid) {
            match RootItem::decode(&item) {
                Ok(found) => {
                    items.retain(|item| item.root.id != found.root.id);
                    items.push(found);
                }
                Err(error) => problems.push(error),
            }
        }
        Ok(std::ops::ControlFlow::Continue(()))
    });
    problems.extend(walked.err());
    items
        .iter()
        .map(|item| {
            let id = item.root.id;
            let (parent, path) = path_of(space, roots, id).unwrap_or_else(|error| {
                problems.push(error);
                (None, None)
            });
            Subvolume {
                id,
                path,
                parent,
                uuid: item.uuid,
                parent_uuid: (!item.parent_uuid.is_nil()).then_some(item.parent_uuid),
                is_read_only: item.is_read_only,
                is_default: id == default,
                is_deleted: item.is_deleted,
            }
        })
        .collect()
}

/// The subvolume that another hangs in, and the path from the top level.
fn path_of(space: &Space, roots: &Root, id: u64) -> Result<(Option<u64>, Option<Vec<u8>>)> {
    let mut components: Vec<Vec<u8>> = Vec::new();
    let (mut current, mut parent_of_first) = (id, None);
    while current != object::FS_TREE {
        let Some((parent, dir, name)) = back_ref(space, roots, current)? else {
            return Ok((parent_of_first, None));
        };
        parent_of_first = parent_of_first.or(Some(parent));
        components.push(name);
        let Some(item) = RootItem::find(space, roots, parent)? else { return Ok((parent_of_first, None)) };
        let mut dir = dir;
        while dir != item.root_dir {
            let Some((above, name)) = inode_ref(space, &item.root, dir)? else {
                return Ok((parent_of_first, None));
            };
            components.push(name);
            dir = above;
            check_length(&components)?;
        }
        check_length(&components)?;
        current = parent;
    }
    components.reverse();
    Ok((parent_of_first, Some(components.join(&b'/'))))
}

fn check_length(components: &[Vec<u8>]) -> Result<()> {
    if components.len() <= MAX_COMPONENTS {
        return Ok(());
    }
    let expected = format!("a path of at most {MAX_COMPONENTS} components");
    Err(Corrupt::new("root ref", 0, "parent", expected, "more").into())
}

/// Parent tree, directory and name of a subvolume.
fn back_ref(space: &Space, roots: &Root, id: u64) -> Result<Option<(u64, u64, Vec<u8>)>> {
    let cursor = Cursor::seek(space, roots, &Key::new(id, kind::ROOT_BACKREF, 0))?;
    let item = cursor.item().filter(|item| item.key.objectid == id && item.key.kind == kind::ROOT_BACKREF);
    item.map(|item| root_ref(&item).map(|(dir, name)| (item.key.offset, dir, name.to_vec()))).transpose()
}

/// Parent directory and name of a directory.
fn inode_ref(space: &Space, root: &Root, inode: u64) -> Result<Option<(u64, Vec<u8>)>> {
    let cursor = Cursor::seek(space, root, &Key::new(inode, kind::INODE_REF, 0))?;
    let item = cursor.item().filter(|item| item.key.objectid == inode && item.key.kind == kind::INODE_REF);
    let Some(item) = item else { return Ok(None) };
    let name = RawInodeRef::ref_from_prefix(item.data)
        .ok()
        .and_then(|(raw, rest)| rest.get(..usize::from(raw.name_len.get())))
        .ok_or_else(|| {
            Corrupt::new("inode ref", item.at, "size", "a name within the item", item.data.len())
        })?;
    Ok(Some((item.key.offset, name.to_vec())))
}

/// Gives subvolumes small numbers, so that inode numbers are unique in the whole file system: the subvolume in the
/// upper 16 bits, 0 for the one that was opened, then a bit for placeholders, then the inode's own number.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    roots: Vec<Numbered>,
    by_id: HashMap<u64, usize>,
}

#[derive(Debug, Clone)]
struct Numbered {
    id: u64,
    item: Option<RootItem>,
}

const SHIFT: u32 = 48;
const PLACEHOLDER: u64 = 1 << 47;

/// An inode number taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) subvolume: usize,
    /// Whether this stands for a subvolume that is not there, in the directory `objectid`.
    pub(crate) is_placeholder: bool,
    pub(crate) objectid: u64,
}

impl Parts {
    pub(crate) fn of(inode: Inode) -> Self {
        Self {
            subvolume: usize::try_from(inode.0 >> SHIFT).unwrap_or(usize::MAX),
            is_placeholder: inode.0 & PLACEHOLDER != 0,
            objectid: inode.0 & (PLACEHOLDER.wrapping_sub(1)),
        }
    }

    pub(crate) fn inode(self) -> Result<Inode> {
        if self.objectid >= PLACEHOLDER {
            return Err(Error::unsupported("inode", format!("the number {}", self.objectid)));
        }
        let flag = if self.is_placeholder { PLACEHOLDER } else { 0 };
        Ok(Inode(wide(self.subvolume) << SHIFT | flag | self.objectid))
    }
}

impl Numbers {
    /// The number of the subvolume `id`, a new one if it has none.
    pub(crate) fn number(&mut self, id: u64) -> Result<usize> {
        if let Some(number) = self.by_id.get(&id) {
            return Ok(*number);
        }
        let number = self.roots.len();
        if number > usize::from(u16::MAX) {
            return Err(Error::unsupported("file system", "walking more than 65536 subvolumes"));
        }
        self.roots.push(Numbered { id, item: None });
        self.by_id.insert(id, number);
        Ok(number)
    }

    pub(crate) fn get(&self, number: usize) -> Option<(u64, Option<RootItem>)> {
        self.roots.get(number).map(|root| (root.id, root.item.clone()))
    }

    pub(crate) fn remember(&mut self, number: usize, item: &RootItem) {
        if let Some(root) = self.roots.get_mut(number) {
            root.item = Some(item.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inode_numbers_are_unique() {
        let mut numbers = Numbers::default();
        assert_eq!((numbers.number(5).unwrap(), numbers.number(300).unwrap()), (0, 1));
        assert_eq!(numbers.number(5).unwrap(), 0);
        for (subvolume, is_placeholder, objectid, expected) in [
            (0, false, 256, 256),
            (1, false, 256, 1 << 48 | 256),
            (65535, true, 257, 0xffff << 48 | 1 << 47 | 257),
        ] {
            let parts = Parts { subvolume, is_placeholder, objectid };
            assert_eq!(parts.inode().unwrap(), Inode(expected));
            assert_eq!(Parts::of(Inode(expected)), parts);
        }
        assert!(Parts { subvolume: 0, is_placeholder: false, objectid: 1 << 47 }.inode().is_err());
    }

    #[test]
    fn the_table_is_bounded() {
        let mut numbers = Numbers::default();
        assert!((0..65536).all(|id| numbers.number(id).is_ok()));
        let text = numbers.number(70000).unwrap_err().to_string();
        assert_eq!(text, "file system: walking more than 65536 subvolumes is not supported");
    }
}
