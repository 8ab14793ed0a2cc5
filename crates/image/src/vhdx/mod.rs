//! Hyper-V's format: blocks allocated on demand, differencing chains, a log for every change of metadata.
//!
//! MS-VHDX. Little-endian. Version 1, which is the only one.

mod bat;
mod bitmap;
mod blocks;
mod check;
mod create;
mod file_type;
mod geometry;
mod guid;
mod header;
mod log;
mod log_entry;
mod metadata;
mod open;
mod parent_locator;
mod reader;
mod region;
mod rename;
mod replayed;
mod session;
mod space;
mod structures;
mod writer;

pub use create::{CreateOptions, Parent, create};

pub(crate) use open::FORMAT;
