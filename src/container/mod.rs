//! The container around a disk: mending its own structures, finding its parents, converting it.
//!
//! As with the guest, nothing is written but overlays until the result was examined again.

pub mod candidates;
pub mod convert;
pub mod map;
pub mod mend;
pub mod rebase;
pub mod victims;
