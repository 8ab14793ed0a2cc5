//! Faults in arrays of md.

pub mod conf_stale;
pub mod degraded_or_missing;
