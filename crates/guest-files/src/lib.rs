//! The configuration files of a guest, as documents that lose nothing.
//!
//! A document owns its bytes and a list of spans; typed views read the spans; an [`Edit`] replaces one span and
//! nothing else. Any bytes can be parsed, and `parse(bytes).to_bytes() == bytes`: a line that is not
//! understood is kept, never dropped. Files that nobody edits are plain values with their lines. Nothing here does I/O.

pub mod bls;
pub mod cloud_cfg;
pub mod crypttab;
mod edit;
pub mod fstab;
pub mod grub_cfg;
pub mod grub_default;
pub mod grubenv;
pub mod mdadm_conf;
pub mod os_release;
pub mod shell_conf;
pub mod unit_file;

pub use edit::{Edit, EditError, apply};
