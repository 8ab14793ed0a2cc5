//! A device whose power fails at a chosen write.
//!
//! Between two flushes a disk may keep, lose or tear any write. This device holds back the writes since the
//! last flush and, when the power fails, lets through the ones the test chooses. A writer that is safe here
//! for every write and every choice does not depend on luck.

use std::io;
use std::sync::{Mutex, PoisonError};

use crate::{BlockDevice, BlockDeviceMut, Device, check_range};

/// Which of the writes since the last flush reach the device below when the power fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survivors {
    /// All before the cut; the cut write itself is lost.
    All,
    /// None of them.
    None,
    /// The first, third, fifth…; the cut write itself is torn: its first half arrives.
    EveryOther,
    /// The second, fourth, sixth…; the cut write itself is lost. Catches a pointer that overtakes what it
    /// points to.
    TheOthers,
}

/// Passes writes on to another device until the power fails; every later call fails.
#[derive(Debug)]
pub struct PowerCut {
    inner: Device,
    survivors: Survivors,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Writes, growths and flushes left before the cut.
    left: u64,
    is_cut: bool,
    /// Length in bytes that this device shows.
    size: u64,
    pending: Vec<(u64, Vec<u8>)>,
}

impl PowerCut {
    /// Lets `steps` writes, growths and flushes succeed; the next one cuts the power.
    pub fn new(inner: Device, steps: u64, survivors: Survivors) -> Self {
        let state = State { left: steps, is_cut: false, size: inner.size(), pending: Vec::new() };
        Self { inner, survivors, state: Mutex::new(state) }
    }

    /// Whether the power has failed.
    pub fn is_cut(&self) -> bool {
        self.lock().is_cut
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one step; at the cut, settles what was pending and fails.
    fn step(&self, state: &mut State, torn: Option<(u64, &[u8])>) -> io::Result<()> {
        if !state.is_cut && state.left > 0 {
            state.left -= 1;
            return Ok(());
        }
        if !state.is_cut {
            state.is_cut = true;
            let pending = std::mem::take(&mut state.pending);
            for (number, (offset, bytes)) in pending.iter().enumerate() {
                let survives = match self.survivors {
                    Survivors::All => true,
                    Survivors::None => false,
                    Survivors::EveryOther => number % 2 == 0,
                    Survivors::TheOthers => number % 2 == 1,
                };
                if survives {
                    self.arrive(*offset, bytes)?;
                }
            }
            if let (Survivors::EveryOther, Some((offset, bytes))) = (self.survivors, torn) {
                self.arrive(offset, &bytes[..bytes.len() / 2])?;
            }
        }
        Err(io::Error::other("the power failed"))
    }

    fn arrive(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let inner = crate::writable(&self.inner)?;
        inner.grow(offset + bytes.len() as u64)?;
        inner.write_all_at(bytes, offset)
    }
}

impl BlockDevice for PowerCut {
    fn size(&self) -> u64 {
        self.lock().size
    }

    fn sector_size(&self) -> u32 {
        self.inner.sector_size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let state = self.lock();
        if state.is_cut {
            return Err(io::Error::other("the power failed"));
        }
        check_range(state.size, offset, buf.len() as u64)?;
        buf.fill(0);
        let below = self.inner.size().saturating_sub(offset).min(buf.len() as u64) as usize;
        if below > 0 {
            self.inner.read_exact_at(&mut buf[..below], offset)?;
        }
        let end = offset + buf.len() as u64;
        for (start, bytes) in &state.pending {
            let from = (*start).max(offset);
            let to = (start + bytes.len() as u64).min(end);
            if from < to {
                buf[(from - offset) as usize..(to - offset) as usize]
                    .copy_from_slice(&bytes[(from - start) as usize..(to - start) as usize]);
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
        let mut state = self.lock();
        check_range(state.size, offset, buf.len() as u64)?;
        self.step(&mut state, Some((offset, buf)))?;
        state.pending.push((offset, buf.to_vec()));
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut state = self.lock();
        self.step(&mut state, None)?;
        crate::writable(&self.inner)?.grow(state.size)?;
        for (offset, bytes) in std::mem::take(&mut state.pending) {
            self.arrive(offset, &bytes)?;
        }
        crate::writable(&self.inner)?.flush()
    }

    fn grow(&self, size: u64) -> io::Result<()> {
        let mut state = self.lock();
        self.step(&mut state, None)?;
        state.size = state.size.max(size);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

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
        assert_eq!(after(4, Survivors::EveryOther), [1, 2, 4, 0]);
        assert_eq!(after(4, Survivors::TheOthers), [1, 0, 3, 0]);
        assert_eq!(after(4, Survivors::None), [1, 0, 0, 0]);
    }
}
