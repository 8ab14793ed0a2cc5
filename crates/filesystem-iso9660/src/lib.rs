//! ISO 9660 with Rock Ridge and Joliet: a bounded reader.
//!
//! ECMA-119 (4th edition, 2019), the System Use Sharing Protocol (IEEE P1281) and Rock Ridge (IEEE P1282, drafts 1.12),
//! Joliet (Microsoft, 1995). Which tree is shown, and how names are, is what Linux' driver does without options
//! (`fs/isofs`). Numbers are stored in both byte orders; the little-endian one is read, as by Linux.
#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::as_conversions)
)]

mod descriptor;
mod field;
mod name;
mod number;
mod open;
mod read;
mod record;
mod system_use;
mod time;

use filesystem::Format;

/// ISO 9660 in the list of formats.
pub static FORMAT: Format =
    Format { name: "iso9660", probe: open::probe, open: open::open, replay: open::replay, set: None };
