//! One device, and the superblocks on it.

use blockdev::Device;
use ondisk::{Corrupt, Error, Parsed, Result, read_bytes};

use super::superblock::{LENGTH, Role, Superblock, Version};
use super::{bad_blocks, superblock0, superblock1};

/// A device with an md superblock.
#[derive(Debug, Clone)]
pub struct Member {
    /// The whole device.
    pub device: Device,
    /// The superblock that mdadm would use: the one that was made last, among those that are whole.
    pub superblock: Superblock,
    /// Superblocks at other places, left from other times.
    pub others: Vec<Superblock>,
}

/// What blkid says of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `TYPE`.
    pub kind: &'static str,
    /// `UUID`: that of the array.
    pub uuid: String,
    /// `UUID_SUB`: that of the member; none in 0.90.
    pub uuid_sub: Option<String>,
    /// `LABEL`: the array's name, if it has one.
    pub label: Option<String>,
}

impl Member {
    /// The identity, as blkid spells it.
    pub fn identity(&self) -> Identity {
        let Superblock { array_uuid, device_uuid, name, .. } = &self.superblock;
        Identity {
            kind: "linux_raid_member",
            uuid: array_uuid.to_string(),
            uuid_sub: device_uuid.map(|uuid| uuid.to_string()),
            label: name.clone().filter(|name| !name.is_empty()),
        }
    }
}

/// Reads the superblocks of `device` at all four places; `None` where there is none.
///
/// # Errors
/// Only [`Error::Io`]; damage is among the problems, and in [`Superblock::refusal`].
pub fn read_member(device: &Device) -> Result<Option<Parsed<Member>>> {
    let mut problems = Vec::new();
    let mut found = Vec::new();
    for (version, offset) in places(device.size()) {
        let block = read_bytes(&**device, offset, LENGTH)?;
        let superblock = match version {
            Version::V0_90 { .. } => superblock0::decode(&block, offset, &mut problems),
            _ => superblock1::decode(&block, version, offset, &mut problems),
        };
        let Some(mut superblock) = superblock else { continue };
        check_size(&mut superblock, device.size(), &mut problems);
        if !matches!(version, Version::V0_90 { .. }) {
            read_bad_blocks(&mut superblock, device, &block, &mut problems);
        }
        found.push(superblock);
    }
    // mdadm's guess: the newest array wins, and among equals the first place.
    let best = (0..)
        .zip(&found)
        .max_by_key(|(index, superblock)| {
            (superblock.refusal.is_none(), superblock.creation_time, std::cmp::Reverse(*index))
        })
        .map(|(index, _)| index);
    let Some(best) = best else { return Ok(None) };
    let superblock: Superblock = found.remove(best);
    for other in &found {
        problems.push(
            Corrupt::new(
                "md superblock",
                other.offset,
                "magic",
                format_args!("no second superblock beside version {}", superblock.version),
                format_args!("version {} of array {}", other.version, other.array_uuid),
            )
            .into(),
        );
    }
    Ok(Some(Parsed { value: Member { device: device.clone(), superblock, others: found }, problems }))
}

/// Where superblocks may be on a device of `size` bytes, in the order in which mdadm looks.
fn places(size: u64) -> Vec<(Version, u64)> {
    const RESERVED: u64 = 64 << 10;
    let mut places = Vec::new();
    if let Some(offset) = (size & !(RESERVED.wrapping_sub(1))).checked_sub(RESERVED) {
        places.push((Version::V0_90 { is_big_endian: false }, offset));
    }
    if size >= 12 << 10 {
        let last = size.saturating_sub(8 << 10) & !4095;
        places.extend([(Version::V1_0, last), (Version::V1_1, 0), (Version::V1_2, 4096)]);
    }
    let end = |offset: &u64| offset.saturating_add(4096);
    places.retain(|(_, offset)| end(offset) <= size);
    places
}

/// Checks that the data lies on the device.
fn check_size(superblock: &mut Superblock, size: u64, problems: &mut Vec<Error>) {
    let Superblock { data_offset, data_size, used_size, role, .. } = superblock;
    let needed = if *role == Role::Journal { *data_size } else { (*data_size).max(*used_size) };
    let end = data_offset.saturating_add(needed);
    if end > size {
        let text = format!("data ends at byte {end}, the device has {size}");
        superblock.refusal.get_or_insert(text);
        problems.push(
            Corrupt::new(
                "md superblock",
                superblock.offset,
                "data_size",
                format_args!("data within {size} bytes"),
                format_args!("data that ends at byte {end}"),
            )
            .into(),
        );
    }
}

fn read_bad_blocks(superblock: &mut Superblock, device: &Device, block: &[u8], problems: &mut Vec<Error>) {
    let Some(log) = superblock1::bad_block_log(block, superblock.offset) else { return };
    match bad_blocks::read(&**device, log) {
        Ok(ranges) => superblock.bad_blocks = ranges,
        Err(error) => {
            superblock.refusal.get_or_insert("the bad-block log cannot be read".into());
            problems.push(error);
        }
    }
}
