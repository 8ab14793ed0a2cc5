//! Superblock: where the trees are, and the device it was read from.
//!
//! On-disk format documentation, "Superblock"; `struct btrfs_super_block`. Little-endian, 4096 bytes, at
//! 64 KiB, 64 MiB and 256 GiB of every device. The checksum covers everything behind itself.

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, Guid, Result, le, read_bytes};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::{self, Kind};
use crate::features::{self, incompat};
use crate::number::{index, wide};

const STRUCTURE: &str = "superblock";

/// Where the copies are, in bytes; the kernel mounts by the first alone.
pub(crate) const OFFSETS: [u64; 3] = [64 << 10, 64 << 20, 256 << 30];

const SIZE: usize = 4096;
const MAGIC: [u8; 8] = *b"_BHRfS_M";

/// `struct btrfs_dev_item`.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawDevice {
    pub(crate) devid: le::U64,        // 0x00
    pub(crate) total_bytes: le::U64,  // 0x08
    pub(crate) bytes_used: le::U64,   // 0x10
    pub(crate) io_align: le::U32,     // 0x18
    pub(crate) io_width: le::U32,     // 0x1c
    pub(crate) sector_size: le::U32,  // 0x20
    pub(crate) kind: le::U64,         // 0x24
    pub(crate) generation: le::U64,   // 0x2c
    pub(crate) start_offset: le::U64, // 0x34
    pub(crate) dev_group: le::U32,    // 0x3c
    pub(crate) seek_speed: u8,        // 0x40
    pub(crate) bandwidth: u8,         // 0x41
    pub(crate) uuid: [u8; 16],        // 0x42
    pub(crate) fsid: [u8; 16],        // 0x52
}
const _: () = assert!(size_of::<RawDevice>() == 98);

/// `struct btrfs_root_backup`: the roots of one of the last four commits.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawBackup {
    pub(crate) tree_root: le::U64,        // 0x00
    pub(crate) tree_root_gen: le::U64,    // 0x08
    pub(crate) chunk_root: le::U64,       // 0x10
    pub(crate) chunk_root_gen: le::U64,   // 0x18
    pub(crate) other_roots: [le::U64; 8], // 0x20
    pub(crate) sizes: [le::U64; 3],       // 0x60
    pub(crate) unused: [le::U64; 4],      // 0x78
    pub(crate) tree_root_level: u8,       // 0x98
    pub(crate) levels: [u8; 5],           // 0x99
    pub(crate) reserved: [u8; 10],        // 0x9e
}
const _: () = assert!(size_of::<RawBackup>() == 168);

/// The superblock as stored.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct RawSuperblock {
    pub(crate) csum: [u8; 32],                 // 0x000 of 0x020..0x1000
    pub(crate) fsid: [u8; 16],                 // 0x020 the one that users see
    pub(crate) bytenr: le::U64,                // 0x030 where this copy is
    pub(crate) flags: le::U64,                 // 0x038
    pub(crate) magic: [u8; 8],                 // 0x040 "_BHRfS_M"
    pub(crate) generation: le::U64,            // 0x048 of the last commit
    pub(crate) root: le::U64,                  // 0x050 logical
    pub(crate) chunk_root: le::U64,            // 0x058 logical
    pub(crate) log_root: le::U64,              // 0x060 logical, 0 for none
    pub(crate) log_root_transid: le::U64,      // 0x068
    pub(crate) total_bytes: le::U64,           // 0x070 of all devices
    pub(crate) bytes_used: le::U64,            // 0x078
    pub(crate) root_dir_objectid: le::U64,     // 0x080
    pub(crate) num_devices: le::U64,           // 0x088
    pub(crate) sectorsize: le::U32,            // 0x090 bytes
    pub(crate) nodesize: le::U32,              // 0x094 bytes
    pub(crate) leafsize: le::U32,              // 0x098
    pub(crate) stripesize: le::U32,            // 0x09c
    pub(crate) sys_chunk_array_size: le::U32,  // 0x0a0 bytes
    pub(crate) chunk_root_generation: le::U64, // 0x0a4
    pub(crate) compat_flags: le::U64,          // 0x0ac
    pub(crate) compat_ro_flags: le::U64,       // 0x0b4
    pub(crate) incompat_flags: le::U64,        // 0x0bc
    pub(crate) csum_type: le::U16,             // 0x0c4
    pub(crate) root_level: u8,                 // 0x0c6
    pub(crate) chunk_root_level: u8,           // 0x0c7
    pub(crate) log_root_level: u8,             // 0x0c8
    pub(crate) dev_item: RawDevice,            // 0x0c9 this device
    pub(crate) label: [u8; 256],               // 0x12b
    pub(crate) cache_generation: le::U64,      // 0x22b
    pub(crate) uuid_tree_generation: le::U64,  // 0x233
    pub(crate) metadata_uuid: [u8; 16],        // 0x23b in tree blocks, with `metadata_uuid`
    pub(crate) reserved: [u8; 224],            // 0x24b
    pub(crate) sys_chunk_array: [u8; 2048],    // 0x32b
    pub(crate) super_roots: [RawBackup; 4],    // 0xb2b
    pub(crate) padding: [u8; 565],             // 0xdcb
}
const _: () = assert!(size_of::<RawSuperblock>() == SIZE);

