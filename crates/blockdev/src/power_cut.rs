//! Devices whose power fails at a chosen write.
//!
//! Between two flushes a disk may keep, lose or tear any write. These devices hold back the writes since their
//! last flush and, when the power fails, let through the ones the test chooses. Several devices may share one
//! [`Power`]: a commit that writes an image and its journal is cut in both at once. A writer that is safe for
//! every step and every choice does not depend on luck.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{BlockDevice, BlockDeviceMut, Device, check_range};

/// Which of the writes since the last flush reach the device below when the power fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survivors {
    /// All before the cut; the cut write itself is lost.
    All,
    /// None of them.
    None,
    /// The first, third, fifth…; the cut write itself is torn: of its sectors, the first half arrives.
    EveryOther,
    /// The second, fourth, sixth…; the cut write itself is lost. Catches a pointer that overtakes what it
    /// points to.
    TheOthers,
}

/// What several devices hang on.
#[derive(Debug)]
pub struct Power {
    survivors: Survivors,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Writes, growths and flushes left before the cut.
    left: u64,
    is_cut: bool,
    /// In order, of all devices.
    pending: Vec<Write>,
}

#[derive(Debug)]
struct Write {
    to: Device,
    offset: u64,
    bytes: Vec<u8>,
}

impl Power {
    /// Lets `steps` writes, growths and flushes succeed; the next one cuts the power.
    pub fn new(steps: u64, survivors: Survivors) -> Arc<Self> {
        let state = State { left: steps, is_cut: false, pending: Vec::new() };
        Arc::new(Self { survivors, state: Mutex::new(state) })
    }

    /// Whether the power has failed.
    pub fn is_cut(&self) -> bool {
        self.lock().is_cut
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one step; at the cut, settles what was pending and fails.
    fn step(&self, state: &mut State, torn: Option<(&Device, u64, &[u8])>) -> io::Result<()> {
        if !state.is_cut && state.left > 0 {
            state.left -= 1;
            return Ok(());
        }
        if !state.is_cut {
            state.is_cut = true;
            for (number, write) in std::mem::take(&mut state.pending).iter().enumerate() {
                let survives = match self.survivors {
                    Survivors::All => true,
                    Survivors::None => false,
                    Survivors::EveryOther => number % 2 == 0,
                    Survivors::TheOthers => number % 2 == 1,
                };
                if survives {
                    arrive(&write.to, write.offset, &write.bytes)?;
                }
            }
            if let (Survivors::EveryOther, Some((device, offset, bytes))) = (self.survivors, torn) {
                // A disk writes a sector of 512 bytes whole or not at all.
                let end = (offset + bytes.len() as u64 / 2) & !511;
                arrive(device, offset, &bytes[..end.saturating_sub(offset) as usize])?;
            }
        }
        Err(failed())
    }
}

fn failed() -> io::Error {
    io::Error::other("the power failed")
}

fn arrive(device: &Device, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let device = crate::writable(device)?;
    device.grow(offset + bytes.len() as u64)?;
    device.write_all_at(bytes, offset)
}

/// Passes writes on to another device until the power fails; every later call fails.
#[derive(Debug)]
pub struct PowerCut {
    inner: Device,
    power: Arc<Power>,
    /// Length in bytes that this device shows.
    size: Mutex<u64>,
}

impl PowerCut {
    /// A device with a power supply of its own; see [`Power::new`].
    pub fn new(inner: Device, steps: u64, survivors: Survivors) -> Self {
        Self::with_power(inner, Power::new(steps, survivors))
    }

    /// A device on a shared power supply.
    pub fn with_power(inner: Device, power: Arc<Power>) -> Self {
        let size = Mutex::new(inner.size());
        Self { inner, power, size }
    }

