//! FAT12, FAT16 and FAT32: a bounded reader.
//!
//! Microsoft's FAT specification (fatgen103, 2000); names and case as Linux' vfat driver shows them with its default
//! options (`fs/fat`). Little-endian. There is no journal: what a boot loader sees is what the kernel sees.
#![cfg_attr(
    not(test),
    warn(clippy::arithmetic_side_effects, clippy::indexing_slicing, clippy::as_conversions)
)]

mod boot_sector;
mod code_page;
mod directory;
mod open;
mod read;
mod table;

use filesystem::Format;

/// FAT in the list of formats.
pub static FORMAT: Format =
    Format { name: "vfat", probe: open::probe, open: open::open, replay: open::replay, set: None };
