//! Looking inside: listings, facts, copies.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

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

#[test]
fn a_system_in_subvolumes() {
    use std::io::Read;
    let packed = std::fs::read(sample("btrfs-subvolumes.raw.zst")).unwrap();
    let mut content = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(packed.as_slice()).unwrap().read_to_end(&mut content).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.raw");
    std::fs::write(&disk, content).unwrap();
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
