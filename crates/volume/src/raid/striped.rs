//! RAID 0: chunks in turn.
//!
//! `drivers/md/raid0.c` (one zone) and `dm-stripe.c`.

use std::io;

use blockdev::{BlockDevice, BlockDeviceMut, Device, Extent, ExtentKind, check_range};
use ondisk::Result;

use super::array::{check_sizes, corrupt, sector_size, too_few};
use super::pieces::{Piece, length, pieces};

/// Chunks from this size on are read one by one, straight to where they belong: a read costs less than a copy then.
/// Smaller ones of one member are read together and spread.
const LARGE_CHUNK: u64 = 16 << 10;

/// The most bytes that are read from one member at once to be spread: they stay in the processor's cache.
const GATHER: u64 = 64 << 10;

#[derive(Debug)]
pub(super) struct Striped {
    chunk: u64,
    size: u64,
    sector_size: u32,
    members: Vec<Device>,
}

impl Striped {
    pub(super) fn new(chunk: u64, size: u64, members: Vec<Option<Device>>) -> Result<Self> {
        if members.iter().any(Option::is_none) {
            return Err(too_few("all members", &members));
        }
        let row = width(chunk, members.len());
        let rows = size.checked_div(row).unwrap_or(0);
        // The last row may be short; the first member has the most of it.
        check_sizes(&members, rows.saturating_mul(chunk))?;
        let rest = size.checked_rem(row).unwrap_or(0);
        for (index, member) in members.iter().flatten().enumerate() {
            let before = width(chunk, index);
            let needed = rows.saturating_mul(chunk).saturating_add(rest.saturating_sub(before).min(chunk));
            if member.size() < needed {
                let found = format!("{} bytes for role {index}", member.size());
                return Err(corrupt("member size", format_args!("at least {needed} bytes"), found));
            }
        }
        let sector_size = sector_size(&members);
        Ok(Self { chunk, size, sector_size, members: members.into_iter().flatten().collect() })
    }

    /// The member that holds chunk `number`, and the byte at which the chunk starts there.
    #[expect(
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        reason = "there is a member, and the chunk starts before the array's end"
    )]
    fn locate(&self, number: u64) -> io::Result<(&Device, u64)> {
        let count = self.members.len() as u64;
        let member = self.members.get((number % count) as usize).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok((member, number / count * self.chunk))
    }

    /// Reads the pieces of a window: one read for each member, then spread.
    fn gather(&self, buf: &mut [u8], window: &[Piece], scratch: &mut Vec<u8>) -> io::Result<()> {
        let count = self.members.len();
        for first in 0..count.min(window.len()) {
            let own = || window.iter().skip(first).step_by(count);
            let Some(start) = own().next() else { break };
            let (member, at) = self.locate(start.chunk)?;
            scratch.resize(own().map(|piece| piece.range.len()).sum(), 0);
            member.read_exact_at(scratch, at.saturating_add(start.within))?;
            let mut rest = scratch.as_slice();
            for piece in own() {
                let (bytes, after) = rest.split_at(piece.range.len());
                if let Some(target) = buf.get_mut(piece.range.clone()) {
                    target.copy_from_slice(bytes);
                }
                rest = after;
            }
        }
        Ok(())
    }
}

/// The bytes of a row of `count` chunks.
pub(super) fn width(chunk: u64, count: usize) -> u64 {
    chunk.saturating_mul(u64::try_from(count).unwrap_or(u64::MAX))
}

