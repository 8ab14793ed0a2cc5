//! Faults on the EFI system partition.

pub mod loader_pair_broken;
pub mod no_fallback_loader;
