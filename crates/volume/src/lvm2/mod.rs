//! LVM2: physical volumes, the metadata they carry, and the logical volumes it describes.
//!
//! Facts from lvm2's `lib/format_text` and its man page lvmsystemid(7) family; on-disk integers are
//! little-endian. A volume group is a set: its physical volumes may lie on several disks.

mod group;
mod label;
mod map;
mod metadata_area;
mod text;

pub use group::{LogicalVolume, MapTarget, PvRef, Segment, VolumeGroup, assemble};
pub use label::{PhysicalVolume, read_pv};
pub use metadata_area::MetadataCopy;
