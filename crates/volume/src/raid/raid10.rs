//! RAID 10: chunks in turn, each in several copies.
//!
//! `setup_geo` and `__raid10_find_phys` of `drivers/md/raid10.c`.

use std::io;

use blockdev::{BlockDevice, BlockDeviceMut, Device, Extent, check_range};
use ondisk::Result;

use super::array::{check_sizes, corrupt, sector_size, too_few};
use super::layout::FarSpacing;
use super::mirrored::read_any;
use super::pieces::{length, pieces};

#[derive(Debug)]
pub(super) struct Raid10 {
    geometry: Geometry,
    chunk: u64,
    size: u64,
    sector_size: u32,
    members: Vec<Option<Device>>,
}

/// The rule by which copies are placed; lengths count chunks.
#[derive(Debug, Clone, Copy)]
struct Geometry {
    members: u64,
    near: u64,
    far: u64,
    is_offset: bool,
    /// Members of a set within which far copies rotate; the last set also has what remains.
    set: u64,
    /// From one far copy to the next.
    stride: u64,
}

impl Geometry {
    /// The places of chunk `number`: member, and chunk within the member.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "copies, sets and members are 1 to 384, and all chunks lie below 2^62 bytes"
    )]
    fn places(&self, number: u64) -> Vec<(u64, u64)> {
        let Self { members, near, far, set, .. } = *self;
        // The last set begins here, with all members that fill no set of their own.
        let last_start = (members / set - 1) * set;
        let last_size = set + members % set;
        let first = number * near;
        let mut member = first % members;
        let mut row = first / members * if self.is_offset { far } else { 1 };
        let mut places = Vec::new();
        for _ in 0..near {
            let (mut copy, mut at) = (member, row);
            places.push((copy, at));
            for _ in 1..far {
                let start = copy / set * set;
                copy += near;
                copy = if members % set != 0 && copy > last_start {
                    (copy - last_start) % last_size + last_start
                } else {
                    copy % set + start
                };
                at += self.stride;
                places.push((copy, at));
            }
            member += 1;
            if member == members {
                member = 0;
                row += 1;
            }
        }
        places
    }
}

impl Raid10 {
    pub(super) fn new(
        (near, far, spacing): (u8, u8, FarSpacing),
        chunk: u64,
        size: u64,
        members: Vec<Option<Device>>,
    ) -> Result<Self> {
        let (near, far) = (u64::from(near), u64::from(far));
        let count = u64::try_from(members.len()).unwrap_or(u64::MAX);
        let copies = near.saturating_mul(far);
        if copies == 0 || copies > count {
            return Err(corrupt("copies", format_args!("1 to {count}"), copies));
        }
        let is_offset =
            matches!(spacing, FarSpacing::Offset | FarSpacing::OffsetSets | FarSpacing::OffsetSetsFixed);
        let set = match spacing {
            FarSpacing::Far | FarSpacing::Offset => count,
            FarSpacing::FarSets | FarSpacing::OffsetSets => count.checked_div(far).unwrap_or(0),
            FarSpacing::FarSetsFixed | FarSpacing::OffsetSetsFixed => copies,
        };
        if set < far {
            return Err(corrupt("far copies", format_args!("at most {set}, the members of a set"), far));
        }
        let chunks = size.div_ceil(chunk);
        let used = chunks.saturating_mul(copies).div_ceil(count);
        let stride = if is_offset { 1 } else { used.checked_div(far).unwrap_or(0) };
        check_sizes(&members, used.saturating_mul(chunk))?;
        let geometry = Geometry { members: count, near, far, is_offset, set, stride };
        let array = Self { geometry, chunk, size, sector_size: sector_size(&members), members };
        // The members of a chunk repeat after at most as many chunks.
        for number in 0..count.min(chunks) {
            if geometry.places(number).iter().all(|(member, _)| array.member(*member).is_none()) {
                return Err(too_few(format_args!("a copy of chunk {number}"), &array.members));
            }
        }
        Ok(array)
    }

    fn member(&self, index: u64) -> Option<&Device> {
        self.members.get(usize::try_from(index).ok()?)?.as_ref()
    }

    /// The copies of chunk `number` on members that are there: the member, and the byte of its first byte.
    fn copies(&self, number: u64) -> Vec<(&Device, u64)> {
        let places = self.geometry.places(number).into_iter();
        places
            .filter_map(|(member, at)| Some((self.member(member)?, at.saturating_mul(self.chunk))))
            .collect()
    }
}

