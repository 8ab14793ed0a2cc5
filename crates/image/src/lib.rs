//! Disk images as block devices.
//!
//! [`open`] turns a file into the disk that it holds, with a description of every layer it is made of.
//! Formats are recognised by content unless the caller names one. Files that an image names (a backing file,
//! an external data file) are opened only through the caller's [`Gate`].

#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::as_conversions)
)]

mod arithmetic;
mod blocks;
mod cache;
mod create;
mod decompress;
mod error;
mod format;
mod gate;
mod layer;
mod open;
mod ova;
mod problems;
pub mod qcow2;
mod raw;
mod report;
mod staging;
pub mod vdi;
pub mod vhd;
pub mod vhdx;
pub mod vmdk;

pub use create::{NewImage, create};
pub use error::{Error, Result};
pub use format::{Head, ImageFormat, Stream};
pub use gate::{Allowed, DenyAll, FolderGate, Gate, Refusal, Request, Role};
pub use layer::{Layer, LayerDisk, OwnContent, OwnRun, ParentLink, Snapshot};
pub use open::{Image, Mode, Options, chain, check, check_device, open, open_device, rename_parent};
pub use ova::members;
pub use report::{Patch, Problem, Repair, Report, Severity};
pub use staging::{StagedFile, Staging};

/// Every format that can be opened, in probing order. `raw` accepts anything, so it is last.
pub static FORMATS: &[&ImageFormat] =
    &[&qcow2::FORMAT, &vmdk::FORMAT, &vhdx::FORMAT, &vhd::FORMAT, &vdi::FORMAT, &ova::FORMAT, &raw::FORMAT];

/// The format with this name, ours or QEMU's.
///
/// # Errors
/// [`Error::UnknownFormat`], which lists the names that exist.
pub fn format_named(name: &str) -> Result<&'static ImageFormat> {
    FORMATS
        .iter()
        .copied()
        .find(|format| format.name == name || format.qemu_name == name)
        .ok_or_else(|| Error::UnknownFormat { name: name.to_owned() })
}
