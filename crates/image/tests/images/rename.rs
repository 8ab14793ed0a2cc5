//! A parent that was renamed, and the child that learns its new name.

use image::{FolderGate, Options};

use crate::support::{Folder, assert_same, disk_content, has_qemu, read_all};
use crate::vhd::differencing;
use crate::vhdx_chain::{make_child, make_parent};
use image::vhdx::CreateOptions;

/// Renames `parent` to `new`, tells `child`, and compares what it reads with what it read before.
fn rename(folder: &Folder, child: &str, parent: &str, new: &str) {
    let before = read_all(&*folder.open(child).unwrap().device);
    let file = folder.read(child);
    if let Some((directory, _)) = new.rsplit_once('/') {
        std::fs::create_dir_all(folder.path(directory)).unwrap();
    }
    std::fs::rename(folder.path(parent), folder.path(new)).unwrap();
    folder.open(child).unwrap_err();
    let path = folder.path(child);
    let rename = |name: &str, format: &str| {
        let format = image::format_named(format).unwrap();
        image::rename_parent(&path, &Options::default(), &FolderGate::new(), name.as_bytes(), format)
    };
    let format = image::check(&path, &Options::default(), &FolderGate::new()).unwrap().format;
    assert!(rename(new, "raw").unwrap_err().to_string().contains("must be one"));
    assert!(rename("/absolute", format).is_err());
    assert!(rename(&"long/".repeat(20_000), format).is_err(), "no locator can hold that");
    let patches = rename(new, format).unwrap();
    assert!(folder.read(child) == file, "nothing is written yet");
    let mut bytes = file;
    for patch in patches {
        let range = patch.offset as usize..patch.offset as usize + patch.bytes.len();
        bytes[range].copy_from_slice(&patch.bytes);
    }
    folder.write(child, &bytes);
    let image = folder.open(child).unwrap();
    assert_same(&read_all(&*image.device), &before, child);
    assert!(image.chain[0].parent.as_ref().unwrap().names[0].ends_with(new.as_bytes()));
    let report = image::check(&path, &Options::default(), &FolderGate::new()).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
}

#[test]
fn vhdx() {
    let folder = Folder::new();
    make_parent(&folder, "parent.vhdx", 5 << 20, 512, 31);
    make_child(&folder, "child.vhdx", "parent.vhdx", &CreateOptions::new(5 << 20));
    rename(&folder, "child.vhdx", "parent.vhdx", "p.vhdx");
    rename(&folder, "child.vhdx", "p.vhdx", "archive/a much longer name than the first.vhdx");
}

#[test]
fn vhd() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    folder.write("base.raw", &disk_content(5 << 20, 9));
    folder.must("qemu-img convert -f raw -O vpc -o force_size=on base.raw parent.vhd");
    differencing(&folder, "child.vhd", "parent.vhd", ".\\parent.vhd");
    rename(&folder, "child.vhd", "parent.vhd", "p.vhd");
}