impl BlockDevice for Raid10 {
    fn size(&self) -> u64 {
        self.size
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.size, offset, length(buf))?;
        for piece in pieces(self.chunk, offset, buf.len()) {
            let copies = self.copies(piece.chunk);
            let Some(target) = buf.get_mut(piece.range) else { break };
            read_any(target, piece.within, copies.len(), &|copy, bytes, within| {
                let (member, start) = copies.get(copy).ok_or(io::ErrorKind::NotFound)?;
                member.read_exact_at(bytes, start.saturating_add(within))
            })?;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        check_range(self.size, offset, 1)?;
        let Some(piece) = pieces(self.chunk, offset, 1).next() else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let copies = self.copies(piece.chunk);
        let (member, start) = copies.first().ok_or(io::ErrorKind::NotFound)?;
        let run = member.extent_at(start.saturating_add(piece.within))?;
        let left = self.chunk.saturating_sub(piece.within).min(self.size.saturating_sub(offset));
        Ok(Extent { length: run.length.min(left), kind: run.kind })
    }

    fn writable(&self) -> Option<&dyn BlockDeviceMut> {
        self.members.iter().flatten().all(|member| member.writable().is_some()).then_some(self)
    }
}

impl BlockDeviceMut for Raid10 {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        check_range(self.size, offset, length(buf))?;
        for piece in pieces(self.chunk, offset, buf.len()) {
            let Some(bytes) = buf.get(piece.range) else { break };
            for (member, start) in self.copies(piece.chunk) {
                blockdev::writable(member)?.write_all_at(bytes, start.saturating_add(piece.within))?;
            }
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.members.iter().flatten().try_for_each(|member| blockdev::writable(member)?.flush())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use blockdev::MemoryDevice;

    use super::*;

    /// Where chunks 0.. lie, as the manual md(4) draws it: one text for each row of the members.
    fn picture(copies: (u8, u8, FarSpacing), members: usize, chunks: u64) -> Vec<String> {
        let size = chunks * 512;
        let devices: Vec<Device> =
            (0..members).map(|_| -> Device { Arc::new(MemoryDevice::new(vec![0xff; 512 * 16])) }).collect();
        let array = Raid10::new(copies, 512, size, devices.iter().cloned().map(Some).collect()).unwrap();
        for chunk in 0..chunks {
            array.write_all_at(&[chunk as u8; 512], chunk * 512).unwrap();
        }
        (0..16)
            .map(|row| {
                let cells = devices.iter().map(|device| {
                    let mut byte = [0];
                    device.read_exact_at(&mut byte, row * 512).unwrap();
                    if byte[0] == 0xff { "-".into() } else { byte[0].to_string() }
                });
                cells.collect::<Vec<_>>().join(" ")
            })
            .take_while(|row| row.contains(|cell| cell != '-' && cell != ' '))
            .collect()
    }

    #[test]
    fn copies_lie_as_in_the_manual() {
        use FarSpacing::{Far, FarSets, FarSetsFixed, Offset, OffsetSets};
        for (copies, members, chunks, expected) in [
            ((2, 1, Far), 4, 4, &["0 0 1 1", "2 2 3 3"][..]),
            ((2, 1, Far), 3, 3, &["0 0 1", "1 2 2"]),
            ((3, 1, Far), 4, 4, &["0 0 0 1", "1 1 2 2", "2 3 3 3"]),
            ((1, 2, Far), 4, 8, &["0 1 2 3", "4 5 6 7", "3 0 1 2", "7 4 5 6"]),
            ((1, 2, Offset), 3, 6, &["0 1 2", "2 0 1", "3 4 5", "5 3 4"]),
            ((1, 2, FarSets), 4, 4, &["0 1 2 3", "1 0 3 2"]),
            ((1, 2, FarSetsFixed), 5, 5, &["0 1 2 3 4", "1 0 4 2 3"]),
            ((1, 2, OffsetSets), 4, 8, &["0 1 2 3", "1 0 3 2", "4 5 6 7", "5 4 7 6"]),
            ((2, 2, Far), 4, 4, &["0 0 1 1", "2 2 3 3", "1 1 0 0", "3 3 2 2"]),
        ] {
            assert_eq!(picture(copies, members, chunks), expected, "{copies:?} over {members}");
        }
    }

    #[test]
    fn any_copy_will_do() {
        for (copies, members) in
            [((2, 1, FarSpacing::Far), 5), ((1, 2, FarSpacing::Far), 3), ((1, 3, FarSpacing::Offset), 4)]
        {
            let devices: Vec<Device> =
                (0..members).map(|_| -> Device { Arc::new(MemoryDevice::new(vec![0; 512 * 24])) }).collect();
            let chunks = members as u64 * 24 / 6;
            let all = devices.iter().cloned().map(Some).collect();
            let array = Raid10::new(copies, 512, chunks * 512, all).unwrap();
            let content: Vec<u8> = (0..chunks).flat_map(|chunk| [chunk as u8; 512]).collect();
            array.write_all_at(&content, 0).unwrap();
            for missing in 0..members {
                let mut some: Vec<_> = devices.iter().cloned().map(Some).collect();
                some[missing] = None;
                let array = Raid10::new(copies, 512, chunks * 512, some).unwrap();
                let mut found = vec![0; content.len()];
                array.read_exact_at(&mut found, 0).unwrap();
                assert!(found == content, "{copies:?} without {missing}");
            }
        }
    }
}