impl BlockDevice for Striped {
    fn size(&self) -> u64 {
        self.size
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.size, offset, length(buf))?;
        let row = width(self.chunk, self.members.len());
        if self.chunk >= LARGE_CHUNK || self.members.len() == 1 || length(buf) <= row {
            for piece in pieces(self.chunk, offset, buf.len()) {
                let (member, at) = self.locate(piece.chunk)?;
                let Some(target) = buf.get_mut(piece.range) else { break };
                member.read_exact_at(target, at.saturating_add(piece.within))?;
            }
            return Ok(());
        }
        let chunks_each = GATHER.checked_div(self.chunk).unwrap_or(0).max(1);
        let window_length = usize::try_from(chunks_each).unwrap_or(1).saturating_mul(self.members.len());
        let mut all = pieces(self.chunk, offset, buf.len());
        let mut scratch = Vec::new();
        let mut window = Vec::new();
        loop {
            window.clear();
            window.extend(all.by_ref().take(window_length));
            if window.is_empty() {
                return Ok(());
            }
            self.gather(buf, &window, &mut scratch)?;
        }
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        check_range(self.size, offset, 1)?;
        let members: Vec<&Device> = self.members.iter().collect();
        run_over_rows(&members, self.chunk, members.len(), self.size, offset, |number| {
            let (member, start) = self.locate(number)?;
            Ok((Some(member), start))
        })
    }

    fn writable(&self) -> Option<&dyn BlockDeviceMut> {
        self.members.iter().all(|member| member.writable().is_some()).then_some(self)
    }
}

impl BlockDeviceMut for Striped {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        check_range(self.size, offset, length(buf))?;
        for piece in pieces(self.chunk, offset, buf.len()) {
            let (member, at) = self.locate(piece.chunk)?;
            let Some(bytes) = buf.get(piece.range) else { break };
            blockdev::writable(member)?.write_all_at(bytes, at.saturating_add(piece.within))?;
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.members.iter().try_for_each(|member| blockdev::writable(member)?.flush())
    }
}

