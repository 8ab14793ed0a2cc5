//! Faults in LVM.

pub mod activation_disabled;
pub mod devices_file_excludes;
pub mod filter_excludes;
pub mod metadata_damaged;
pub mod pv_missing;
