//! Faults on the kernel command line.

pub mod debug_leftover;
pub mod rd_device_missing;
pub mod resume_stale;
pub mod root_bare_device;
pub mod root_unresolved;