/// The run at `offset` of an array whose rows hold `data` chunks: chunk by chunk to the end of the row, then
/// whole rows for as long as all `members` say the same of them.
///
/// `locate` gives the member and the byte where a chunk lies; what lies on no member is data.
pub(super) fn run_over_rows<'a>(
    members: &[&Device],
    chunk: u64,
    data: usize,
    size: u64,
    offset: u64,
    locate: impl Fn(u64) -> io::Result<(Option<&'a Device>, u64)>,
) -> io::Result<Extent> {
    let row = width(chunk, data);
    let quotient = |a: u64, b: u64| a.checked_div(b).unwrap_or(0);
    let mut found: Option<Extent> = None;
    let mut at = offset;
    // A row has at most MAX_MEMBERS chunks.
    while at < size {
        let kind = found.map(|run| run.kind);
        if at.checked_rem(row) == Some(0)
            && let Some(rows) = same_on_all(members, quotient(at, row).saturating_mul(chunk))?
            && kind.is_none_or(|kind| kind == rows.kind)
            && rows.length >= chunk
        {
            at = at.saturating_add(quotient(rows.length, chunk).saturating_mul(row)).min(size);
            found = Some(Extent { length: at.saturating_sub(offset), kind: rows.kind });
            break;
        }
        if kind.is_some() && at.checked_rem(row) == Some(0) {
            break;
        }
        let number = quotient(at, chunk);
        let within = at.saturating_sub(number.saturating_mul(chunk));
        let (member, start) = locate(number)?;
        let extent = match member {
            Some(member) => member.extent_at(start.saturating_add(within))?,
            None => Extent { length: chunk.saturating_sub(within), kind: ExtentKind::Data },
        };
        if kind.is_some_and(|kind| kind != extent.kind) {
            break;
        }
        let left = chunk.saturating_sub(within).min(size.saturating_sub(at));
        at = at.saturating_add(extent.length.min(left));
        found = Some(Extent { length: at.saturating_sub(offset), kind: extent.kind });
        if extent.length < left {
            break;
        }
    }
    found.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// What all members say of the bytes from `offset` on, if they agree.
fn same_on_all(members: &[&Device], offset: u64) -> io::Result<Option<Extent>> {
    let mut common: Option<Extent> = None;
    for member in members {
        if offset >= member.size() {
            return Ok(None);
        }
        let extent = member.extent_at(offset)?;
        common = match common {
            None => Some(extent),
            Some(before) if before.kind == extent.kind => {
                Some(Extent { length: before.length.min(extent.length), kind: extent.kind })
            }
            Some(_) => return Ok(None),
        };
    }
    Ok(common)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use blockdev::{Concat, Counter, MemoryDevice, Part};

    use super::*;

    /// A striped device of which byte N*512 starts with N, over three members, and the counters of these.
    fn striped(chunk: usize, sectors: u32) -> (Striped, Vec<Arc<Counter>>) {
        let mut contents = vec![Vec::new(); 3];
        let whole: Vec<u8> = (0..sectors).flat_map(|n| n.to_le_bytes().repeat(128)).collect();
        for (index, bytes) in whole.chunks(chunk).enumerate() {
            contents[index % 3].extend_from_slice(bytes);
        }
        let counters: Vec<Arc<Counter>> = contents
            .into_iter()
            .map(|bytes| Arc::new(Counter::new(Arc::new(MemoryDevice::new(bytes)))))
            .collect();
        let members = counters.iter().map(|counter| -> Option<Device> { Some(counter.clone()) }).collect();
        (Striped::new(chunk as u64, whole.len() as u64, members).unwrap(), counters)
    }

    #[test]
    fn all_ways_to_read_agree() {
        for (chunk, sectors) in [(512, 7), (1536, 3000), (4096, 4801), (65536, 9000), (262_144, 9000)] {
            let (device, _) = striped(chunk, sectors);
            let mut whole = vec![0; device.size() as usize];
            device.read_exact_at(&mut whole, 0).unwrap();
            for (sector, bytes) in (0_u32..).zip(whole.chunks(512)) {
                assert_eq!(bytes, sector.to_le_bytes().repeat(128), "chunk {chunk}, sector {sector}");
            }
            for (offset, length) in [(0, 1), (511, 700), (1000, 100_000), (70_001, 1_300_000)] {
                let Some(expected) = whole.get(offset..offset + length) else { continue };
                let mut found = vec![0; length];
                device.read_exact_at(&mut found, offset as u64).unwrap();
                assert!(found == expected, "chunk {chunk}: {length} bytes at {offset}");
            }
            assert!(device.read_exact_at(&mut [0; 2], device.size() - 1).is_err());
        }
    }

    #[test]
    fn small_chunks_of_a_member_are_read_together() {
        let (device, counters) = striped(4096, 6000);
        let mut buffer = vec![0; 3_000_000];
        device.read_exact_at(&mut buffer, 10_000).unwrap();
        // A million bytes of each member, which are 245 chunks.
        for counter in counters {
            assert_eq!(counter.reads(), 16);
        }
    }

    #[test]
    fn writes_land_where_reads_look() {
        let (device, _) = striped(4096, 300);
        let bytes: Vec<u8> = (0..50_000).map(|n: u32| (n % 251) as u8).collect();
        device.write_all_at(&bytes, 3000).unwrap();
        let mut found = vec![0; 50_000];
        device.read_exact_at(&mut found, 3000).unwrap();
        assert!(found == bytes);
        assert!(device.write_all_at(&[0; 2], device.size() - 1).is_err());
    }

    #[test]
    fn zeros_of_all_members_are_one_run() {
        let member = || -> Option<Device> {
            let data: Device = Arc::new(MemoryDevice::new(vec![1; 4096]));
            let parts = [
                Part { device: Some(data), offset: 0, length: 4096 },
                Part { device: None, offset: 0, length: 1 << 30 },
            ];
            Some(Arc::new(Concat::new(parts).unwrap()))
        };
        let size = 3 * ((1 << 30) + 4096);
        let device = Striped::new(4096, size, vec![member(), member(), member()]).unwrap();
        assert_eq!(device.extent_at(1).unwrap(), Extent { length: 12287, kind: ExtentKind::Data });
        assert_eq!(device.extent_at(12288).unwrap(), Extent { length: 3 << 30, kind: ExtentKind::Zero });
        assert_eq!(
            device.extent_at(20_000).unwrap(),
            Extent { length: size - 20_000, kind: ExtentKind::Zero }
        );
        assert!(device.extent_at(size).is_err());
    }
}
