//! Changing a file system in place.
//!
//! Nothing here is journalled: the log is clean and stays so, and the device below is an overlay until the
//! result was verified. Every change is planned in memory first, so a refusal leaves the device as it was.

mod allocation_group;
mod btree;
mod free_list;
mod free_space;
mod replace;
mod sharing;
mod staging;
