//! LUKS headers of both versions: the first byte says which copies get right checksums, the rest is the device.
#![no_main]

use std::sync::Arc;

use blockdev::{BlockDevice, Device, MemoryDevice};
use libfuzzer_sys::fuzz_target;
use luks::{Hash, Limits};

const COPY: usize = 16 << 10;

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    let mut content = bytes.to_vec();
    // Room for a header, key material and data behind what was given.
    content.resize(content.len().max(320 << 10), 0x5a);
    for copy in 0..2 {
        if choice & 1 << copy != 0 {
            let at = copy * COPY;
            content[at + 0x1c0..at + 0x200].fill(0);
            let digest = Hash::Sha256.digest(&[&content[at..at + COPY]]);
            content[at + 0x1c0..at + 0x1e0].copy_from_slice(&digest);
        }
    }
    let device: Device = Arc::new(MemoryDevice::new(content));
    let _ = luks::read_secondary(&device);
    let Ok(Some(found)) = luks::read(&device) else { return };
    // A header may ask for a minute of work, which is no hang; here only those are opened that ask for little.
    let (iterations, filled) = found.value.work();
    let is_cheap = iterations < 20_000 && filled < 20_000;
    if is_cheap && let Ok((_, opened)) = found.value.unlock(&device, b"correct horse", Limits { memory: 64 })
    {
        let _ = opened.read_exact_at(&mut [0; 700], opened.size() / 2);
    }
});
