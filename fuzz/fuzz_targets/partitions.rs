//! Partition tables and the search for lost ones: the first byte chooses the sector size, the rest is the disk.
//!
//! Whatever the bytes, judging, listing, restoring and searching must end without a panic, and quickly; what is
//! restored must be accepted; what is proposed must lie on the disk in order.
#![no_main]

use std::sync::Arc;

use blockdev::{BlockDevice, BlockDeviceMut, Device, MemoryDevice, Overlay};
use libfuzzer_sys::fuzz_target;
use volume::gpt;

fuzz_target!(|input: &[u8]| {
    let Some((choice, bytes)) = input.split_first() else { return };
    let sector_size = if choice & 1 == 0 { 512 } else { 4096 };
    let disk: Device = Arc::new(MemoryDevice::with_sector_size(bytes, sector_size));
    let table = volume::read_table(disk.as_ref()).unwrap();
    if let Some(gpt) = table.and_then(|table| table.value.gpt) {
        restore(disk.clone(), &gpt);
    }
    let found = storage::lost::search(disk.as_ref(), &mut |_| {});
    let mut end = 0;
    for partition in storage::lost::propose(&found.value, disk.size(), sector_size.into()).partitions {
        assert!(partition.start >= end);
        end = partition.start + partition.length;
        assert!(end <= disk.size());
    }
});

/// A restoration that is not refused makes both copies good.
fn restore(disk: Device, gpt: &gpt::Gpt) {
    let Ok(writes) = gpt::restore_primary(gpt) else { return };
    let overlay = Overlay::new(disk);
    let apply = |writes: Vec<gpt::Write>| {
        for write in writes {
            overlay.write_all_at(&write.bytes, write.offset).unwrap();
        }
    };
    apply(writes);
    let again = gpt::read(&overlay).unwrap().unwrap().value;
    assert!(again.primary.good().is_some());
    if let Ok(writes) = gpt::restore_backup(&again) {
        apply(writes);
        let both = gpt::read(&overlay).unwrap().unwrap().value;
        assert!(both.primary.good().is_some() && both.backup.good().is_some() && both.differences.is_empty());
    }
}
