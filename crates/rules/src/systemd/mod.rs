//! Faults in systemd's configuration.

pub mod default_target_broken;
pub mod unit_broken;
