//! Faults in encrypted devices.

pub mod crypttab_unresolved;
