//! Whole images: read, damaged, compared with what their makers say.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says what it skips")]

mod common;
mod corpus;
mod damage;
mod made;
mod mutation;
mod reading;
