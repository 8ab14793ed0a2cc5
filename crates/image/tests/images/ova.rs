//! Appliances: archives as tools make them, the disks in them, and those that lie.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{Folder, Random, assert_reads, assert_same, disk_content, has_qemu, read_all};
use crate::vmdk_support::sha256_of_tool;
use blockdev::MemoryDevice;
use image::vmdk::write_stream_optimized;
use image::{DenyAll, FolderGate, Image, Mode, Options, OwnContent, Severity};

/// A header of tar with a right checksum.
fn header(name: &[u8], kind: u8, size: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name);
    header[100..107].copy_from_slice(b"0000644");
    header[124..124 + size.len()].copy_from_slice(size);
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header
}

fn octal(size: usize) -> Vec<u8> {
    format!("{size:011o}\0").into_bytes()
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content) in members {
        bytes.extend(header(name.as_bytes(), b'0', &octal(content.len())));
        bytes.extend(padded(content));
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

fn description(disks: &[&str]) -> String {
    let mut files = String::new();
    let mut section = String::new();
    for (number, name) in disks.iter().enumerate() {
        files.push_str(&format!("<File ovf:href=\"{name}\" ovf:id=\"f{number}\"/>\n"));
        section.push_str(&format!(
            "<Disk ovf:diskId=\"d{number}\" ovf:fileRef=\"f{number}\" ovf:capacity=\"1\"/>\n"
        ));
    }
    format!(
        "<Envelope xmlns:ovf=\"x\"><References>{files}</References><DiskSection>{section}</DiskSection></Envelope>"
    )
}

fn stream(content: &[u8]) -> Vec<u8> {
    let out = MemoryDevice::new([]);
    write_stream_optimized(&out, &MemoryDevice::new(content), "x.vmdk").unwrap();
    out.to_vec()
}

fn open(folder: &Folder, name: &str, member: Option<&str>) -> image::Result<Image> {
    let options = Options { member, ..Options::default() };
    image::open(&folder.path(name), &options, &FolderGate::new())
}

/// The message of an error and of everything below it.
fn line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut below = error.source();
    while let Some(error) = below {
        line.push_str(": ");
        line.push_str(&error.to_string());
        below = error.source();
    }
    line
}

#[test]
fn archives_of_every_tar() {
    if std::process::Command::new("tar").arg("--version").output().is_err() {
        println!("skipped: tar is not installed");
        return;
    }
    let folder = Folder::new();
    let content = disk_content(3 << 20, 21);
    let long = format!("{}.vmdk", "disk".repeat(40));
    folder.write(&long, &stream(&content));
    folder.write("vm.ovf", description(&[&long]).as_bytes());
    for format in ["ustar", "gnu", "pax", "oldgnu"] {
        if format == "ustar" {
            // Its names are shorter.
            std::fs::copy(folder.path(&long), folder.path("short.vmdk")).unwrap();
            folder.write("short.ovf", description(&["short.vmdk"]).as_bytes());
            folder.must("tar --format=ustar -cf ustar.ova ./short.ovf ./short.vmdk");
        } else {
            folder.must(&format!("tar --format={format} -cf {format}.ova vm.ovf {long}"));
        }
        let name = format!("{format}.ova");
        let image = folder.open(&name).unwrap();
        assert!(image.problems.is_empty(), "{format}: {:?}", image.problems);
        assert_reads(&*image.device, &content, format);
        let layer = &image.chain[0];
        assert_eq!((layer.format, layer.path.clone()), ("ova", Some(folder.path(&name))));
        assert_eq!(layer.features[1], "format vmdk");
        let report = image::check(&folder.path(&name), &Options::default(), &FolderGate::new()).unwrap();
        assert_eq!(report.problems, [], "{format}");
        assert!(report.compressed > 0 && report.files == [folder.path(&name)]);
    }
}

#[test]
fn one_of_several_disks() {
    let folder = Folder::new();
    let contents = [disk_content(1 << 20, 1), disk_content(1 << 20, 2)];
    let text = description(&["b.vmdk", "a.vmdk"]);
    let bytes = archive(&[
        ("vm.ovf", text.as_bytes()),
        ("cd.iso", &[1; 3000]),
        ("a.vmdk", &stream(&contents[0])),
        ("b.vmdk", &stream(&contents[1])),
    ]);
    folder.write("vm.ova", &bytes);
    assert_eq!(image::members(&folder.path("vm.ova")).unwrap(), ["b.vmdk", "a.vmdk"]);
    for (name, content) in [("a.vmdk", &contents[0]), ("./b.vmdk", &contents[1])] {
        let image = open(&folder, "vm.ova", Some(name)).unwrap();
        assert_same(&read_all(&*image.device), content, name);
        assert!(image.device.writable().is_none());
    }
    let said = open(&folder, "vm.ova", None).unwrap_err().to_string();
    assert!(said.ends_with("vm.ova holds 2 disks, of which one must be chosen: b.vmdk, a.vmdk"), "{said}");
    let said = open(&folder, "vm.ova", Some("cd.iso")).unwrap_err().to_string();
    assert!(said.contains("has no disk `cd.iso`; it holds 2 disks"), "{said}");
    let writing = Options { mode: Mode::ReadWrite, member: Some("a.vmdk"), ..Options::default() };
    let said = image::open(&folder.path("vm.ova"), &writing, &FolderGate::new()).unwrap_err().to_string();
    assert!(said.contains("must not be written: an appliance is an archive"), "{said}");
    folder.write("no.raw", &[7; 4096]);
    assert!(image::members(&folder.path("no.raw")).unwrap().is_empty());
    assert!(image::members(&folder.path("absent")).is_err());
}

