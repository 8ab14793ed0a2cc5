//! Boot sector: the sizes and places of everything else, kept twice.
//!
//! NTFS documentation of the Linux-NTFS project, "Boot sector"; `include/linux/ntfs` names. Little-endian. The
//! first sector of the volume; the copy is the sector after the last one that is counted.

use ondisk::{Corrupt, le};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::number::index;
use crate::span::{Checked, Span};

/// The boot sector as stored.
#[derive(Debug, Clone, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawBootSector {
    jump: [u8; 3],                 // 0x00
    oem_id: [u8; 8],               // 0x03 "NTFS    "
    bytes_per_sector: le::U16,     // 0x0b
    sectors_per_cluster: u8,       // 0x0d above 128: minus the binary logarithm
    unused: [u8; 26],              // 0x0e
    number_of_sectors: le::U64,    // 0x28 without the copy of the boot sector
    mft_lcn: le::U64,              // 0x30
    mftmirr_lcn: le::U64,          // 0x38
    clusters_per_mft_record: i8,   // 0x40 negative: minus the binary logarithm of the bytes
    reserved0: [u8; 3],            // 0x41
    clusters_per_index_record: i8, // 0x44 likewise
    reserved1: [u8; 3],            // 0x45
    volume_serial_number: le::U64, // 0x48
    checksum: le::U32,             // 0x50 not used
    bootstrap: [u8; 426],          // 0x54
    end_of_sector_marker: [u8; 2], // 0x1fe 55 aa
}
const _: () = assert!(size_of::<RawBootSector>() == 512);

/// The largest cluster that Windows makes.
const MAX_CLUSTER_LOG: u32 = 21;
/// MFT records and index blocks; Windows makes 1 KiB and 4 KiB.
const RECORD_SIZES: std::ops::RangeInclusive<u32> = 512..=64 << 10;

/// Sizes and places of a volume; all agree with each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// Logical sector in bytes, 256..=4096.
    pub(crate) sector_size: u32,
    /// Binary logarithm of the cluster in bytes, 8..=21.
    pub(crate) cluster_log: u32,
    /// Whole clusters of the volume.
    pub(crate) clusters: u64,
    /// Bytes without the copy of the boot sector.
    pub(crate) size: u64,
    /// MFT record in bytes.
    pub(crate) record_size: u32,
    /// First byte of the MFT.
    pub(crate) mft: u64,
    /// First byte of the copy of its first records.
    pub(crate) mft_mirror: u64,
    /// Serial number, which serves as the UUID.
    pub(crate) serial: u64,
}

impl Geometry {
    pub(crate) fn cluster_size(&self) -> u64 {
        1_u64.checked_shl(self.cluster_log).unwrap_or(1)
    }

    /// First byte of a cluster, if the volume has it.
    pub(crate) fn byte(&self, lcn: u64) -> Option<u64> {
        (lcn < self.clusters).then(|| lcn.checked_mul(self.cluster_size())).flatten()
    }

    /// Length of `count` clusters, saturating.
    pub(crate) fn bytes(&self, count: u64) -> u64 {
        count.saturating_mul(self.cluster_size())
    }

    /// Where the copy of the boot sector is, by the number of sectors.
    pub(crate) fn backup(&self) -> u64 {
        self.size
    }

    /// The serial number as `blkid` spells it.
    pub(crate) fn uuid(&self) -> String {
        format!("{:016X}", self.serial)
    }

    /// Judges the boot sector read from byte `offset`.
    pub(crate) fn decode(raw: &RawBootSector, offset: u64) -> Checked<Self> {
        let span = Span::new("NTFS boot sector", offset, &[]);
        check_signature(raw, &span)?;
        let sector_size = sector_size(raw, &span)?;
        let cluster_log = cluster_log(raw, sector_size, &span)?;
        let size = volume_size(raw, sector_size, &span)?;
        let clusters = size >> cluster_log;
        let place = |field, lcn: u64| {
            if lcn == 0 || lcn >= clusters {
                return Err(span.corrupt(field, format_args!("a cluster in 1..{clusters}"), lcn));
            }
            Ok(lcn << cluster_log)
        };
        let record_size = record_size(raw.clusters_per_mft_record, cluster_log).map_err(|found| {
            span.corrupt("clusters_per_mft_record", "a power of two of 512..=65536 bytes", found)
        })?;
        record_size_of_index(raw, cluster_log, &span)?;
        Ok(Self {
            sector_size,
            cluster_log,
            clusters,
            size,
            record_size,
            mft: place("mft_lcn", raw.mft_lcn.get())?,
            mft_mirror: place("mftmirr_lcn", raw.mftmirr_lcn.get())?,
            serial: raw.volume_serial_number.get(),
        })
    }
}

