//! Disks in blocks of one size that one table of 32-bit entries finds: what VHD and VDI share.

mod check;
mod disk;
mod layout;
mod survey;
mod writer;

pub(crate) use check::check_table;
pub(crate) use disk::Disk;
pub(crate) use layout::{Bitmaps, BlockSize, Layout, Names, SECTOR};
pub(crate) use survey::{Survey, survey};
pub(crate) use writer::{Allocator, Writer};
