//! Recognising, opening and replaying: the functions behind [`FORMAT`](crate::FORMAT), and those that take
//! several devices or another subvolume.

use std::sync::Mutex;

use blockdev::{BlockDevice, Device};
use filesystem::{FileSystem, FsInfo, Identity, Inode, Opened, Replayed, SetMember};
use ondisk::{Corrupt, Error, Guid, Parsed, Result};
use zerocopy::FromBytes;

use crate::Btrfs;
use crate::chunk::Chunk;
use crate::key::{Key, RawKey, kind, object};
use crate::node::Shape;
use crate::number::wide;
use crate::space::{Member, Space};
use crate::subvolume::{self, Numbers, Parts, RootItem, Subvolume};
use crate::superblock::{self, OFFSETS, RawDevice, RootPlace, Superblock};
use crate::tree::{self, Root};

const KIND: &str = "btrfs";

/// Which subvolume becomes the root, as mount options name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select<'a> {
    /// The one that is mounted without options.
    Default,
    /// `subvolid=`; 0 means the top level.
    Id(u64),
    /// `subvol=`: a path from the top level.
    Path(&'a [u8]),
}

/// What a device says about the file system that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The UUID of the file system: devices with the same one belong together.
    pub fsid: Guid,
    /// The number of this device.
    pub devid: u64,
    /// The UUID of this device; `blkid` calls it `UUID_SUB`.
    pub device_uuid: Guid,
    /// How many devices there should be.
    pub device_count: u64,
    /// How many commits led to this superblock.
    pub generation: u64,
}

/// What the first superblock says of this device, unverified; `None` when there is none.
///
/// # Errors
/// [`Error::Io`].
pub fn membership(device: &dyn BlockDevice) -> Result<Option<Membership>> {
    Ok(superblock::peek(device)?.map(|raw| Membership {
        fsid: Guid::from_bytes(raw.fsid),
        devid: raw.dev_item.devid.get(),
        device_uuid: Guid::from_bytes(raw.dev_item.uuid),
        device_count: raw.num_devices.get(),
        generation: raw.generation.get(),
    }))
}

/// As the list of formats wants it.
pub(crate) fn set_member(device: &dyn BlockDevice) -> Result<Option<SetMember>> {
    Ok(membership(device)?.map(|found| SetMember {
        set: found.fsid.to_string(),
        number: found.devid,
        count: found.device_count,
    }))
}

/// What the first superblock says, checked only as far as a guess needs.
pub(crate) fn probe(device: &dyn BlockDevice) -> Result<Option<Identity>> {
    let Some(raw) = superblock::peek(device)? else { return Ok(None) };
    let label = raw.label();
    Ok(Some(Identity {
        kind: KIND,
        uuid: Some(Guid::from_bytes(raw.fsid).to_string()),
        label: (!label.is_empty()).then_some(label),
        size: raw.dev_item.total_bytes.get(),
    }))
}

pub(crate) fn open(device: Device) -> Result<Opened> {
    open_set(vec![device])
}

/// Opens a file system from those of its devices that are there, in any order, with its default subvolume as root.
///
/// What is missing is among the problems; what lies there alone cannot be read then.
///
/// # Errors
/// No device has a superblock that can be used, or the trees that lead to everything else cannot be read.
pub fn open_set(devices: Vec<Device>) -> Result<Opened> {
    open_subvolume(devices, Select::Default)
}

/// The same with another subvolume as root. Subvolumes below it are directories; those beside it are out of reach.
///
/// # Errors
/// As [`open_set`]; [`Error::Unavailable`] when there is no such subvolume.
pub fn open_subvolume(devices: Vec<Device>, select: Select<'_>) -> Result<Opened> {
    Ok(open_btrfs(devices, select)?.map(|btrfs| -> Box<dyn FileSystem> { Box::new(btrfs) }))
}

