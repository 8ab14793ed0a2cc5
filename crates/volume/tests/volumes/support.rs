//! Loading the images of `test-images/volume`, and the pattern that their makers wrote.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use blockdev::{BlockDevice, Device, MemoryDevice};

/// The image `test-images/volume/{name}.zst`.
pub(crate) fn image(name: &str) -> Device {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test-images/volume");
    let packed = std::fs::read(folder.join(format!("{name}.zst"))).unwrap();
    let mut content = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(packed.as_slice()).unwrap().read_to_end(&mut content).unwrap();
    Arc::new(MemoryDevice::new(content))
}

/// What scripts/images/pattern.py writes at `sector` (of 512 bytes) for `seed`: 64 little-endian numbers, the
/// sector's number with the seed above it, each one more than the last in its top byte.
pub(crate) fn pattern(seed: u8, sector: u64) -> [u8; 512] {
    let mut bytes = [0; 512];
    for (word, chunk) in (0_u64..).zip(bytes.chunks_exact_mut(8)) {
        let value = sector | u64::from(seed) << 48 | word << 56;
        chunk.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// Checks that sectors `range` of `device` hold the pattern of `seed`.
pub(crate) fn assert_pattern(device: &dyn BlockDevice, seed: u8, range: std::ops::Range<u64>) {
    let mut buffer = vec![0; 64 << 10];
    let mut sector = range.start;
    while sector < range.end {
        let count = (range.end - sector).min(128);
        let bytes = &mut buffer[..count as usize * 512];
        device.read_exact_at(bytes, sector * 512).unwrap();
        for (number, found) in (sector..).zip(bytes.chunks_exact(512)) {
            assert!(found == pattern(seed, number), "seed {seed}, sector {number}: {:02x?}", &found[..16]);
        }
        sector += count;
    }
}
