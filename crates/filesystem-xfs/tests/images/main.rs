//! Whole images: read, replaced in, damaged.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says what it skips")]

mod common;
mod corpus;
mod log;
mod log_mutation;
mod mutation;
mod reading;
mod replacing;