    /// Whether the power has failed.
    pub fn is_cut(&self) -> bool {
        self.power.is_cut()
    }
}

impl BlockDevice for PowerCut {
    fn size(&self) -> u64 {
        *self.size.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sector_size(&self) -> u32 {
        self.inner.sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.power.lock();
        if state.is_cut {
            return Err(failed());
        }
        check_range(self.size(), offset, buf.len() as u64)?;
        buf.fill(0);
        let below = self.inner.size().saturating_sub(offset).min(buf.len() as u64) as usize;
        if below > 0 {
            self.inner.read_exact_at(&mut buf[..below], offset)?;
        }
        let end = offset + buf.len() as u64;
        for write in state.pending.iter().filter(|write| Arc::ptr_eq(&write.to, &self.inner)) {
            let from = write.offset.max(offset);
            let to = (write.offset + write.bytes.len() as u64).min(end);
            if from < to {
                buf[(from - offset) as usize..(to - offset) as usize].copy_from_slice(
                    &write.bytes[(from - write.offset) as usize..(to - write.offset) as usize],
                );
            }
        }
        Ok(())
    }

    fn writable(&self) -> Option<&dyn BlockDeviceMut> {
        Some(self)
    }
}

impl BlockDeviceMut for PowerCut {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        check_range(self.size(), offset, buf.len() as u64)?;
        let mut state = self.power.lock();
        self.power.step(&mut state, Some((&self.inner, offset, buf)))?;
        state.pending.push(Write { to: self.inner.clone(), offset, bytes: buf.to_vec() });
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut state = self.power.lock();
        self.power.step(&mut state, None)?;
        crate::writable(&self.inner)?.grow(self.size())?;
        let (mine, others) = std::mem::take(&mut state.pending)
            .into_iter()
            .partition(|write| Arc::ptr_eq(&write.to, &self.inner));
        state.pending = others;
        let mine: Vec<Write> = mine;
        for write in mine {
            arrive(&write.to, write.offset, &write.bytes)?;
        }
        crate::writable(&self.inner)?.flush()
    }

    fn grow(&self, size: u64) -> io::Result<()> {
        let mut state = self.power.lock();
        self.power.step(&mut state, None)?;
        let mut shown = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        *shown = size.max(*shown);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryDevice;

    fn after(steps: u64, survivors: Survivors) -> Vec<u8> {
        let disk = Arc::new(MemoryDevice::new(vec![0; 4]));
        let device = PowerCut::new(disk.clone(), steps, survivors);
        let run = || {
            device.write_all_at(&[1], 0)?;
            device.flush()?;
            device.write_all_at(&[2], 1)?;
            device.write_all_at(&[3], 2)?;
            device.write_all_at(&[4, 4], 2)
        };
        assert_eq!(run().is_err(), device.is_cut());
        disk.to_vec()
    }

    #[test]
    fn flushed_writes_survive_and_others_as_chosen() {
        assert_eq!(after(0, Survivors::All), [0, 0, 0, 0]);
        assert_eq!(after(1, Survivors::None), [0, 0, 0, 0]);
        assert_eq!(after(2, Survivors::None), [1, 0, 0, 0]);
        assert_eq!(after(4, Survivors::All), [1, 2, 3, 0]);
        assert_eq!(after(4, Survivors::EveryOther), [1, 2, 0, 0]);
        assert_eq!(after(4, Survivors::None), [1, 0, 0, 0]);
        assert_eq!(after(4, Survivors::TheOthers), [1, 0, 3, 0]);
    }

    #[test]
    fn sectors_are_not_torn() {
        let disk = Arc::new(MemoryDevice::new(vec![0; 4096]));
        let device = PowerCut::new(disk.clone(), 0, Survivors::EveryOther);
        assert!(device.write_all_at(&[1; 3000], 100).is_err());
        let arrived = disk.to_vec().iter().filter(|byte| **byte == 1).count();
        assert_eq!(arrived, 1536 - 100);
    }

    #[test]
    fn one_power_fails_for_all_its_devices() {
        let power = Power::new(2, Survivors::All);
        let disks = [1, 2].map(|_| Arc::new(MemoryDevice::new(vec![0; 2])));
        let [a, b] = disks.clone().map(|disk| PowerCut::with_power(disk, power.clone()));
        a.write_all_at(&[1], 0).unwrap();
        b.write_all_at(&[2], 0).unwrap();
        assert!(a.write_all_at(&[3], 1).is_err());
        assert!(b.flush().is_err() && b.read_exact_at(&mut [0], 0).is_err());
        assert_eq!(disks.map(|disk| disk.to_vec()), [[1, 0], [2, 0]]);
    }
}
