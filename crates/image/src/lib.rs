//! Disk images as block devices.
//!
//! [`open`] guesses the format from the file's first bytes unless it is told, opens the backing chain through
//! the caller's [`Gate`], and never writes unless asked to. An image is hostile input: nothing it names is
//! opened that the gate does not allow, nothing is allocated for a length it merely claims.
#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::as_conversions)
)]

mod gate;
mod open;
pub mod qcow2;

pub use gate::{DenyAll, FolderGate, Gate, Refused, Request};
pub use open::{Error, Image, Layer, Mode, open, probe};
