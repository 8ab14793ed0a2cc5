//! The power fails at every single write, growth and flush to a VMDK image.
//!
//! Afterwards neither `qemu-img check` nor our own finds damage, the disk reads as before or after the writes that
//! were not flushed, and wherever its content changed, so did its content ID.

use std::sync::Arc;

use crate::qcow2_power_cut::{Model, work};
use crate::support::{Folder, assert_same, disk_content, has_qemu, read_all};
use blockdev::{Device, MemoryDevice, PowerCut, Survivors};
use image::{FolderGate, Image, Mode, Options, OwnContent, Severity};

const GRAIN: usize = 65_536;

fn open(folder: &Folder, device: Device, mode: Mode) -> image::Result<Image> {
    let path = folder.path("disk.vmdk");
    image::open_device(device, Some(&path), &Options { mode, ..Options::default() }, &FolderGate::new())
}

/// The grains that the image holds itself.
fn own_grains(image: &Image) -> Vec<usize> {
    let disk = image.chain[0].disk.as_ref().unwrap();
    let grains = 0..(disk.size() as usize).div_ceil(GRAIN);
    let is_own = |grain: &usize| {
        let run = disk.own_run_at((grain * GRAIN) as u64).unwrap();
        matches!(run.content, OwnContent::Stored { .. })
    };
    grains.filter(is_own).collect()
}

/// Cuts the power at every step of the work on `disk.vmdk`.
fn cut_everywhere(folder: &Folder, rounds: usize) {
    let original = folder.read("disk.vmdk");
    let content = folder.content_as("vmdk", "disk.vmdk");
    let before = open(folder, Arc::new(MemoryDevice::new(original.clone())), Mode::ReadOnly).unwrap();
    let own = own_grains(&before);
    let identity = before.chain[0].identity.clone();
    let mut cuts = 0;
    let mut judged = Vec::new();
    for survivors in [Survivors::All, Survivors::None, Survivors::EveryOther, Survivors::TheOthers] {
        for steps in 0.. {
            let disk = Arc::new(MemoryDevice::new(original.clone()));
            let power = Arc::new(PowerCut::new(disk.clone(), steps, survivors));
            let image = open(folder, power.clone(), Mode::ReadWrite).unwrap();
            let mut model = Model::new(content.clone(), GRAIN);
            model.own.extend(&own);
            let outcome = work(image.device.writable().unwrap(), &mut model, 11, rounds);
            assert_eq!(outcome.is_err(), power.is_cut());
            let what = format!("{survivors:?} after {steps} steps");
            let after = disk.to_vec();
            let reopened = open(folder, disk.clone(), Mode::ReadOnly).unwrap();
            let found = read_all(&*reopened.device);
            model.check(&found, &what);
            assert!(reopened.problems.is_empty() && reopened.take_read_problems().is_empty(), "{what}");
            if found != content {
                assert_ne!(reopened.chain[0].identity, identity, "{what}");
            }
            // Where nothing more survived than at the step before, the verdict stands.
            if after != judged {
                folder.write("after.vmdk", &after);
                let output = folder.run("qemu-img check -f vmdk after.vmdk");
                assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
                let path = folder.path("after.vmdk");
                let report = image::check(&path, &Options::default(), &FolderGate::new()).unwrap();
                assert_eq!(report.count(Severity::Error), 0, "{what}: {report:?}");
                // And it can be written again, without a repair in between.
                let again: Device = Arc::new(MemoryDevice::new(after.clone()));
                let image = open(folder, again, Mode::ReadWrite).unwrap();
                let disk = image.device.writable().unwrap();
                disk.write_all_at(&[0x5a; 70_000], 130_000).unwrap();
                disk.flush().unwrap();
                let mut expected = found.clone();
                expected[130_000..200_000].fill(0x5a);
                assert_same(&read_all(disk), &expected, &what);
                judged = after;
            }
            if !power.is_cut() {
                cuts += steps;
                break;
            }
        }
    }
    println!("{cuts} cuts");
}

#[test]
fn empty_and_half_full() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    folder.must("qemu-img create -q -f vmdk disk.vmdk 1M");
    cut_everywhere(&folder, 3);
    folder.qemu_io_as("vmdk", "disk.vmdk", &["write -P 1 3k 2k", "write -P 2 300k 300k"]);
    cut_everywhere(&folder, 2);
}

#[test]
fn over_a_parent() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    folder.write("base.raw", &disk_content(1 << 20, 4));
    folder.must("qemu-img convert -f raw -O vmdk base.raw base.vmdk");
    for options in ["zeroed_grain=off", "zeroed_grain=on"] {
        folder.must(&format!("qemu-img create -q -f vmdk -o {options} -b base.vmdk -F vmdk disk.vmdk"));
        if options.ends_with("on") {
            folder.qemu_io_as("vmdk", "disk.vmdk", &["write -z 0 128k", "write -P 2 100k 7k"]);
        }
        cut_everywhere(&folder, 2);
    }
}

#[test]
fn while_tables_are_made() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    folder.must("qemu-img create -q -f vmdk disk.vmdk 1M");
    let mut bytes = folder.read("disk.vmdk");
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    for directory in [word(56) * 512, word(48) * 512] {
        bytes[directory..directory + 4].fill(0);
    }
    folder.write("disk.vmdk", &bytes);
    cut_everywhere(&folder, 2);
}
