//! Faults in GRUB and its configuration.

pub mod boot_to_core;
pub mod cfg_missing;
pub mod cfg_search_stale;
pub mod cfg_syntax;
pub mod core_damaged;
pub mod core_lacks_module;
pub mod core_prefix_unresolvable;
pub mod default_unresolved;
pub mod entry_file_missing;
pub mod fs_unreadable;
pub mod modules_missing;
pub mod no_initrd;