/// Every subvolume and snapshot, the top level first.
///
/// # Errors
/// As [`open_set`].
pub fn subvolumes(devices: Vec<Device>) -> Result<Parsed<Vec<Subvolume>>> {
    let mut opened = open_btrfs(devices, Select::Id(object::FS_TREE))?;
    let btrfs = &opened.value;
    let list = subvolume::list(&btrfs.space, &btrfs.roots, btrfs.default, &mut opened.problems);
    Ok(Parsed { value: list, problems: opened.problems })
}

/// The device as the kernel will see it. Log trees are not replayed.
pub(crate) fn replay(device: Device) -> Result<Replayed> {
    let superblock = Superblock::read_best(&*device, &mut Vec::new())?;
    if superblock.log_root != 0 {
        let feature = format!("replaying the log tree (files are as of commit {})", superblock.generation);
        return Err(Error::unsupported("log tree", feature));
    }
    Ok(Replayed { device, transactions: 0 })
}

pub(crate) fn open_btrfs(devices: Vec<Device>, select: Select<'_>) -> Result<Parsed<Btrfs>> {
    let mut problems = Vec::new();
    let (superblock, members) = assemble(devices, &mut problems)?;
    let shape = Shape {
        checksum: superblock.checksum,
        fsid: superblock.metadata_uuid,
        node_size: superblock.node_size,
        sector_size: superblock.sector_size,
    };
    let mut space = Space::new(shape, members);
    add_system_chunks(&mut space, &superblock)?;
    let chunk_root = Root { id: object::CHUNK_TREE, place: superblock.chunk_root };
    read_chunks(&mut space, &chunk_root, &superblock, &mut problems)?;
    let roots = tree_of_roots(&space, &superblock, &mut problems)?;
    for root in [&chunk_root, &roots] {
        space.check_copies(&root.expected(), &mut problems);
    }
    let sums = RootItem::find(&space, &roots, object::CSUM_TREE).unwrap_or_else(|error| {
        problems.push(error);
        None
    });
    let default = subvolume::default_id(&space, &roots, superblock.root_dir).unwrap_or_else(|error| {
        problems.push(error);
        object::FS_TREE
    });
    let info = info(&superblock);
    let mut btrfs = Btrfs {
        space,
        roots,
        sums: sums.map(|item| item.root),
        default,
        info,
        root: Inode(0),
        numbers: Mutex::default(),
        codecs: Default::default(),
        decompressed: Mutex::default(),
    };
    match select {
        Select::Id(0) => btrfs.choose(object::FS_TREE)?,
        Select::Id(id) => btrfs.choose(id)?,
        Select::Default => {
            if let Err(error) = btrfs.choose(default) {
                problems.push(error);
                btrfs.choose(object::FS_TREE)?;
            }
        }
        Select::Path(path) => {
            btrfs.choose(object::FS_TREE)?;
            let id = btrfs.subvolume_at(path)?;
            btrfs.choose(id)?;
        }
    }
    // A root that cannot be read is better known now than at the first file.
    problems.extend(btrfs.metadata(btrfs.root).err());
    Ok(Parsed { value: btrfs, problems })
}

impl Btrfs {
    /// Makes a subvolume the root, with inode numbers as the kernel shows them.
    fn choose(&mut self, id: u64) -> Result<()> {
        let item = RootItem::find(&self.space, &self.roots, id)?
            .filter(|item| crate::key::is_file_tree(id) && !item.is_deleted)
            .ok_or_else(|| Error::unavailable("subvolume", format!("there is no subvolume {id}")))?;
        let mut numbers = Numbers::default();
        let number = numbers.number(id)?;
        numbers.remember(number, &item);
        self.root = Parts { subvolume: number, is_placeholder: false, objectid: item.root_dir }.inode()?;
        self.numbers = Mutex::new(numbers);
        Ok(())
    }

    /// The subvolume whose root a path from the top level leads to.
    fn subvolume_at(&self, path: &[u8]) -> Result<u64> {
        let unavailable = |reason: String| Error::unavailable("subvolume", reason);
        let inode = filesystem::path::resolve(self, path).map_err(|error| unavailable(error.to_string()))?;
        let parts = Parts::of(inode);
        let numbers = self.numbers.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        numbers
            .get(parts.subvolume)
            .filter(|(_, item)| {
                !parts.is_placeholder && item.as_ref().is_some_and(|item| item.root_dir == parts.objectid)
            })
            .map(|(id, _)| id)
            .ok_or_else(|| unavailable(format!("{} is not a subvolume", path.escape_ascii())))
    }
}

