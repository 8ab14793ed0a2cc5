//! From a broken image to a mended one, judged by the makers' own tools, and back.
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::support::{assert_clean, bytes, copy, discover, has, judge, run};
use blockdev::{BlockDevice, Device, MemoryDevice, Overlay, Power, PowerCut, Survivors};
use filesystem::path::resolve;
use filesystem::{Metadata, Timestamp};
use guestmend::machine::Machine;
use guestmend::{Wanted, delivery, mend};
use image::{FolderGate, Options, Staging};
use repair::{Applicability, journal, journal::Target};

const BROKEN: [&str; 2] = ["centos7-vda.qcow2", "centos7-vda-ext4.qcow2"];

/// Inode, metadata and SELinux label of the guest's fstab.
fn fstab_facts(image: &Path) -> (u64, Metadata, Vec<u8>) {
    let storage = discover(image);
    let root = storage.nodes.iter().find(|node| node.path == "centos/root").unwrap().open().unwrap().value;
    let inode = resolve(root.as_ref(), b"/etc/fstab").unwrap();
    let label = root.xattr(inode, b"security.selinux").unwrap().unwrap();
    (inode.0, root.metadata(inode).unwrap(), label)
}

#[test]
fn fix_delivers_an_overlay_that_every_judge_accepts() {
    for name in BROKEN {
        let (folder, image) = copy(name);
        let before = bytes(&image);
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&image, private).unwrap();
        let facts = fstab_facts(&image);
        let (code, out, err) = run(&["fix", image.to_str().unwrap()]);
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        assert!(out.contains("\n-/dev/vda1 /boot") && out.contains("\n+UUID=6f1c77a0"), "{out}");
        let after = out.split("after\n").nth(1).unwrap();
        assert!(after.contains("boot with an extra disk first: login, if"), "{out}");
        assert!(bytes(&image) == before, "{name}: the image itself was written");

        let overlay = delivery::default_overlay(&image);
        let mode =
            |path: &Path| std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(path).unwrap()) & 0o777;
        assert_eq!(mode(&overlay), 0o600, "the overlay is as private as the image");
        assert_eq!(run(&["check", overlay.to_str().unwrap()]).0, 0);
        let (inode, metadata, label) = fstab_facts(&overlay);
        assert_eq!((inode, &label), (facts.0, &facts.2));
        let owner = |metadata: &Metadata| {
            (metadata.kind, metadata.permissions, metadata.uid, metadata.gid, metadata.links)
        };
        assert_eq!(owner(&metadata), owner(&facts.1));
        assert_eq!(
            metadata.size,
            facts.1.size + "UUID=6f1c77a0-0b2d-4c3e-9a51-0c7de1000001".len() as u64 - 9
        );
        for node in ["centos/root", "disk0/p1"] {
            assert_clean(&overlay, node);
        }
        if has("qemu-img") {
            let file = overlay.to_str().unwrap();
            assert_eq!(judge("qemu-img", &["check", file]).0, 0);
            let info = judge("qemu-img", &["info", file]).1;
            assert!(
                info.contains(&format!("backing file: {name}"))
                    && info.contains("backing file format: qcow2")
            );
            let raw = folder.path().join("mended.raw");
            assert_eq!(judge("qemu-img", &["convert", "-O", "raw", file, raw.to_str().unwrap()]).0, 0);
            assert_eq!(run(&["check", raw.to_str().unwrap()]).0, 0);
        }
        // A second run must not overwrite what the first one left.
        let (code, _, err) = run(&["fix", image.to_str().unwrap()]);
        assert_eq!(code, 2);
        assert!(err.contains("exists already"), "{err}");
    }
}

