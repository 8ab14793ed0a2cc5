//! Damaged images: whatever the bytes say, reading ends soon and without a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::common::{structures, unpack, unpack_set, walk};
use blockdev::{BlockDevice, BlockDeviceMut, Device, Overlay};
use filesystem_btrfs::{FORMAT, Select, open_subvolume, subvolumes};

/// SplitMix64, so that a failure can be repeated from its number.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Changes a few bytes of one structure; the checksum is made right again three times out of four.
fn mutate(random: &mut Random, device: &Overlay, structures: &[(u64, usize)]) {
    // Whatever is damaged in the superblock damages everything, so it gets its share.
    let (offset, length) = structures[if random.below(8) == 0 { 0 } else { random.below(structures.len()) }];
    let mut bytes = vec![0; length];
    device.read_exact_at(&mut bytes, offset).unwrap();
    let count = u32::from_le_bytes(bytes[0x60..0x64].try_into().unwrap()).min(100) as usize;
    for _ in 0..=random.below(3) {
        // Headers, items and the data at the end are where fields are.
        let at = match random.below(4) {
            0 => random.below(length - 8),
            1 => 32 + random.below(0x120),
            2 => (0x65 + random.below(25 * (count + 1))).min(length - 8),
            _ => length - 8 - random.below(400),
        };
        let at = at.max(32);
        match random.below(5) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            3 => bytes[at] = bytes[at].wrapping_add([1, 255][random.below(2)]),
            _ => {
                let value = [0_u64, 1, 4096, 1 << 31, 1 << 63, u64::MAX][random.below(6)];
                bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            }
        }
    }
    if random.below(4) != 0 {
        let sum = ondisk::crc32c(&bytes[32..]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
    }
    device.write_all_at(&bytes, offset).unwrap();
}

/// Opens and walks; returns how much of the tree was seen and how often there was damage.
fn exercise(devices: &[Device], round: u64) -> (usize, usize) {
    let mut damage = 0;
    let mut seen = 0;
    let select = if round.is_multiple_of(2) { Select::Id(5) } else { Select::Default };
    match open_subvolume(devices.to_vec(), select) {
        Ok(opened) => {
            let found = walk(&*opened.value, 60);
            seen = found.files;
            damage += opened.problems.len() + found.errors.len();
        }
        Err(_) => damage += 1,
    }
    if round.is_multiple_of(5) {
        let _ = (FORMAT.probe)(&*devices[0]);
        damage += usize::from((FORMAT.replay)(devices[0].clone()).is_err());
        damage += subvolumes(devices.to_vec()).map_or(1, |found| found.problems.len());
    }
    (seen, damage)
}

/// Tries `rounds` mutations of the first of some devices.
fn survive(name: &str, devices: &[Device], rounds: u64) {
    let changed = |change: &dyn Fn(&Overlay)| {
        let overlay = Arc::new(Overlay::new(devices[0].clone()));
        change(&overlay);
        let mut changed = devices.to_vec();
        changed[0] = overlay;
        changed
    };
    // Most blocks that look like one are of older commits; only what is missed is worth changing.
    let mut live = structures(&*devices[0], 4096);
    live.retain(|(offset, _)| {
        let lost = changed(&|device: &Overlay| device.write_all_at(&[0xff; 64], *offset).unwrap());
        exercise(&lost, 0).1 > 0 || exercise(&lost, 5).1 > 0
    });
    let (mut noticed, mut deep) = (0, 0);
    for round in 0..rounds {
        let changed = changed(&|device: &Overlay| mutate(&mut Random(round), device, &live));
        let outcome = catch_unwind(AssertUnwindSafe(|| exercise(&changed, round)));
        let Ok((seen, damage)) = outcome else { panic!("{name}: mutation {round} panics") };
        noticed += u64::from(damage > 0);
        deep += u64::from(damage > 0 && seen > 20);
    }
    println!("{name}: {} structures, {noticed} of {rounds} noticed, {deep} of them deep", live.len());
    assert!(noticed > rounds / 4, "{name}: mutations reach what is read ({noticed} of {rounds} noticed)");
    assert!(deep > rounds / 20, "{name}: mutations get deep ({deep} of {rounds})");
}

#[test]
fn mutations_of_one_device() {
    survive("one", &[unpack("btrfs-one")], 13_000);
}

#[test]
fn mutations_of_copies() {
    survive("raid1", &unpack_set("btrfs-raid1", 2), 4000);
}

#[test]
fn mutations_of_stripes() {
    survive("raid0", &unpack_set("btrfs-raid0", 2), 4000);
}
