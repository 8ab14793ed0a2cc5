//! VMDK images with one thing wrong, or one thing that only some writers do.

use std::io::ErrorKind;
use std::sync::Arc;

use crate::support::{Folder, assert_reads, assert_same, disk_content, has_qemu, read_all};
use crate::vmdk_support::{cowd, sesparse};
use blockdev::MemoryDevice;
use image::vmdk::write_stream_optimized;
use image::{DenyAll, FolderGate, Image, Options, Problem, Report, Severity};

fn check(folder: &Folder, name: &str) -> Report {
    image::check(&folder.path(name), &Options::default(), &FolderGate::new()).unwrap()
}

fn stream(content: &[u8]) -> Vec<u8> {
    let out = MemoryDevice::new([]);
    write_stream_optimized(&out, &MemoryDevice::new(content), "x.vmdk").unwrap();
    out.to_vec()
}

fn open_memory(bytes: &[u8]) -> image::Result<Image> {
    image::open_device(Arc::new(MemoryDevice::new(bytes)), None, &Options::default(), &DenyAll)
}

fn with_text<'a>(report: &'a Report, text: &str) -> &'a Problem {
    let found = report.problems.iter().find(|problem| problem.summary.contains(text));
    found.unwrap_or_else(|| panic!("{text}: {report:?}"))
}

#[test]
fn deltas_of_esx_over_a_flat_base() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    let size = 3 << 20;
    let base = disk_content(size, 31);
    let mut delta = vec![0; size];
    for at in [0, 4096, 1 << 20, size - 4096] {
        delta[at..at + 4096].fill(0x5a);
    }
    folder.write("vm-flat.vmdk", &base);
    let text = |cid: &str, parent: &str, kind: &str, extent: &str| {
        format!(
            "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID={cid}\nparentCID={parent}\ncreateType=\"{kind}\"\n\
             # Extent description\nRW {} {extent}\n",
            size / 512
        )
    };
    folder.write("vm.vmdk", text("aaaa0001", "ffffffff", "vmfs", "VMFS \"vm-flat.vmdk\"").as_bytes());
    for (kind, name, extent, bytes) in [
        ("vmfsSparse", "vm-000001.vmdk", "VMFSSPARSE \"vm-000001-delta.vmdk\"", cowd(&delta)),
        ("seSparse", "vm-000002.vmdk", "SESPARSE \"vm-000002-sesparse.vmdk\"", sesparse(&delta)),
    ] {
        folder.write(extent.split('"').nth(1).unwrap(), &bytes);
        let hint = "parentFileNameHint=\"/vmfs/volumes/5f-1/vm/vm.vmdk\"\n";
        folder.write(name, (text("bbbb0002", "aaaa0001", kind, extent) + hint).as_bytes());
        let image = folder.open(name).unwrap();
        assert!(image.problems.is_empty(), "{:?}", image.problems);
        assert_eq!(image.chain.len(), 2);
        // QEMU takes the hint only as it stands.
        let local = (text("bbbb0002", "aaaa0001", kind, extent)) + "parentFileNameHint=\"vm.vmdk\"\n";
        folder.write("local.vmdk", local.as_bytes());
        assert_reads(&*image.device, &folder.content_as("vmdk", "local.vmdk"), kind);
        assert_eq!(check(&folder, name).count(Severity::Error), 0, "{:?}", check(&folder, name));
    }
}

#[test]
fn the_next_grain_of_a_cowd_extent_has_a_place_of_its_own() {
    let folder = Folder::new();
    let content = disk_content(1 << 20, 37);
    let mut bytes = cowd(&content);
    folder.write("d-delta.vmdk", &bytes);
    let options = Options { accept_changed_parent: true, ..Options::default() };
    let check = || image::check(&folder.path("d-delta.vmdk"), &options, &DenyAll).unwrap();
    assert_eq!(check().count(Severity::Error), 1, "only the descriptor: {:?}", check());
    bytes[28] = bytes[28].wrapping_sub(1);
    folder.write("d-delta.vmdk", &bytes);
    assert!(with_text(&check(), "freeSector is ").effect.contains("destroys"));
}

