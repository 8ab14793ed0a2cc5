//! RAID 4, 5 and 6: rows of data with one or two chunks of parity.
//!
//! `drivers/md/raid5.c`. P is the exclusive or of a row's data; Q is their sum in GF(2^8), each multiplied by
//! a power of the generator.

use std::io;
use std::sync::{PoisonError, RwLock};

use blockdev::{BlockDevice, BlockDeviceMut, Device, Extent, check_range};
use ondisk::Result;

use super::array::{check_sizes, corrupt, sector_size, too_few};
use super::gf256::{Gf, add};
use super::layout::Parity;
use super::mirrored::read_any;
use super::pieces::{length, pieces};
use super::placement::{Row, data_member, redundancy, row};
use super::striped::{run_over_rows, width};

/// The most members of RAID 6: its powers of the generator are distinct below 255.
const MAX_DOUBLE: usize = 255;

#[derive(Debug)]
pub(super) struct ParityArray {
    parity: Parity,
    chunk: u64,
    size: u64,
    sector_size: u32,
    /// Data chunks of a row.
    data: usize,
    members: Vec<Option<Device>>,
    /// Whether what cannot be read may be made from the rest.
    is_in_sync: bool,
    /// A write changes data and parity one after the other; nothing is reconstructed in between.
    change: RwLock<()>,
}

impl ParityArray {
    pub(super) fn new(parity: Parity, chunk: u64, size: u64, members: Vec<Option<Device>>) -> Result<Self> {
        let redundant = if redundancy(parity) == 1 { 1 } else { 2 };
        let most = if redundant == 1 { usize::MAX } else { MAX_DOUBLE };
        let data = members.len().saturating_sub(redundant);
        if data == 0 || members.len() > most {
            let expected = if redundant == 1 { "at least 2".into() } else { format!("3 to {MAX_DOUBLE}") };
            return Err(corrupt("members", expected, members.len()));
        }
        if members.iter().filter(|member| member.is_none()).count() > redundant {
            return Err(too_few(format_args!("at least {data} of {}", members.len()), &members));
        }
        // A short last row needs its parity too.
        check_sizes(&members, size.div_ceil(width(chunk, data)).saturating_mul(chunk))?;
        let sector_size = sector_size(&members);
        let change = RwLock::new(());
        Ok(Self { parity, chunk, size, sector_size, data, members, is_in_sync: true, change })
    }

    pub(super) fn trusting_parity(self, is_in_sync: bool) -> Self {
        Self { is_in_sync, ..self }
    }

    /// The row of chunk `number`, the member that holds the chunk, and the byte at which the row starts on all
    /// members.
    #[expect(
        clippy::arithmetic_side_effects,
        reason = "there is data, and the row starts before the array's end"
    )]
    fn locate(&self, number: u64) -> (Row, u64, u64) {
        let data = count(self.data);
        let row_number = number / data;
        let row = row(self.parity, count(self.members.len()), row_number);
        (row, data_member(self.parity, &row, number % data), row_number * self.chunk)
    }

    fn member(&self, index: u64) -> Option<&Device> {
        self.members.get(usize::try_from(index).ok()?)?.as_ref()
    }

    fn read_member(&self, index: u64, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.member(index).ok_or_else(|| missing(index))?.read_exact_at(buf, at)
    }

    /// The bytes of data member `wanted` from byte `at` of the members on, by its own copy or the others.
    fn read_data(&self, row: &Row, wanted: u64, buf: &mut [u8], at: u64) -> io::Result<()> {
        read_any(buf, at, if self.is_in_sync { 2 } else { 1 }, &|way, piece, at| match way {
            0 => self.read_member(wanted, piece, at),
            _ => self.reconstruct(row, wanted, piece, at),
        })
    }

    /// The bytes of data member `wanted`, made from the rest of the row.
    fn reconstruct(&self, row: &Row, wanted: u64, buf: &mut [u8], at: u64) -> io::Result<()> {
        let mut scratch = vec![0; buf.len()];
        // The sums of what can be read.
        let mut p = vec![0; buf.len()];
        let mut q = vec![0; if row.q.is_some() { buf.len() } else { 0 }];
        let mut other = None;
        for index in 0..count(self.members.len()) {
            if index == wanted || index == row.p || Some(index) == row.q {
                continue;
            }
            match self.read_member(index, &mut scratch, at) {
                Ok(()) => {
                    add(&mut p, &scratch);
                    Gf::power(row.weight(index)).add_scaled(&mut q, &scratch);
                }
                Err(_) if other.is_none() && row.q.is_some() => other = Some(index),
                Err(error) => return Err(error),
            }
        }
        let weight = Gf::power(row.weight(wanted));
        let p_read = self.read_member(row.p, &mut scratch, at);
        if p_read.is_ok() {
            add(&mut p, &scratch);
        }
        match (other, p_read, row.q) {
            (None, Ok(()), _) => buf.copy_from_slice(&p),
            (None, Err(_), Some(q_member)) => {
                self.read_member(q_member, &mut scratch, at)?;
                add(&mut q, &scratch);
                weight.inverse().scale(&mut q);
                buf.copy_from_slice(&q);
            }
            (Some(other), Ok(()), Some(q_member)) => {
                self.read_member(q_member, &mut scratch, at)?;
                add(&mut q, &scratch);
                // p = wanted + other, q = weight * wanted + other_weight * other
                let other_weight = Gf::power(row.weight(other));
                other_weight.add_scaled(&mut q, &p);
                weight.plus(other_weight).inverse().scale(&mut q);
                buf.copy_from_slice(&q);
            }
            (_, Err(error), _) => return Err(error),
            (Some(other), Ok(()), None) => return Err(missing(other)),
        }
        Ok(())
    }

    /// Changes data member `target` and the parity of its row.
    fn write_data(&self, row: &Row, target: u64, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut change = vec![0; bytes.len()];
        self.read_data(row, target, &mut change, at)?;
        add(&mut change, bytes);
        let mut sum = vec![0; bytes.len()];
        for (member, weight) in [(Some(row.p), Gf(1)), (row.q, Gf::power(row.weight(target)))]
            .into_iter()
            .filter_map(|(m, w)| Some((m?, w)))
        {
            if let Some(device) = self.member(member) {
                device.read_exact_at(&mut sum, at)?;
                weight.add_scaled(&mut sum, &change);
                blockdev::writable(device)?.write_all_at(&sum, at)?;
            }
        }
        match self.member(target) {
            Some(device) => blockdev::writable(device)?.write_all_at(bytes, at),
            None => Ok(()),
        }
    }
}

