//! Every disk image format: the first byte chooses it, the rest is the file.
//!
//! Whatever the bytes, opening, examining, reading, mapping and writing must end without a panic, and quickly.
#![no_main]

use std::sync::Arc;

use blockdev::{Device, MemoryDevice, Overlay};
use image::{DenyAll, Mode, Options};
use libfuzzer_sys::fuzz_target;

/// Runs that are walked in one disk.
const MAX_RUNS: usize = 64;

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    let format = image::FORMATS[usize::from(*choice) % image::FORMATS.len()].name;
    let options = Options { format: Some(format), passphrase: Some(b"abc"), ..Options::default() };
    let file: Device = Arc::new(MemoryDevice::new(bytes));
    let _ = image::check_device(file.clone(), None, &options, &DenyAll);
    if let Ok(opened) = image::open_device(file.clone(), None, &options, &DenyAll) {
        look(&opened);
    }
    let overlay: Device = Arc::new(Overlay::new(file));
    let options = Options { mode: Mode::ReadWrite, ..options };
    if let Ok(opened) = image::open_device(overlay, None, &options, &DenyAll)
        && let Some(disk) = opened.device.writable()
    {
        for offset in [0, 4096, disk.size() / 2, disk.size().saturating_sub(700)] {
            let _ = disk.write_all_at(&[0xa5; 700], offset);
        }
        let _ = disk.write_zeros_at(0, disk.size().min(200_000));
        let _ = disk.flush();
        look(&opened);
    }
});

/// Reads here and there, and walks the map.
fn look(opened: &image::Image) {
    let disk = &opened.device;
    let mut buffer = [0; 3000];
    for offset in [0, 1000, disk.size() / 2, disk.size().saturating_sub(3000)] {
        let _ = disk.read_exact_at(&mut buffer, offset);
    }
    for own in opened.chain.iter().filter_map(|layer| layer.disk.as_ref()) {
        let mut offset = 0;
        for _ in 0..MAX_RUNS {
            let (Ok(run), Ok(extent)) = (own.own_run_at(offset), own.extent_at(offset)) else { break };
            assert!(run.length > 0 && run.length <= own.size() - offset);
            assert!(extent.length > 0 && extent.length <= own.size() - offset);
            offset += run.length;
            if offset >= own.size() {
                break;
            }
        }
    }
    let _ = opened.take_read_problems();
}
