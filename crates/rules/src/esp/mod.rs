//! Faults on the EFI system partition.

pub mod fallback_csv_broken;
pub mod fs_damaged_or_full;
pub mod loader_pair_broken;
pub mod no_fallback_loader;