#[test]
fn commit_discard_and_undo() {
    for name in BROKEN {
        let (_folder, image) = copy(name);
        let (path, overlay) = (image.to_str().unwrap().to_owned(), delivery::default_overlay(&image));
        let overlay = overlay.to_str().unwrap().to_owned();
        let before = bytes(&image);
        assert_eq!(run(&["fix", &path]).0, 0);
        assert_eq!(run(&["discard", &overlay]).0, 0);
        assert!(!Path::new(&overlay).exists() && bytes(&image) == before);
        assert_eq!(run(&["discard", &path]).0, 2, "an image is not an overlay of ours");

        assert_eq!(run(&["fix", &path]).0, 0);
        let (code, out, err) = run(&["commit", &overlay]);
        assert_eq!(code, 0, "{out}{err}");
        assert!(!Path::new(&overlay).exists());
        assert_eq!(run(&["check", &path]).0, 0);
        assert_clean(&image, "centos/root");
        if has("qemu-img") {
            assert_eq!(judge("qemu-img", &["check", &path]).0, 0);
        }
        assert_eq!(run(&["undo", &path]).0, 0);
        assert!(bytes(&image) == before, "{name}: undo did not restore every byte");
        assert_eq!(run(&["undo", &path]).0, 2, "there is nothing left to undo");
    }
}

#[test]
fn a_commit_onto_a_changed_image_is_refused() {
    let (_folder, image) = copy(BROKEN[1]);
    let overlay = delivery::default_overlay(&image);
    assert_eq!(run(&["fix", image.to_str().unwrap()]).0, 0);
    let mut content = std::fs::read(&image).unwrap();
    content.extend([0; 512]);
    std::fs::write(&image, content).unwrap();
    let (code, _, err) = run(&["commit", overlay.to_str().unwrap()]);
    assert_eq!(code, 2);
    assert!(err.contains("changed after"), "{err}");
}

#[test]
fn in_place_and_dry_run() {
    for name in BROKEN {
        let (folder, image) = copy(name);
        let path = image.to_str().unwrap();
        let before = bytes(&image);
        assert_eq!(run(&["fix", path, "--dry-run"]).0, 0);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a dry run writes nothing");
        assert!(bytes(&image) == before);
        assert_eq!(run(&["fix", path, "--in-place"]).0, 0);
        assert_eq!(run(&["check", path]).0, 0);
        assert_eq!(run(&["undo", path]).0, 0);
        assert!(bytes(&image) == before);
        let (code, out, _) = run(&["fix", crate::support::sample("centos7-uuid.qcow2").to_str().unwrap()]);
        assert_eq!(code, 0);
        assert!(out.contains("nothing to fix"), "{out}");
    }
}

/// The changes of `fix` on a disk.
fn changes(disk: &Device) -> Arc<Overlay> {
    let wanted = Wanted { rule: None, least: Applicability::Safe };
    let now = Timestamp { seconds: 1_800_000_000, nanoseconds: 0 };
    let mended =
        mend(std::slice::from_ref(disk), &[Machine::as_is(), Machine::reordered()], &wanted, now).unwrap();
    assert_eq!(mended.cured, ["fstab.unstable-device"]);
    mended.overlays[0].clone()
}

