//! Devices made of devices: partitions of a disk, logical volumes of a group.
//!
//! Everything that is stored twice is read twice; what disagrees is a problem in the result, beside the value
//! that a Linux kernel would use.
#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::as_conversions)
)]

pub mod gpt;
pub mod lvm2;
pub mod mbr;
pub mod md;
pub mod raid;
mod table;

pub use table::{Partition, Table, TableKind, read_table};