/// Where the root of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RootPlace {
    /// Logical.
    pub(crate) bytenr: u64,
    pub(crate) level: u8,
    pub(crate) generation: u64,
}

/// A superblock whose fields agree with each other.
#[derive(Debug, Clone)]
pub(crate) struct Superblock {
    pub(crate) checksum: Kind,
    /// The UUID that users see.
    pub(crate) fsid: Guid,
    /// The UUID that tree blocks carry.
    pub(crate) metadata_uuid: Guid,
    /// Without padding.
    pub(crate) label: Vec<u8>,
    pub(crate) generation: u64,
    pub(crate) root: RootPlace,
    pub(crate) chunk_root: RootPlace,
    /// Logical; 0 when there is no log tree.
    pub(crate) log_root: u64,
    /// Of all devices.
    pub(crate) total_bytes: u64,
    pub(crate) bytes_used: u64,
    pub(crate) root_dir: u64,
    pub(crate) device_count: u64,
    /// Bytes.
    pub(crate) sector_size: u32,
    /// Bytes.
    pub(crate) node_size: u32,
    pub(crate) devid: u64,
    pub(crate) device_uuid: Guid,
    /// Bytes that the file system takes of this device.
    pub(crate) device_size: u64,
    pub(crate) features: Vec<String>,
    pub(crate) system_chunks: Vec<u8>,
    /// Roots of the root tree of earlier commits, newest first.
    pub(crate) backups: Vec<RootPlace>,
}

/// One copy of the superblock and what became of it.
#[derive(Debug)]
pub struct SuperblockCopy {
    /// Where the copy is, in bytes.
    pub offset: u64,
    /// Its generation: how many commits led to it. An error says why the copy cannot be used.
    pub generation: Result<u64>,
}

/// Every copy that the device is large enough for, each with its verdict.
pub fn superblocks(device: &dyn BlockDevice) -> Vec<SuperblockCopy> {
    copies(device)
        .map(|(offset, copy)| SuperblockCopy { offset, generation: copy.map(|copy| copy.generation) })
        .collect()
}

fn copies(device: &dyn BlockDevice) -> impl Iterator<Item = (u64, Result<Superblock>)> {
    let end = device.size();
    OFFSETS
        .into_iter()
        .filter(move |offset| offset.saturating_add(wide(SIZE)) <= end)
        .map(|offset| (offset, Superblock::read(device, offset)))
}

/// What the first copy says before anything is checked; `None` when it is no btrfs superblock.
pub(crate) fn peek(device: &dyn BlockDevice) -> Result<Option<RawSuperblock>> {
    let [offset, ..] = OFFSETS;
    if device.size() < offset.saturating_add(wide(SIZE)) {
        return Ok(None);
    }
    let raw: RawSuperblock = ondisk::read_value(device, offset)?;
    // blkid takes a superblock for one only where it says it is.
    Ok((raw.magic == MAGIC && raw.bytenr.get() == offset).then_some(raw))
}

impl RawSuperblock {
    /// Without padding.
    pub(crate) fn label(&self) -> Vec<u8> {
        self.label.iter().copied().take_while(|byte| *byte != 0).collect()
    }
}

impl Superblock {
    /// The copy to go by: the first, or, where that is damaged, another with the damage of the first.
    pub(crate) fn read_best(device: &dyn BlockDevice, problems: &mut Vec<Error>) -> Result<Self> {
        let mut copies = copies(device);
        let first = match copies.next() {
            Some((_, Ok(first))) => {
                // The others are as old as the last commit that wrote them, which is the same one.
                for (offset, copy) in copies {
                    match copy {
                        Ok(copy) if copy.fsid == first.fsid && copy.generation != first.generation => {
                            let expected = format!("{} as in the first copy", first.generation);
                            problems.push(
                                Corrupt::new(STRUCTURE, offset, "generation", expected, copy.generation)
                                    .into(),
                            );
                        }
                        Ok(copy) if copy.fsid != first.fsid => {
                            let expected = format!("{} as in the first copy", first.fsid);
                            problems
                                .push(Corrupt::new(STRUCTURE, offset, "fsid", expected, copy.fsid).into());
                        }
                        Ok(_) => {}
                        Err(error) => problems.push(error),
                    }
                }
                return Ok(first);
            }
            Some((_, Err(error))) => error,
            None => {
                let [offset, ..] = OFFSETS;
                let expected = format!("more than {offset} bytes");
                return Err(Corrupt::new(STRUCTURE, offset, "device size", expected, device.size()).into());
            }
        };
        if matches!(first, Error::Unsupported { .. }) {
            return Err(first);
        }
        match copies.filter_map(|(_, copy)| copy.ok()).max_by_key(|copy| copy.generation) {
            Some(copy) => {
                problems.push(first);
                Ok(copy)
            }
            None => Err(first),
        }
    }

