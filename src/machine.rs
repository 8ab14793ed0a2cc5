//! The machines that a boot is followed on, as asked for on the command line.

use std::fmt;
use std::str::FromStr;

use guest::Guest;
use storage::{Bus, Firmware, Hardware, Slot};

/// A machine, relative to its definition, or to what the guest's own files speak of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// What a definition says of it; all else is a change to that.
    pub defined: Option<Hardware>,
    /// The bus of its disks; `None` is the defined one, else that which the guest's files speak of, else virtio-blk.
    pub bus: Option<Bus>,
    /// In which order its disks are enumerated.
    pub order: DiskOrder,
    /// What starts it; `None` is what its disks are made for.
    pub firmware: Option<Firmware>,
    /// Disks, by index, that are not attached.
    pub absent: Vec<usize>,
    /// Whether it is a copy: serial numbers are others.
    pub is_clone: bool,
}

/// The order of the disks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskOrder {
    /// This many further disks first, then those given, in their order.
    ExtraFirst(usize),
    /// Those given, by index, in this order.
    Permuted(Vec<usize>),
}

impl Default for DiskOrder {
    fn default() -> Self {
        Self::ExtraFirst(0)
    }
}

impl FromStr for DiskOrder {
    type Err = String;

    /// `+1`: one further disk first. `1,0`: the second disk given, then the first.
    fn from_str(text: &str) -> Result<Self, String> {
        let usage = || format!("{text:?} is neither +N (further disks first) nor a list such as 1,0");
        if let Some(count) = text.strip_prefix('+') {
            let count: usize = count.parse().map_err(|_| usage())?;
            return if count <= 25 {
                Ok(Self::ExtraFirst(count))
            } else {
                Err("at most 25 further disks".into())
            };
        }
        let order: Vec<usize> = text
            .split(',')
            .map(|index| index.trim().parse().map_err(|_| usage()))
            .collect::<Result<_, _>>()?;
        let mut sorted = order.clone();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() == order.len() { Ok(Self::Permuted(order)) } else { Err(usage()) }
    }
}

impl Machine {
    /// The machine as it stands.
    pub fn as_is() -> Self {
        Self::default()
    }

    /// The machine with one further disk enumerated first: the founding fault.
    pub fn reordered() -> Self {
        Self { order: DiskOrder::ExtraFirst(1), ..Self::default() }
    }

    /// The hardware that this is with `disks` disks, for `guest` where one was found.
    pub fn hardware(&self, guest: Option<&Guest>, disks: usize) -> Hardware {
        let mut hardware = match &self.defined {
            Some(defined) => defined.clone(),
            None => Hardware::new(guest.and_then(|guest| guest.bus).unwrap_or(Bus::VirtioBlk), disks),
        };
        if let Some(bus) = self.bus {
            hardware.slots.iter_mut().for_each(|slot| slot.bus = bus);
        }
        match &self.order {
            DiskOrder::ExtraFirst(count) => hardware = hardware.with_extra_first(*count),
            DiskOrder::Permuted(order) => {
                let place = |slot: &Slot| order.iter().position(|disk| Some(*disk) == slot.disk);
                // Another order is what the kernel meets; the firmware starts what it has started before.
                hardware.boots = Some(hardware.boot_order());
                hardware.slots.sort_by_key(|slot| place(slot).unwrap_or(usize::MAX));
            }
        }
        hardware.slots.retain(|slot| slot.disk.is_none_or(|disk| !self.absent.contains(&disk)));
        hardware.firmware = self.firmware.or(hardware.firmware);
        hardware.is_clone |= self.is_clone;
        hardware
    }
}

impl fmt::Display for Machine {
    /// "as it stands", "with an extra disk first, on nvme".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.order {
            DiskOrder::ExtraFirst(0) => f.write_str("as it stands")?,
            DiskOrder::ExtraFirst(1) => f.write_str("with an extra disk first")?,
            DiskOrder::ExtraFirst(count) => write!(f, "with {count} extra disks first")?,
            DiskOrder::Permuted(order) => write!(f, "with its disks in the order {order:?}")?,
        }
        for disk in &self.absent {
            write!(f, ", without disk{disk}")?;
        }
        if self.is_clone {
            f.write_str(", cloned")?;
        }
        if let Some(bus) = self.bus {
            write!(f, ", on {bus}")?;
        }
        match self.firmware {
            Some(firmware) => write!(f, ", with {firmware}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders() {
        assert_eq!("+1".parse(), Ok(DiskOrder::ExtraFirst(1)));
        assert_eq!("1,0".parse(), Ok(DiskOrder::Permuted(vec![1, 0])));
        for bad in ["", "+", "+99", "a", "0,0", "-1"] {
            assert!(bad.parse::<DiskOrder>().is_err(), "{bad}");
        }
    }
}
