//! Definitions of virtual machines: which disks one has, on which bus, in which order, and what starts it.
//!
//! [`libvirt`] reads domain XML, [`vmx`] what VMware writes. Both give the same [`Definition`]. What a definition names is
//! not opened here.

mod libvirt;
mod vmx;

use std::path::PathBuf;

use storage::{Bus, Firmware, Hardware, Slot};

pub use libvirt::libvirt;
pub use vmx::vmx;

/// Bytes of a definition; those of large machines are a hundredth of it.
pub const MAX_SIZE: usize = 4 << 20;

/// A machine as its definition describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Its name; empty when it has none.
    pub name: String,
    /// What starts it.
    pub firmware: Firmware,
    /// Its hard disks, in the order in which a kernel enumerates those of one kind.
    pub disks: Vec<Disk>,
    /// The disks that the firmware tries, by index, in this order; `None`: all, as listed.
    pub boots: Option<Vec<usize>>,
    /// What the boot rests on beside the disks, and what was left out.
    pub notes: Vec<String>,
}

/// A hard disk of a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The definition's name of it: `vda`, `scsi0:0`.
    pub name: String,
    /// Where its content is.
    pub source: Source,
    /// The format that the definition states, by QEMU's name.
    pub format: Option<String>,
    /// How it is attached.
    pub bus: Bus,
}

/// Where the content of a disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In this file or block device, as the definition writes it: perhaps relative to the definition.
    File(PathBuf),
    /// Somewhere else; in words.
    Elsewhere(String),
}

/// Why a definition was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Larger than [`MAX_SIZE`].
    #[error("the definition is larger than {MAX_SIZE} bytes")]
    TooLarge,
    /// Not XML.
    #[error("not well-formed XML: {0}")]
    Xml(String),
    /// XML, and no domain in it.
    #[error("no domain in this XML")]
    NoDomain,
    /// More disks than any machine has.
    #[error("the definition has more than 1024 disks")]
    TooManyDisks,
    /// VMX with its content encrypted.
    #[error("this VMX file is encrypted")]
    Encrypted,
    /// Not a VMX file.
    #[error("no line of this file is `key = \"value\"`")]
    NotVmx,
}

impl Definition {
    /// The machine; disk `n` of it is `disks[n]`.
    pub fn hardware(&self) -> Hardware {
        let slots =
            self.disks.iter().enumerate().map(|(index, disk)| Slot { bus: disk.bus, disk: Some(index) });
        Hardware {
            slots: slots.collect(),
            firmware: Some(self.firmware),
            boots: self.boots.clone(),
            is_clone: false,
        }
    }
}
