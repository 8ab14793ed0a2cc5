//! Faults in what every program needs.

pub mod libs_missing;
pub mod mount_points_missing;
