//! RAID segments: which legs may be believed, and the array over them.
//!
//! lvm2 `lib/raid/raid.c`, kernel `drivers/md/dm-raid.c`. Each leg is a volume of data (`rimage`) with one of
//! metadata (`rmeta`); the newest superblock among those says which legs failed.

use std::sync::Arc;

use blockdev::{Device, Slice};

use super::group::{MapTarget, Segment};
use super::map::{Mapper, Mapping};
use super::raid_superblock::{IN_SYNC, Superblock};
use super::read_only::ReadOnly;
use crate::raid::{FarSpacing, Layout, Parity, Rotation, array, array_out_of_sync};

/// What a segment type means.
struct Shape {
    layout: Layout,
    /// As in the superblock.
    level: u32,
    /// As in the superblock; `None` where it does not matter.
    number: Option<u32>,
}

fn shape(kind: &str, copies: u8) -> Option<Shape> {
    use Rotation::{LeftAsymmetric, LeftSymmetric, RightAsymmetric, RightSymmetric};
    let five = |parity, number| Shape { layout: Layout::Parity(parity), level: 5, number };
    let six = |parity, number| Shape { layout: Layout::Parity(parity), level: 6, number: Some(number) };
    Some(match kind {
        "raid0" | "raid0_meta" => Shape { layout: Layout::Striped, level: 0, number: None },
        "raid1" => Shape { layout: Layout::Mirrored, level: 1, number: None },
        "raid10" | "raid10_near" => {
            let layout = Layout::Raid10 { near: copies, far: 1, spacing: FarSpacing::Far };
            Shape { layout, level: 10, number: Some(0x100 | u32::from(copies)) }
        }
        // The kernel makes a RAID 5 of it whose parity stays on the first leg.
        "raid4" => five(Parity::First, Some(4)),
        "raid5_n" => five(Parity::Last, Some(5)),
        "raid5_la" => five(Parity::LeftAsymmetric, Some(0)),
        "raid5_ra" => five(Parity::RightAsymmetric, Some(1)),
        "raid5" | "raid5_ls" => five(Parity::LeftSymmetric, Some(2)),
        "raid5_rs" => five(Parity::RightSymmetric, Some(3)),
        "raid6" | "raid6_zr" => six(Parity::ZeroRestart, 8),
        "raid6_nr" => six(Parity::NRestart, 9),
        "raid6_nc" => six(Parity::NContinue, 10),
        "raid6_la_6" => six(Parity::DoubleLast(LeftAsymmetric), 16),
        "raid6_ra_6" => six(Parity::DoubleLast(RightAsymmetric), 17),
        "raid6_ls_6" => six(Parity::DoubleLast(LeftSymmetric), 18),
        "raid6_rs_6" => six(Parity::DoubleLast(RightSymmetric), 19),
        "raid6_n_6" => six(Parity::DoubleN, 5),
        _ => return None,
    })
}

/// One leg as far as it could be read.
struct Leg {
    name: String,
    image: Mapping,
    /// `None` for types that keep no metadata; else the superblock, or why there is none.
    superblock: Option<Result<Option<Superblock>, String>>,
}

pub(crate) fn open(
    mapper: &Mapper<'_>,
    segment: &Segment,
    size: u64,
    notes: &mut Vec<String>,
    weight: &mut u64,
) -> Mapping {
    let copies = u8::try_from(segment.section.number("data_copies").unwrap_or(2)).unwrap_or(u8::MAX);
    let shape = shape(&segment.kind, copies)
        .ok_or_else(|| format!("segment type {} is not supported", segment.kind))?;
    let chunk_sectors = segment.section.number("stripe_size").unwrap_or(0);
    let chunk = if shape.layout == Layout::Mirrored { 0 } else { chunk_sectors.saturating_mul(512) };
    let mut legs = read_legs(mapper, segment, weight)?;
    let count = legs.len();
    if let Some(found) = legs.iter().filter_map(superblock).find(|found| found.unknown_features != 0) {
        return Err(format!(
            "incompat_features {:#x} of a dm-raid superblock are not supported",
            found.unknown_features
        ));
    }
    let newest = legs.iter().filter_map(superblock).max_by_key(|found| found.events).cloned();
    if let Some(newest) = &newest {
        check_shape(newest, &shape, count, chunk_sectors)?;
    } else if let Some(flag) = segment.flags.first() {
        return Err(format!("{flag}, and no superblock says how far it went"));
    }
    let has_metadata = legs.iter().any(|leg| leg.superblock.is_some());
    let is_in_sync = !has_metadata || newest.as_ref().is_some_and(|found| found.resync_offset == IN_SYNC);
    let mut members: Vec<Option<Device>> = Vec::new();
    for (index, leg) in legs.iter_mut().enumerate() {
        match member(leg, index, newest.as_ref()) {
            Ok(member) => members.push(Some(member)),
            Err(reason) => {
                notes.push(format!("leg {index} is not read: {reason}"));
                members.push(None);
            }
        }
    }
    // Without redundancy there is nothing to be in or out of sync with.
    if !is_in_sync && shape.level != 0 {
        let lost = members.iter().position(Option::is_none);
        match (lost, shape.layout) {
            // The kernel copies from the first leg.
            (Some(0), Layout::Mirrored) => return Err(out_of_sync(0, notes)),
            (_, Layout::Mirrored) => members.truncate(1),
            (Some(leg), _) => return Err(out_of_sync(leg, notes)),
            (None, _) => {}
        }
        notes.push("the legs were never all in sync".into());
    }
    // Parity that was never in sync must not be asked.
    let build =
        if is_in_sync || !matches!(shape.layout, Layout::Parity(_)) { array } else { array_out_of_sync };
    let is_whole = is_in_sync && members.iter().all(Option::is_some);
    let device = build(shape.layout, chunk, size, members).map_err(|error| {
        let reasons = notes.join("; ");
        if reasons.is_empty() { error.to_string() } else { format!("{error} ({reasons})") }
    })?;
    // A leg that comes back would not know, by its superblock, that it missed a write of ours.
    Ok(if is_whole { device } else { Arc::new(ReadOnly::new(device)) })
}

