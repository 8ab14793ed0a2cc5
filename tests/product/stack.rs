//! What lies between disks and file systems, through the command line: arrays, groups, encryption, lost tables.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{has, judge, run};

/// The bytes of `test-images/volume/{name}.zst`.
fn image(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("test-images/volume/{name}.zst"));
    let packed = std::fs::read(path).unwrap();
    let mut content = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(packed.as_slice()).unwrap().read_to_end(&mut content).unwrap();
    content
}

/// A file in `folder` with these bytes.
fn file(folder: &Path, name: &str, content: &[u8]) -> String {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path.display().to_string()
}

/// The document that a command prints with `--output json`.
fn json(arguments: &[&str]) -> Value {
    let (code, out, err) = run(&[arguments, &["--output", "json"]].concat());
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn an_encrypted_device_opens_by_file_or_descriptor_and_never_by_an_argument() {
    let folder = tempfile::tempdir().unwrap();
    let disk = file(folder.path(), "disk.raw", &image("luks2-cbc"));
    let key = file(folder.path(), "key", b"battery staple\n");
    let (code, out, _) = run(&["inspect", &disk]);
    assert_eq!(code, 0);
    assert!(out.contains("LUKS2 aes-cbc-essiv:sha256  locked: a passphrase is needed"), "{out}");
    let (_, out, _) = run(&["inspect", &disk, "--passphrase-file", &key]);
    assert!(out.contains("└─ opened by key slot 1   64 KiB"), "{out}");
    // A key file is taken as it is: the line break makes it another key.
    let (_, out, _) = run(&["inspect", &disk, "--key-file", &key]);
    assert!(out.contains("locked: no key slot opens with this passphrase"), "{out}");
    // All keys are tried.
    let other = file(folder.path(), "other", b"wrong");
    let found = json(&["inspect", &disk, "--key-file", &other, "--passphrase-file", &key]);
    assert_eq!(found["devices"][0]["type"], "crypto_LUKS");
    assert_eq!(found["devices"][0]["uuid"], "33333333-3333-4333-8333-333333333333");
    assert_eq!(
        (&found["devices"][0]["locked"], &found["devices"][1]["kind"]),
        (&Value::Null, &"decrypted".into())
    );
    let script =
        format!("exec '{}' inspect '{disk}' --passphrase-fd 9 9<'{key}'", env!("CARGO_BIN_EXE_guestmend"));
    let output = Command::new("sh").args(["-c", &script]).env("NO_COLOR", "1").output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && out.contains("opened by key slot 1"), "{out}");
    // A header that asks for more memory than is allowed is not obeyed.
    let (_, out, _) = run(&["inspect", &disk, "--passphrase-file", &other, "--key-memory", "0"]);
    assert!(out.contains("a key slot asks for 64 KiB of memory; the limit is 0 KiB"), "{out}");
}

/// Standard input can be read only once, and opens every image all the same.
#[test]
fn one_key_for_all_images_of_a_preflight() {
    if !has("qemu-img") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let key = file(folder.path(), "key", b"abc");
    let secret = format!("secret,id=key,file={key}");
    let images = ["a.qcow2", "b.qcow2"].map(|name| folder.path().join(name).display().to_string());
    let sample = crate::support::sample("centos7-uuid.qcow2").display().to_string();
    for image in &images {
        let options = "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=10";
        let (code, said) = judge(
            "qemu-img",
            &["convert", "--object", &secret, "-O", "qcow2", "-o", options, &sample, image],
        );
        assert_eq!(code, 0, "{said}");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_guestmend"))
        .args(["preflight", "--passphrase-file", "-", &images[0], &images[1]])
        .env("NO_COLOR", "1")
        .stdin(std::fs::File::open(&key).unwrap())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && out.lines().count() == 2, "{out}");
}

