//! How far a guest would get on given hardware, and why it would stop there.
//!
//! A pure function of what is on the disks, what is installed, and the machine: [`Simulator`]. Every stage ends
//! in *pass*, *fail* or *unknown*; what was not examined is unknown, never a pass.

pub mod fstab;
pub mod grub;
mod grub_world;
mod lvm_conf;
mod lvm_devices;
mod mdadm_conf;
mod simulate;
mod stages;
mod systemd;
mod trace;
mod unit_name;

pub use simulate::Simulator;
pub use trace::{BootTrace, Cause, Evidence, Outcome, Stage, StageName, Verdict};
pub use unit_name::{unit_name, unit_name_from_path};
