//! Looking inside from a rescue host: file systems and raw volumes as one read-only FUSE mount, without root.
//!
//! Below `fs` stands the tree of a file system, below `volumes` one file for each device. What the kernel asks
//! for is answered by position, so any number of readers may look at once.

mod export;
mod nodes;

pub use export::{Mounted, Unmounter, mount};
pub use nodes::Tree;
