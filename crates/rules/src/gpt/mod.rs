//! Faults in a GUID partition table.

pub mod primary_invalid;
