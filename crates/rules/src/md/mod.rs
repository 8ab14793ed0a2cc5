//! Faults in arrays of md.

pub mod degraded_or_missing;
