//! Faults in `/etc/fstab`.

pub mod fstype_wrong;
pub mod unresolved_source;
pub mod unstable_device;