    pub(crate) fn read(device: &dyn BlockDevice, offset: u64) -> Result<Self> {
        let bytes = read_bytes(device, offset, SIZE)?;
        let raw = RawSuperblock::ref_from_bytes(&bytes)
            .unwrap_or_else(|_| unreachable!("the buffer was made as long as the layout"));
        Self::decode(raw, offset)
    }

    pub(crate) fn decode(raw: &RawSuperblock, offset: u64) -> Result<Self> {
        let corrupt =
            |field, expected: &str, found: String| Corrupt::new(STRUCTURE, offset, field, expected, found);
        if raw.magic != MAGIC {
            return Err(corrupt("magic", "_BHRfS_M", raw.magic.escape_ascii().to_string()).into());
        }
        let kind = raw.csum_type.get();
        let checksum = Kind::decode(kind)
            .ok_or_else(|| Error::unsupported(STRUCTURE, format!("the checksum type {kind}")))?;
        let computed = checksum.of(raw.as_bytes().get(checksum::RESERVED..).unwrap_or_default());
        if checksum.stored(&raw.csum) != Some(computed) {
            let stored = checksum.stored(&raw.csum).map(|sum| sum.to_string()).unwrap_or_default();
            return Err(corrupt("csum", &computed.to_string(), stored).into());
        }
        if raw.bytenr.get() != offset {
            return Err(corrupt("bytenr", &offset.to_string(), raw.bytenr.to_string()).into());
        }
        features::check_readable(raw.incompat_flags.get())?;
        let (sector_size, node_size) = (raw.sectorsize.get(), raw.nodesize.get());
        if !sector_size.is_power_of_two() || !(4096..=65536).contains(&sector_size) {
            let expected = "a power of two from 4096 to 65536";
            return Err(corrupt("sectorsize", expected, sector_size.to_string()).into());
        }
        if !node_size.is_power_of_two() || !(sector_size..=65536).contains(&node_size) {
            let expected = format!("a power of two from {sector_size} to 65536");
            return Err(corrupt("nodesize", &expected, node_size.to_string()).into());
        }
        for (field, level) in [
            ("root_level", raw.root_level),
            ("chunk_root_level", raw.chunk_root_level),
            ("log_root_level", raw.log_root_level),
        ] {
            if level > crate::node::MAX_LEVEL {
                return Err(corrupt(field, "0..=7", level.to_string()).into());
            }
        }
        let system_size = index(raw.sys_chunk_array_size.get());
        let system_chunks = raw
            .sys_chunk_array
            .get(..system_size)
            .ok_or_else(|| corrupt("sys_chunk_array_size", "at most 2048", system_size.to_string()))?;
        if raw.dev_item.fsid != raw.fsid && raw.dev_item.fsid != raw.metadata_uuid {
            let expected = Guid::from_bytes(raw.fsid).to_string();
            let found = Guid::from_bytes(raw.dev_item.fsid).to_string();
            return Err(corrupt("dev_item.fsid", &expected, found).into());
        }
        let incompat_flags = raw.incompat_flags.get();
        let has_metadata_uuid = incompat_flags & incompat::METADATA_UUID != 0;
        Ok(Self {
            checksum,
            fsid: Guid::from_bytes(raw.fsid),
            metadata_uuid: Guid::from_bytes(if has_metadata_uuid { raw.metadata_uuid } else { raw.fsid }),
            label: raw.label(),
            generation: raw.generation.get(),
            root: RootPlace {
                bytenr: raw.root.get(),
                level: raw.root_level,
                generation: raw.generation.get(),
            },
            chunk_root: RootPlace {
                bytenr: raw.chunk_root.get(),
                level: raw.chunk_root_level,
                generation: raw.chunk_root_generation.get(),
            },
            log_root: raw.log_root.get(),
            total_bytes: raw.total_bytes.get(),
            bytes_used: raw.bytes_used.get(),
            root_dir: raw.root_dir_objectid.get(),
            device_count: raw.num_devices.get(),
            sector_size,
            node_size,
            devid: raw.dev_item.devid.get(),
            device_uuid: Guid::from_bytes(raw.dev_item.uuid),
            device_size: raw.dev_item.total_bytes.get(),
            features: features::all(incompat_flags, raw.compat_ro_flags.get()),
            system_chunks: system_chunks.to_vec(),
            backups: backups(raw),
        })
    }
}

fn backups(raw: &RawSuperblock) -> Vec<RootPlace> {
    let mut found: Vec<RootPlace> = raw
        .super_roots
        .iter()
        .filter(|backup| {
            let generation = backup.tree_root_gen.get();
            backup.tree_root.get() != 0
                && (1..=raw.generation.get()).contains(&generation)
                && backup.tree_root_level <= crate::node::MAX_LEVEL
                && backup.tree_root.get() != raw.root.get()
        })
        .map(|backup| RootPlace {
            bytenr: backup.tree_root.get(),
            level: backup.tree_root_level,
            generation: backup.tree_root_gen.get(),
        })
        .collect();
    found.sort_by_key(|place| std::cmp::Reverse(place.generation));
    found
}
