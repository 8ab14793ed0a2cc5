//! What a person and a script see: screens, JSON, exit codes.
use crate::support::{guestmend, run, sample};

const BROKEN: [(&str, &str); 2] = [("centos7-vda.qcow2", "xfs "), ("centos7-vda-ext4.qcow2", "ext4")];
const BOOT_UUID: &str = "6f1c77a0-0b2d-4c3e-9a51-0c7de1000001";

fn path(name: &str) -> String {
    sample(name).to_str().unwrap().to_owned()
}

#[test]
fn check_names_the_line_the_reason_and_the_cure() {
    for (name, kind) in BROKEN {
        let (code, out, err) = run(&["check", &path(name)]);
        let kind = kind.trim();
        let expected = format!(
            "error[fstab.unstable-device]: a mount names its disk by the order of enumeration
 --> {name} : centos/root : /etc/fstab:10:1-9
10 | /dev/vda1 /boot                   {kind}     defaults        0 0
   | ^^^^^^^^^ the disk that is vda today may be vdb tomorrow
   = boot: on virtio-blk: vda=extra, vdb=disk0, systemd waits 90 s for dev-vda1.device, then stops: \"You are in emergency mode\"
fix (safe): name it by UUID
  - /dev/vda1 /boot                   {kind}     defaults        0 0
  + UUID={BOOT_UUID} /boot                   {kind}     defaults        0 0

boot as it stands: login, if firmware, boot loader, boot loader configuration, kernel and initramfs and default target, not yet examined, do their part
boot with an extra disk first: emergency: Timed out waiting for device dev-vda1.device (/etc/fstab:10, fstab.unstable-device)
{name}: 1 error, 1 fixable with `fix`; details: `explain fstab.unstable-device`
"
        );
        assert_eq!((code, err.as_str()), (1, ""), "{name}");
        assert_eq!(out, expected);
    }
}

#[test]
fn the_healthy_twin_is_clean() {
    let (code, out, err) = run(&["check", &path("centos7-uuid.qcow2")]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.ends_with("centos7-uuid.qcow2: nothing found\n"), "{out}");
    assert!(!out.contains("emergency"));
}

#[test]
fn what_is_no_image_is_one_clear_line_and_exit_2() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(sample("centos7-vda.qcow2")).unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let cases = [
        (folder.path().join("missing").to_str().unwrap().to_owned(), "No such file"),
        (file("empty.qcow2", b""), "is empty (0 bytes)"),
        (file("text.qcow2", b"hello"), "is not a disk image"),
        (file("header.qcow2", &whole[..600]), "qcow2 header"),
        (folder.path().to_str().unwrap().to_owned(), "a directory"),
    ];
    for (path, expected) in &cases {
        let (code, out, err) = run(&["check", path]);
        assert_eq!((code, out.as_str()), (2, ""), "{path}: {err}");
        assert!(err.starts_with("guestmend: ") && err.contains(path) && err.contains(expected), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
    // Without its tail the image opens; that no system can be told from it is not a clean result.
    let cut = file("cut.qcow2", &whole[..200_000]);
    let (code, out, err) = run(&["check", &cut]);
    assert_eq!(code, 2, "{out}{err}");
    let garbage = file("garbage.raw", &[0x5a; 4096]);
    assert_eq!(run(&["check", &garbage]).0, 2);
    assert_eq!(run(&["check"]).0, 2);
    assert_eq!(run(&["--help"]).0, 0);
}

#[test]
fn a_file_without_permission_is_exit_2() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, image) = crate::support::copy("centos7-uuid.qcow2");
    std::fs::set_permissions(&image, std::fs::Permissions::from_mode(0o0)).unwrap();
    // Root reads it all the same.
    if std::fs::File::open(&image).is_err() {
        let (code, _, err) = run(&["check", image.to_str().unwrap()]);
        assert_eq!(code, 2);
        assert!(err.contains("Permission denied"), "{err}");
    }
}

#[test]
fn simulate_says_how_it_ends_and_what_that_rests_on() {
    for (name, _) in BROKEN {
        let (code, out, _) = run(&["simulate", &path(name)]);
        assert_eq!(code, 0, "{out}");
        assert!(out.starts_with("boot as it stands: login, if firmware"), "{out}");
        assert!(out.contains("unknown kernel and initramfs: not examined"), "{out}");
        assert!(out.contains("pass    root file system: centos/root is /dev/mapper/centos-root"), "{out}");
        let (code, out, _) = run(&["simulate", &path(name), "--disk-order", "+1"]);
        assert_eq!(code, 1, "{out}");
        assert!(out.starts_with(
            "boot with an extra disk first: emergency: Timed out waiting for device dev-vda1.device"
        ));
        assert!(
            out.contains(
                "fail    local file systems: boot.mount: no disk of this machine provides /dev/vda1"
            ),
            "{out}"
        );
        let (code, out, _) =
            run(&["simulate", &path(name), "--bus", "nvme", "--bus", "virtio", "--disk-order", "+0"]);
        assert_eq!(code, 1, "{out}");
        assert!(
            out.contains("as it stands, on nvme: emergency") && out.contains("on virtio-blk: login"),
            "{out}"
        );
    }
    assert_eq!(run(&["simulate", &path("centos7-uuid.qcow2"), "--disk-order", "+1"]).0, 0);
    assert_eq!(run(&["simulate", &path("centos7-uuid.qcow2"), "--disk-order", "x"]).0, 2);
}

