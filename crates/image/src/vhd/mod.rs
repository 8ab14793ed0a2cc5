//! The format of Connectix and Microsoft Virtual PC, then Hyper-V and Azure; `vpc` to QEMU.
//!
//! Microsoft "Virtual Hard Disk Image Format Specification" 1.0. Fixed, dynamic and differencing disks.

mod check;
mod create;
mod footer;
mod geometry;
mod header;
mod open;
mod parent;
mod rename;
mod room;

pub use footer::RawFooter;
pub use header::{RawHeader, RawLocator};

pub(crate) use open::FORMAT;
