//! From a broken image to a mended one, judged by the makers' own tools, and back.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::support::{assert_clean, bytes, copy, discover, has, judge, run};
use blockdev::{BlockDevice, BlockDeviceMut, Device, MemoryDevice, Overlay, Power, PowerCut, Survivors};
use filesystem::path::resolve;
use filesystem::{Metadata, Timestamp};
use guestmend::container::convert::convert;
use guestmend::machine::Machine;
use guestmend::{Wanted, delivery, mend};
use image::{FolderGate, NewImage, Options, Staging};
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
    let mended = mend(
        std::slice::from_ref(disk),
        &luks::Keyring::default(),
        &[Machine::as_is(), Machine::reordered()],
        &wanted,
        now,
    )
    .unwrap();
    assert_eq!(mended.cured, ["fstab.unstable-device"]);
    mended.overlays[0].clone()
}

/// The formats that a commit writes into, with the kind within the format.
const CONTAINERS: [(&str, &str, Option<&str>); 9] = [
    ("qcow2", "qcow2", None),
    ("raw", "raw", None),
    ("vmdk", "sparse.vmdk", Some("monolithicSparse")),
    ("vmdk", "flat.vmdk", Some("monolithicFlat")),
    ("vmdk", "split.vmdk", Some("twoGbMaxExtentSparse")),
    ("vhd", "vhd", Some("dynamic")),
    ("vhd", "fixed.vhd", Some("fixed")),
    ("vhdx", "vhdx", Some("dynamic")),
    ("vdi", "vdi", Some("dynamic")),
];

/// The broken ext4 sample in another container; its path, and those of all its files.
fn contained(folder: &Path, (format, name, kind): (&str, &str, Option<&str>)) -> (PathBuf, Vec<PathBuf>) {
    let source = crate::support::sample("centos7-vda-ext4.qcow2");
    let opened = image::open(&source, &Options::default(), &FolderGate::new()).unwrap();
    let new =
        NewImage { size: opened.device.size(), subformat: kind.map(str::to_owned), ..NewImage::default() };
    let path = folder.join(format!("disk.{name}"));
    convert(&*opened.device, &source, &path, format, &new).unwrap();
    let again = image::open(&path, &Options::default(), &FolderGate::new()).unwrap();
    let mut files = vec![path.clone()];
    files.extend(again.chain[0].data_files.iter().cloned());
    (path, files)
}

#[test]
fn every_container_is_mended_in_place_and_restored() {
    for container in CONTAINERS {
        let folder = tempfile::tempdir().unwrap();
        let (image, files) = contained(folder.path(), container);
        let path = image.to_str().unwrap();
        let content = || files.iter().map(|file| bytes(file)).collect::<Vec<_>>();
        let before = content();
        assert_eq!(run(&["check", path]).0, 1, "{container:?}");
        let (code, _, err) = run(&["fix", path, "--in-place"]);
        assert_eq!(code, 0, "{container:?}: {err}");
        assert_eq!(run(&["check", path]).0, 0, "{container:?}");
        assert_clean(&image, "centos/root");
        if has("qemu-img") {
            let format = image::format_named(container.0).unwrap().qemu_name;
            let code = judge("qemu-img", &["check", "-f", format, path]).0;
            assert!(matches!(code, 0 | 63), "{container:?}: qemu-img check ends with {code}");
        }
        let (code, out, _) = run(&["image", "check", path]);
        assert_eq!(code, 0, "{container:?}: {out}");
        assert_eq!(run(&["undo", path]).0, 0);
        assert!(content() == before, "{container:?}: undo did not restore every byte");

        // The other way: an overlay on it, which QEMU understands, and its commit.
        assert_eq!(run(&["fix", path]).0, 0, "{container:?}");
        let overlay = delivery::default_overlay(&image);
        assert!(content() == before);
        if has("qemu-img") {
            let file = overlay.to_str().unwrap();
            let raw = folder.path().join("mended.raw");
            let (code, said) = judge("qemu-img", &["convert", "-O", "raw", file, raw.to_str().unwrap()]);
            assert_eq!(code, 0, "{container:?}: {said}");
            assert_eq!(run(&["check", raw.to_str().unwrap()]).0, 0, "{container:?}");
            std::fs::remove_file(raw).unwrap();
        }
        assert_eq!(run(&["commit", overlay.to_str().unwrap()]).0, 0, "{container:?}");
        assert_eq!(run(&["check", path]).0, 0, "{container:?}");
        assert_eq!(run(&["undo", path]).0, 0);
        assert!(content() == before);
    }
}

