//! One file per command, or family of commands.

pub(crate) mod check;
pub(crate) mod deliver;
pub(crate) mod explain;
pub(crate) mod fix;
pub(crate) mod image;
pub(crate) mod inspect;
pub(crate) mod look;
pub(crate) mod mount;
pub(crate) mod preflight;
pub(crate) mod simulate;
mod unopened;
