//! Faults of partitions.

pub mod out_of_bounds;
