//! The log: where it ends, and what the kernel would make of it.
//!
//! XFS Algorithms & Data Structures, "Journaling Log". A ring of 512-byte basic blocks, whatever the sector
//! size. The first word of every basic block is the number of the pass over the ring that wrote it, its
//! cycle, except in record headers, where it is the second word.

mod buffer;
mod create;
mod dquot;
mod finish;
mod head;
mod inode;
mod intent;
mod item;
mod metadata;
mod record;
mod recovery;
mod replay;
mod ring;
mod staging;
mod state;
mod transaction;

pub(crate) use replay::replay;
pub(crate) use state::{State, state, unfinished};
