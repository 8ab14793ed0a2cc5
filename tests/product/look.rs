//! Looking inside: listings, facts, copies.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::Value;

use crate::support::{run, sample};

fn path(name: &str) -> String {
    sample(name).display().to_string()
}

fn json(arguments: &[&str]) -> Value {
    let (code, out, err) = run(&[arguments, &["--output", "json"]].concat());
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn everything_of_one_file() {
    for name in ["centos7-vda.qcow2", "centos7-vda-ext4.qcow2"] {
        let found = json(&["stat", &path(name), "/etc/fstab"]);
        assert_eq!(
            (&found["kind"], &found["mode"], &found["uid"]),
            (&"file".into(), &"0644".into(), &0.into())
        );
        let label =
            found["xattrs"].as_array().unwrap().iter().find(|xattr| xattr["name"] == "security.selinux");
        assert_eq!(label.unwrap()["value"], "system_u:object_r:etc_t:s0", "{name}");
        let (code, out, _) = run(&["stat", &path(name), "/etc/fstab"]);
        assert!(code == 0 && out.contains("security.selinux = system_u:object_r:etc_t:s0"), "{out}");
    }
    assert_eq!(run(&["stat", &path("centos7-vda.qcow2"), "/nothing"]).0, 2);
}

#[test]
fn paths_by_name_and_kind() {
    let image = path("centos7-vda.qcow2");
    let (code, out, _) = run(&["find", &image, "/etc", "--name", "*release"]);
    assert_eq!(code, 0);
    assert!(out.contains("/etc/os-release\n"), "{out}");
    let (_, out, _) = run(&["find", &image, "--name", "fstab", "--type", "file"]);
    assert_eq!(out, "/etc/fstab\n");
    let (_, out, _) = run(&["find", &image, "--name", "fstab", "--type", "directory"]);
    assert_eq!(out, "");
    // A volume by itself begins at its own root.
    let (_, out, _) = run(&["find", &image, "--volume", "disk0/p1", "--name", "grub.cfg"]);
    assert_eq!(out, "/grub2/grub.cfg\n");
    let (code, _, err) = run(&["ls", &image, "--volume", "disk0/p9"]);
    assert!(code == 2 && err.contains("no volume disk0/p9"), "{err}");
}

#[test]
fn a_tree_is_copied_out() {
    let folder = tempfile::tempdir().unwrap();
    let image = path("centos7-vda-ext4.qcow2");
    let target = folder.path().join("etc");
    let (code, out, err) = run(&["cp-out", &image, "/etc", target.to_str().unwrap()]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(" files copied to "), "{out}");
    let (_, fstab, _) = run(&["cat", &image, "/etc/fstab"]);
    assert_eq!(std::fs::read_to_string(target.join("fstab")).unwrap(), fstab);
    let facts = json(&["stat", &image, "/etc/fstab"]);
    let metadata = std::fs::metadata(target.join("fstab")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o644);
    assert_eq!(metadata.mtime(), facts["modified"].as_i64().unwrap());
    // Into a folder that is there; never over a file that is.
    let (code, ..) = run(&["cp-out", &image, "/etc/fstab", folder.path().to_str().unwrap()]);
    assert_eq!((code, std::fs::read_to_string(folder.path().join("fstab")).unwrap()), (0, fstab));
    let (code, _, err) = run(&["cp-out", &image, "/etc/fstab", folder.path().to_str().unwrap()]);
    assert!(code == 2 && err.contains("File exists"), "{err}");
}

/// Unpacks a sample below `test-images`.
fn unpack(name: &str, target: &Path) {
    let packed = std::fs::read(sample("..").join(name)).unwrap();
    let mut content = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(packed.as_slice()).unwrap().read_to_end(&mut content).unwrap();
    std::fs::write(target, content).unwrap();
}

#[test]
fn the_settings_of_a_system() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.qcow2");
    unpack("lab/g6el.0.qcow2.zst", &disk);
    let image = disk.to_str().unwrap();
    let found = json(&["inspect", image]);
    let settings = &found["systems"][0]["settings"];
    assert_eq!(
        (&settings["default_target"]["unit"], &settings["default_target"]["file"]),
        (&"multi-user.target".into(), &"/etc/systemd/system/default.target".into())
    );
    let kernel = &settings["kernels"][0];
    assert_eq!(
        (&kernel["release"], &kernel["has_modules"], &kernel["initramfs"]),
        (&"6.1.0-56-cloud-amd64".into(), &true.into(), &"/boot/initramfs-6.1.0-56-cloud-amd64.img".into())
    );
    let compress = settings["dracut"].as_array().unwrap().iter().find(|found| found["name"] == "compress");
    assert_eq!(
        (&compress.unwrap()["value"], &compress.unwrap()["file"], &compress.unwrap()["line"]),
        (&"zstd".into(), &"/etc/dracut.conf.d/lab.conf".into(), &5.into())
    );
    let (_, out, _) = run(&["inspect", image]);
    for line in [
        "   default target: multi-user.target\n   kernels: 6.1.0-56-cloud-amd64\n   GRUB: GRUB_DEFAULT=saved ",
        "   dracut: add_dracutmodules=\"lvm dm\" ",
    ] {
        assert!(out.contains(line), "{out}");
    }
}

#[test]
fn a_system_in_subvolumes() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.raw");
    unpack("guest/btrfs-subvolumes.raw.zst", &disk);
    let image = disk.to_str().unwrap();
    let found = json(&["inspect", image]);
    let system = &found["systems"][0];
    assert_eq!(found["systems"].as_array().unwrap().len(), 1, "a snapshot is no system of its own");
    assert_eq!((&system["mounts"][0]["subvolume"], &system["mounts"][0]["line"]), (&"@".into(), &1.into()));
    assert_eq!(
        (&system["mounts"][1]["target"], &system["mounts"][1]["subvolume"]),
        (&"/home".into(), &"@home".into())
    );
    assert_eq!(run(&["cat", image, "/home/user/file"]).1, "of the user\n");
    // The volume by itself shows what is mounted without options.
    assert_eq!(run(&["cat", image, "--volume", "disk0", "/@before/etc/os-release"]).0, 0);
}
