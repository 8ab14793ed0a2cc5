//! The `image` commands, with QEMU's tools as judges and as neighbours.
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{bytes, copy, has, judge, run};
use blockdev::FileDevice;

/// The answer of a command that prints JSON.
fn json(arguments: &[&str]) -> (i32, Value) {
    let (code, out, err) = run(&[arguments, &["--output", "json"]].concat());
    (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}")))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a command line of QEMU, split at spaces, in `folder`.
fn qemu(folder: &Path, line: &str) -> (i32, String) {
    let mut words = line.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).current_dir(folder).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

/// An overlay of four layers' worth of writes on a raw base.
fn overlay(folder: &Path) -> PathBuf {
    std::fs::write(folder.join("base.raw"), (0..8 << 20).map(|n: u32| (n >> 9) as u8).collect::<Vec<_>>())
        .unwrap();
    for line in [
        "qemu-img create -q -f qcow2 -b base.raw -F raw middle.qcow2",
        "qemu-img create -q -f qcow2 -b middle.qcow2 -F qcow2 top.qcow2",
    ] {
        assert_eq!(qemu(folder, line).0, 0);
    }
    for (name, write) in
        [("middle", "write -P 9 1000 300k"), ("top", "write -P 8 1M 5k"), ("top", "write -z 4M 1M")]
    {
        let file = format!("{name}.qcow2");
        let output =
            Command::new("qemu-io").args(["-f", "qcow2", "-c", write, &file]).current_dir(folder).output();
        assert!(output.unwrap().status.success());
    }
    folder.join("top.qcow2")
}

#[test]
fn a_renamed_parent_is_found_and_named() {
    if !has("qemu-img") || !has("qemu-io") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let top = overlay(folder.path());
    let (code, chain) = json(&["image", "chain", text(&top)]);
    assert_eq!((code, chain["layers"].as_array().unwrap().len()), (0, 3));
    let middle = folder.path().join("middle.qcow2");
    std::fs::rename(folder.path().join("base.raw"), folder.path().join("moved.raw")).unwrap();
    std::fs::write(folder.path().join("other.raw"), vec![7; 8 << 20]).unwrap();
    let (code, chain) = json(&["image", "chain", text(&top)]);
    assert_eq!((code, chain["layers"].as_array().unwrap().len()), (1, 2));
    assert!(chain["error"].as_str().unwrap().contains("base.raw"), "{chain}");
    let found = chain["candidates"].as_array().unwrap();
    assert_eq!((found.len(), found[0]["by"].as_str()), (1, Some("content")), "{chain}");
    assert!(found[0]["file"].as_str().unwrap().ends_with("moved.raw"));

    let before = bytes(&middle);
    let rebase = ["image", "rebase", "--parent", "moved.raw", text(&middle)];
    assert_eq!(run(&rebase).0, 2, "the flag is the user's word and must be given");
    let rebase = [&rebase[..], &["--unsafe-metadata-only"]].concat();
    let (code, out, _) = run(&[&rebase[..], &["--dry-run"]].concat());
    assert!(code == 0 && out.contains("-base.raw (raw)\n+moved.raw (raw)\n"), "{out}");
    assert!(bytes(&middle) == before, "a dry run writes nothing");
    assert_eq!(run(&rebase).0, 0);
    assert_eq!(qemu(folder.path(), "qemu-img check middle.qcow2").0, 0);
    assert!(qemu(folder.path(), "qemu-img info middle.qcow2").1.contains("backing file: moved.raw"));
    assert_eq!(json(&["image", "chain", text(&top)]).0, 0);
    assert_eq!(run(&["undo", text(&middle)]).0, 0);
    assert!(bytes(&middle) == before);
    for bad in ["../base.raw", "missing.raw", "top.qcow2", "middle.qcow2", "json:{}"] {
        let rebase = ["image", "rebase", "--unsafe-metadata-only", "--parent", bad, text(&middle)];
        assert_eq!(run(&rebase).0, 2, "{bad}");
        assert!(bytes(&middle) == before, "{bad}");
    }
}

#[test]
fn the_map_is_the_one_that_qemu_draws() {
    if !has("qemu-img") || !has("qemu-io") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let top = overlay(folder.path());
    let (code, out, _) = run(&["image", "map", text(&top), "--output", "json"]);
    assert_eq!(code, 0);
    let theirs: Vec<Value> =
        serde_json::from_str(&qemu(folder.path(), "qemu-img map --output=json top.qcow2").1).unwrap();
    // Byte for byte: both may join neighbours differently.
    let place = |part: &Value| {
        (
            part["depth"].as_u64(),
            part["offset"].as_u64().zip(part["start"].as_u64()).map(|(a, b)| a.wrapping_sub(b)),
        )
    };
    let mut ours = Vec::new();
    for line in out.lines() {
        let part: Value = serde_json::from_str(line).unwrap();
        ours.push((
            part["start"].as_u64().unwrap(),
            part["length"].as_u64().unwrap(),
            part["kind"] == "data",
            place(&part),
        ));
    }
    let at = |offset: u64| {
        ours.iter().find(|(start, length, ..)| (*start..start + length).contains(&offset)).unwrap()
    };
    assert_eq!(ours.iter().map(|(_, length, ..)| length).sum::<u64>(), 8 << 20);
    for part in &theirs {
        let (start, length) = (part["start"].as_u64().unwrap(), part["length"].as_u64().unwrap());
        for offset in [start, start + length / 2, start + length - 1] {
            let (.., is_data, found) = at(offset);
            assert_eq!(*is_data, part["data"] == true, "byte {offset}: {part}");
            if *is_data {
                assert_eq!(*found, place(part), "byte {offset}: {part}");
            }
        }
    }
}

/// The guest byte at which a file of the sample starts, found by its content.
fn place_of(image: &Path, needle: &[u8]) -> u64 {
    let opened = image::open(image, &image::Options::default(), &image::FolderGate::new()).unwrap();
    let mut content = vec![0; opened.device.size() as usize];
    opened.device.read_exact_at(&mut content, 0).unwrap();
    content.windows(needle.len()).position(|window| window == needle).unwrap() as u64
}

/// Sets the L2 entry of a guest byte; returns the entry as it was.
fn set_l2_entry(image: &mut [u8], guest: u64, entry: u64) {
    let word = |image: &[u8], at: usize| u64::from_be_bytes(image[at..at + 8].try_into().unwrap());
    let bits = u32::from_be_bytes(image[20..24].try_into().unwrap());
    let entries = 1_u64 << (bits - 3);
    let (l1, cluster) = (word(image, 40) as usize, guest >> bits);
    let table = (word(image, l1 + 8 * (cluster / entries) as usize) & 0x00ff_ffff_ffff_fe00) as usize;
    let at = table + 8 * (cluster % entries) as usize;
    image[at..at + 8].copy_from_slice(&entry.to_be_bytes());
}

#[test]
fn damage_is_told_with_the_files_that_suffer_and_leaks_are_repaired() {
    let (_folder, image) = copy("centos7-vda-ext4.qcow2");
    let path = text(&image);
    let (code, report) = json(&["image", "check", path]);
    assert_eq!((code, report["verdict"].as_str()), (0, Some("sound")), "{report}");

    // The cluster that holds fstab now lies past the end of the file.
    let guest = place_of(&image, b"/dev/vda1 /boot");
    let whole = std::fs::read(&image).unwrap();
    let mut damaged = whole.clone();
    set_l2_entry(&mut damaged, guest, 1 << 63 | 1 << 41);
    std::fs::write(&image, &damaged).unwrap();
    let (code, report) = json(&["image", "check", path]);
    assert_eq!((code, report["verdict"].as_str()), (1, Some("damaged")), "{report}");
    let names: Vec<_> = report["damaged_files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| file["file"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"/etc/fstab"), "{report}");
    let is_hit = |problem: &Value| {
        problem["guest"].as_array().unwrap().iter().any(|range| {
            let (start, length) = (range[0].as_u64().unwrap(), range[1].as_u64().unwrap());
            (start..start + length).contains(&guest)
        })
    };
    assert!(report["problems"].as_array().unwrap().iter().any(is_hit), "{report}");
    let (_, out, _) = run(&["image", "check", path]);
    assert!(out.contains("damaged file: centos/root : /etc/fstab"), "{out}");

    // Nothing maps to the cluster any more: a leak, for which the repair is certain.
    let mut leaking = whole.clone();
    set_l2_entry(&mut leaking, guest, 0);
    std::fs::write(&image, &leaking).unwrap();
    assert_eq!(json(&["image", "check", path]).1["verdict"], "leaks");
    let (code, out, _) = run(&["image", "check", path, "--repair", "leaks", "--dry-run"]);
    assert!(code == 0 && out.contains("1 repaired on paper"), "{out}");
    assert!(*bytes(&image) == leaking);
    let (code, out, err) = run(&["image", "check", path, "--repair", "leaks"]);
    assert!(code == 0 && out.contains("repaired and verified"), "{out}{err}");
    if has("qemu-img") {
        assert_eq!(judge("qemu-img", &["check", path]).0, 0);
    }
    let (code, _, err) = run(&["image", "check", path, "--repair", "leaks"]);
    assert_eq!(code, 0, "nothing is left to repair: {err}");
    assert_eq!(run(&["undo", path]).0, 0);
    assert!(*bytes(&image) == leaking, "undo restores every byte");
}

#[test]
fn a_converted_disk_is_the_same_disk() {
    if !has("qemu-img") {
        return;
    }
    let (folder, image) = copy("centos7-vda-ext4.qcow2");
    for (name, more) in [
        ("new.raw", &[][..]),
        ("new.vmdk", &["--subformat", "streamOptimized"][..]),
        ("new.qcow2", &["--cluster-size", "4096"][..]),
        ("new.img", &["--to", "qcow2"][..]),
    ] {
        let out = folder.path().join(name);
        let (code, _, err) = run(&[&["image", "convert", text(&image), text(&out)], more].concat());
        assert_eq!(code, 0, "{err}");
        assert_eq!(judge("qemu-img", &["compare", text(&image), text(&out)]).0, 0, "{name}");
        assert_eq!(run(&["image", "convert", text(&image), text(&out)]).0, 2, "nothing is overwritten");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 5, "nothing else is left behind");
    let out = folder.path().join("new.unknown");
    assert_eq!(run(&["image", "convert", text(&image), text(&out)]).0, 2);
}

#[test]
fn the_parent_of_a_vmdk_is_known_by_its_content_id() {
    if !has("qemu-img") || !has("qemu-io") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let lines = [
        "qemu-img create -q -f vmdk parent.vmdk 4M",
        "qemu-img create -q -f vmdk other.vmdk 4M",
        "qemu-img create -q -f vmdk -b parent.vmdk -F vmdk child.vmdk",
        "mv parent.vmdk moved.vmdk",
    ];
    for line in lines {
        assert_eq!(qemu(folder.path(), line).0, 0, "{line}");
    }
    let child = folder.path().join("child.vmdk");
    let before = bytes(&child);
    let (code, chain) = json(&["image", "chain", text(&child)]);
    let found = chain["candidates"].as_array().unwrap();
    assert_eq!((code, found.len(), found[0]["by"].as_str()), (1, 1, Some("identity")), "{chain}");
    assert!(found[0]["file"].as_str().unwrap().ends_with("moved.vmdk"));
    let rebase =
        |parent: &str| run(&["image", "rebase", "--unsafe-metadata-only", "--parent", parent, text(&child)]);
    let (code, _, err) = rebase("other.vmdk");
    assert!(code == 2 && err.contains("was made from"), "another disk is refused: {err}");
    assert!(bytes(&child) == before);
    assert_eq!(rebase("moved.vmdk").0, 0);
    assert_eq!(json(&["image", "chain", text(&child)]).0, 0);
    assert_eq!(qemu(folder.path(), "qemu-img convert -O raw child.vmdk child.raw").0, 0);
    assert_eq!(run(&["undo", text(&child)]).0, 0);
    assert!(bytes(&child) == before);
}

/// A program of QEMU's that holds an image open for writing.
struct Holder(Child);

impl Holder {
    fn new(image: &Path) -> Self {
        let mut command = Command::new("qemu-io");
        command.args(["-f", "qcow2", text(image)]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // It answers when the image is open.
        child.stdin.as_mut().unwrap().write_all(b"length\n").unwrap();
        let mut line = String::new();
        let out = child.stdout.as_mut().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).unwrap();
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn qemu_and_we_keep_each_other_out() {
    if !has("qemu-io") || !has("qemu-img") {
        return;
    }
    let (_folder, image) = copy("centos7-vda-ext4.qcow2");
    let path = text(&image);
    let before = bytes(&image);
    {
        let _running = Holder::new(&image);
        for command in [&["fix", path, "--in-place"][..], &["image", "check", path, "--repair", "all"]] {
            let (code, out, err) = run(command);
            assert_eq!(code, 2, "{out}{err}");
            assert!(err.contains("in use by a running virtual machine"), "{err}");
        }
        let (code, out, _) = run(&["image", "info", path]);
        assert!(code == 0 && out.contains("open for writing by another program"), "{out}");
        assert!(bytes(&image) == before);
    }
    let ours = FileDevice::open_writable(&image).unwrap();
    let (code, said) = judge("qemu-img", &["check", path]);
    assert!(code != 0 && said.contains("Failed to get"), "{said}");
    drop(ours);
    assert_eq!(judge("qemu-img", &["check", path]).0, 0);
    assert_eq!(run(&["fix", path, "--in-place"]).0, 0);
}

#[test]
fn a_real_machine_keeps_us_out() {
    if !has("qemu-system-x86_64") {
        return;
    }
    let (_folder, image) = copy("centos7-vda-ext4.qcow2");
    let mut machine = Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg", "-S", "-display", "none", "-nodefaults", "-drive"])
        .arg(format!("file={},format=qcow2,if=virtio", text(&image)))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let is_held = || FileDevice::open(&image).unwrap().is_being_written().unwrap();
    let seen = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        is_held()
    });
    let (code, _, err) = run(&["fix", text(&image), "--in-place"]);
    drop(machine.kill());
    drop(machine.wait());
    assert!(seen && code == 2 && err.contains("in use by a running virtual machine"), "{err}");
}
