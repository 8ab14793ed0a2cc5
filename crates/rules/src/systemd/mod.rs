//! Faults in systemd's configuration.

pub mod default_target_broken;
