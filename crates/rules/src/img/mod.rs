//! Faults in disk images.

pub mod chain_broken;
pub mod corrupt_flag;
pub mod format_vs_definition;
