//! Healthy devices, with their makers as judges.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use blockdev::{Device, FileDevice};
use luks::{Keyring, Limits, Locked, Secret, read};

use crate::support::{PASSPHRASE, assert_pattern, corpus, device, image};

#[test]
fn what_the_kernel_encrypted() {
    for (name, encryption, sector_size, kdfs) in [
        ("luks1-essiv", "aes-cbc-essiv:sha256", 512, vec!["pbkdf2"]),
        ("luks2-argon2id-4096", "aes-xts-plain64", 4096, vec!["argon2id"]),
        ("luks2-cbc", "aes-cbc-essiv:sha256", 512, vec!["argon2i", "pbkdf2"]),
    ] {
        let device = device(image(name));
        let parsed = read(&device).unwrap().unwrap();
        assert!(parsed.problems.is_empty(), "{name}: {:?}", parsed.problems);
        let container = parsed.value;
        assert_eq!((container.encryption.as_str(), container.sector_size), (encryption, sector_size));
        let found: Vec<&str> = container.key_slots.iter().map(|slot| slot.kdf.name()).collect();
        assert_eq!(found, kdfs, "{name}");
        let (slot, opened) = container.unlock(&device, PASSPHRASE, Limits::default()).unwrap();
        assert_eq!((slot, opened.size()), (0, 65536));
        assert_pattern(opened.as_ref());
        let error = container.unlock(&device, b"correct", Limits::default()).unwrap_err();
        assert!(matches!(error, Locked::WrongPassphrase), "{name}: {error}");
    }
}

#[test]
fn a_keyring_tries_all_and_remembers() {
    let device = device(image("luks2-cbc"));
    let container = read(&device).unwrap().unwrap().value;
    assert_eq!(container.key_slots.len(), 2);
    let secret = |text: &str| Secret::new(text.as_bytes().to_vec());
    let keys = Keyring::new(vec![secret("wrong"), secret("battery staple")], Limits::default());
    let (slot, opened) = keys.unlock(&container, &device).unwrap();
    assert_eq!(slot, 1);
    assert_pattern(opened.as_ref());
    assert_eq!(keys.unlock(&container, &device).unwrap().0, 1);
    assert!(!format!("{keys:?}{opened:?}").contains("staple"));
    let none = Keyring::default();
    assert!(matches!(none.unlock(&container, &device), Err(Locked::NoPassphrase)));
    let wrong = Keyring::new(vec![secret("wrong")], Limits { memory: 32 });
    let error = wrong.unlock(&container, &device).unwrap_err();
    assert_eq!(error.to_string(), "a key slot asks for 64 KiB of memory; the limit is 32 KiB");
}

#[test]
fn labels_of_version_2() {
    let container = read(&device(image("luks2-argon2id-4096"))).unwrap().unwrap().value;
    assert_eq!(container.uuid, "22222222-2222-4222-8222-222222222222");
    assert_eq!(container.label.as_deref(), Some("encrypted"));
    assert_eq!(container.subsystem.as_deref(), Some("guests"));
    assert_eq!((container.offset, container.copies.len()), (1 << 20, 2));
    assert_eq!((container.copies[1].offset, container.copies[1].problem.clone()), (16 << 10, None));
}

fn run(program: &str, arguments: &[&str]) -> Option<String> {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => panic!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(_) => {
            println!("skipped: {program} is not installed");
            None
        }
    }
}

/// qemu-img encrypts LUKS1 by itself, so its plain text is the judge.
#[test]
fn what_qemu_img_encrypted() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let plain: Vec<u8> = (0..300_000_u32).map(|n| (n / 7) as u8).collect();
    std::fs::write(path("plain"), &plain[..299_008]).unwrap();
    std::fs::write(path("key"), PASSPHRASE).unwrap();
    let secret = format!("secret,id=key,file={}", path("key"));
    for (cipher, mode, ivgen) in [
        ("aes-256", "xts", "plain64"),
        ("aes-128", "xts", "plain"),
        ("aes-256", "cbc", "plain64"),
        ("aes-256", "cbc", "essiv,ivgen-hash-alg=sha256"),
    ] {
        let options =
            format!("key-secret=key,iter-time=10,cipher-alg={cipher},cipher-mode={mode},ivgen-alg={ivgen}");
        let image = path("image");
        let arguments =
            ["convert", "--object", &secret, "-O", "luks", "-o", &options, &path("plain"), &image];
        if run("qemu-img", &arguments).is_none() {
            return;
        }
        let device: Device = Arc::new(FileDevice::open(Path::new(&image)).unwrap());
        let container = read(&device).unwrap().unwrap().value;
        let (_, opened) = container.unlock(&device, PASSPHRASE, Limits::default()).unwrap();
        let mut read = vec![0; opened.size() as usize];
        opened.read_exact_at(&mut read, 0).unwrap();
        assert!(read == plain[..299_008], "{options}");
    }
}