#[test]
fn a_cut_at_every_write_of_a_commit_leaves_old_or_new_or_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let source = crate::support::sample("centos7-vda-ext4.qcow2");
    let as_qcow2 = std::fs::read(&source).unwrap();
    let opened = image::open(&source, &Options::default(), &FolderGate::new()).unwrap();
    // The same guest as a raw image, cut behind the last byte that is not zero to keep the test quick.
    let raw_path = folder.path().join("disk.raw");
    crate::support::dump(opened.device.as_ref(), &raw_path);
    let disk_changes = changes(&opened.device);
    for format in ["qcow2", "raw"] {
        let path = if format == "raw" { &raw_path } else { &source };
        let old: Device = match format {
            "qcow2" => Arc::new(MemoryDevice::new(as_qcow2.clone())),
            _ => Arc::new(blockdev::FileDevice::open(&raw_path).unwrap()),
        };
        for survivors in [Survivors::All, Survivors::None, Survivors::EveryOther, Survivors::TheOthers] {
            let mut ends = Vec::new();
            for steps in 0.. {
                // The image below the power cut is itself an overlay: what is durable, over the old bytes.
                let durable = Arc::new(Overlay::new(old.clone()));
                let undo_file = Arc::new(MemoryDevice::new(Vec::new()));
                let power = Power::new(steps, survivors);
                let cut: Device = Arc::new(PowerCut::with_power(durable.clone(), power.clone()));
                let cut_undo = PowerCut::with_power(undo_file.clone(), power);
                let staging = Staging::for_commit();
                staging.insert(path, cut.clone()).unwrap();
                delivery::stage(&disk_changes, &staging, path, format, &FolderGate::new()).unwrap();
                let [staged] = staging.files().try_into().unwrap();
                let staged = staged.overlay;
                let target = Target { name: b"disk", overlay: &staged, file: cut.writable().unwrap() };
                let done = journal::commit(&[target], &cut_undo);
                let state = journal::recover(&[durable.as_ref()], undo_file.as_ref()).unwrap();
                let is_new = state == journal::State::Sealed;
                assert!(format != "raw" || staged.size() == old.size());
                for range in durable.changed() {
                    let size = if is_new { staged.size() } else { old.size() };
                    let length = range.end.min(size).saturating_sub(range.start) as usize;
                    if length == 0 {
                        continue;
                    }
                    let read = |device: &dyn BlockDevice| {
                        let mut buf = vec![0; length];
                        device.read_exact_at(&mut buf, range.start).unwrap();
                        buf
                    };
                    let expected = if is_new { read(staged.as_ref()) } else { read(old.as_ref()) };
                    assert!(
                        read(durable.as_ref()) == expected,
                        "{format}, step {steps}, {survivors:?}: {state:?}"
                    );
                }
                ends.push(state);
                assert!(steps < 200, "{done:?}");
                if done.is_ok() {
                    break;
                }
            }
            assert!(ends.contains(&journal::State::Incomplete) && ends.contains(&journal::State::Prepared));
            assert_eq!(ends.last(), Some(&journal::State::Sealed), "{format} {survivors:?}");
        }
    }
}

#[test]
fn the_tree_can_be_mounted_without_root() {
    if !has("fusermount3") || std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").is_err() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().to_str().unwrap();
    let image = crate::support::sample("centos7-vda-ext4.qcow2");
    let mut child = Command::new(env!("CARGO_BIN_EXE_guestmend"))
        .args(["mount", image.to_str().unwrap(), directory])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.as_mut().unwrap()), &mut said)
        .unwrap();
    let read = |path: &str| std::fs::read(folder.path().join(path)).unwrap();
    let fstab = String::from_utf8(read("fs/etc/fstab")).unwrap();
    assert!(fstab.contains("/dev/vda1 /boot"), "{said}");
    assert_eq!(read("fs/boot/grub2/grubenv").len(), 1024);
    let links = std::fs::read_link(folder.path().join("fs/sbin")).unwrap();
    assert_eq!(links, Path::new("usr/sbin"));
    let boot = read("volumes/disk0-p1");
    assert_eq!(boot.len(), 96 << 20);
    assert_eq!(std::fs::metadata(folder.path().join("volumes/centos/root")).unwrap().len(), 256 << 20);
    assert_eq!(boot[1080..1082], [0x53, 0xef], "the ext4 magic");
    if has("e2fsck") {
        let volume = folder.path().join("volumes/centos/root");
        let (code, text) = judge("e2fsck", &["-fn", volume.to_str().unwrap()]);
        assert_eq!(code, 0, "{text}");
    }
    assert!(std::fs::write(folder.path().join("fs/etc/new"), "x").is_err(), "the mount is read-only");
    let pid = child.id().to_string();
    assert_eq!(judge("kill", &["-TERM", &pid]).0, 0);
    assert!(child.wait().unwrap().success());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "unmounted");
}
