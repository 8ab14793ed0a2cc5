//! Faults in SELinux.

pub mod config_invalid;