#[test]
fn both_headers_are_judged_on_one_line_each() {
    let folder = tempfile::tempdir().unwrap();
    let mut content = image("luks2-argon2id-4096");
    content[0x1c0] ^= 1;
    let disk = file(folder.path(), "disk.raw", &content);
    let key = file(folder.path(), "key", b"correct horse");
    let (_, out, _) = run(&["inspect", &disk, "--passphrase-file", &key]);
    assert!(out.contains("! disk0: LUKS2 primary header at byte 0: csum is "), "{out}");
    assert!(out.contains("opened by key slot 0") && out.contains("\"encrypted\""), "{out}");
}

/// The members of one array of `test-images/volume/md-*.zst`, as files.
fn members(folder: &Path, set: &str, array: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("test-images/volume/{set}.toml"));
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find(|line| line.starts_with(&format!("{array} = "))).unwrap();
    let number = |text: &str| text.trim().parse::<usize>().unwrap();
    let first = number(line.split("first = ").nth(1).unwrap().split(',').next().unwrap());
    let sizes = line.split("members = [").nth(1).unwrap().split(']').next().unwrap();
    let content = image(set);
    sizes
        .split(',')
        .enumerate()
        .map(|(index, size)| {
            let start = (first + index) * 524_288;
            file(folder, &format!("member{index}.raw"), &content[start..start + number(size)])
        })
        .collect()
}

#[test]
fn images_of_one_machine_make_an_array() {
    let folder = tempfile::tempdir().unwrap();
    let paths: [String; 3] = members(folder.path(), "md-raid1", "raid1-12-three").try_into().unwrap();
    let [first, second, third] = paths.each_ref().map(String::as_str);
    let (code, out, err) = run(&["inspect", first, second, third]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("(raid1, 256 KiB)"), "{out}");
    assert_eq!(out.matches(", in use").count(), 3, "{out}");
    let (_, out, _) = run(&["inspect", first, third]);
    assert!(
        out.contains("(raid1, 256 KiB, degraded)") && out.contains("member –          role 1, missing"),
        "{out}"
    );
    let found = json(&["inspect", first, third]);
    assert_eq!(found["arrays"][0]["level"], "raid1");
    assert_eq!(found["arrays"][0]["is_degraded"], true);
    assert_eq!(found["arrays"][0]["members"][0]["path"], "disk0");
    assert_eq!(found["devices"][2]["kind"], "array");
    if has("mdadm") {
        let (_, said) = judge("mdadm", &["-E", first]);
        let uuid: String =
            said.split("Array UUID : ").nth(1).unwrap().lines().next().unwrap().replace(':', "");
        let ours = found["arrays"][0]["uuid"].as_str().unwrap().replace('-', "");
        assert_eq!(ours, uuid.trim());
    }
}

fn physical_volumes(folder: &Path) -> Vec<String> {
    let content = image("lvm-raid");
    content
        .chunks(6 << 20)
        .enumerate()
        .map(|(index, disk)| file(folder, &format!("pv{index}.raw"), disk))
        .collect()
}

#[test]
fn images_of_one_machine_make_a_volume_group() {
    let folder = tempfile::tempdir().unwrap();
    let paths = physical_volumes(folder.path());
    assert_eq!(paths.len(), 5);
    let all: Vec<&str> = std::iter::once("inspect").chain(paths.iter().map(String::as_str)).collect();
    let (code, out, err) = run(&all);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("volume group rg (LVM2, 32 KiB extents)") && !out.contains("missing"));
    let whole = json(&all);
    let is_readable = |found: &Value, name: &str| {
        !found["problems"].to_string().contains(&format!("{name}: logical volume cannot be read"))
    };
    assert!(is_readable(&whole, "rg/raid6_zr") && is_readable(&whole, "rg/linear"));
    assert_eq!(whole["volume_groups"][0]["pvs"].as_array().unwrap().len(), 5);
    // Without one disk, what has redundancy stays and what has none says which disk is missing.
    let (code, out, _) = run(&all[..all.len() - 1]);
    assert_eq!(code, 0);
    assert!(out.contains("missing physical volume"));
    let partial = json(&all[..all.len() - 1]);
    assert!(is_readable(&partial, "rg/raid6_zr") && !is_readable(&partial, "rg/linear"));
}

