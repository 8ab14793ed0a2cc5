//! Damaged and hostile disks: whatever the bytes say, an examination ends, and quickly.

use luks::Keyring;
use std::sync::Arc;
use std::time::{Duration, Instant};

use blockdev::{BlockDevice, BlockDeviceMut, Device, Overlay};
use guestmend::examine;
use guestmend::machine::Machine;
use image::{FolderGate, Options};

/// Where the samples keep what is read first, in bytes of the disk.
const PLACES: [(u64, u64); 8] = [
    // The MBR's entries; the label and header of the physical volume; its metadata area; the first text.
    (0x1be, 66),
    (97 * (1 << 20) + 512, 200),
    (97 * (1 << 20) + 4096, 128),
    (97 * (1 << 20) + 4096 + 512, 2048),
    // /boot: superblock and what follows.
    (1 << 20, 4096),
    ((1 << 20) + 4096, 16_384),
    // The root file system, behind 1 MiB of PV and 16 MiB of swap.
    (114 * (1 << 20), 4096),
    (114 * (1 << 20) + 4096, 200_000),
];

#[test]
fn no_damage_panics_or_hangs() {
    let mut state = 2026_u64;
    let mut next = |limit: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % limit
    };
    for name in ["centos7-vda.qcow2", "centos7-vda-ext4.qcow2"] {
        let opened =
            image::open(&crate::support::sample(name), &Options::default(), &FolderGate::new()).unwrap();
        let mut still_found = 0;
        for round in 0..400 {
            let disk = Overlay::new(opened.device.clone());
            for _ in 0..=next(4) {
                let (start, length) = PLACES[next(8) as usize];
                let at = start + next(length);
                let mut bytes = [0; 8];
                disk.read_exact_at(&mut bytes, at).unwrap();
                let count = [1, 2, 4, 8][next(4) as usize];
                let value = [0, 0xff, 0x7f, 0x80, next(256) as u8][next(5) as usize];
                bytes[..count].fill(value);
                disk.write_all_at(&bytes, at).unwrap();
            }
            let start = Instant::now();
            let examination = examine(
                &[Arc::new(disk) as Device],
                &Keyring::default(),
                &[Machine::as_is(), Machine::reordered()],
            );
            assert!(start.elapsed() < Duration::from_secs(20), "{name}, round {round}");
            still_found += usize::from(!examination.findings.is_empty());
        }
        // Most damage of a few bytes must not hide what is wrong with the guest.
        assert!(still_found > 50, "{name}: found in {still_found} of 400");
    }
}

#[test]
fn every_short_cut_of_an_image_ends() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(crate::support::sample("centos7-vda-ext4.qcow2")).unwrap();
    let path = folder.path().join("cut.qcow2");
    for length in (0..whole.len()).step_by(9001) {
        std::fs::write(&path, &whole[..length]).unwrap();
        let Ok(opened) = image::open(&path, &Options::default(), &FolderGate::new()) else { continue };
        examine(&[opened.device], &Keyring::default(), &[Machine::as_is()]);
    }
}
