//! The power fails at every write of VHD and VDI images, and what survives is chosen in four ways.

use std::sync::Arc;

use crate::blocks::{must_be_mendable, qemu_io};
use crate::qcow2_power_cut::{Model, work};
use crate::support::{Folder, assert_same, disk_content, has_qemu, read_all};
use crate::vhd::differencing;
use blockdev::{BlockDeviceMut, Device, MemoryDevice, PowerCut, Survivors};
use image::{FolderGate, Image, Mode, Options};

const SIZE: usize = 5 << 20;

fn open(folder: &Folder, device: Device, format: &str, mode: Mode) -> Image {
    let path = folder.path("disk");
    let options = Options { format: Some(format), mode, ..Options::default() };
    image::open_device(device, Some(&path), &options, &FolderGate::new()).unwrap()
}

/// Cuts the power at every step of the work on `disk`; returns how many cuts there were.
fn cut_everywhere(folder: &Folder, format: &str) -> u64 {
    let original = folder.read("disk");
    let file: Device = Arc::new(MemoryDevice::new(original.clone()));
    let content = read_all(&*open(folder, file, format, Mode::ReadOnly).device);
    let mut cuts = 0;
    for survivors in [Survivors::All, Survivors::None, Survivors::EveryOther, Survivors::TheOthers] {
        for steps in 0.. {
            let disk = Arc::new(MemoryDevice::new(original.clone()));
            let power = Arc::new(PowerCut::new(disk.clone(), steps, survivors));
            let image = open(folder, power.clone(), format, Mode::ReadWrite);
            // Every write is in place, or goes to a block that reads as it did before.
            let mut model = Model::new(content.clone(), 512);
            let outcome = work(image.device.writable().unwrap(), &mut model, 17, 2);
            assert_eq!(outcome.is_err(), power.is_cut());
            drop(image);
            let what = format!("{format}, {survivors:?} after {steps} steps");
            let options = Options { format: Some(format), ..Options::default() };
            let path = folder.path("disk");
            let report =
                image::check_device(disk.clone(), Some(&path), &options, &FolderGate::new()).unwrap();
            must_be_mendable(&report, &what);
            let after = open(folder, disk.clone(), format, Mode::ReadOnly);
            model.check(&read_all(&*after.device), &what);
            // What was cut can be written again, once the footer that was on its way is back.
            let repairs = report.problems.iter().filter_map(|problem| problem.repair.as_ref());
            for patch in repairs.flat_map(|repair| &repair.patches) {
                disk.grow(patch.offset + patch.bytes.len() as u64).unwrap();
                disk.write_all_at(&patch.bytes, patch.offset).unwrap();
            }
            let again = open(folder, disk, format, Mode::ReadWrite);
            again.device.writable().unwrap().write_all_at(&[9; 1024], 2048).unwrap();
            again.device.writable().unwrap().flush().unwrap();
            if !power.is_cut() {
                assert!(report.problems.is_empty(), "{what}: {:?}", report.problems);
                cuts += steps;
                break;
            }
        }
    }
    cuts
}

#[test]
fn new_blocks_and_old_ones() {
    if !has_qemu() {
        return;
    }
    for (format, name, options) in [
        ("vhd", "vpc", "-o subformat=dynamic,force_size=on"),
        ("vhd", "vpc", "-o subformat=fixed,force_size=on"),
        ("vdi", "vdi", ""),
        ("vdi", "vdi", "-o static=on"),
    ] {
        let folder = Folder::new();
        let line = format!("qemu-img create -q -f {name} {options} disk {SIZE}").replace("  ", " ");
        folder.must(&line);
        qemu_io(&folder, name, "disk", &["write -P 3 2M 200k"]);
        let cuts = cut_everywhere(&folder, format);
        assert!(cuts > 20, "{format} {options}: {cuts}");
    }
}

#[test]
fn a_child_over_its_parent() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    folder.write("base.raw", &disk_content(SIZE, 9));
    folder.must("qemu-img convert -f raw -O vpc -o force_size=on base.raw parent.vhd");
    differencing(&folder, "disk", "parent.vhd", ".\\parent.vhd");
    let before = folder.read("parent.vhd");
    assert!(cut_everywhere(&folder, "vhd") > 20);
    assert_same(&folder.read("parent.vhd"), &before, "the parent");
}
