//! Lost partitions: what the superblocks on a disk say of where its partitions were.
//!
//! [`search`] reads all data of a disk once and lists what starts where, each with its evidence; [`propose`] makes a
//! table of it. Nothing is written. Things within an accepted thing (an image in a file, a volume of a group) are
//! marked and not proposed.
#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::as_conversions)
)]

mod candidate;
mod probe;
mod proposal;
mod search;

pub use candidate::{Candidate, Kind};
pub use proposal::{Proposal, Proposed, propose};
pub use search::{Progress, search};
