//! The bytes of an array, made of the data of its members.

use std::io;
use std::sync::Arc;

use blockdev::{BlockDevice, Concat, Device, Extent, Part, Slice};

use super::bad_blocks::WithoutBadBlocks;
use super::level;
use super::member::Member;
use super::superblock::{Features, Superblock};
use crate::raid::{self, Layout, MAX_MEMBERS};

/// The size in bytes of the array that `superblock` describes, where all members use the same number of bytes.
pub(super) fn size(superblock: &Superblock) -> Option<u64> {
    let disks = u64::from(superblock.raid_disks);
    let chunk = superblock.chunk;
    let whole = |bytes: u64| Some(bytes.checked_div(chunk)?.saturating_mul(chunk));
    let used = superblock.used_size;
    match level::layout(superblock.level, superblock.layout)? {
        Layout::Mirrored => Some(used),
        Layout::Parity(_) => {
            let redundant = if superblock.level == 6 { 2 } else { 1 };
            whole(used)?.checked_mul(disks.checked_sub(redundant)?)
        }
        Layout::Raid10 { near, far, .. } => {
            let chunks = used.checked_div(chunk)?.checked_div(far.into())?;
            chunks.checked_mul(disks)?.checked_div(near.into())?.checked_mul(chunk)
        }
        Layout::Striped => None,
    }
}

/// The device of an array whose `members` are in the order of their roles, with its size.
pub(super) fn build(superblock: &Superblock, members: &[Option<&Member>]) -> Result<Device, String> {
    if members.is_empty() || members.len() > MAX_MEMBERS {
        return Err(format!("raid_disks is {}, expected 1 to {MAX_MEMBERS}", superblock.raid_disks));
    }
    match superblock.level {
        -1 => linear(superblock, &all(members)?),
        0 => striped(superblock, &all(members)?),
        1 | 4 | 5 | 6 | 10 => redundant(superblock, members),
        other => Err(match level::name(other) {
            Some(name) => format!("level {name} is not supported"),
            None => format!("level is {other}, which is not known"),
        }),
    }
}

fn all<'a>(members: &[Option<&'a Member>]) -> Result<Vec<&'a Member>, String> {
    members
        .iter()
        .enumerate()
        .map(|(role, member)| member.ok_or_else(|| format!("no member for role {role}, and no redundancy")))
        .collect()
}

fn redundant(superblock: &Superblock, members: &[Option<&Member>]) -> Result<Device, String> {
    let Some(layout) = level::layout(superblock.level, superblock.layout) else {
        return Err(format!("layout is {:#x}, which is not known", superblock.layout));
    };
    let Some(size) = size(superblock) else {
        return Err(format!(
            "{} members of {} bytes with chunks of {} make no array",
            superblock.raid_disks, superblock.used_size, superblock.chunk
        ));
    };
    let data = members
        .iter()
        .map(|member| member.map(|member| data(member, superblock.used_size)).transpose())
        .collect::<Result<_, _>>()?;
    let chunk = if layout == Layout::Mirrored { 0 } else { superblock.chunk };
    let make = if superblock.is_clean { raid::array } else { raid::array_out_of_sync };
    make(layout, chunk, size, data).map_err(|error| error.to_string())
}

/// The first `length` bytes of a member's data, without those in its bad-block log.
fn data(member: &Member, length: u64) -> Result<Device, String> {
    let start = member.superblock.data_offset;
    let slice: Device =
        Arc::new(Slice::new(member.device.clone(), start, length).map_err(|error| error.to_string())?);
    let bad = &member.superblock.bad_blocks;
    Ok(if bad.is_empty() { slice } else { Arc::new(WithoutBadBlocks::new(slice, bad, start)) })
}

/// The bytes of a member that a level without redundancy uses: whole chunks.
fn usable(member: &Member, chunk: u64) -> u64 {
    let size = member.superblock.data_size;
    size.checked_div(chunk).map_or(size, |chunks| chunks.saturating_mul(chunk))
}

