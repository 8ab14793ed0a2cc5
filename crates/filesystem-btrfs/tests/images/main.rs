//! Whole images: read, damaged, and of several devices.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says what it skips")]

mod common;
mod corpus;
mod made;
mod mutation;
mod packed;
mod sets;
