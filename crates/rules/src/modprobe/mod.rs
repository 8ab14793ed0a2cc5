//! Faults in what modules are loaded.

pub mod storage_blacklisted;