#[test]
fn disks_that_are_not_streams() {
    let folder = Folder::new();
    let content = disk_content(1 << 20, 3);
    // A raw member, at its place in the archive.
    let text = description(&["my%20disk.img"]);
    folder.write("raw.ova", &archive(&[("vm.ovf", text.as_bytes()), ("my disk.img", &content)]));
    let image = folder.open("raw.ova").unwrap();
    assert_reads(&*image.device, &content, "raw");
    let run = image.chain[0].disk.as_ref().unwrap().own_run_at(5000).unwrap();
    let OwnContent::Stored { file: 0, offset } = run.content else { panic!("{run:?}") };
    assert_same(&folder.read("raw.ova")[offset as usize..][..512], &content[5000..5512], "stored");
    // A descriptor whose extent is another member.
    let descriptor = |name: &str| {
        format!(
            "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
             RW 2048 FLAT \"{name}\" 0\n"
        )
    };
    let text = description(&["d.vmdk"]);
    let flat = |name: &str| {
        let descriptor = descriptor(name);
        let members = [
            ("sub/vm.ovf", text.as_bytes()),
            ("sub/d.vmdk", descriptor.as_bytes()),
            ("sub/d-flat.vmdk", &content),
        ];
        folder.write("flat.ova", &archive(&members));
        folder.open("flat.ova")
    };
    let image = flat("d-flat.vmdk").unwrap();
    assert_reads(&*image.device, &content, "flat");
    let run = image.chain[0].disk.as_ref().unwrap().own_run_at(5000).unwrap();
    let OwnContent::Stored { file: 0, offset } = run.content else { panic!("{run:?}") };
    assert_same(&folder.read("flat.ova")[offset as usize..][..512], &content[5000..5512], "stored");
    // Never a file of the host, though it lies there.
    folder.write("host.raw", &content);
    for name in ["host.raw", "/etc/passwd", "../host.raw", "d.vmdk", "absent"] {
        let said = line(&flat(name).unwrap_err());
        assert!(said.contains(&format!("needs the extent `{name}`, which is not opened")), "{said}");
    }
    let child = descriptor("d-flat.vmdk").replace("ffffffff", "1") + "parentFileNameHint=\"host.raw\"\n";
    let members = [("vm.ovf", text.as_bytes()), ("d.vmdk", child.as_bytes()), ("d-flat.vmdk", &content)];
    folder.write("child.ova", &archive(&members));
    assert!(line(&folder.open("child.ova").unwrap_err()).contains("needs the backing file"));
}

#[test]
fn sizes_beyond_octal() {
    let folder = Folder::new();
    let content = disk_content(1 << 20, 4);
    let text = description(&["d.img"]);
    let start = [header(b"vm.ovf", b'0', &octal(text.len())), padded(text.as_bytes())].concat();
    let end = [padded(&content), vec![0; 1024]].concat();
    let mut base_256 = vec![0x80, 0, 0, 0];
    base_256.extend((content.len() as u64).to_be_bytes());
    let gnu = [&start[..], &header(b"d.img", b'0', &base_256), &end].concat();
    let records = format!("14 path=d.img\n16 size={}\n", content.len());
    let pax = [
        &start[..],
        &header(b"x", b'x', &octal(records.len())),
        &padded(records.as_bytes()),
        &header(b"other", b'0', &octal(0)),
        &end,
    ]
    .concat();
    for (name, bytes) in [("gnu.ova", gnu), ("pax.ova", pax)] {
        folder.write(name, &bytes);
        let image = folder.open(name).unwrap();
        assert!(image.problems.is_empty(), "{name}: {:?}", image.problems);
        assert_same(&read_all(&*image.device), &content, name);
    }
}