/// A count of things in memory as devices count.
#[expect(clippy::as_conversions, reason = "memory is shorter than 2^64 bytes")]
fn count(number: usize) -> u64 {
    number as u64
}

fn missing(member: u64) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("the array's member {member} is missing"))
}

impl BlockDevice for ParityArray {
    fn size(&self) -> u64 {
        self.size
    }

    fn sector_size(&self) -> u32 {
        self.sector_size
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        check_range(self.size, offset, length(buf))?;
        let _no_change = self.change.read().unwrap_or_else(PoisonError::into_inner);
        for piece in pieces(self.chunk, offset, buf.len()) {
            let (row, member, start) = self.locate(piece.chunk);
            let Some(target) = buf.get_mut(piece.range) else { break };
            self.read_data(&row, member, target, start.saturating_add(piece.within))?;
        }
        Ok(())
    }

    fn extent_at(&self, offset: u64) -> io::Result<Extent> {
        check_range(self.size, offset, 1)?;
        let members: Vec<&Device> = self.members.iter().flatten().collect();
        // Where all members that are there are zeros, so is what is made of them.
        let present = |number: u64| {
            let (_, member, start) = self.locate(number);
            Ok((self.member(member), start))
        };
        run_over_rows(&members, self.chunk, self.data, self.size, offset, present)
    }

    fn writable(&self) -> Option<&dyn BlockDeviceMut> {
        self.members.iter().flatten().all(|member| member.writable().is_some()).then_some(self)
    }
}

