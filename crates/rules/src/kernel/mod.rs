//! Faults in the kernel.

pub mod bus_driver_unavailable;
pub mod image_invalid;
