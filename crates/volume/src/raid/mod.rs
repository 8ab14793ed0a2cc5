//! Arrays: one device over several, with or without redundancy.
//!
//! The layouts are those of Linux' md driver (`drivers/md/raid*.c`), which both md and LVM2's raid segments use.
//! What a member cannot give, because it is missing or fails to read, is made from the others where the layout
//! allows. Writing goes to every present member.

mod array;
mod gf256;
mod layout;
mod mirrored;
mod parity;
mod pieces;
mod placement;
mod raid10;
mod striped;

pub use array::{MAX_MEMBERS, array, array_out_of_sync};
pub use layout::{FarSpacing, Layout, Parity, Rotation};