#[test]
fn a_stub_header_leads_to_its_descriptor() {
    let folder = Folder::new();
    let content = disk_content(1 << 20, 32);
    folder.write("d-flat.vmdk", &content);
    let mut stub = vec![0; 512];
    stub[..8].copy_from_slice(b"KDMV\x01\0\0\0");
    stub[28] = 1;
    stub[36] = 20;
    stub.extend_from_slice(
        b"# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
          RW 2048 FLAT \"d-flat.vmdk\" 0\n",
    );
    stub.resize(21 * 512, 0);
    folder.write("d.vmdk", &stub);
    let image = folder.open("d.vmdk").unwrap();
    assert_reads(&*image.device, &content, "stub");
    assert_eq!(check(&folder, "d.vmdk").problems, []);
    let image = folder.open_for_writing("d.vmdk").unwrap();
    image.device.writable().unwrap().write_all_at(&[1; 512], 512).unwrap();
    drop(image);
    assert_eq!(folder.read("d-flat.vmdk")[512..1024], [1; 512]);
    assert_ne!(folder.read("d.vmdk"), stub, "the content ID has changed");
}

#[test]
fn names_in_the_encoding_of_windows() {
    let folder = Folder::new();
    let content = disk_content(1 << 16, 33);
    folder.write("Größe-flat.vmdk", &content);
    let text =
        b"# Disk DescriptorFile\nversion=1\nencoding=\"windows-1252\"\nCID=00000001\nparentCID=ffffffff\n\
        createType=\"monolithicFlat\"\nRW 128 FLAT \"Gr\xf6\xdfe-flat.vmdk\" 0\n";
    folder.write("d.vmdk", text);
    assert_reads(&*folder.open("d.vmdk").unwrap().device, &content, "windows-1252");
}

#[test]
fn a_transfer_as_text_is_seen() {
    let folder = Folder::new();
    let mut bytes = stream(&disk_content(1 << 20, 34));
    let footer = bytes.len() - 1024;
    for at in [0, footer] {
        bytes[at + 73..at + 77].copy_from_slice(b"\r\n \r");
    }
    folder.write("d.vmdk", &bytes);
    assert_eq!(folder.open("d.vmdk").unwrap().problems.len(), 2);
    let report = check(&folder, "d.vmdk");
    let places: Vec<u64> = report.problems.iter().map(|problem| problem.offset).collect();
    assert_eq!(places, [0, footer as u64]);
    assert!(with_text(&report, "end of line test is").effect.contains("changed bytes everywhere"));
}

#[test]
fn grains_of_a_stream_are_held_against_their_markers() {
    let folder = Folder::new();
    let mut content = disk_content(1 << 20, 35);
    content[..131_072].fill(7);
    let good = stream(&content);
    // The first grain's marker, its stream, and its checksum.
    for (at, structure, field) in [
        (65_536, "VMDK marker", "lba"),
        (65_536 + 11, "VMDK marker", "size"),
        (65_536 + 20, "VMDK compressed grain", "stream"),
    ] {
        let mut bytes = good.clone();
        bytes[at] ^= 0xff;
        let image = open_memory(&bytes).unwrap();
        let error = image.device.read_exact_at(&mut [0; 512], 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let said = error.to_string();
        assert!(said.starts_with(&format!("{structure} at byte 65536: {field} is ")), "{said}");
        // The others are read all the same.
        let mut bytes = vec![0; 65_536];
        image.device.read_exact_at(&mut bytes, 65_536).unwrap();
        assert_same(&bytes, &content[65_536..131_072], "the next grain");
    }
    let mut bytes = good;
    bytes[65_536] ^= 0xff;
    folder.write("d.vmdk", &bytes);
    let report = check(&folder, "d.vmdk");
    assert_eq!(with_text(&report, "lba is ").guest, [0..65_536]);
    assert_eq!(report.count(Severity::Error), 1, "{report:?}");
}

#[test]
fn what_nothing_uses_is_counted() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    folder.must("qemu-img create -q -f vmdk -o zeroed_grain=on d.vmdk 2M");
    folder.qemu_io_as("vmdk", "d.vmdk", &["write -P 1 0 320k"]);
    assert_eq!(check(&folder, "d.vmdk").problems, []);
    assert_eq!(check(&folder, "d.vmdk").allocated, 320 << 10);
    folder.qemu_io_as("vmdk", "d.vmdk", &["write -z 64k 128k", "write -z 256k 64k"]);
    let report = check(&folder, "d.vmdk");
    assert_eq!(report.problems.len(), 1, "{report:?}");
    let leak = &report.problems[0];
    assert_eq!((leak.severity, leak.offset), (Severity::Leak, 131_072));
    assert_eq!(leak.summary, "196608 bytes from here on that nothing uses");
    assert_eq!(report.allocated, 128 << 10);
}