/// cryptsetup formats plain files, so its dump is the judge of the header.
#[test]
fn what_cryptsetup_formats() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image").display().to_string();
    let key = folder.path().join("key").display().to_string();
    std::fs::write(&key, PASSPHRASE).unwrap();
    for options in [
        vec!["--type", "luks1", "--pbkdf-force-iterations", "1000", "--hash", "sha512"],
        vec!["--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--hash", "sha384"],
        vec![
            "--type",
            "luks2",
            "--pbkdf",
            "argon2id",
            "--pbkdf-memory",
            "32",
            "--pbkdf-force-iterations",
            "4",
            "--sector-size",
            "2048",
            "--luks2-metadata-size",
            "64k",
        ],
    ] {
        std::fs::File::create(&path).unwrap().set_len(32 << 20).unwrap();
        let mut arguments = vec!["luksFormat", "-q", "--use-urandom", "--disable-locks"];
        arguments.extend(&options);
        arguments.extend([path.as_str(), key.as_str()]);
        if run("cryptsetup", &arguments).is_none() {
            return;
        }
        let dump = run("cryptsetup", &["luksDump", "--disable-locks", &path]).unwrap();
        let device: Device = Arc::new(FileDevice::open(Path::new(&path)).unwrap());
        let parsed = read(&device).unwrap().unwrap();
        assert!(parsed.problems.is_empty(), "{options:?}: {:?}", parsed.problems);
        let container = parsed.value;
        assert!(dump.contains(&container.uuid) && container.uuid.len() == 36, "{dump}");
        container.unlock(&device, PASSPHRASE, Limits::default()).unwrap();
        if container.version == 2 {
            for said in [
                format!("offset: {} [bytes]", container.offset),
                format!("cipher: {}", container.encryption),
                format!("sector: {} [bytes]", container.sector_size),
                format!("Epoch: {}", container.copies[0].sequence_id),
                container.key_slots[0].kdf.name().to_owned(),
            ] {
                let squeezed = |text: &str| text.split_whitespace().collect::<String>();
                assert!(squeezed(&dump).contains(&squeezed(&said)), "{said}: {dump}");
            }
        }
    }
}

/// Of cryptsetup's own tests: what must open, and what must be refused.
#[test]
fn the_corpus_of_cryptsetup() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str| -> Option<Device> {
        Some(Arc::new(FileDevice::open(&corpus(name, folder.path())?).unwrap()))
    };
    for name in ["cryptsetup/compatimage.img.xz", "cryptsetup/compatv10image.img.xz"] {
        let Some(device) = open(name) else { return };
        let container = read(&device).unwrap().unwrap().value;
        container
            .unlock(&device, b"compatkey", Limits::default())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    for name in ["luks_hdr_damage", "keyslot_overlap", "payload_overwrite"] {
        let device = open(&format!("cryptsetup/evil_hdr-{name}.xz")).unwrap();
        let refused = read(&device).map(|found| found.map(|parsed| parsed.value));
        assert!(refused.is_err(), "{name}: {refused:?}");
    }
    let device = open("cryptsetup/valid_header_file.xz").unwrap();
    let container = read(&device).unwrap().unwrap().value;
    assert_eq!((container.version, container.copies.len()), (1, 1));
    // Nine sizes of the header, a tar archive: each file's content follows its block of 512 bytes.
    let path = corpus("cryptsetup/luks2_mda_images.tar.xz", folder.path()).unwrap();
    run("tar", &["-xf", path.to_str().unwrap(), "-C", folder.path().to_str().unwrap()]).unwrap();
    let mut opened = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("test_image_") {
            let device: Device = Arc::new(FileDevice::open(&path).unwrap());
            let parsed = read(&device).unwrap().unwrap();
            assert!(parsed.problems.is_empty(), "{}: {:?}", path.display(), parsed.problems);
            let found = parsed.value.unlock(&device, b"Qx3qn46vq0v", Limits::default());
            found.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            opened += 1;
        }
    }
    assert_eq!(opened, 9);
}
