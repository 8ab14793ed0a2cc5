//! Faults in `/etc/fstab`.

pub mod fstype_wrong;
pub mod mountpoint_or_bind_invalid;
pub mod option_hazard;
pub mod root_mismatch;
pub mod swap_missing;
pub mod syntax;
pub mod unresolved_source;
pub mod unstable_device;