#[test]
fn notes_and_contradictions() {
    let folder = Folder::new();
    let text = |lines: &str| {
        format!(
            "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
             RW 128 FLAT \"d.raw\" 0\n{lines}"
        )
    };
    folder.write("d.raw", &[1; 65_536 + 512]);
    folder.write("d.vmdk", text("changeTrackPath=\"d-ctk.vmdk\"\n").as_bytes());
    let notes = |name: &str| folder.open(name).unwrap().chain[0].notes.clone();
    assert_eq!(notes("d.vmdk"), ["tracks changes in d-ctk.vmdk, which is missing"]);
    folder.write("d-ctk.vmdk", b"x");
    assert_eq!(notes("d.vmdk"), ["tracks changes in d-ctk.vmdk, which will be wrong after any write"]);
    let report = check(&folder, "d.vmdk");
    assert_eq!(with_text(&report, "512 bytes more than its extent").severity, Severity::Note);
    folder.write("d.vmdk", text("").replace("monolithicFlat", "streamOptimized").as_bytes());
    with_text(
        &check(&folder, "d.vmdk"),
        "createType is streamOptimized, and its extents are of another kind",
    );
    // A hint without a parent's ID: the base could be anything.
    folder.write("p.raw", &[1; 65_536]);
    folder.write("p.vmdk", text("").replace("d.raw", "p.raw").as_bytes());
    folder.write("d.vmdk", text("parentFileNameHint=\"p.vmdk\"\n").as_bytes());
    let said = folder.open("d.vmdk").unwrap_err().to_string();
    assert!(said.contains("with CID ffffffff, and it has CID 00000001 now"), "{said}");
    // An ID without a hint: it stands on something that is not named.
    folder.write("d.vmdk", text("").replace("parentCID=ffffffff", "parentCID=12345678").as_bytes());
    assert!(folder.open("d.vmdk").unwrap_err().to_string().contains("needs the backing file ``"));
    // A missing extent is a problem of the check, and fails the opening.
    folder.write("d.vmdk", text("RW 128 FLAT \"gone.raw\" 0\n").as_bytes());
    assert!(folder.open("d.vmdk").is_err());
    let report = check(&folder, "d.vmdk");
    let problem = with_text(&report, "needs the extent `gone.raw`");
    assert_eq!(problem.guest, [65_536..131_072]);
}

#[test]
fn header_and_descriptor_that_disagree() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    let content = disk_content(1 << 20, 36);
    folder.write("base.raw", &content);
    folder.must("qemu-img convert -f raw -O vmdk base.raw d.vmdk");
    let mut bytes = folder.read("d.vmdk");
    let at = bytes.windows(8).position(|window| window == b"RW 2048 ").unwrap();
    bytes[at + 3..at + 7].copy_from_slice(b"1048");
    folder.write("d.vmdk", &bytes);
    let image = folder.open("d.vmdk").unwrap();
    assert!(
        image.problems[0].to_string().contains("extents is 1048, expected 2048 sectors"),
        "{:?}",
        image.problems
    );
    assert_same(&read_all(&*image.device), &content[..1048 * 512], "the descriptor counts");
    assert!(folder.open_for_writing("d.vmdk").is_err());
    bytes[at..at + 2].copy_from_slice(b"QX");
    folder.write("d.vmdk", &bytes);
    let said = format!("{:?}", folder.open("d.vmdk").unwrap_err());
    assert!(said.contains("access of an extent"), "{said}");
}