#[test]
fn a_lost_label_is_found_by_the_metadata_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let paths = physical_volumes(folder.path());
    let mut content = std::fs::read(&paths[2]).unwrap();
    content[..4096].fill(0);
    std::fs::write(&paths[2], content).unwrap();
    let all: Vec<&str> = std::iter::once("inspect").chain(paths.iter().map(String::as_str)).collect();
    let (_, out, _) = run(&all);
    assert!(out.contains("! disk2: LVM2 label at byte 512: id is no valid label"), "{out}");
    assert!(!out.contains("missing physical volume"), "{out}");
}

#[test]
fn the_history_of_metadata() {
    let folder = tempfile::tempdir().unwrap();
    let disk = file(folder.path(), "pv.raw", &image("lvm-raid")[..6 << 20]);
    let (code, out, _) = run(&["inspect", &disk, "--metadata-history"]);
    assert_eq!(code, 0);
    assert!(out.starts_with("volume group rg (") && out.contains("\n*   "), "{out}");
    let found = json(&["inspect", &disk, "--metadata-history"]);
    let versions = found["versions"].as_array().unwrap();
    let sequences: Vec<u64> = versions.iter().map(|version| version["sequence"].as_u64().unwrap()).collect();
    assert!(sequences.len() > 5 && sequences.is_sorted_by(|a, b| a > b), "{sequences:?}");
    assert_eq!(versions.iter().filter(|version| version["is_committed"] == true).count(), 1);
}

#[test]
fn lost_partitions_are_found_again() {
    if !has("sgdisk") || !has("mke2fs") || !has("mkfs.xfs") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.raw");
    std::fs::File::create(&disk).unwrap().set_len(600 << 20).unwrap();
    let path = disk.display().to_string();
    assert_eq!(judge("sgdisk", &["-n1:2048:+100M", "-n2:0:+400M", &path]).0, 0);
    let part = |size: u64, make: &dyn Fn(&str)| -> Vec<u8> {
        let part: PathBuf = folder.path().join("part");
        drop(std::fs::remove_file(&part));
        std::fs::File::create(&part).unwrap().set_len(size).unwrap();
        make(part.to_str().unwrap());
        std::fs::read(&part).unwrap()
    };
    let ext4 = part(100 << 20, &|path| assert_eq!(judge("mke2fs", &["-q", "-t", "ext4", path]).0, 0));
    let xfs = part(400 << 20, &|path| assert_eq!(judge("mkfs.xfs", &["-q", path]).0, 0));
    {
        use std::os::unix::fs::FileExt;
        let file = std::fs::OpenOptions::new().write(true).open(&disk).unwrap();
        file.write_all_at(&ext4, 1 << 20).unwrap();
        file.write_all_at(&xfs, 101 << 20).unwrap();
        // Both copies of the table.
        file.write_all_at(&[0; 17408], 0).unwrap();
        file.write_all_at(&[0; 17408], (600 << 20) - 17408).unwrap();
    }
    assert!(!run(&["inspect", &path]).1.contains("p1"));
    let found = json(&["inspect", &path, "--lost-partitions"]);
    let partitions = found["disks"][0]["partitions"].as_array().unwrap();
    let what: Vec<(u64, u64, &str)> = partitions
        .iter()
        .map(|one| {
            let number = |key: &str| one[key].as_u64().unwrap();
            (number("start"), number("length"), one["content"].as_str().unwrap())
        })
        .collect();
    assert_eq!(what, [(1 << 20, 100 << 20, "ext"), (101 << 20, 400 << 20, "xfs")]);
    let (code, out, err) = run(&["inspect", &path, "--lost-partitions"]);
    assert!(code == 0 && err.is_empty() && out.contains("XFS superblock at byte 105906176"), "{out}{err}");
}
