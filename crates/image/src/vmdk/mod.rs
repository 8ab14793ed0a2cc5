//! VMware's format: a text that names extents, and extents that are flat, sparse or compressed.
//!
//! VMware Virtual Disk Format 5.0, and for seSparse what other readers found out. Every variant is read; sparse and flat
//! ones of hosted products are written.

mod check;
mod cid;
mod compare;
mod copies;
mod cowd;
mod create;
mod descriptor;
mod disk;
mod examine;
mod grains;
mod header;
mod names;
mod open;
mod rename;
mod sesparse;
mod space;
mod sparse;
mod stream;
mod stream_writer;
mod tables;
mod writer;

pub use stream_writer::{StreamSummary, write_stream_optimized};

pub(crate) use open::FORMAT;