/// Whether this claims to be NTFS at all.
pub(crate) fn is_ntfs(raw: &RawBootSector) -> bool {
    raw.oem_id == *b"NTFS    "
}

fn check_signature(raw: &RawBootSector, span: &Span<'_>) -> Checked<()> {
    if !is_ntfs(raw) {
        return Err(span.corrupt("oem_id", "NTFS", raw.oem_id.escape_ascii()));
    }
    if raw.end_of_sector_marker != [0x55, 0xaa] {
        let [first, second] = raw.end_of_sector_marker;
        return Err(span.corrupt("end_of_sector_marker", "55 aa", format_args!("{first:02x} {second:02x}")));
    }
    Ok(())
}

fn sector_size(raw: &RawBootSector, span: &Span<'_>) -> Checked<u32> {
    let size = u32::from(raw.bytes_per_sector.get());
    match size {
        256 | 512 | 1024 | 2048 | 4096 => Ok(size),
        _ => Err(span.corrupt("bytes_per_sector", "256, 512, 1024, 2048 or 4096", size)),
    }
}

fn cluster_log(raw: &RawBootSector, sector_size: u32, span: &Span<'_>) -> Checked<u32> {
    let wrong = || {
        let expected = "a power of two that makes a cluster of at most 2 MiB";
        span.corrupt("sectors_per_cluster", expected, raw.sectors_per_cluster)
    };
    let sectors_log = match raw.sectors_per_cluster {
        count @ 1..=128 if count.is_power_of_two() => count.trailing_zeros(),
        // 0xf4..=0xff: the negative logarithm, as Windows 10 writes it for large clusters.
        count @ 129.. => u32::from(count.wrapping_neg()),
        _ => return Err(wrong()),
    };
    let log = sector_size.trailing_zeros().saturating_add(sectors_log);
    if log <= MAX_CLUSTER_LOG { Ok(log) } else { Err(wrong()) }
}

fn volume_size(raw: &RawBootSector, sector_size: u32, span: &Span<'_>) -> Checked<u64> {
    let sectors = raw.number_of_sectors.get();
    sectors
        .checked_mul(u64::from(sector_size))
        .filter(|size| *size > 0 && *size <= 1 << 62)
        .ok_or_else(|| span.corrupt("number_of_sectors", "a size of 1..=2^62 bytes", sectors))
}

fn record_size(stored: i8, cluster_log: u32) -> Result<u32, i8> {
    let size = if stored > 0 {
        1_u32.checked_shl(cluster_log).and_then(|size| size.checked_mul(u32::from(stored.unsigned_abs())))
    } else {
        1_u32.checked_shl(u32::from(stored.unsigned_abs()))
    };
    size.filter(|size| size.is_power_of_two() && RECORD_SIZES.contains(size)).ok_or(stored)
}

fn record_size_of_index(raw: &RawBootSector, cluster_log: u32, span: &Span<'_>) -> Checked<u32> {
    record_size(raw.clusters_per_index_record, cluster_log).map_err(|found| {
        span.corrupt("clusters_per_index_record", "a power of two of 512..=65536 bytes", found)
    })
}

/// The first byte in which two boot sectors differ.
pub(crate) fn difference(primary: &[u8], backup: &[u8], offset: u64) -> Option<Corrupt> {
    let at = primary.iter().zip(backup).position(|(one, other)| one != other)?;
    let byte = |bytes: &[u8]| bytes.get(at).copied().unwrap_or_default();
    Some(Corrupt::new(
        "copy of the NTFS boot sector",
        offset,
        "content",
        format_args!("the boot sector's {:#04x} at byte {at}", byte(primary)),
        format_args!("{:#04x}", byte(backup)),
    ))
}

/// Length in bytes.
pub(crate) const LENGTH: usize = size_of::<RawBootSector>();

