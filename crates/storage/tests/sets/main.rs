//! File systems on several devices.

use std::fs::File;
use std::process::Command;
use std::sync::Arc;

use blockdev::{Device, FileDevice};
use luks::Keyring;
use storage::{Content, discover};

#[test]
fn devices_of_one_file_system_find_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let images = ["one", "two", "alone"].map(|name| folder.path().join(name));
    for image in &images {
        File::create(image).unwrap().set_len(300 << 20).unwrap();
    }
    let mkfs = |arguments: &[&str], images: &[std::path::PathBuf]| {
        Command::new("mkfs.btrfs").args(["-q", "-f"]).args(arguments).args(images).output()
    };
    let Ok(output) = mkfs(&["-d", "raid0", "-m", "raid1"], &images[..2]) else {
        println!("skipped: mkfs.btrfs is not installed");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(mkfs(&[], &images[2..]).unwrap().status.success());
    let device = |image: &std::path::PathBuf| Arc::new(FileDevice::open(image).unwrap()) as Device;
    let others = |disks: &[Device]| -> Vec<usize> {
        let storage = discover(disks, &Keyring::default());
        let nodes = storage.nodes.iter();
        nodes
            .map(|node| match &node.content {
                Content::FileSystem { others, .. } => {
                    let opened = node.open().unwrap();
                    assert_eq!(opened.problems.is_empty(), disks.len() > 1, "{:?}", opened.problems);
                    others.len()
                }
                content => panic!("{content:?}"),
            })
            .collect()
    };
    let [one, two, alone] = [&images[0], &images[1], &images[2]].map(device);
    assert_eq!(others(&[one.clone(), two.clone(), alone.clone()]), [1, 1, 0]);
    // The same disk twice is no second device.
    assert_eq!(others(&[one.clone(), two, one.clone()]), [1, 1, 1]);
    assert_eq!(others(&[one]), [0]);
}
