//! RAID 1: every member holds everything.

use std::io;

use blockdev::{BlockDevice, BlockDeviceMut, Device, Extent, check_range};
use ondisk::Result;

use super::array::{check_sizes, sector_size, too_few};
use super::pieces::length;

/// The smallest piece, in bytes, that is looked for on the next copy.
const SECTOR: u64 = 512;

#[derive(Debug)]
pub(super) struct Mirrored {
    size: u64,
    sector_size: u32,
    /// Those that are there, in the order of their roles.
    members: Vec<Device>,
}

impl Mirrored {
    pub(super) fn new(size: u64, members: Vec<Option<Device>>) -> Result<Self> {
        check_sizes(&members, size)?;
        if members.iter().all(Option::is_none) {
            return Err(too_few("at least one member", &members));
        }
        let sector_size = sector_size(&members);
        Ok(Self { size, sector_size, members: members.into_iter().flatten().collect() })
    }
}

/// Fills a buffer from one of several copies: which one, the buffer, and the byte of its start.
pub(super) type ReadCopy<'a> = dyn Fn(usize, &mut [u8], u64) -> io::Result<()> + 'a;

/// Reads `buf` from byte `at` with the first of `copies` ways that works; where none does for all of it, for each
/// half.
pub(super) fn read_any(buf: &mut [u8], at: u64, copies: usize, read: &ReadCopy<'_>) -> io::Result<()> {
    let mut last = io::Error::other("no copy is there");
    for copy in 0..copies {
        match read(copy, buf, at) {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    let Some(half) = middle(at, buf.len()) else { return Err(last) };
    let (front, back) = buf.split_at_mut(half);
    // Each step halves the sectors, so there are at most 64 of them.
    read_any(front, at, copies, read)?;
    read_any(back, at.saturating_add(length(front)), copies, read)
}

/// Where to cut `length` bytes at byte `at` between two sectors; `None` within one.
fn middle(at: u64, length: usize) -> Option<usize> {
    let end = at.checked_add(u64::try_from(length).ok()?)?;
    let first = at.checked_div(SECTOR)?;
    let last = end.div_ceil(SECTOR);
    let sectors = last.checked_sub(first).filter(|sectors| *sectors > 1)?;
    let cut = first.checked_add(sectors / 2)?.checked_mul(SECTOR)?;
    usize::try_from(cut.checked_sub(at)?).ok()
}

impl BlockDevice for Mirrored {
    fn size(&self) -> u64 {
        self.size
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.size, offset, length(buf))?;
        read_any(buf, offset, self.members.len(), &|copy, piece, at| {
            self.members.get(copy).ok_or(io::ErrorKind::NotFound)?.read_exact_at(piece, at)
        })
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        check_range(self.size, offset, 1)?;
        let mut last = io::Error::other("no copy is there");
        for member in &self.members {
            match member.extent_at(offset) {
                Ok(run) => {
                    let left = self.size.saturating_sub(offset);
                    return Ok(Extent { length: run.length.min(left), kind: run.kind });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn writable(&self) -> Option<&dyn BlockDeviceMut> {
        self.members.iter().all(|member| member.writable().is_some()).then_some(self)
    }
}

impl BlockDeviceMut for Mirrored {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        check_range(self.size, offset, length(buf))?;
        self.members.iter().try_for_each(|member| blockdev::writable(member)?.write_all_at(buf, offset))
    }

    fn write_zeros_at(&self, offset: u64, length: u64) -> io::Result<()> {
        check_range(self.size, offset, length)?;
        self.members.iter().try_for_each(|member| blockdev::writable(member)?.write_zeros_at(offset, length))
    }

    fn flush(&self) -> io::Result<()> {
        self.members.iter().try_for_each(|member| blockdev::writable(member)?.flush())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use blockdev::MemoryDevice;

    use super::*;

    /// A device of which some sectors cannot be read.
    #[derive(Debug)]
    pub(in crate::raid) struct Broken {
        pub(in crate::raid) inner: MemoryDevice,
        pub(in crate::raid) sectors: Vec<u64>,
    }

    impl BlockDevice for Broken {
        fn size(&self) -> u64 {
            self.inner.size()
        }

        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
            let end = offset + buf.len() as u64;
            if self.sectors.iter().any(|sector| sector * 512 < end && offset < (sector + 1) * 512) {
                return Err(io::Error::other("medium error"));
            }
            self.inner.read_exact_at(buf, offset)
        }
    }

    #[test]
    fn what_one_member_cannot_read_another_can() {
        let content: Vec<u8> = (0..64_u8).flat_map(|n| [n; 512]).collect();
        let member = |sectors: &[u64]| -> Option<Device> {
            Some(Arc::new(Broken { inner: MemoryDevice::new(content.clone()), sectors: sectors.to_vec() }))
        };
        let device = Mirrored::new(32768, vec![member(&[3, 9]), None, member(&[4, 63])]).unwrap();
        let mut found = vec![0; 32768];
        device.read_exact_at(&mut found, 0).unwrap();
        assert!(found == content);
        device.read_exact_at(&mut found[..5000], 700).unwrap();
        assert!(found[..5000] == content[700..5700]);
        let device = Mirrored::new(32768, vec![member(&[3, 9]), member(&[9])]).unwrap();
        assert!(device.read_exact_at(&mut found, 0).is_err());
        device.read_exact_at(&mut found[..4608], 0).unwrap();
        assert!(device.writable().is_none());
    }

    #[test]
    fn every_member_is_written() {
        let members: Vec<Device> =
            (0..3).map(|_| -> Device { Arc::new(MemoryDevice::new(vec![0; 8192])) }).collect();
        let device = Mirrored::new(4096, members.iter().cloned().map(Some).collect()).unwrap();
        device.writable().unwrap().write_all_at(&[7; 100], 4000 - 4).unwrap();
        assert!(device.write_all_at(&[7; 101], 3996).is_err());
        for member in members {
            let mut found = [0; 102];
            member.read_exact_at(&mut found, 3995).unwrap();
            assert_eq!((found[0], found[1], found[100], found[101]), (0, 7, 7, 0));
        }
    }
}
