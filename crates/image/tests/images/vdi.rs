//! VDI: every variant of QEMU's, new images, writes, and what is wrong with damaged ones.

use crate::blocks::{
    check, check_writes, content, found, must_be_sound, must_read_as_qemu, qemu_io, size_in_qemu,
};
use crate::support::{Folder, assert_same, disk_content, has_qemu};
use image::{Error, NewImage, Severity};

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("base.raw", &disk_content(6 << 20, 3));
    folder.write("odd.raw", &disk_content((3 << 20) + 5 * 512, 4));
    folder
}

#[test]
fn all_that_qemu_makes() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    for (options, base) in [("", "base.raw"), ("-o static=on ", "base.raw"), ("", "odd.raw")] {
        folder.must(&format!("qemu-img convert -f raw -O vdi {options}{base} disk.vdi"));
        must_read_as_qemu(&folder, "vdi", "disk.vdi");
        must_be_sound(&folder, "disk.vdi");
        qemu_io(&folder, "vdi", "disk.vdi", &["write -P 5 1M 70k", "write -z 2M 1M"]);
        must_read_as_qemu(&folder, "vdi", "disk.vdi");
        let model = check_writes(&folder, "disk.vdi", 60);
        assert_same(&content(&folder, "vdi", "disk.vdi"), &model, "after writes");
        folder.must("qemu-img check -f vdi disk.vdi");
    }
}

#[test]
fn new_images_are_images_to_qemu() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    for (subformat, size) in [(None, 10 << 20), (Some("dynamic"), (7 << 20) + 512), (Some("static"), 5 << 20)]
    {
        let _ = std::fs::remove_file(folder.path("new.vdi"));
        let new = NewImage { size, subformat: subformat.map(str::to_owned), ..NewImage::default() };
        image::create(&folder.path("new.vdi"), "vdi", &new).unwrap();
        assert_eq!(size_in_qemu(&folder, "vdi", "new.vdi"), size);
        must_be_sound(&folder, "new.vdi");
        qemu_io(&folder, "vdi", "new.vdi", &["write -P 1 1k 1M"]);
        must_read_as_qemu(&folder, "vdi", "new.vdi");
        let model = check_writes(&folder, "new.vdi", 30);
        assert_same(&content(&folder, "vdi", "new.vdi"), &model, "new.vdi");
        folder.must("qemu-img check -f vdi new.vdi");
        assert!(image::create(&folder.path("new.vdi"), "vdi", &new).is_err(), "it exists");
    }
    let new = NewImage { size: 1 << 20, subformat: Some("fixed".to_owned()), ..NewImage::default() };
    let refused = image::create(&folder.path("other.vdi"), "vdi", &new).unwrap_err();
    assert!(matches!(refused, Error::NotCreatable { .. }));
}

#[test]
fn damage_is_found_with_the_bytes_of_the_guest() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O vdi -S 0 base.raw sound.vdi");
    let sound = folder.read("sound.vdi");
    let map = u32::from_le_bytes(sound[0x154..0x158].try_into().unwrap()) as usize;
    let with = |at: usize, value: u32| {
        let mut bytes = sound.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        folder.write("disk.vdi", &bytes);
        check(&folder, "disk.vdi")
    };
    for (at, value, says_guest) in [
        (map + 4, 1000, true), // a block behind the end of the file
        (map + 4, 0, true),    // the block of another
    ] {
        let report = with(at, value);
        assert!(report.count(Severity::Error) > 0, "{:?}", found(&report));
        let names_guest = report
            .problems
            .iter()
            .any(|problem| problem.guest.iter().any(|range| range.contains(&(1 << 20))));
        assert_eq!(names_guest, says_guest, "{:?}", found(&report));
        let judged = folder.run("qemu-img check -f vdi disk.vdi").status.code();
        assert_ne!(judged, Some(0), "QEMU finds it too");
    }
    let open = |at: usize, value: u32| {
        let mut bytes = sound.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        folder.write("disk.vdi", &bytes);
        folder.open("disk.vdi").map(|_| ()).unwrap_err()
    };
    // An undo image and a differencing one need files that no VDI names.
    for kind in [3, 4] {
        let error = open(0x4c, kind);
        let said = std::error::Error::source(&error).unwrap().to_string();
        assert!(said.contains("is not supported"), "{said}");
    }
    open(0x178, 0); // block size
    open(0x180, u32::MAX); // blocks
}
