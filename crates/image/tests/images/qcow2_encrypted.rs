//! Encrypted images of QEMU, read and written with the passphrase and refused without.

use crate::support::{Folder, Random, assert_reads, assert_same, disk_content, has_qemu, read_all};
use image::{FolderGate, Image, Mode, Options};

const SECRET: &str = "secret,id=s,data=open-sesame";

fn open(folder: &Folder, name: &str, passphrase: Option<&str>, mode: Mode) -> image::Result<Image> {
    let options = Options { mode, passphrase: passphrase.map(str::as_bytes), ..Options::default() };
    image::open(&folder.path(name), &options, &FolderGate::new())
}

/// What QEMU reads from an encrypted image.
fn theirs(folder: &Folder, name: &str, kind: &str) -> Vec<u8> {
    let image = format!("driver=qcow2,encrypt.format={kind},encrypt.key-secret=s,file.filename={name}");
    folder.must(&format!("qemu-img convert --object {SECRET} --image-opts {image} -O raw theirs.raw"));
    let bytes = folder.read("theirs.raw");
    std::fs::remove_file(folder.path("theirs.raw")).unwrap();
    bytes
}

#[test]
fn luks_and_the_old_aes() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    let content = disk_content(3_000_320, 23);
    folder.write("base.raw", &content);
    let luks = "encrypt.format=luks,encrypt.iter-time=10";
    let variants = [
        ("luks", luks.to_owned()),
        ("luks", format!("{luks},encrypt.cipher-mode=cbc,encrypt.ivgen-alg=plain64")),
        (
            "luks",
            format!("{luks},encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256"),
        ),
        ("luks", format!("{luks},encrypt.cipher-alg=aes-128,encrypt.hash-alg=sha1,cluster_size=4k")),
        ("luks", format!("{luks},extended_l2=on,cluster_size=16k")),
        ("aes", "encrypt.format=aes".to_owned()),
    ];
    for (kind, options) in variants {
        let create = format!("-o encrypt.key-secret=s,{options}");
        folder.must(&format!(
            "qemu-img convert --object {SECRET} -f raw -O qcow2 {create} base.raw disk.qcow2"
        ));
        let image = open(&folder, "disk.qcow2", Some("open-sesame"), Mode::ReadOnly).unwrap();
        assert_reads(&*image.device, &content, &options);
        let refused = open(&folder, "disk.qcow2", None, Mode::ReadOnly).unwrap_err().to_string();
        assert!(refused.ends_with("is encrypted: a passphrase is needed"), "{refused}");
        let wrong = open(&folder, "disk.qcow2", Some("open-barley"), Mode::ReadOnly);
        match kind {
            "luks" => {
                let said = wrong.unwrap_err().to_string();
                assert!(said.ends_with("no key slot opens with this passphrase"), "{said}");
            }
            // Nothing in the image says that the passphrase is wrong.
            _ => assert_ne!(read_all(&*wrong.unwrap().device), content),
        }

        let mut model = content.clone();
        let image = open(&folder, "disk.qcow2", Some("open-sesame"), Mode::ReadWrite).unwrap();
        let disk = image.device.writable().unwrap();
        let mut random = Random::new(7);
        for _ in 0..150 {
            let offset = random.below(model.len() as u64) as usize;
            let length = (1 + random.below(9000) as usize).min(model.len() - offset);
            let mut bytes = vec![0; length];
            random.fill(&mut bytes);
            disk.write_all_at(&bytes, offset as u64).unwrap();
            model[offset..offset + length].copy_from_slice(&bytes);
        }
        disk.flush().unwrap();
        assert_reads(&*image.device, &model, &options);
        drop(image);
        assert_same(&theirs(&folder, "disk.qcow2", kind), &model, &options);
    }
}