/// Whether a device of `present` bytes holds the volume and the copy of its boot sector.
pub(crate) fn shorter_device(geometry: &Geometry, present: u64) -> Option<Corrupt> {
    (geometry.size > present).then(|| {
        let expected = format!("at most the device's {present} bytes");
        let found = format!("{} bytes", geometry.size);
        Corrupt::new("NTFS boot sector", 0, "number_of_sectors", expected, found)
    })
}

/// Where copies are sought when the first sector is not one: the end of the device.
pub(crate) fn places_of_copies(device_size: u64) -> impl Iterator<Item = u64> {
    [512, 4096, 1024, 2048].into_iter().filter_map(move |length| device_size.checked_sub(length))
}

const _: () = assert!(LENGTH == 512);

/// Bytes that the boot sector and its copy have in common: a sector, but not what follows the boot sector.
pub(crate) fn length_of_copy(geometry: &Geometry) -> usize {
    index(geometry.sector_size).min(LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first 84 bytes that mkntfs 2022.10.3 wrote for `-s 512 -c 4096` on 8 MiB.
    fn good() -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[..11].copy_from_slice(b"\xeb\x52\x90NTFS    ");
        bytes[0x0b..0x0e].copy_from_slice(&[0, 2, 8]);
        bytes[0x15] = 0xf8;
        bytes[0x28..0x30].copy_from_slice(&16383_u64.to_le_bytes());
        bytes[0x30] = 4;
        bytes[0x38..0x3a].copy_from_slice(&1023_u16.to_le_bytes());
        bytes[0x40] = 0xf6;
        bytes[0x44] = 1;
        bytes[0x48..0x50].copy_from_slice(&0x0123_4567_89ab_cdef_u64.to_le_bytes());
        bytes[510..].copy_from_slice(&[0x55, 0xaa]);
        bytes
    }

    fn decode(bytes: &[u8]) -> Checked<Geometry> {
        Geometry::decode(&RawBootSector::read_from_bytes(bytes).unwrap(), 0)
    }

    #[test]
    fn decodes() {
        let geometry = decode(&good()).unwrap();
        assert_eq!(geometry.cluster_size(), 4096);
        assert_eq!((geometry.record_size, geometry.mft, geometry.clusters), (1024, 16384, 2047));
        assert_eq!(geometry.uuid(), "0123456789ABCDEF");
        assert_eq!(geometry.byte(2046), Some(2046 * 4096));
        assert_eq!(geometry.byte(2047), None);
    }

    #[test]
    fn one_field_wrong() {
        for (at, value, field) in [
            (3, b'X', "oem_id"),
            (0x0c, 3, "bytes_per_sector"),
            (0x0d, 3, "sectors_per_cluster"),
            (0x0d, 0, "sectors_per_cluster"),
            (0x0d, 0xf3, "sectors_per_cluster"),
            (0x2f, 0x80, "number_of_sectors"),
            (0x31, 0xff, "mft_lcn"),
            (0x30, 0, "mft_lcn"),
            (0x3a, 1, "mftmirr_lcn"),
            (0x40, 0, "clusters_per_mft_record"),
            (0x40, 0x80, "clusters_per_mft_record"),
            (0x40, 3, "clusters_per_mft_record"),
            (0x44, 0xe0, "clusters_per_index_record"),
            (511, 0, "end_of_sector_marker"),
        ] {
            let mut bytes = good();
            bytes[at] = value;
            assert_eq!(decode(&bytes).unwrap_err().field, field, "byte {at:#x} = {value:#x}");
        }
    }

    #[test]
    fn clusters_of_2_mib() {
        let mut bytes = good();
        bytes[0x0d] = 0xf4;
        bytes[0x30..0x40].fill(0);
        (bytes[0x30], bytes[0x38], bytes[0x44]) = (1, 2, 0xf4);
        assert_eq!(decode(&bytes).unwrap().cluster_size(), 2 << 20);
    }

    #[test]
    fn copies_differ() {
        let good = good();
        let mut copy = good.clone();
        assert_eq!(difference(&good, &copy, 9), None);
        copy[0x48] ^= 1;
        assert_eq!(
            difference(&good, &copy, 9).unwrap().to_string(),
            "copy of the NTFS boot sector at byte 9: content is 0xee, expected the boot sector's 0xef at byte 72"
        );
    }
}
