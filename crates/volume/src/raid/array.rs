//! The numbers of an array, checked before a device is made of them.

use std::fmt::Display;
use std::sync::Arc;

use blockdev::Device;
use ondisk::{Corrupt, Error, Result};

use super::layout::Layout;
use super::mirrored::Mirrored;
use super::parity::ParityArray;
use super::raid10::Raid10;
use super::striped::Striped;

/// The most members of an array: what the superblocks of md can list.
pub const MAX_MEMBERS: usize = 384;

/// The largest chunk in bytes that md's superblock can spell, 2^32 sectors.
const MAX_CHUNK: u64 = 1 << 41;

/// The longest array in bytes: offsets stay below 2^63, so that a row more does not overflow.
const MAX_SIZE: u64 = 1 << 62;

/// The bytes of an array.
///
/// `members` in the order of their roles, `None` where one is missing; each starts at its first byte of data and
/// may be longer than the array needs. `chunk` is bytes, 0 for [`Layout::Mirrored`], else a multiple of 512;
/// `size` is the array's length in bytes, for RAID 10 with far copies the whole length that the members give,
/// as the place of the copies follows from it.
///
/// The device reads what is missing or unreadable from the redundancy, and writes to all members that are there.
/// It knows nothing of what the format above remembers of a missing member: a caller that lets anybody write to
/// an array that lacks one must know that this member will not be trusted later.
///
/// # Errors
/// [`Error::Corrupt`] when the numbers do not fit each other or too many members are missing.
pub fn array(layout: Layout, chunk: u64, size: u64, members: Vec<Option<Device>>) -> Result<Device> {
    build(layout, chunk, size, members, true)
}

/// As [`array()`], of members whose parity may not fit their data: an error of a member is an error of the array.
///
/// # Errors
/// As [`array()`]; for layouts with parity, also when any member is missing.
pub fn array_out_of_sync(
    layout: Layout,
    chunk: u64,
    size: u64,
    members: Vec<Option<Device>>,
) -> Result<Device> {
    if matches!(layout, Layout::Parity(_)) && members.iter().any(Option::is_none) {
        return Err(too_few("all members, as parity is out of sync", &members));
    }
    build(layout, chunk, size, members, false)
}

fn build(
    layout: Layout,
    chunk: u64,
    size: u64,
    members: Vec<Option<Device>>,
    is_in_sync: bool,
) -> Result<Device> {
    if members.is_empty() || members.len() > MAX_MEMBERS {
        return Err(corrupt("members", format_args!("1 to {MAX_MEMBERS}"), members.len()));
    }
    if size > MAX_SIZE {
        return Err(corrupt("size", format_args!("at most {MAX_SIZE} bytes"), size));
    }
    let chunk_is_right = match layout {
        Layout::Mirrored => chunk == 0,
        _ => chunk > 0 && chunk <= MAX_CHUNK && chunk.is_multiple_of(512),
    };
    if !chunk_is_right {
        return Err(corrupt("chunk", "a multiple of 512 bytes, or 0 for RAID 1", chunk));
    }
    Ok(match layout {
        Layout::Striped => Arc::new(Striped::new(chunk, size, members)?),
        Layout::Mirrored => Arc::new(Mirrored::new(size, members)?),
        Layout::Parity(parity) => {
            Arc::new(ParityArray::new(parity, chunk, size, members)?.trusting_parity(is_in_sync))
        }
        Layout::Raid10 { near, far, spacing } => {
            Arc::new(Raid10::new((near, far, spacing), chunk, size, members)?)
        }
    })
}

/// Checks that every present member has `needed` bytes.
pub(super) fn check_sizes(members: &[Option<Device>], needed: u64) -> Result<()> {
    for (role, member) in members.iter().enumerate() {
        if let Some(member) = member
            && member.size() < needed
        {
            let found = format!("{} bytes for role {role}", member.size());
            return Err(corrupt("member size", format_args!("at least {needed} bytes"), found));
        }
    }
    Ok(())
}

/// The refusal of an array whose members cannot give all of its bytes.
pub(super) fn too_few(expected: impl Display, members: &[Option<Device>]) -> Error {
    let missing: Vec<String> = members
        .iter()
        .enumerate()
        .filter(|(_, member)| member.is_none())
        .map(|(role, _)| role.to_string())
        .collect();
    corrupt("members", expected, format_args!("no member for role {}", missing.join(", ")))
}

/// The sector size of an array: the largest among its members.
pub(super) fn sector_size(members: &[Option<Device>]) -> u32 {
    members.iter().flatten().map(|member| member.sector_size()).max().unwrap_or(512)
}

/// Damage in the numbers of an array.
pub(super) fn corrupt(field: &'static str, expected: impl Display, found: impl Display) -> Error {
    Corrupt::new("array", 0, field, expected, found).into()
}

#[cfg(test)]
mod tests {
    use blockdev::MemoryDevice;

    use super::super::layout::{FarSpacing, Parity, Rotation};
    use super::*;

    fn members(present: &[usize]) -> Vec<Option<Device>> {
        present
            .iter()
            .map(|size| (*size > 0).then(|| -> Device { Arc::new(MemoryDevice::new(vec![0; *size])) }))
            .collect()
    }

    /// The text of the refusal.
    fn refusal(layout: Layout, chunk: u64, size: u64, present: &[usize]) -> String {
        array(layout, chunk, size, members(present)).unwrap_err().to_string()
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused_by_name() {
        let left = Layout::Parity(Parity::LeftSymmetric);
        let double = Layout::Parity(Parity::Double(Rotation::LeftSymmetric));
        let near = Layout::Raid10 { near: 2, far: 1, spacing: FarSpacing::Far };
        for (text, expected) in [
            (refusal(Layout::Striped, 0, 4096, &[4096]), "chunk is 0"),
            (refusal(Layout::Striped, 1000, 4096, &[4096]), "chunk is 1000"),
            (refusal(Layout::Striped, 4096, 8192, &[4096, 0]), "no member for role 1"),
            (refusal(Layout::Striped, 4096, 8193, &[4096, 4096]), "member size is 4096 bytes for role 0"),
            (refusal(Layout::Striped, 4096, u64::MAX, &[4096, 4096]), "size is"),
            (refusal(Layout::Striped, 4096, 0, &[]), "members is 0"),
            (refusal(Layout::Mirrored, 4096, 4096, &[4096]), "chunk is 4096"),
            (refusal(Layout::Mirrored, 0, 4096, &[0, 0]), "no member for role 0, 1"),
            (refusal(left, 4096, 4096, &[4096]), "members is 1"),
            (refusal(left, 4096, 8192, &[4096, 0, 0]), "no member for role 1, 2"),
            (refusal(double, 4096, 8192, &[4096, 0, 0, 0]), "no member for role 1, 2, 3"),
            (refusal(near, 4096, 8192, &[4096, 4096, 0, 0]), "no member for role 2, 3"),
            (refusal(near, 4096, 8192, &[4096]), "copies is 2"),
            (
                array_out_of_sync(left, 4096, 8192, members(&[4096, 0, 4096])).unwrap_err().to_string(),
                "no member for role 1",
            ),
        ] {
            assert!(text.contains(expected), "{text}: {expected}");
        }
    }
}