/// The newest superblock, and the devices that belong to it.
fn assemble(devices: Vec<Device>, problems: &mut Vec<Error>) -> Result<(Superblock, Vec<Member>)> {
    let mut found: Vec<(Superblock, Device)> = Vec::new();
    let mut failed = None;
    for device in devices {
        match Superblock::read_best(&*device, problems) {
            Ok(superblock) => found.push((superblock, device)),
            Err(error) if failed.is_none() => failed = Some(error),
            Err(error) => problems.push(error),
        }
    }
    let newest =
        found.iter().map(|(superblock, _)| superblock).max_by_key(|superblock| superblock.generation);
    let Some(newest) = newest.cloned() else {
        return Err(failed.unwrap_or_else(|| Error::unavailable("file system", "no device was given")));
    };
    problems.extend(failed);
    // The newest first, so that of two with the same number the newer is taken.
    found.sort_by_key(|(superblock, _)| std::cmp::Reverse(superblock.generation));
    let mut members: Vec<Member> = Vec::new();
    let [at, ..] = OFFSETS;
    for (superblock, device) in found {
        if superblock.fsid != newest.fsid {
            let reason = format!("a device of the file system {} was given too", superblock.fsid);
            problems.push(Error::unavailable("device", reason));
            continue;
        }
        if superblock.generation != newest.generation {
            let expected = format!("{} as on device {}", newest.generation, newest.devid);
            let found = format!("{} on device {}", superblock.generation, superblock.devid);
            problems.push(Corrupt::new("superblock", at, "generation", expected, found).into());
        }
        if members.iter().any(|member| member.devid == superblock.devid) {
            let expected = "each device once";
            problems.push(Corrupt::new("superblock", at, "devid", expected, superblock.devid).into());
            continue;
        }
        if device.size() < superblock.device_size {
            let expected = format!("at most the device's {} bytes", device.size());
            let found = format!("{} bytes", superblock.device_size);
            problems.push(Corrupt::new("superblock", at, "dev_item.total_bytes", expected, found).into());
        }
        members.push(Member { devid: superblock.devid, uuid: superblock.device_uuid, device });
    }
    Ok((newest, members))
}

/// The chunks that hold the chunk tree, copied into the superblock so that there is a start.
fn add_system_chunks(space: &mut Space, superblock: &Superblock) -> Result<()> {
    const STRUCTURE: &str = "sys_chunk_array";
    let [at, ..] = OFFSETS;
    let mut rest = superblock.system_chunks.as_slice();
    while !rest.is_empty() {
        let (raw, tail) = RawKey::ref_from_prefix(rest)
            .map_err(|_| Corrupt::new(STRUCTURE, at, "size", "a whole key", rest.len()))?;
        let key = Key::from(raw);
        if (key.objectid, key.kind) != (object::FIRST_CHUNK_TREE, kind::CHUNK_ITEM) {
            return Err(Corrupt::new(STRUCTURE, at, "key", "a chunk item", key).into());
        }
        let (chunk, size) = Chunk::decode(tail, key.offset, superblock.sector_size, at)?;
        space.add(chunk, at)?;
        rest = tail.get(size..).unwrap_or_default();
    }
    Ok(())
}