impl BlockDeviceMut for ParityArray {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        check_range(self.size, offset, length(buf))?;
        let _change = self.change.write().unwrap_or_else(PoisonError::into_inner);
        for piece in pieces(self.chunk, offset, buf.len()) {
            let (row, member, start) = self.locate(piece.chunk);
            let Some(bytes) = buf.get(piece.range) else { break };
            self.write_data(&row, member, bytes, start.saturating_add(piece.within))?;
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

    use blockdev::{ExtentKind, MemoryDevice};

    use super::super::layout::Rotation;
    use super::super::mirrored::tests::Broken;
    use super::*;

    const ALL: [Parity; 20] = {
        use Rotation::{LeftAsymmetric, LeftSymmetric, RightAsymmetric, RightSymmetric};
        [
            Parity::Last,
            Parity::First,
            Parity::LeftAsymmetric,
            Parity::RightAsymmetric,
            Parity::LeftSymmetric,
            Parity::RightSymmetric,
            Parity::Double(LeftAsymmetric),
            Parity::Double(RightAsymmetric),
            Parity::Double(LeftSymmetric),
            Parity::Double(RightSymmetric),
            Parity::ZeroRestart,
            Parity::NRestart,
            Parity::NContinue,
            Parity::DoubleLast(LeftAsymmetric),
            Parity::DoubleLast(RightAsymmetric),
            Parity::DoubleLast(LeftSymmetric),
            Parity::DoubleLast(RightSymmetric),
            Parity::DoubleFirst,
            Parity::DoubleN,
            Parity::DoubleZero,
        ]
    };

    fn whole(device: &ParityArray) -> Vec<u8> {
        let mut bytes = vec![0; device.size() as usize];
        device.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    /// Members without `missing`.
    fn without(members: &[Device], missing: &[usize]) -> Vec<Option<Device>> {
        members
            .iter()
            .enumerate()
            .map(|(index, member)| (!missing.contains(&index)).then(|| member.clone()))
            .collect()
    }

    /// What is written healthy or degraded is read back with any members missing.
    #[test]
    fn writes_keep_the_parity_of_every_layout() {
        for parity in ALL {
            let redundant = redundancy(parity) as usize;
            for count in redundant + 2..=6 {
                let size = 1024 * (count - redundant) as u64 * 13;
                let members: Vec<Device> = (0..count)
                    .map(|_| -> Device { Arc::new(MemoryDevice::new(vec![0; 1024 * 13])) })
                    .collect();
                let open = |missing: &[usize]| {
                    ParityArray::new(parity, 1024, size, without(&members, missing)).unwrap()
                };
                let mut expected: Vec<u8> = (0..size).map(|n| (n * 31 % 253) as u8).collect();
                open(&[]).write_all_at(&expected, 0).unwrap();
                for (first, device) in members.iter().enumerate() {
                    let offset = 700 * first;
                    let degraded = open(&[first]);
                    degraded.write_all_at(&[first as u8; 2500], offset as u64).unwrap();
                    expected[offset..offset + 2500].fill(first as u8);
                    assert!(whole(&degraded) == expected, "{parity:?}, {count} members without {first}");
                    // The member that missed the write comes back with what the others say of it.
                    let rest = open(&[first]);
                    let mut member = vec![0; 1024];
                    for number in 0..13 {
                        rebuild(&rest, number, first as u64, &mut member);
                        blockdev::writable(device).unwrap().write_all_at(&member, number * 1024).unwrap();
                    }
                    assert!(whole(&open(&[])) == expected, "{parity:?}, {count} members with {first} again");
                    for second in (0..count).filter(|_| redundant == 2) {
                        assert!(whole(&open(&[first, second])) == expected, "{parity:?} {first} {second}");
                    }
                }
            }
        }
    }

    /// What member `index` holds in a row.
    fn rebuild(array: &ParityArray, number: u64, index: u64, bytes: &mut [u8]) {
        let row = row(array.parity, count(array.members.len()), number);
        if index != row.p && Some(index) != row.q {
            return array.reconstruct(&row, index, bytes, number * 1024).unwrap();
        }
        bytes.fill(0);
        let mut data = vec![0; 1024];
        for other in (0..count(array.members.len())).filter(|other| *other != row.p && Some(*other) != row.q)
        {
            array.read_member(other, &mut data, number * 1024).unwrap();
            let weight = if index == row.p { Gf(1) } else { Gf::power(row.weight(other)) };
            weight.add_scaled(bytes, &data);
        }
    }

    #[test]
    fn unreadable_sectors_are_made_from_the_others() {
        let content = |n: u8| vec![n; 8192];
        let xor = vec![1 ^ 2; 8192];
        let member = |bytes: Vec<u8>, sectors: &[u64]| -> Option<Device> {
            Some(Arc::new(Broken { inner: MemoryDevice::new(bytes), sectors: sectors.to_vec() }))
        };
        let array = |a: &[u64], b: &[u64]| {
            ParityArray::new(
                Parity::Last,
                4096,
                16384,
                vec![member(content(1), a), member(content(2), b), member(xor.clone(), &[])],
            )
            .unwrap()
        };
        let bytes = whole(&array(&[1, 9], &[2]));
        for (number, chunk) in bytes.chunks(4096).enumerate() {
            assert_eq!(chunk, [number as u8 % 2 + 1; 4096]);
        }
        assert!(array(&[1], &[1]).read_exact_at(&mut [0; 4096], 0).is_err());
        assert!(array(&[1], &[1]).writable().is_none());
    }

    #[test]
    fn parity_out_of_sync_makes_nothing() {
        let member = |sectors: &[u64]| -> Option<Device> {
            Some(Arc::new(Broken { inner: MemoryDevice::new(vec![0; 8192]), sectors: sectors.to_vec() }))
        };
        let members = vec![member(&[1]), member(&[]), member(&[])];
        let array = ParityArray::new(Parity::Last, 4096, 16384, members).unwrap().trusting_parity(false);
        array.read_exact_at(&mut [0; 512], 0).unwrap();
        assert!(array.read_exact_at(&mut [0; 512], 512).is_err());
    }

    #[test]
    fn zeros_are_known_only_where_they_are_read() {
        let hole = || -> Option<Device> {
            let part = blockdev::Part { device: None, offset: 0, length: 1 << 20 };
            Some(Arc::new(blockdev::Concat::new([part]).unwrap()))
        };
        let array =
            ParityArray::new(Parity::LeftSymmetric, 4096, 2 << 20, vec![hole(), None, hole()]).unwrap();
        let run = array.extent_at(0).unwrap();
        assert_eq!((run.length, run.kind), (2 << 20, ExtentKind::Zero));
        // Chunk 3 lies on member 0 of row 1, chunk 1 on the missing one.
        let data: Option<Device> = Some(Arc::new(MemoryDevice::new(vec![0; 1 << 20])));
        let array = ParityArray::new(Parity::LeftSymmetric, 4096, 2 << 20, vec![hole(), None, data]).unwrap();
        let run = array.extent_at(0).unwrap();
        assert_eq!((run.length, run.kind), (4096, ExtentKind::Zero));
        assert_eq!(array.extent_at(4096).unwrap().kind, ExtentKind::Data);
    }
}
