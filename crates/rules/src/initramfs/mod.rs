//! Faults in the initramfs.

pub mod compression_unsupported;
pub mod corrupt;
pub mod missing_driver;
pub mod root_stack_missing;
pub mod stale_wait_device;
