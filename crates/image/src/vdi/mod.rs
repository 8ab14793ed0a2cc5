//! VirtualBox' own format: one table of blocks, nothing else.
//!
//! There is no specification but VirtualBox' and QEMU's sources. Version 1.1: dynamic and static images; a
//! differencing one only over a disk that the caller puts below, for the format does not name the parent's file.

mod check;
mod create;
mod header;
mod open;
mod slots;

pub use header::RawHeader;

pub(crate) use open::FORMAT;
