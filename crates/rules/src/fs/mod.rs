//! Faults in file systems.

pub mod btrfs_incomplete;
pub mod ext4_errors;
pub mod wrong_type_or_missing;
pub mod xfs_corrupt;
