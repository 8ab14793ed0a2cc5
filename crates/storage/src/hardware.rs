//! The machine that presents the disks: buses and order.
//!
//! Kept apart from the disks because it is what a move, a host upgrade or one more disk changes.

use std::fmt;
use std::str::FromStr;

/// How a disk is attached, as far as it decides the name that the kernel gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bus {
    /// virtio-blk: `vda`.
    VirtioBlk,
    /// virtio-scsi: `sda`.
    VirtioScsi,
    /// AHCI: `sda`.
    Sata,
    /// PIIX IDE through libata: `sda`.
    Ide,
    /// NVMe: `nvme0n1`.
    Nvme,
    /// VMware's paravirtual SCSI: `sda`.
    Pvscsi,
    /// LSI Logic's parallel SCSI as VMware has it (53c1030, Fusion MPT): `sda`.
    Lsi,
    /// LSI Logic SAS 1068 (Fusion MPT): `sda`.
    LsiSas,
    /// LSI 53c895a, QEMU's `lsi` and libvirt's default for SCSI: `sda`.
    Lsi53c895a,
    /// LSI MegaRAID SAS 1078: `sda`.
    Megasas,
    /// BusLogic's parallel SCSI, of old VMware machines: `sda`.
    BusLogic,
    /// Hyper-V's storage on the VMBus, also behind what generation 1 calls IDE: `sda`.
    HyperV,
    /// Xen paravirtual: `xvda`.
    Xen,
}

impl Bus {
    /// Every bus, in the order that a table shows them.
    pub const ALL: [Self; 13] = [
        Self::VirtioBlk,
        Self::VirtioScsi,
        Self::Sata,
        Self::Ide,
        Self::Nvme,
        Self::Pvscsi,
        Self::Lsi,
        Self::LsiSas,
        Self::Lsi53c895a,
        Self::Megasas,
        Self::BusLogic,
        Self::HyperV,
        Self::Xen,
    ];

    /// The name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::VirtioBlk => "virtio-blk",
            Self::VirtioScsi => "virtio-scsi",
            Self::Sata => "sata",
            Self::Ide => "ide",
            Self::Nvme => "nvme",
            Self::Pvscsi => "pvscsi",
            Self::Lsi => "lsi",
            Self::LsiSas => "lsisas",
            Self::Lsi53c895a => "lsi53c895a",
            Self::Megasas => "megasas",
            Self::BusLogic => "buslogic",
            Self::HyperV => "hyperv",
            Self::Xen => "xen",
        }
    }

    /// The kernel's name of the disk with this index among those that share the naming scheme.
    pub fn disk_name(self, index: usize) -> String {
        match self {
            Self::VirtioBlk => format!("vd{}", letters(index)),
            Self::Nvme => format!("nvme{index}n1"),
            Self::Xen => format!("xvd{}", letters(index)),
            _ => format!("sd{}", letters(index)),
        }
    }

    /// The bus that a kernel name speaks of, if only one kind of bus gives such names.
    ///
    /// `sd` names do not say which SCSI-like bus it was; virtio-scsi stands for all of them, because only the
    /// name matters here.
    pub fn of_kernel_name(name: &str) -> Option<Self> {
        [("vd", Self::VirtioBlk), ("sd", Self::VirtioScsi), ("nvme", Self::Nvme), ("xvd", Self::Xen)]
            .into_iter()
            .find(|(prefix, _)| name.starts_with(prefix))
            .map(|(_, bus)| bus)
    }
}

impl fmt::Display for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Bus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "virtio" => Ok(Self::VirtioBlk),
            "scsi" => Ok(Self::VirtioScsi),
            _ => Self::ALL
                .into_iter()
                .find(|bus| bus.name() == text)
                .ok_or_else(|| format!("no such bus; one of {}", Self::ALL.map(Self::name).join(", "))),
        }
    }
}

/// `a`…`z`, `aa`…: the kernel's base-26 numbering without a zero digit.
fn letters(mut index: usize) -> String {
    let mut reversed = Vec::new();
    loop {
        reversed.push(b'a' + (index % 26) as u8);
        match (index / 26).checked_sub(1) {
            Some(next) => index = next,
            None => break,
        }
    }
    reversed.iter().rev().map(|byte| char::from(*byte)).collect()
}

/// One disk as the machine presents it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Its bus.
    pub bus: Bus,
    /// Which of the given disks; `None` is a further disk without partitions.
    pub disk: Option<usize>,
}

/// What starts the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Firmware {
    /// A PC BIOS: boot sectors.
    Bios,
    /// UEFI: programs on a FAT file system. Its memory of boot entries is empty, as after a clone.
    Uefi,
}

impl Firmware {
    /// The name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bios => "bios",
            Self::Uefi => "uefi",
        }
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Firmware {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = [Self::Bios, Self::Uefi].into_iter().find(|firmware| firmware.name() == text);
        found.ok_or_else(|| "no such firmware; bios or uefi".into())
    }
}

