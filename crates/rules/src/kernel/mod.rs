//! Faults in the kernel.

pub mod bus_driver_unavailable;
pub mod fs_feature_unsupported;
pub mod image_invalid;
pub mod modules_missing;