/// Adds all chunks, and says which devices are not there.
fn read_chunks(
    space: &mut Space,
    root: &Root,
    superblock: &Superblock,
    problems: &mut Vec<Error>,
) -> Result<()> {
    let mut chunks = Vec::new();
    let mut devices: Vec<(u64, Guid)> = Vec::new();
    let range = (
        Key::new(object::DEV_ITEMS, kind::DEV_ITEM, 0),
        Key::new(object::FIRST_CHUNK_TREE, kind::CHUNK_ITEM, u64::MAX),
    );
    let mut is_read = false;
    let walked = tree::for_each(space, root, range, |item| {
        is_read = true;
        match (item.key.objectid, item.key.kind) {
            (object::DEV_ITEMS, kind::DEV_ITEM) => match RawDevice::ref_from_prefix(item.data) {
                Ok((raw, _)) => devices.push((raw.devid.get(), Guid::from_bytes(raw.uuid))),
                Err(_) => {
                    let size = item.data.len();
                    problems.push(Corrupt::new("device item", item.at, "size", "98 bytes", size).into());
                }
            },
            (object::FIRST_CHUNK_TREE, kind::CHUNK_ITEM) => {
                match Chunk::decode(item.data, item.key.offset, superblock.sector_size, item.at) {
                    Ok((chunk, _)) => chunks.push((chunk, item.at)),
                    Err(error) => problems.push(error),
                }
            }
            _ => {}
        }
        Ok(std::ops::ControlFlow::Continue(()))
    });
    match walked {
        Err(error) if !is_read => return Err(error),
        Err(error) => problems.push(error),
        Ok(()) => {}
    }
    for (chunk, at) in chunks {
        problems.extend(space.add(chunk, at).err());
    }
    let [at, ..] = OFFSETS;
    for (devid, uuid) in &devices {
        match space.member(*devid) {
            Some(member) if member.uuid == *uuid => {}
            Some(member) => {
                let expected = format!("{uuid} for device {devid}");
                problems.push(Corrupt::new("superblock", at, "dev_item.uuid", expected, member.uuid).into());
            }
            None => {
                let reason = format!("device {devid} ({uuid}) of {} is not there", devices.len());
                problems.push(Error::unavailable("device", reason));
            }
        }
    }
    if wide(devices.len()) != superblock.device_count {
        let expected = format!("{} as there are device items", devices.len());
        problems
            .push(Corrupt::new("superblock", at, "num_devices", expected, superblock.device_count).into());
    }
    Ok(())
}

/// The tree that leads to all others: of the last commit, or, where that is damaged, of one before it.
fn tree_of_roots(space: &Space, superblock: &Superblock, problems: &mut Vec<Error>) -> Result<Root> {
    let root = |place: RootPlace| Root { id: object::ROOT_TREE, place };
    let current = root(superblock.root);
    let Err(error) = space.node(&current.expected()) else { return Ok(current) };
    for place in &superblock.backups {
        let backup = root(*place);
        if space.node(&backup.expected()).is_ok() && RootItem::find(space, &backup, object::FS_TREE).is_ok() {
            problems.push(error);
            let reason = format!("files are as of commit {}, from a backup root", place.generation);
            problems.push(Error::unavailable("root tree", reason));
            return Ok(backup);
        }
    }
    Err(error)
}

fn info(superblock: &Superblock) -> FsInfo {
    let mut features = vec![superblock.checksum.name().to_owned()];
    features.extend(superblock.features.iter().cloned());
    FsInfo {
        kind: KIND,
        uuid: Some(superblock.fsid.to_string()),
        label: (!superblock.label.is_empty()).then(|| superblock.label.clone()),
        block_size: superblock.sector_size,
        size: superblock.total_bytes,
        free: Some(superblock.total_bytes.saturating_sub(superblock.bytes_used)),
        needs_recovery: superblock.log_root != 0,
        features,
    }
}

/// What [`subvolumes`] finds, as the list of formats wants it; those that are deleted or out of reach are left out.
pub(crate) fn list_subvolumes(devices: Vec<Device>) -> Result<Vec<filesystem::Subvolume>> {
    let found = subvolumes(devices)?.value.into_iter().filter(|found| !found.is_deleted);
    let of = |found: Subvolume| {
        let (is_default, is_snapshot) = (found.is_default, found.is_snapshot());
        Some(filesystem::Subvolume { id: found.id, path: found.path?, is_default, is_snapshot })
    };
    Ok(found.filter_map(of).collect())
}
