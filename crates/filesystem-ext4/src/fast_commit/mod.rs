//! Making the changes that fast commits record.
//!
//! The names, contents and attributes that result are those that the kernel's own recovery shows. Where Linux
//! (6.18) leaves counts behind that do not agree with the rest - links of new directories and of their parents,
//! blocks of new directories and of files with an attribute block - these are right here, as e2fsck wants them.

mod apply;
mod bitmaps;
mod entries;

pub(crate) use apply::apply;
