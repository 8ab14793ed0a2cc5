//! Faults in `/etc/fstab`.

pub mod unresolved_source;
pub mod unstable_device;
