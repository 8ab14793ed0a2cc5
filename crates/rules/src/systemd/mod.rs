//! Faults in systemd's configuration.

pub mod default_target_broken;
pub mod offline_update_loop;
pub mod unit_broken;
