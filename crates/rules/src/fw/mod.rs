//! Faults in what the firmware could start.

pub mod no_boot_path;
