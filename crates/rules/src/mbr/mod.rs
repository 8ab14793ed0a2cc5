//! Faults in the boot sector.

pub mod boot_code_unusable;
pub mod signature_missing;
