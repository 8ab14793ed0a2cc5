//! The data of an encrypted device as a device of its own.

use std::fmt;
use std::io;

use blockdev::{BlockDevice, BlockDeviceMut, Device, check_range};

use crate::{Secret, SectorCipher};

/// Bytes that are encrypted in one go for a write.
const PIECE: usize = 64 << 10;

/// The bytes behind a cipher. Reads decrypt in place; nothing is kept.
pub struct Decrypted {
    device: Device,
    /// First byte of the data on `device`.
    offset: u64,
    /// Whole sectors, in bytes.
    size: u64,
    cipher: SectorCipher,
    /// The number of the first sector, in units of 512 bytes.
    first: u64,
}

impl Decrypted {
    /// `size` bytes, whole sectors of `cipher`, from byte `offset` of `device`; the first sector has the number `first`
    /// in units of 512 bytes. What reaches past the end of `device` cannot be read.
    pub fn new(device: Device, offset: u64, size: u64, cipher: SectorCipher, first: u64) -> Self {
        Self { device, offset, size, cipher, first }
    }

    fn sector(&self) -> u64 {
        u64::try_from(self.cipher.sector_size()).unwrap_or(512)
    }

    /// The number of the sector at byte `at`.
    fn number(&self, at: u64) -> u64 {
        self.first.wrapping_add(at / 512)
    }

    /// Reads whole sectors.
    fn read_sectors(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.device.read_exact_at(buf, self.offset.saturating_add(at))?;
        self.cipher.decrypt(buf, self.number(at));
        Ok(())
    }

    /// The first byte of the sector at `at`, and how many bytes from `at` on lie in it, at most `length`.
    fn part(&self, at: u64, length: usize) -> (u64, usize, usize) {
        let within = at.checked_rem(self.sector()).unwrap_or(0);
        let skip = usize::try_from(within).unwrap_or(0);
        (at.saturating_sub(within), skip, self.cipher.sector_size().saturating_sub(skip).min(length))
    }
}

impl fmt::Debug for Decrypted {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decrypted")
            .field("device", &self.device)
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl BlockDevice for Decrypted {
    fn size(&self) -> u64 {
        self.size
    }

    fn sector_size(&self) -> u32 {
        u32::try_from(self.sector()).unwrap_or(512).max(self.device.sector_size())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.size, offset, u64::try_from(buf.len()).unwrap_or(u64::MAX))?;
        let (mut rest, mut at) = (buf, offset);
        while !rest.is_empty() {
            let (start, skip, length) = self.part(at, rest.len());
            let sector = self.cipher.sector_size();
            let whole = rest.len().saturating_sub(rest.len().checked_rem(sector).unwrap_or(0));
            let done = if skip == 0 && whole > 0 {
                let (sectors, _) = rest.split_at_mut(whole);
                self.read_sectors(sectors, at)?;
                whole
            } else {
                let mut bytes = Secret::new(vec![0; sector]);
                self.read_sectors(&mut bytes, start)?;
                let part = bytes.get(skip..).unwrap_or_default();
                rest.iter_mut().zip(part).take(length).for_each(|(to, from)| *to = *from);
                length
            };
            rest = rest.get_mut(done..).unwrap_or_default();
            at = at.saturating_add(u64::try_from(done).unwrap_or(0));
        }
        Ok(())
    }

    fn writable(&self) -> Option<&dyn BlockDeviceMut> {
        if self.device.writable().is_some() { Some(self) } else { None }
    }
}

impl BlockDeviceMut for Decrypted {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        check_range(self.size, offset, u64::try_from(buf.len()).unwrap_or(u64::MAX))?;
        let device = blockdev::writable(&self.device)?;
        let (mut rest, mut at) = (buf, offset);
        while !rest.is_empty() {
            let (start, skip, length) = self.part(at, rest.len());
            let sector = self.cipher.sector_size();
            let whole = rest.len().min(PIECE);
            let whole = whole.saturating_sub(whole.checked_rem(sector).unwrap_or(0));
            // The plain bytes must not stay behind in freed memory.
            let (bytes, done) = if skip == 0 && whole > 0 {
                (Secret::new(rest.get(..whole).unwrap_or_default().to_vec()), whole)
            } else {
                let mut bytes = Secret::new(vec![0; sector]);
                self.read_sectors(&mut bytes, start)?;
                bytes.iter_mut().skip(skip).zip(rest).take(length).for_each(|(to, from)| *to = *from);
                (bytes, length)
            };
            let mut bytes = bytes;
            self.cipher.encrypt(&mut bytes, self.number(start));
            device.write_all_at(&bytes, self.offset.saturating_add(start))?;
            rest = rest.get(done..).unwrap_or_default();
            at = at.saturating_add(u64::try_from(done).unwrap_or(0));
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        blockdev::writable(&self.device)?.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use blockdev::MemoryDevice;

    use super::*;

    #[test]
    fn what_was_written_is_read_at_any_place() {
        for sector in [512_u32, 4096] {
            let below: Device =
                Arc::new(blockdev::Overlay::new(Arc::new(MemoryDevice::new(vec![0; 300_000]))));
            let cipher = SectorCipher::new("aes", "xts-plain64", &[9; 64]).unwrap();
            let cipher = cipher.with_sector_size(sector).unwrap();
            let device = Decrypted::new(below.clone(), 4096, 286_720, cipher, 5);
            let plain: Vec<u8> = (0..286_720_u32).map(|n| (n >> 3) as u8).collect();
            device.write_all_at(&plain, 0).unwrap();
            for (at, length) in
                [(0, 286_720), (1, 1), (511, 2), (4095, 4098), (70_000, 150_001), (286_719, 1)]
            {
                let mut read = vec![0; length];
                device.read_exact_at(&mut read, at as u64).unwrap();
                assert!(read == plain[at..at + length], "{sector}: {at}+{length}");
            }
            device.write_all_at(&[0xee; 5000], 12_345).unwrap();
            let mut read = vec![0; 7000];
            device.read_exact_at(&mut read, 12_000).unwrap();
            assert!(read[..345] == plain[12_000..12_345] && read[5345..] == plain[17_345..19_000]);
            assert!(read[345..5345].iter().all(|byte| *byte == 0xee));
            let mut raw = vec![0; 4096];
            below.read_exact_at(&mut raw, 0).unwrap();
            assert!(raw.iter().all(|byte| *byte == 0), "nothing in front of the data changes");
            assert!(device.read_exact_at(&mut raw, 286_720 - 4095).is_err());
        }
    }
}
