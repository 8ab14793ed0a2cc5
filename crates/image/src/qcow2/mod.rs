//! QCOW2, versions 2 and 3.
//!
//! QEMU `docs/interop/qcow2.rst`. Big-endian. A guest cluster is found through two levels of tables; what is not
//! mapped is read from the backing file, or is zero. Every host cluster has a reference count.

mod create;
mod header;
mod read;
mod refcount;
mod table;
mod write;

pub use create::{Backing, Options, create};
pub use header::{Extension, Header};
pub use read::Qcow2;
