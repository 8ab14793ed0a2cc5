//! Several devices: every profile, degraded and damaged.

use std::sync::Arc;

use crate::common::{content, names, open, patch, text, unpack_set};
use blockdev::{BlockDeviceMut, Device, Overlay};
use filesystem_btrfs::{membership, open_set};

fn check(name: &str, devices: Vec<Device>) {
    let fs = &*open(devices);
    assert_eq!(content(fs, "/text400001"), text(400_001), "{name}");
    assert_eq!(names(fs, "/directory").len(), 100, "{name}");
}

/// What is wrong when only some of the devices are there, and whether the file can be read.
fn degraded(devices: &[Device], missing: &[usize]) -> (Vec<String>, Option<Vec<u8>>) {
    let rest = devices.iter().enumerate().filter(|(number, _)| !missing.contains(number));
    match open_set(rest.map(|(_, device)| device.clone()).collect()) {
        Ok(opened) => {
            let problems = opened.problems.iter().map(ToString::to_string).collect();
            let fs = &*opened.value;
            let inode = filesystem::path::resolve(fs, b"/text400001").ok();
            let content = inode.and_then(|inode| filesystem::read_to_end(fs, inode, 1 << 20).ok());
            (problems, content)
        }
        Err(error) => (vec![format!("refused: {error}")], None),
    }
}

#[test]
fn raid1() {
    let devices = unpack_set("btrfs-raid1", 2);
    check("raid1", devices.clone());
    check("raid1, the other way round", devices.iter().rev().cloned().collect());
    let members: Vec<_> = devices.iter().map(|device| membership(&**device).unwrap().unwrap()).collect();
    assert_eq!(members[0].fsid, members[1].fsid);
    assert_eq!((members[0].devid, members[1].devid, members[1].device_count), (1, 2, 2));
    for missing in [0, 1] {
        let (problems, found) = degraded(&devices, &[missing]);
        assert_eq!(problems.len(), 1, "{problems:?}");
        let uuid = members[missing].device_uuid;
        let number = missing + 1;
        assert_eq!(problems[0], format!("device cannot be read: device {number} ({uuid}) of 2 is not there"));
        assert_eq!(found, Some(text(400_001)));
    }
    // Everything but the superblocks of one device gone: the other serves.
    let broken = Arc::new(Overlay::new(devices[0].clone()));
    broken.write_zeros_at(1 << 20, 95 << 20).unwrap();
    let opened = open_set(vec![broken, devices[1].clone()]).unwrap();
    assert!(
        !opened.problems.is_empty() && opened.problems.iter().all(|problem| problem.as_corrupt().is_some())
    );
    assert_eq!(content(&*opened.value, "/text400001"), text(400_001));
    // The same device twice, a device of another file system, and one that was left behind.
    let stale = Arc::new(Overlay::new(devices[1].clone()));
    patch(&*stale, (64 << 10, 4096), |bytes| bytes[0x48] -= 1);
    let text = |devices: Vec<Device>| {
        open_set(devices)
            .unwrap()
            .problems
            .iter()
            .map(|problem| problem.to_string() + "; ")
            .collect::<String>()
    };
    let twice = text(vec![devices[0].clone(), devices[1].clone(), devices[0].clone()]);
    assert!(twice.contains("devid is 1, expected each device once"), "{twice}");
    assert!(text(vec![devices[0].clone(), stale]).contains("generation is "));
    let other = unpack_set("btrfs-raid0", 2).remove(0);
    assert!(
        text(vec![devices[0].clone(), devices[1].clone(), other]).contains("a device of the file system")
    );
    assert!(open_set(Vec::new()).is_err());
}

#[test]
fn raid1c4() {
    let devices = unpack_set("btrfs-raid1c4", 4);
    check("raid1c4", devices.clone());
    let (problems, found) = degraded(&devices, &[0, 1, 3]);
    assert_eq!((problems.len(), found), (3, Some(text(400_001))));
}

#[test]
fn raid0() {
    let devices = unpack_set("btrfs-raid0", 2);
    check("raid0", devices.clone());
    for missing in [0, 1] {
        let (problems, found) = degraded(&devices, &[missing]);
        assert_eq!(found, None);
        assert!(problems.iter().any(|problem| problem.contains("is not there")), "{problems:?}");
    }
}

#[test]
fn raid10() {
    let devices = unpack_set("btrfs-raid10", 4);
    check("raid10", devices.clone());
    for missing in 0..4 {
        assert_eq!(degraded(&devices, &[missing]).1, Some(text(400_001)), "without {missing}");
    }
}

#[test]
fn raid5() {
    let devices = unpack_set("btrfs-raid5", 3);
    check("raid5", devices.clone());
    for missing in 0..3 {
        assert_eq!(degraded(&devices, &[missing]).1, Some(text(400_001)), "without {missing}");
    }
    assert_eq!(degraded(&devices, &[0, 1]).1, None);
}

#[test]
fn raid6() {
    let devices = unpack_set("btrfs-raid6", 4);
    check("raid6", devices.clone());
    for missing in 0..4 {
        assert_eq!(degraded(&devices, &[missing]).1, Some(text(400_001)), "without {missing}");
    }
}
