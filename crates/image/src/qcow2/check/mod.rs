//! Examining every structure of a qcow2 file.
//!
//! Every reference to a host cluster is counted, by what refers to it; then the counts are held against those that
//! the image stores, and the flags that depend on them against both.

mod bitmaps;
mod counts;
mod flags;
mod refcounts;
mod run;
mod tables;

pub(super) use run::check;
