//! md superblocks: up to five members of zeros, each with one superblock from the input.
//!
//! A member takes 4098 bytes: its place and whether the checksum is set right, its size, and the superblock.
//! Whatever the bytes, assembling, reading, mapping and writing must end without a panic, and quickly.
#![no_main]

use std::sync::Arc;

use blockdev::{BlockDevice, Concat, Device, Overlay, Part};
use libfuzzer_sys::fuzz_target;
use volume::md::{Member, assemble, read_member};

fuzz_target!(|input: &[u8]| {
    let mut members: Vec<Member> = Vec::new();
    for bytes in input.chunks_exact(4098).take(5) {
        let (place, size) = (bytes[0], (u64::from(bytes[1] % 8) + 1) * (64 << 10));
        let mut block = bytes[2..].to_vec();
        let offset = match place & 3 {
            0 => size - (64 << 10),
            1 => size - (8 << 10),
            2 => 0,
            _ => 4096,
        };
        if place & 4 != 0 {
            set_checksum(&mut block, place & 3 == 0);
        }
        let zeros =
            Concat::new([Part { device: None, offset: 0, length: size }]).expect("a hole fits anywhere");
        let overlay = Overlay::new(Arc::new(zeros));
        if let Some(device) = overlay.writable() {
            let _ = device.write_all_at(&block, offset);
        }
        let device: Device = Arc::new(overlay);
        if let Ok(Some(member)) = read_member(&device) {
            let _ = member.value.identity();
            members.push(member.value);
        }
    }
    for array in assemble(&members) {
        let Ok(device) = array.value.device else { continue };
        let mut buffer = [0; 3000];
        for offset in [0, 1000, device.size() / 2, device.size().saturating_sub(3000)] {
            let _ = device.read_exact_at(&mut buffer, offset);
            if let Ok(run) = device.extent_at(offset) {
                assert!(run.length > 0 && run.length <= device.size() - offset);
            }
        }
        if let Some(writable) = device.writable()
            && device.size() >= 5000
        {
            // What is written comes back, or writing or reading fails.
            let bytes = [0xa5; 3000];
            let is_written = writable.write_all_at(&bytes, 2000).is_ok();
            if is_written && device.read_exact_at(&mut buffer, 2000).is_ok() {
                assert!(buffer == bytes);
            }
        }
    }
});

/// The sum of the words, for version 0.90 in place 0 and versions 1.x elsewhere.
fn set_checksum(block: &mut [u8], is_old: bool) {
    let max_dev = u32::from_le_bytes([block[220], block[221], block[222], block[223]]);
    let (at, length) = if is_old { (152, 4096) } else { (216, 256 + 2 * max_dev.min(1920) as usize) };
    block[at..at + 4].fill(0);
    let sum: u64 = block[..length]
        .chunks(4)
        .map(|word| word.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)))
        .sum();
    block[at..at + 4].copy_from_slice(&((sum as u32).wrapping_add((sum >> 32) as u32)).to_le_bytes());
}
