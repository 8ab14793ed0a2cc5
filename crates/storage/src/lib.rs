//! What is on the disks: probed and stacked until nothing is new.
//!
//! [`discover`] turns disks into a graph of nodes: disk → partition → physical volume → logical volume → file
//! system. [`Hardware`] is separate from the disks: it says on which bus and in which order a machine presents
//! them, and [`DeviceNames`] which name under `/dev` then leads to which node.

mod discover;
mod graph;
mod hardware;
pub mod lost;
mod names;
mod signature;

pub use discover::{FILESYSTEMS, discover};
pub use filesystem_ext4::preen::Preen as BootCheck;
pub use graph::{Content, Encrypted, FoundArray, Node, NodeId, NodeKind, Presence, Storage, View, Views};
pub use hardware::{Bus, Firmware, Hardware, Slot};
pub use names::{DeviceNames, Target, depends_on_machine, is_unstable_name, kernel_disk_name, udev_node};
pub use signature::{Signature, Usage};