#[test]
fn what_cannot_be_opened_is_named() {
    let folder = Folder::new();
    let case = |text: &str, members: &[(&str, &[u8])]| {
        let mut all = vec![("vm.ovf", text.as_bytes())];
        all.extend(members);
        folder.write("vm.ova", &archive(&all));
        line(&folder.open("vm.ova").unwrap_err())
    };
    let text = description(&["d.vmdk"]);
    let gzip = text.replace("ovf:id=", "ovf:compression=\"gzip\" ovf:id=");
    for (text, members, expected) in [
        (gzip.as_str(), &[("d.vmdk", &[1_u8; 600][..])][..], "the compression gzip of a whole disk (d.vmdk)"),
        (&text, &[("d.vmdk", &[0x1f, 0x8b, 8, 0][..])][..], "the compression gzip of a whole disk (d.vmdk)"),
        (&text.replace("ovf:id=", "ovf:chunkSize=\"9\" ovf:id="), &[][..], "a disk in pieces (d.vmdk)"),
        (
            &text.replace("ovf:capacity", "ovf:parentRef=\"d9\" ovf:capacity"),
            &[("d.vmdk", &[1; 600][..])][..],
            "a disk over another",
        ),
        (&text, &[][..], "a missing member (d.vmdk)"),
        ("<Envelope/>", &[][..], "vm.ova holds no disk"),
    ] {
        let said = case(text, members);
        assert!(said.contains(expected), "{said}");
    }
    let nested = archive(&[("vm.ovf", text.as_bytes()), ("d.vmdk", &[1; 600])]);
    assert!(case(&text, &[("d.vmdk", &nested)]).contains("an appliance within an appliance"));
    folder.write("none.ova", &archive(&[("disk.vmdk", &[1; 600])]));
    assert!(
        line(&folder.open("none.ova").unwrap_err())
            .contains("description is none, expected a member named *.ovf")
    );
    // Any other archive is a disk for all we know.
    folder.write("other.tar", &archive(&[("readme", &[1; 600])]));
    assert_eq!(folder.open("other.tar").unwrap().chain[0].format, "raw");
}

#[test]
fn checks_of_digests_sizes_and_disks() {
    let folder = Folder::new();
    let content = disk_content(1 << 20, 5);
    let disk = stream(&content);
    let text = description(&["d.vmdk"]).replace("ovf:id=", &format!("ovf:size=\"{}\" ovf:id=", disk.len()));
    folder.write("d.vmdk", &disk);
    let Some(digest) = sha256_of_tool(&folder, "d.vmdk") else { return };
    let manifest =
        format!("SHA256(d.vmdk)= {digest}\nSHA1(vm.ovf)= {}\nSHA256(gone)= {digest}\n", "0".repeat(40));
    let bytes = archive(&[("vm.ovf", text.as_bytes()), ("vm.mf", manifest.as_bytes()), ("d.vmdk", &disk)]);
    let check = |bytes: &[u8]| {
        folder.write("vm.ova", bytes);
        image::check(&folder.path("vm.ova"), &Options::default(), &FolderGate::new()).unwrap()
    };
    let report = check(&bytes);
    let said: Vec<_> = report.problems.iter().map(|problem| problem.summary.as_str()).collect();
    assert_eq!(said, ["its SHA-1 digests are not compared", "lists gone, which is not in the archive"]);
    // One bit of the marker of the first grain.
    let mut damaged = bytes.clone();
    let start = bytes.len() - 1024 - disk.len().next_multiple_of(512);
    damaged[start + 65_536 + 11] ^= 0x80;
    let report = check(&damaged);
    let marker = report.problems.iter().find(|problem| problem.structure == "VMDK marker").unwrap();
    assert_eq!(marker.offset, start as u64 + 65_536);
    assert!(marker.summary.starts_with("d.vmdk: size is ") && marker.repair.is_none(), "{marker:?}");
    assert!(report.problems.iter().any(|problem| problem.summary.contains("d.vmdk is not what its digest")));
    // Cut short.
    let report = check(&bytes[..bytes.len() - 5000]);
    let said: Vec<_> = report.problems.iter().map(|problem| problem.summary.as_str()).collect();
    assert!(said.iter().any(|said| said.starts_with("size is ")), "{said:?}");
    assert!(said.iter().any(|said| said.contains("its description states")), "{said:?}");
    assert!(said.iter().any(|said| said.contains("footer is none; ")), "{said:?}");
    let image = folder.open("vm.ova").unwrap();
    assert!(image.problems.len() >= 2);
    assert_eq!(image.device.size(), content.len() as u64);
    assert!(report.count(Severity::Error) >= 4);
}

