//! The systems installed on the disks.
//!
//! A root file system is known by its content, never by its place. Its tree is offered as the guest sees it:
//! the file systems that its fstab mounts are joined, symlinks are resolved inside, never on the host.

mod cloud_init;
mod inspect;
mod joined;
mod model;
mod reader;
mod settings;
mod timeouts;

pub use cloud_init::{CloudInit, Datasources};
pub use inspect::inspect;
pub use joined::JoinedFs;
pub use model::{ConfigFile, Guest, Mount, SharedFs};
pub use settings::{DefaultTarget, Kernel, Mdadm, Settings, settings};
pub use timeouts::time_span;
