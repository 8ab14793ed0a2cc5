//! The first stage of a boot: images with which a machine does not start. QEMU's tools are the judges.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{has, run};

fn sample(folder: &Path) -> PathBuf {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("test-images/guest/centos7-uuid.qcow2");
    let copy = folder.join("copy.qcow2");
    std::fs::copy(sample, &copy).unwrap();
    copy
}

/// The exit status, the scenario of the machine as it stands, and standard error.
fn simulated(image: &Path) -> (i32, Value, String) {
    let (status, out, err) = run(&["simulate", "--output", "json", image.to_str().unwrap()]);
    let told: Value = serde_json::from_str(&out).unwrap();
    (status, told["scenarios"][0].clone(), err)
}

/// What QEMU says when it opens an image as a machine's disk: for writing.
fn qemu(image: &Path) -> Option<String> {
    let shown = has("qemu-io")
        .then(|| Command::new("qemu-io").args(["-f", "qcow2", "-c", "quit"]).arg(image).output().unwrap())?;
    Some(String::from_utf8_lossy(&shown.stderr).into_owned() + &String::from_utf8_lossy(&shown.stdout))
}

#[test]
fn an_image_that_is_marked_corrupt() {
    let folder = tempfile::tempdir().unwrap();
    let image = sample(folder.path());
    let (_, whole, _) = simulated(&image);
    assert_eq!(whole["stages"][0]["stage"], "disk images");
    assert_eq!(whole["stages"][0]["summary"], "disk0: qcow2");
    let mut bytes = std::fs::read(&image).unwrap();
    bytes[0x4f] |= 2;
    std::fs::write(&image, bytes).unwrap();
    let (status, told, _) = simulated(&image);
    assert_eq!(
        (status, told["outcome"].as_str(), told["stage"].as_str()),
        (1, Some("image-error"), Some("disk images"))
    );
    assert_eq!(told["cause"]["rule"], "img.corrupt-flag");
    let (status, screen, _) = run(&["check", image.to_str().unwrap()]);
    assert_eq!(status, 1);
    assert!(screen.contains("error[img.corrupt-flag]"), "{screen}");
    if let Some(said) = qemu(&image) {
        assert!(said.contains("Image is corrupt; cannot be opened read/write"), "{said}");
        assert_eq!(told["cause"]["symptom"], "qcow2: Image is corrupt; cannot be opened read/write");
    }
}

#[test]
fn a_chain_that_is_broken() {
    if !has("qemu-img") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let base = sample(folder.path());
    let overlay = folder.path().join("overlay.qcow2");
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "copy.qcow2"])
        .arg(&overlay)
        .status()
        .unwrap();
    assert!(made.success());
    assert_ne!(simulated(&overlay).1["outcome"], "image-error");
    std::fs::rename(&base, folder.path().join("elsewhere.qcow2")).unwrap();
    let (status, told, err) = simulated(&overlay);
    // It is told how the machine ends; nothing of it could be examined.
    assert_eq!((status, told["outcome"].as_str()), (2, Some("image-error")));
    assert_eq!(told["cause"]["rule"], "img.chain-broken");
    assert!(err.contains("needs the backing file `copy.qcow2`"), "{err}");
    if let Some(said) = qemu(&overlay) {
        assert!(said.contains("Could not open backing file"), "{said}");
    }
}

#[test]
fn an_image_without_its_first_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let image = sample(folder.path());
    let mut bytes = std::fs::read(&image).unwrap();
    bytes[..4].fill(0);
    std::fs::write(&image, bytes).unwrap();
    let (status, told, _) = simulated(&image);
    assert_eq!((status, told["outcome"].as_str()), (1, Some("no-bootable-device")));
    assert_eq!(told["cause"]["rule"], "img.format-vs-definition");
}