/// `drivers/md/md-linear.c`: one member after the other.
fn linear(superblock: &Superblock, members: &[&Member]) -> Result<Device, String> {
    let mut parts = Vec::new();
    for member in members {
        let length = usable(member, superblock.chunk);
        parts.push(Part { device: Some(data(member, length)?), offset: 0, length });
    }
    Ok(Arc::new(Concat::new(parts).map_err(|error| error.to_string())?))
}

/// `create_strip_zones` and `raid0_map_sector` of `drivers/md/raid0.c`: chunks in turn over all members, then,
/// in further zones, over those that have more.
fn striped(superblock: &Superblock, members: &[&Member]) -> Result<Device, String> {
    let chunk = superblock.chunk;
    if chunk == 0 {
        return Err("chunk is 0".into());
    }
    let mut ends: Vec<u64> =
        members.iter().map(|member| usable(member, chunk)).filter(|size| *size > 0).collect();
    if ends.len() < members.len() {
        return Err("a member is smaller than a chunk".into());
    }
    ends.sort_unstable();
    ends.dedup();
    let mut parts: Vec<Part> = Vec::new();
    let mut start = 0_u64;
    let mut zone_start = 0_u64;
    for (number, end) in ends.into_iter().enumerate() {
        let mut zone: Vec<&&Member> = members.iter().filter(|member| usable(member, chunk) > start).collect();
        let count = u64::try_from(zone.len()).unwrap_or(u64::MAX);
        if number > 0 && zone.len() > 1 {
            let has_layout = superblock.features.has(Features::RAID0_LAYOUT);
            match (has_layout, superblock.layout) {
                (true, 1) => {
                    // The original layout counts chunks from the array's beginning.
                    let chunks = zone_start.checked_div(chunk).unwrap_or(0);
                    let turn = chunks.checked_rem(count).and_then(|turn| usize::try_from(turn).ok());
                    zone.rotate_left(turn.unwrap_or(0));
                }
                (true, 2) => {}
                (true, other) => return Err(format!("raid0 layout is {other}, which is not known")),
                (false, _) => {
                    return Err(
                        "the members differ in size, and nothing says whether a kernel before or after \
                                3.14 laid the data out"
                            .into(),
                    );
                }
            }
        }
        let length = end.saturating_sub(start);
        let size = length.checked_mul(count).ok_or("the array is too large")?;
        let mut slices: Vec<Option<Device>> = Vec::new();
        for member in zone {
            let whole = data(member, usable(member, chunk))?;
            slices.push(Some(Arc::new(Slice::new(whole, start, length).map_err(|error| error.to_string())?)));
        }
        let device = raid::array(Layout::Striped, chunk, size, slices).map_err(|error| error.to_string())?;
        parts.push(Part { device: Some(device), offset: 0, length: size });
        start = end;
        zone_start = zone_start.saturating_add(size);
    }
    let whole = Concat::new(parts).map_err(|error| error.to_string())?;
    // The kernel masks each member's sectors with one less than the chunk's, whether that is a power of two or not.
    let mask = !(chunk / 512).saturating_sub(1);
    let sizes = members.iter().map(|member| ((usable(member, chunk) / 512) & mask).saturating_mul(512));
    let size = sizes.fold(0, u64::saturating_add).min(whole.size());
    Ok(Arc::new(Slice::new(Arc::new(whole), 0, size).map_err(|error| error.to_string())?))
}

/// Whether parity reconstructs what is missing, so that it matters whether it is in sync.
pub(super) fn has_parity(superblock: &Superblock) -> bool {
    matches!(level::layout(superblock.level, superblock.layout), Some(Layout::Parity(_)))
}

/// A device that is not to be written to.
#[derive(Debug)]
pub(super) struct ReadOnly(pub(super) Device);

impl BlockDevice for ReadOnly {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn sector_size(&self) -> u32 {
        self.0.sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        self.0.extent_at(offset)
    }
}