#[test]
fn inspect_draws_the_stack() {
    let (code, out, _) = run(&["inspect", &path("centos7-vda.qcow2")]);
    assert_eq!(code, 0);
    let expected = format!(
        "centos7-vda.qcow2 (qcow2, 512 MiB) dos 000c7de1
├─ p1         96 MiB  xfs  {BOOT_UUID}  92.5 MiB free → /boot
└─ p2        415 MiB  volume group centos (LVM2, 4 MiB extents)
   ├─ root      256 MiB  xfs  6f1c77a0-0b2d-4c3e-9a51-0c7de1000002  252.4 MiB free → /
   └─ swap       16 MiB  swap  6f1c77a0-0b2d-4c3e-9a51-0c7de1000003
system CentOS Linux 7 (Core) on centos/root
├─ /            centos/root (fstab line 9)
└─ /boot        disk0/p1 (fstab line 10)
   kernels: 3.10.0-1160.el7.x86_64 (no modules)
"
    );
    assert_eq!(out, expected);
}

#[test]
fn json_has_its_schema_and_the_facts() {
    let json = |arguments: &[&str]| -> serde_json::Value {
        let output = guestmend(arguments);
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let broken = path("centos7-vda.qcow2");
    let check = json(&["check", &broken, "--output", "json"]);
    assert_eq!(check["schema"], "guestmend/1");
    assert_eq!(check["status"], "findings");
    assert_eq!(check["findings"][0]["rule"], "fstab.unstable-device");
    assert_eq!(
        (&check["findings"][0]["column"], &check["findings"][0]["end_column"]),
        (&1.into(), &9.into())
    );
    assert_eq!(check["findings"][0]["fix"]["edits"][0]["new"], format!("UUID={BOOT_UUID}"));
    assert_eq!(check["scenarios"][1]["outcome"], "emergency");
    assert_eq!(check["scenarios"][1]["cause"]["unit"], "dev-vda1.device");
    assert_eq!(check["scenarios"][0]["assumptions"].as_array().unwrap().len(), 5);
    let inspect = json(&["inspect", &broken, "--output", "json"]);
    assert_eq!(inspect["devices"][1]["mounted"][0], "/boot");
    assert_eq!(inspect["systems"][0]["id"], "centos");
    let kernel = &inspect["systems"][0]["settings"]["kernels"][0];
    assert_eq!(
        (&kernel["image"], &kernel["has_modules"]),
        (&"/boot/vmlinuz-3.10.0-1160.el7.x86_64".into(), &false.into())
    );
    // They are read for `inspect` alone.
    assert!(check["systems"][0].get("settings").is_none());
    let listing = json(&["ls", &broken, "/etc", "--output", "json"]);
    let fstab = listing["entries"].as_array().unwrap().iter().find(|entry| entry["name"] == "fstab").unwrap();
    assert_eq!((&fstab["mode"], &fstab["selinux"]), (&"0644".into(), &"system_u:object_r:etc_t:s0".into()));
    let fix = json(&["fix", &broken, "--dry-run", "--output", "json"]);
    assert_eq!((&fix["result"], &fix["after"][1]["outcome"]), (&"dry-run".into(), &"login".into()));
}

#[test]
fn look_inside() {
    for (name, _) in BROKEN {
        let image = path(name);
        let (code, out, _) = run(&["cat", &image, "/etc/os-release"]);
        assert_eq!(code, 0);
        assert!(out.contains("ID=\"centos\""));
        let (_, kernel, _) = run(&["ls", &image, "/boot"]);
        assert!(kernel.contains("vmlinuz-3.10.0-1160.el7.x86_64"), "{kernel}");
        let output = guestmend(&["cat", &image, "/boot/grub2/grubenv"]);
        assert_eq!(output.stdout.len(), 1024);
        let (code, _, err) = run(&["cat", &image, "/etc/nothing"]);
        assert_eq!((code, err.as_str()), (2, "guestmend: /etc/nothing: no such file or directory\n"));
        assert_eq!(run(&["cat", &image, "/etc"]).0, 2);
    }
}

#[test]
fn preflight_is_one_line_an_image() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["centos7-vda.qcow2", "centos7-uuid.qcow2"] {
        std::fs::copy(sample(name), folder.path().join(name)).unwrap();
    }
    std::fs::write(folder.path().join("notes.txt"), "not an image").unwrap();
    let root = folder.path().to_str().unwrap();
    let (code, out, _) = run(&["preflight", root]);
    assert_eq!(code, 1, "{out}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 2, "{out}");
    assert!(lines[0].starts_with("ok ") && lines[0].contains("centos7-uuid.qcow2"), "{out}");
    assert!(lines[1].starts_with("risky ") && lines[1].contains("emergency"), "{out}");
    assert_eq!(run(&["preflight", &path("centos7-uuid.qcow2")]).0, 0);
    std::fs::write(folder.path().join("bad.raw"), [0; 8192]).unwrap();
    let (code, out, _) = run(&["preflight", root, "--output", "json", "--jobs", "2"]);
    assert_eq!(code, 2, "{out}");
    let verdicts: Vec<String> = out
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["verdict"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(verdicts, ["unknown", "ok", "risky"]);
}

#[test]
fn explain_prints_the_manual() {
    let (code, out, _) = run(&["explain", "fstab.unstable-device"]);
    assert_eq!(code, 0);
    assert!(out.starts_with("# fstab.unstable-device\n\n## What happens"));
    assert!(run(&["explain"]).1.contains("fstab.unresolved-source"));
    assert_eq!(run(&["explain", "no.such"]).0, 2);
}