/// A machine: its disks in the order in which the kernel enumerates them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Hardware {
    /// In enumeration order.
    pub slots: Vec<Slot>,
    /// What starts it; `None` is what the disks are made for.
    pub firmware: Option<Firmware>,
    /// The disks that the firmware tries, in this order, and no others; `None`: every disk, as enumerated. A BIOS starts the first.
    pub boots: Option<Vec<usize>>,
    /// A copy of the machine that the disks come from: serial numbers, and names made of them, are others.
    pub is_clone: bool,
}

impl Hardware {
    /// `disks` disks on one bus, in the order given.
    pub fn new(bus: Bus, disks: usize) -> Self {
        let slots = (0..disks).map(|disk| Slot { bus, disk: Some(disk) }).collect();
        Self { slots, ..Self::default() }
    }

    /// The disks that the firmware tries, in its order.
    pub fn boot_order(&self) -> Vec<usize> {
        let present = || self.slots.iter().filter_map(|slot| slot.disk);
        match &self.boots {
            Some(order) => {
                order.iter().copied().filter(|disk| present().any(|there| there == *disk)).collect()
            }
            None => present().collect(),
        }
    }

    /// The drives as the firmware numbers them: those that it tries first. `None` is a further disk.
    pub fn drives(&self) -> Vec<Option<usize>> {
        let mut drives: Vec<Option<usize>> = self.slots.iter().map(|slot| slot.disk).collect();
        if let Some(order) = &self.boots {
            let place = |drive: &Option<usize>| order.iter().position(|disk| Some(*disk) == *drive);
            drives.sort_by_key(|drive| place(drive).unwrap_or(usize::MAX));
        }
        drives
    }

    /// The same with `count` further disks enumerated first, on the bus of the first disk.
    #[must_use]
    pub fn with_extra_first(&self, count: usize) -> Self {
        let bus = self.slots.first().map_or(Bus::VirtioBlk, |slot| slot.bus);
        let extra = std::iter::repeat_n(Slot { bus, disk: None }, count);
        Self { slots: extra.chain(self.slots.iter().copied()).collect(), ..self.clone() }
    }

    /// Each slot with the kernel name of its disk: `vda`.
    pub fn disk_names(&self) -> Vec<(String, Slot)> {
        let mut seen: Vec<(char, usize)> = Vec::new();
        self.slots
            .iter()
            .map(|slot| {
                let scheme = slot.bus.disk_name(0).chars().next().unwrap_or('?');
                let index = match seen.iter_mut().find(|(found, _)| *found == scheme) {
                    Some((_, count)) => {
                        *count += 1;
                        *count - 1
                    }
                    None => {
                        seen.push((scheme, 1));
                        0
                    }
                };
                (slot.bus.disk_name(index), *slot)
            })
            .collect()
    }
}

impl fmt::Display for Hardware {
    /// `virtio-blk: vda=disk0, vdb=disk1`, with `extra` for a further disk.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bus = None;
        for (index, (name, slot)) in self.disk_names().into_iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            f.write_str(separator)?;
            if bus != Some(slot.bus) {
                write!(f, "{}: ", slot.bus)?;
                bus = Some(slot.bus);
            }
            match slot.disk {
                Some(disk) => write!(f, "{name}=disk{disk}")?,
                None => write!(f, "{name}=extra")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_names() {
        let names: Vec<String> = [0, 25, 26, 27, 701, 702].map(letters).into();
        assert_eq!(names, ["a", "z", "aa", "ab", "zz", "aaa"]);
        assert_eq!(Bus::Nvme.disk_name(2), "nvme2n1");
        assert_eq!("scsi".parse(), Ok(Bus::VirtioScsi));
        assert!("floppy".parse::<Bus>().is_err());
        for bus in Bus::ALL {
            assert_eq!(bus.name().parse(), Ok(bus));
        }
        assert_eq!((Bus::Pvscsi.disk_name(0), Bus::Xen.disk_name(1)), ("sda".into(), "xvdb".into()));
    }

    #[test]
    fn firmware_tries_what_it_is_told_to() {
        let hardware = Hardware { boots: Some(vec![2, 0, 9]), ..Hardware::new(Bus::Sata, 3) };
        assert_eq!(hardware.boot_order(), [2, 0]);
        assert_eq!(hardware.with_extra_first(1).drives(), [Some(2), Some(0), None, Some(1)]);
        assert_eq!(Hardware::new(Bus::Sata, 2).with_extra_first(1).boot_order(), [0, 1]);
    }

    #[test]
    fn schemes_count_apart() {
        let mut hardware = Hardware::new(Bus::VirtioBlk, 2).with_extra_first(1);
        hardware.slots.push(Slot { bus: Bus::Sata, disk: Some(2) });
        hardware.slots.push(Slot { bus: Bus::VirtioScsi, disk: Some(3) });
        let names: Vec<String> = hardware.disk_names().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["vda", "vdb", "vdc", "sda", "sdb"]);
        assert_eq!(
            hardware.to_string(),
            "virtio-blk: vda=extra, vdb=disk0, vdc=disk1, sata: sda=disk2, virtio-scsi: sdb=disk3"
        );
    }
}
