//! Faults in LVM.

pub mod filter_excludes;
pub mod pv_missing;
