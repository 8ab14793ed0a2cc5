//! Faults in encrypted devices.

pub mod crypttab_unresolved;
pub mod header_or_key;
