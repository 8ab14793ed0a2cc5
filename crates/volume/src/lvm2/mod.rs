//! LVM2: physical volumes, the metadata they carry, and the logical volumes it describes.
//!
//! Facts from lvm2's `lib/format_text` and its man page lvmsystemid(7) family; on-disk integers are
//! little-endian. A volume group is a set: its physical volumes may lie on several disks.

mod btree;
mod cache;
mod group;
mod history;
mod label;
mod map;
mod metadata_area;
mod mirror;
mod raid_legs;
mod raid_superblock;
mod read_only;
mod recover;
mod snapshot;
mod text;
mod thin;

pub use group::{
    CopyVerdict, LogicalVolume, MapTarget, MetadataCopy, PvRef, Role, Segment, VolumeGroup, assemble,
};
pub use history::{HistoryEntry, history, parse_backup};
pub use label::{Area, Extension, PhysicalVolume, read_pv};
pub use metadata_area::{MetadataArea, MetadataText, Place};
pub use recover::recover_pv;
