//! QEMU's format: clusters allocated on demand, backing files, compression, snapshots.
//!
//! QEMU docs/interop/qcow2. Versions 2 and 3.

mod check;
mod create;
mod encryption;
mod entry;
mod geometry;
mod header;
mod open;
mod reader;
mod refcounts;
mod rename;
mod snapshot;
mod writer;

pub use create::{CreateOptions, create};
pub use header::{Backing, Compression, Encryption, Extension, Header, RawHeader};
pub use snapshot::RawSnapshot;

pub(crate) use open::FORMAT;
