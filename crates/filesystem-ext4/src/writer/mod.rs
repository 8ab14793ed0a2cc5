//! Replacing the content of a file.
//!
//! Everything is read and decided before the first byte is written, so a refusal leaves no trace. What is
//! written is what a clean unmount would have left: no journal is involved.

pub(crate) mod allocator;
mod changes;
mod refusal;
mod replace;

pub(crate) use replace::replace;
