//! Faults in what the kernel hands over to.

pub mod missing;
