//! The old `mirror` segment type: legs, and a log of which regions are the same on all of them.
//!
//! Kernel `drivers/md/dm-log.c`. The kernel takes the first leg for the truth wherever the log calls a region
//! unclean, so the first leg is right everywhere; another one only where all is clean.

use blockdev::Device;
use ondisk::{le, read_bytes, read_value};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::group::Segment;
use super::map::{Mapper, Mapping};
use super::read_only::ReadOnly;

/// "MiRr".
const MAGIC: u32 = 0x4d69_5272;
/// First byte of the bits, one for each region, 1 where it is clean.
const BITS_START: u64 = 1024;
/// Bits that are read at once.
const MAX_BITS: u64 = 1 << 27;

/// The log's header as stored.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawLog {
    /// 0x0 0x4d695272.
    magic: le::U32,
    /// 0x4 2; 1 is the same with bits in the host's byte order.
    version: le::U32,
    /// 0x8 regions.
    nr_regions: le::U64,
}

pub(crate) fn open(
    mapper: &Mapper<'_>,
    segment: &Segment,
    size: u64,
    notes: &mut Vec<String>,
    weight: &mut u64,
) -> Mapping {
    let mut legs = segment.targets.iter();
    let first = legs.next().ok_or("a mirror without legs")?;
    let reason = match mapper.leg(first, size, weight) {
        Ok(leg) => return Ok(read_only(leg)),
        Err(reason) => reason,
    };
    if segment.section.number("extents_moved").is_some() {
        return Err(format!("{reason}, while its extents were being moved"));
    }
    let other = legs.find_map(|leg| Some((leg, mapper.leg(leg, size, weight).ok()?)));
    let Some((leg, other)) = other else { return Err(reason) };
    if segment.section.string("mirror_log").is_some() {
        let log = mapper.part(segment, "mirror_log", notes).map_err(|log| format!("{reason}; {log}"))?;
        let region = segment.section.number("region_size").unwrap_or(0).saturating_mul(512);
        let regions = size.div_ceil(region.max(512));
        is_clean(&log, regions).map_err(|found| format!("{reason}; {found}"))?;
        notes.push(format!("read from {}: {reason}", leg.name));
    } else {
        notes.push(format!("read from {}, which no log vouches for: {reason}", leg.name));
    }
    Ok(read_only(other))
}

/// Writing to one leg would make the others wrong.
fn read_only(leg: Device) -> Device {
    std::sync::Arc::new(ReadOnly::new(leg))
}

/// Whether every region is the same on all legs.
fn is_clean(log: &Device, regions: u64) -> Result<(), String> {
    let header: RawLog = read_value(log.as_ref(), 0).map_err(|error| error.to_string())?;
    if header.magic.get() != MAGIC || header.version.get() != 2 {
        return Err("the mirror log has no valid header".into());
    }
    if header.nr_regions.get() != regions || regions > MAX_BITS {
        return Err(format!("the mirror log is one of {} regions, expected {regions}", header.nr_regions));
    }
    let length = usize::try_from(regions.div_ceil(8)).unwrap_or(usize::MAX);
    let bits = read_bytes(log.as_ref(), BITS_START, length).map_err(|error| error.to_string())?;
    let is_set = |region: u64| {
        let byte = usize::try_from(region >> 3).ok().and_then(|index| bits.get(index));
        byte.is_some_and(|byte| byte >> (region & 7) & 1 == 1)
    };
    match (0..regions).find(|region| !is_set(*region)) {
        Some(region) => Err(format!("the mirror log calls region {region} not in sync")),
        None => Ok(()),
    }
}