fn out_of_sync(leg: usize, notes: &[String]) -> String {
    format!("leg {leg} is needed, as the legs were never all in sync ({})", notes.join("; "))
}

fn superblock(leg: &Leg) -> Option<&Superblock> {
    leg.superblock.as_ref()?.as_ref().ok()?.as_ref()
}

fn read_legs(mapper: &Mapper<'_>, segment: &Segment, weight: &mut u64) -> Result<Vec<Leg>, String> {
    let mut legs = Vec::new();
    let mut targets = segment.targets.iter();
    while let Some(target) = targets.next() {
        // As lvm2 itself tells them apart.
        let (metadata, image) = if target.name.contains("_rmeta_") {
            (Some(target), targets.next().ok_or_else(|| format!("no image behind {}", target.name))?)
        } else {
            (None, target)
        };
        let superblock = metadata.map(|target| read_superblock(mapper, target));
        let below = mapper.real(&image.name);
        *weight = weight.saturating_add(below.weight);
        legs.push(Leg { name: image.name.clone(), image: below.device, superblock });
    }
    Ok(legs)
}

fn read_superblock(mapper: &Mapper<'_>, target: &MapTarget) -> Result<Option<Superblock>, String> {
    let below = mapper.real(&target.name);
    let device = below.device.map_err(|reason| format!("{}: {reason}", target.name))?;
    Superblock::read(device.as_ref()).map_err(|error| format!("{}: {error}", target.name))
}

/// Checks that the kernel left the array in the shape that the text describes.
fn check_shape(newest: &Superblock, shape: &Shape, legs: usize, chunk_sectors: u64) -> Result<(), String> {
    if newest.is_reshaping {
        return Err("a reshape is under way, which is not supported".into());
    }
    if newest.level != shape.level {
        let (found, expected) = (newest.level, shape.level);
        return Err(format!(
            "a takeover from RAID level {found} to {expected} is not done, which is not supported"
        ));
    }
    if usize::try_from(newest.legs).ok() != Some(legs) {
        return Err(format!("the superblocks know {} legs, the metadata text {legs}", newest.legs));
    }
    if shape.number.is_some_and(|number| newest.layout != number) {
        return Err(format!(
            "the superblocks have layout {}, which the segment type does not",
            newest.layout
        ));
    }
    if shape.layout != Layout::Mirrored
        && shape.level != 0
        && u64::from(newest.chunk_sectors) != chunk_sectors
    {
        let found = newest.chunk_sectors;
        return Err(format!(
            "the superblocks have chunks of {found} sectors, the metadata text {chunk_sectors}"
        ));
    }
    Ok(())
}

/// The bytes of a leg, if they may be believed.
fn member(leg: &Leg, index: usize, newest: Option<&Superblock>) -> Mapping {
    let image = leg.image.clone().map_err(|reason| format!("{}: {reason}", leg.name))?;
    let (Some(superblock), Some(newest)) = (&leg.superblock, newest) else { return Ok(image) };
    let Some(own) = superblock.as_ref().map_err(Clone::clone)? else {
        return Err(format!("{} is new and was never filled", leg.name));
    };
    if usize::try_from(own.position).ok() != Some(index) {
        return Err(format!("{} calls itself leg {}", leg.name, own.position));
    }
    if newest.has_failed(index) {
        return Err(format!("{} failed, say the superblocks of the others", leg.name));
    }
    // One update may have been interrupted; two were missed.
    if own.events.saturating_add(1) < newest.events {
        return Err(format!("{} is old: {} updates, the newest has {}", leg.name, own.events, newest.events));
    }
    if own.recovery_offset != IN_SYNC {
        return Err(format!("{} is rebuilt up to sector {} only", leg.name, own.recovery_offset));
    }
    if own.data_offset == 0 {
        return Ok(image);
    }
    let length = image.size().saturating_sub(own.data_offset);
    let slice = Slice::new(image, own.data_offset, length);
    Ok(Arc::new(slice.map_err(|error| format!("{}: {error}", leg.name))?))
}
