//! Faults in file systems.

pub mod btrfs_incomplete;
pub mod wrong_type_or_missing;
