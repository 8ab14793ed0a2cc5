//! Faults in what every program needs.

pub mod libs_missing;