#[test]
fn a_snapshot_is_not_mended_and_an_encrypted_image_only_in_place() {
    if !has("qemu-img") {
        return;
    }
    let (folder, image) = copy("centos7-vda-ext4.qcow2");
    let path = image.to_str().unwrap();
    assert_eq!(judge("qemu-img", &["snapshot", "-c", "before", path]).0, 0);
    let before = bytes(&image);
    for more in [&[][..], &["--in-place"], &["--dry-run"]] {
        let (code, _, err) = run(&[&["fix", path, "--snapshot", "before"], more].concat());
        assert!(code == 2 && err.contains("only the present state"), "{err}");
    }
    assert!(bytes(&image) == before && !delivery::default_overlay(&image).exists());
    assert_eq!(run(&["check", path, "--snapshot", "before"]).0, 1, "it can be looked at");

    let locked = folder.path().join("locked.qcow2");
    let (secret, kind) =
        ("secret,id=s,data=abc", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10");
    let convert = ["convert", "--object", secret, "-O", "qcow2", "-o", kind, path, locked.to_str().unwrap()];
    assert_eq!(judge("qemu-img", &convert).0, 0);
    let key = folder.path().join("key");
    std::fs::write(&key, "abc\n").unwrap();
    let with_key = |arguments: &[&str]| {
        run(&[arguments, &[locked.to_str().unwrap(), "--passphrase-file", key.to_str().unwrap()]].concat())
    };
    let before = bytes(&locked);
    assert_eq!(run(&["check", locked.to_str().unwrap()]).0, 2, "without the passphrase");
    assert_eq!(with_key(&["check"]).0, 1);
    let (code, _, err) = with_key(&["fix"]);
    assert!(code == 2 && err.contains("in the open"), "{err}");
    assert!(bytes(&locked) == before && !delivery::default_overlay(&locked).exists());
    assert_eq!(with_key(&["fix", "--in-place"]).0, 0);
    assert_eq!(with_key(&["check"]).0, 0);
    assert_eq!(run(&["undo", locked.to_str().unwrap()]).0, 0);
    assert!(bytes(&locked) == before);
}

#[test]
fn a_cut_at_every_write_of_a_commit_leaves_old_or_new_or_recovers() {
    for container in CONTAINERS {
        let folder = tempfile::tempdir().unwrap();
        let (path, files) = contained(folder.path(), container);
        let opened = image::open(&path, &Options::default(), &FolderGate::new()).unwrap();
        let disk_changes = changes(&opened.device);
        let old: Vec<Device> =
            files.iter().map(|file| Arc::new(blockdev::FileDevice::open(file).unwrap()) as Device).collect();
        for survivors in [Survivors::All, Survivors::None, Survivors::EveryOther, Survivors::TheOthers] {
            let mut ends = Vec::new();
            for steps in 0.. {
                let end = cut_commit(container.0, &files, &old, &disk_changes, (steps, survivors));
                let is_done = end == journal::State::Sealed;
                ends.push(end);
                assert!(steps < 400);
                if is_done {
                    break;
                }
            }
            assert!(ends.contains(&journal::State::Incomplete) && ends.contains(&journal::State::Prepared));
        }
    }
}

/// Commits with the power failing after so many steps; what is left must be old, new or restored to old.
fn cut_commit(
    format: &str,
    files: &[PathBuf],
    old: &[Device],
    changes: &Overlay,
    (steps, survivors): (u64, Survivors),
) -> journal::State {
    // The files below the power cut are themselves overlays: what is durable, over the old bytes.
    let durable: Vec<Arc<Overlay>> = old.iter().map(|file| Arc::new(Overlay::new(file.clone()))).collect();
    let undo_file = Arc::new(MemoryDevice::new(Vec::new()));
    let power = Power::new(steps, survivors);
    let cut: Vec<Device> = durable
        .iter()
        .map(|file| Arc::new(PowerCut::with_power(file.clone(), power.clone())) as Device)
        .collect();
    let cut_undo = PowerCut::with_power(undo_file.clone(), power);
    let staging = Staging::for_commit();
    for (path, device) in files.iter().zip(&cut) {
        staging.insert(path, device.clone()).unwrap();
    }
    let options = Options { format: Some(format), ..Options::default() };
    delivery::stage(changes, &staging, &files[0], &options, &FolderGate::new()).unwrap();
    let staged: Vec<Arc<Overlay>> = staging.files().into_iter().map(|file| file.overlay).collect();
    assert_eq!(staged.len(), files.len());
    let targets: Vec<Target<'_>> = staged
        .iter()
        .zip(&cut)
        .map(|(overlay, file)| Target { name: b"disk", overlay, file: file.writable().unwrap() })
        .collect();
    let done = journal::commit(&targets, &cut_undo);
    let restored: Vec<&dyn BlockDeviceMut> =
        durable.iter().map(|file| file.as_ref() as &dyn BlockDeviceMut).collect();
    let state = journal::recover(&restored, undo_file.as_ref()).unwrap();
    let is_new = state == journal::State::Sealed;
    assert!(is_new || done.is_err());
    for ((durable, staged), old) in durable.iter().zip(&staged).zip(old) {
        for range in durable.changed() {
            let size = if is_new { staged.size() } else { old.size() };
            let length = range.end.min(size).saturating_sub(range.start) as usize;
            let read = |device: &dyn BlockDevice| {
                let mut buf = vec![0; length];
                device.read_exact_at(&mut buf, range.start).unwrap();
                buf
            };
            if length > 0 {
                let expected = if is_new { read(staged.as_ref()) } else { read(old.as_ref()) };
                assert!(
                    read(durable.as_ref()) == expected,
                    "{format}, step {steps}, {survivors:?}: {state:?}"
                );
            }
        }
    }
    state
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