#[test]
fn corpus() {
    let corpus = std::env::var_os("GUESTMEND_CORPUS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus"),
        PathBuf::from,
    );
    if !corpus.join("virt-v2v").exists() {
        println!("skipped: {} is absent", corpus.display());
        return;
    }
    let folder = Folder::new();
    let disk = stream(&disk_content(1 << 20, 6));
    for (name, disks) in [
        ("as-root", &["disk.vmdk"][..]),
        ("checksums", &["disk.vmdk"]),
        ("formats", &["disk1.vmdk"]),
        ("gz", &["disk1.vmdk.gz"]),
        ("subfolders", &["disk1.vmdk"]),
        ("tar", &["disk1.vmdk"]),
        ("two-disks", &["disk1.vmdk", "disk2.vmdk"]),
    ] {
        let text = std::fs::read(corpus.join(format!("virt-v2v/tests/test-i-ova-{name}.ovf"))).unwrap();
        let mut members = vec![("vm.ovf", &text[..])];
        members.extend(disks.iter().map(|name| (*name, &disk[..])));
        folder.write("vm.ova", &archive(&members));
        assert_eq!(image::members(&folder.path("vm.ova")).unwrap(), disks, "{name}");
        let opened = open(&folder, "vm.ova", Some(disks[0]));
        if name == "gz" {
            assert!(line(&opened.unwrap_err()).contains("the compression gzip"));
        } else {
            assert_eq!(opened.unwrap().device.size(), 1 << 20);
        }
    }
}

#[test]
fn qemu_agrees_on_members() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    folder.write("base.raw", &disk_content(2 << 20, 7));
    folder.must("qemu-img convert -f raw -O vmdk -o subformat=streamOptimized base.raw d.vmdk");
    folder.write(
        "vm.ova",
        &archive(&[("vm.ovf", description(&["d.vmdk"]).as_bytes()), ("d.vmdk", &folder.read("d.vmdk"))]),
    );
    assert_reads(&*folder.open("vm.ova").unwrap().device, &folder.content_as("vmdk", "d.vmdk"), "member");
}

#[test]
fn no_mutation_panics_or_hangs() {
    let folder = Folder::new();
    let mut content = vec![0; 1 << 20];
    content[70_000..70_600].fill(3);
    let text = description(&["d.vmdk", "e.img"]);
    let manifest = format!("SHA256(d.vmdk)= {}\n", "0".repeat(64));
    let records = "15 path=vm.ovf\n";
    let mut bytes = [header(b"x", b'x', &octal(records.len())), padded(records.as_bytes())].concat();
    let names_at = bytes.len();
    bytes.extend(archive(&[
        ("vm.ovf", text.as_bytes()),
        ("vm.mf", manifest.as_bytes()),
        ("e.img", &[5; 2000]),
        ("d.vmdk", &stream(&content)),
    ]));
    let factor = std::env::var("MUTATIONS").map_or(1, |factor| factor.parse().unwrap());
    for number in 0..20_000 * factor {
        let mut random = Random::new((13 << 32) + number);
        let mut mutated = bytes.clone();
        if random.below(12) == 0 {
            mutated.truncate(1 + random.below(mutated.len() as u64) as usize);
        }
        for _ in 0..=random.below(3) {
            let at = match random.below(3) {
                0 => names_at + random.below(4096) as usize,
                1 => random.below(1024) as usize,
                _ => random.below(mutated.len() as u64) as usize,
            } % mutated.len();
            match random.below(3) {
                0 => mutated[at] ^= 1 << random.below(8),
                1 => mutated[at] = b"\0\x01\x7f\x80\xff/<>\"=%&7"[random.below(13) as usize],
                _ => mutated[at] = b'0' + random.below(9) as u8,
            }
        }
        // Most damage would end at the checksum: half of the headers get a right one.
        if random.below(2) == 0 {
            for at in (0..mutated.len().saturating_sub(512)).step_by(512) {
                if &mutated[at + 257..at + 262] == b"ustar" {
                    mutated[at + 148..at + 156].fill(b' ');
                    let sum: u32 = mutated[at..at + 512].iter().map(|byte| u32::from(*byte)).sum();
                    mutated[at + 148..at + 155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
                }
            }
        }
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for member in [None, Some("d.vmdk"), Some("e.img")] {
                let options = Options { member, ..Options::default() };
                let device = Arc::new(MemoryDevice::new(mutated.clone()));
                if let Ok(image) = image::open_device(device, None, &options, &DenyAll) {
                    let mut buffer = vec![0; 4096.min(image.device.size() as usize)];
                    let _ = image.device.read_exact_at(&mut buffer, 0);
                    let _ = image.device.extent_at(0);
                    let _ = image.chain[0].disk.as_ref().map(|disk| disk.own_run_at(0));
                }
            }
            if number % 3 == 0 {
                folder.write("vm.ova", &mutated);
                let _ = image::members(&folder.path("vm.ova"));
                let _ = image::check(&folder.path("vm.ova"), &Options::default(), &FolderGate::new());
            }
        }));
        assert!(outcome.is_ok(), "mutation {number} panics");
        assert!(start.elapsed() < Duration::from_secs(5), "mutation {number} hangs");
    }
}
