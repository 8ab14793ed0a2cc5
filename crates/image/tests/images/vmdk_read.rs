//! Every variant of VMDK that QEMU can make, and those that only others make, read back byte by byte.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use crate::support::{Folder, assert_reads, assert_same, disk_content, has_qemu, read_all, text};
use crate::vmdk_support::{cowd, sesparse, sha256_of_tool};
use blockdev::{Device, MemoryDevice};
use image::{DenyAll, FolderGate, Image, Options, OwnContent, Severity};

const SIZE: usize = 6 << 20;
/// Not a multiple of any grain, but of the sector size.
const ODD_SIZE: usize = (3 << 20) + 5 * 512;

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("base.raw", &disk_content(SIZE, 1));
    folder.write("odd.raw", &disk_content(ODD_SIZE, 2));
    folder
}

/// Opens `name` without problems and compares all of it with QEMU's reading.
fn check(folder: &Folder, name: &str) -> Image {
    let expected = folder.content_as("vmdk", name);
    let image = folder.open(name).unwrap();
    assert!(image.problems.is_empty(), "{name}: {:?}", image.problems);
    assert_reads(&*image.device, &expected, name);
    let problems = image.take_read_problems();
    assert!(problems.is_empty(), "{name}: {problems:?}");
    check_own_runs(&image, folder, &expected, name);
    let report = image::check(&folder.path(name), &Options::default(), &FolderGate::new()).unwrap();
    // QEMU leaves a gap in some of its streams.
    let is_stream = image.chain[0].features[0] == "type streamOptimized";
    let least = if is_stream { Severity::Error } else { Severity::Note };
    assert_eq!(report.count(least), 0, "{name}: {report:?}");
    image
}

/// What the first layer says of itself must be true, and cover the disk.
fn check_own_runs(image: &Image, folder: &Folder, expected: &[u8], name: &str) {
    let layer = &image.chain[0];
    let disk = layer.disk.as_ref().unwrap();
    let files: Vec<Vec<u8>> = std::iter::once(folder.path(name))
        .chain(layer.data_files.clone())
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    let mut offset = 0;
    while offset < disk.size() {
        let run = disk.own_run_at(offset).unwrap();
        let range = offset as usize..(offset + run.length) as usize;
        match run.content {
            OwnContent::Stored { file, offset: at } => {
                let stored = &files[file][at as usize..][..run.length as usize];
                assert_same(stored, &expected[range], &format!("{name}: stored at {offset:#x}"));
            }
            OwnContent::Zero => {
                assert!(expected[range].iter().all(|byte| *byte == 0), "{name}: zeros at {offset:#x}");
            }
            OwnContent::Absent | OwnContent::Encoded => {}
        }
        offset += run.length;
    }
    assert_eq!(offset, disk.size(), "{name}");
}

#[test]
fn subformats() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    for (number, options) in [
        "",
        "-o subformat=monolithicSparse,adapter_type=lsilogic",
        "-o subformat=monolithicSparse,zeroed_grain=on",
        "-o subformat=monolithicFlat",
        "-o subformat=twoGbMaxExtentSparse",
        "-o subformat=twoGbMaxExtentFlat",
        "-o subformat=streamOptimized",
        "-o compat6=on",
        "-S 0",
    ]
    .iter()
    .enumerate()
    {
        for source in ["base.raw", "odd.raw"] {
            let name = format!("{number}-{source}.vmdk");
            folder.must(
                format!("qemu-img convert -f raw -O vmdk {options} {source} {name}")
                    .replace("  ", " ")
                    .as_str(),
            );
            let image = check(&folder, &name);
            assert_same(&read_all(&*image.device), &folder.read(source), &format!("{options} {source}"));
        }
    }
    let described = folder.open("6-base.raw.vmdk").unwrap().chain[0].features.join(", ");
    assert!(described.starts_with("type streamOptimized, version 3, CID "), "{described}");
    assert!(
        described.ends_with("hardware version 4, adapter ide, grain size 65536, compression deflate"),
        "{described}"
    );
}

#[test]
fn writes_of_qemu_and_zeroed_grains() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O vmdk -o zeroed_grain=on base.raw zero.vmdk");
    folder.qemu_io_as("vmdk", "zero.vmdk", &["write -z 1M 512k", "write -P 7 1100k 3k", "write -z 4M 64k"]);
    check_all_but_leaks(&folder, "zero.vmdk");
    folder.must("qemu-img create -q -f vmdk empty.vmdk 5M");
    check(&folder, "empty.vmdk");
    folder.qemu_io_as(
        "vmdk",
        "empty.vmdk",
        &["write -P 1 0 1k", "write -P 2 3M 700k", "write -P 3 5119k 1k"],
    );
    check(&folder, "empty.vmdk");
}

/// QEMU leaves the grains behind that it turns into zeros.
fn check_all_but_leaks(folder: &Folder, name: &str) {
    let image = folder.open(name).unwrap();
    assert_reads(&*image.device, &folder.content_as("vmdk", name), name);
    let report = image::check(&folder.path(name), &Options::default(), &FolderGate::new()).unwrap();
    assert!(report.problems.iter().all(|problem| problem.severity == Severity::Leak), "{report:?}");
}

#[test]
fn five_gigabytes_in_extents() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    let edge: u64 = 2 << 30;
    for (subformat, letter) in [("twoGbMaxExtentSparse", 's'), ("twoGbMaxExtentFlat", 'f')] {
        let name = format!("{subformat}.vmdk");
        folder.must(&format!("qemu-img create -q -f vmdk -o subformat={subformat} {name} 5G"));
        folder.qemu_io_as(
            "vmdk",
            &name,
            &[
                "write -P 1 2097151k 2k",
                "write -P 2 4194272k 64k",
                "write -P 3 5242879k 1k",
                "write -P 4 0 512",
            ],
        );
        let image = folder.open(&name).unwrap();
        assert_eq!(image.device.size(), 5 << 30);
        let files = &image.chain[0].data_files;
        let expected: Vec<PathBuf> =
            (1..=3).map(|n| folder.path(&format!("{subformat}-{letter}{n:03}.vmdk"))).collect();
        assert_eq!(*files, expected);
        let read = |offset: u64, length: usize| {
            let mut bytes = vec![0xee; length];
            image.device.read_exact_at(&mut bytes, offset).unwrap();
            bytes
        };
        let mut around = vec![0; 4096];
        around[1024..3072].fill(1);
        assert_eq!(read(edge - 2048, 4096), around);
        let around = read(2 * edge - (64 << 10), 128 << 10);
        assert!(around[32 << 10..96 << 10].iter().all(|byte| *byte == 2));
        assert!(around[..32 << 10].iter().chain(&around[96 << 10..]).all(|byte| *byte == 0));
        assert_eq!(read((5 << 30) - 1024, 1024), vec![3; 1024]);
        // Jumps over gigabytes of nothing.
        let mut offset = 1 << 20;
        let mut questions = 0;
        while offset < edge - (1 << 20) {
            offset += image.device.extent_at(offset).unwrap().length;
            questions += 1;
        }
        assert!(questions < 10, "{questions} questions for 2 GiB of zeros");
        let report = image::check(&folder.path(&name), &Options::default(), &FolderGate::new()).unwrap();
        assert_eq!(report.problems, []);
        assert_eq!(report.files[1..], expected);
    }
}

#[test]
fn chains() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O vmdk base.raw base.vmdk");
    folder.must("qemu-img create -q -f vmdk -b base.vmdk -F vmdk one.vmdk");
    folder.qemu_io_as("vmdk", "one.vmdk", &["write -P 0x55 1M 100k", "write -P 0x66 5M 1M"]);
    folder.must("qemu-img create -q -f vmdk -o zeroed_grain=on -b one.vmdk -F vmdk two.vmdk");
    folder.qemu_io_as("vmdk", "two.vmdk", &["write -P 0x77 1050k 20k", "write -z 2M 1M"]);
    for name in ["one.vmdk", "two.vmdk"] {
        check(&folder, name);
    }
    let chain = folder.open("two.vmdk").unwrap().chain;
    assert_eq!(chain.len(), 3);
    assert_eq!(chain[0].parent.as_ref().unwrap().identity, chain[1].identity);
    assert!(chain[2].identity.as_ref().unwrap().starts_with("CID "));
    // A hint from another machine: its file name beside the child counts.
    for hint in ["/vmfs/volumes/4f/one.vmdk", r"C:\VMs\one.vmdk", r"..\other\one.vmdk"] {
        let mut descriptor = folder.read("two.vmdk");
        let from = String::from_utf8_lossy(&descriptor[512..512 + 10_240]).into_owned();
        let to = from.replace("parentFileNameHint=\"one.vmdk\"", &format!("parentFileNameHint=\"{hint}\""));
        assert_ne!(from, to);
        descriptor[512..512 + 10_240].copy_from_slice(&to.as_bytes()[..10_240]);
        folder.write("moved.vmdk", &descriptor);
        let image = folder.open("moved.vmdk").unwrap();
        assert_reads(&*image.device, &folder.content_as("vmdk", "two.vmdk"), hint);
    }
}

#[test]
fn a_changed_parent_is_refused_unless_accepted() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O vmdk base.raw base.vmdk");
    folder.must("qemu-img create -q -f vmdk -b base.vmdk -F vmdk child.vmdk");
    folder.qemu_io_as("vmdk", "base.vmdk", &["write -P 1 0 512"]);
    let said = folder.open("child.vmdk").unwrap_err().to_string();
    assert!(said.contains("child.vmdk was made from a ") && said.contains("with CID "), "{said}");
    let options = Options { accept_changed_parent: true, ..Options::default() };
    let image = image::open(&folder.path("child.vmdk"), &options, &FolderGate::new()).unwrap();
    assert_same(&read_all(&*image.device), &folder.content_as("vmdk", "base.vmdk"), "accepted");
    assert!(image.chain[1].notes.iter().any(|note| note.contains("was made from")));
    let report = image::check(&folder.path("child.vmdk"), &Options::default(), &FolderGate::new()).unwrap();
    assert_eq!(report.problems.len(), 1);
    assert!(report.problems[0].summary.contains("was made from a "), "{report:?}");
    std::fs::remove_file(folder.path("base.vmdk")).unwrap();
    assert!(
        folder.open("child.vmdk").unwrap_err().to_string().contains("needs the backing file `base.vmdk`")
    );
}

fn open_memory(bytes: &[u8]) -> image::Result<Image> {
    image::open_device(Arc::new(MemoryDevice::new(bytes)), None, &Options::default(), &DenyAll)
}

#[test]
fn the_second_copy_stands_in_for_the_first() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O vmdk base.raw good.vmdk");
    let good = folder.read("good.vmdk");
    let expected = folder.read("base.raw");
    let word = |at: usize| u32::from_le_bytes(good[at..at + 4].try_into().unwrap()) as usize;
    let (directory, redundant) = (word(56) * 512, word(48) * 512);
    let (table, second) = (word(directory) * 512, word(redundant) * 512);
    let used = table + 4 * (0..96).position(|entry| word(table + 4 * entry) != 0).unwrap();
    type Damage = Box<dyn Fn(&mut Vec<u8>)>;
    let cases: [(&str, Damage); 6] = [
        ("gdOffset is", Box::new(|image| image[60..64].fill(2))),
        (
            "grain table offset is 0xffffffff in entry 0",
            Box::new(move |image| image[directory..directory + 4].fill(0xff)),
        ),
        ("no such table", Box::new(move |image| image[directory..directory + 4].fill(0))),
        ("has lost entries", Box::new(move |image| image[table..table + 512].fill(0))),
        ("has lost entries", Box::new(move |image| image[used..used + 4].fill(0xee))),
        ("has lost entries", Box::new(move |image| image[used..used + 4].copy_from_slice(&[3, 0, 0, 0]))),
    ];
    for (told, damage) in cases {
        let mut image = good.clone();
        damage(&mut image);
        folder.write("damaged.vmdk", &image);
        let opened = folder.open("damaged.vmdk").unwrap();
        assert_reads(&*opened.device, &expected, told);
        let read = opened.take_read_problems();
        let mut problems =
            opened.problems.iter().map(ToString::to_string).chain(read.iter().map(ToString::to_string));
        assert!(problems.any(|problem| problem.contains(told)), "{told}: {:?} {read:?}", opened.problems);
        assert!(
            folder.open_for_writing("damaged.vmdk").unwrap_err().to_string().contains("must not be written")
        );
        // And the repair that check offers brings back the good file.
        let report =
            image::check(&folder.path("damaged.vmdk"), &Options::default(), &FolderGate::new()).unwrap();
        assert!(report.count(Severity::Error) > 0, "{told}");
        if told.starts_with("gdOffset") {
            continue;
        }
        for patch in
            report.problems.iter().filter_map(|problem| problem.repair.as_ref()).flat_map(|r| &r.patches)
        {
            let at = patch.offset as usize;
            image[at..at + patch.bytes.len()].copy_from_slice(&patch.bytes);
        }
        assert_same(&image, &good, told);
    }
    // The other way round: nobody reads the second copy, and it is written anew.
    for (at, length) in [(redundant, 4), (second, 512), (second + 8, 4)] {
        for byte in [0, 0xff] {
            let mut image = good.clone();
            image[at..at + length].fill(byte);
            folder.write("damaged.vmdk", &image);
            let opened = folder.open("damaged.vmdk").unwrap();
            assert_reads(&*opened.device, &expected, "second copy");
            let report =
                image::check(&folder.path("damaged.vmdk"), &Options::default(), &FolderGate::new()).unwrap();
            assert!(!report.problems.is_empty());
            for patch in report.problems.iter().filter_map(|p| p.repair.as_ref()).flat_map(|r| &r.patches) {
                let at = patch.offset as usize;
                image[at..at + patch.bytes.len()].copy_from_slice(&patch.bytes);
            }
            assert_same(&image, &good, "second copy");
        }
    }
}

#[test]
fn a_truncated_file_reads_as_zeros_and_tells() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    let mut content = vec![0; SIZE];
    crate::support::Random::new(5).fill(&mut content);
    folder.write("base.raw", &content);
    folder.must("qemu-img convert -f raw -O vmdk base.raw good.vmdk");
    let good = folder.read("good.vmdk");
    folder.write("cut.vmdk", &good[..good.len() - 1_000_000]);
    let expected = folder.content_as("vmdk", "cut.vmdk");
    let image = folder.open("cut.vmdk").unwrap();
    assert_same(&read_all(&*image.device), &expected, "cut");
    let problems = image.take_read_problems();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].to_string().starts_with("VMDK grain at byte"), "{problems:?}");
    let report = image::check(&folder.path("cut.vmdk"), &Options::default(), &FolderGate::new()).unwrap();
    let lost = &report.problems[0];
    assert!(lost.summary.contains("15 entries that point past the end of the file"), "{lost:?}");
    assert_eq!(lost.guest, [SIZE as u64 - 15 * 65_536..SIZE as u64]);
    assert!(!folder.run("qemu-img check -f vmdk cut.vmdk").status.success());
    let refused = folder.open_for_writing("cut.vmdk").unwrap_err().to_string();
    assert!(refused.contains("point past the end of the file"), "{refused}");

    folder.must("qemu-img convert -f raw -O vmdk -o subformat=monolithicFlat base.raw flat.vmdk");
    let flat = folder.read("flat-flat.vmdk");
    folder.write("flat-flat.vmdk", &flat[..flat.len() - 4096]);
    let image = folder.open("flat.vmdk").unwrap();
    assert!(image.problems[0].to_string().contains("size of an extent is"), "{:?}", image.problems);
    let found = read_all(&*image.device);
    assert_same(&found[..SIZE - 4096], &content[..SIZE - 4096], "flat");
    assert!(found[SIZE - 4096..].iter().all(|byte| *byte == 0));
    assert!(folder.open_for_writing("flat.vmdk").is_err());
    let report = image::check(&folder.path("flat.vmdk"), &Options::default(), &FolderGate::new()).unwrap();
    assert_eq!(report.problems[0].guest, [SIZE as u64 - 4096..SIZE as u64]);
    assert_eq!(report.problems[0].file, 1);
}

#[test]
fn cowd_and_sesparse_deltas() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    let content = disk_content(3 << 20, 9);
    folder.write("d-delta.vmdk", &cowd(&content));
    folder.write("d-sesparse.vmdk", &sesparse(&content));
    let sectors = content.len() / 512;
    for (name, kind, create_type) in
        [("d-delta.vmdk", "VMFSSPARSE", "vmfsSparse"), ("d-sesparse.vmdk", "SESPARSE", "seSparse")]
    {
        // QEMU takes an extent line twice that follows an empty one, so there is none here.
        let descriptor = format!(
            "# Disk DescriptorFile\nversion=1\nCID=11111111\nparentCID=ffffffff\ncreateType=\"{create_type}\"\n\
             RW {sectors} {kind} \"{name}\"\n"
        );
        folder.write("d.vmdk", descriptor.as_bytes());
        let image = check(&folder, "d.vmdk");
        assert_same(&read_all(&*image.device), &content, kind);
        let refused = folder.open_for_writing("d.vmdk").unwrap_err().to_string();
        assert!(refused.contains("are only read"), "{refused}");
        // Alone, nobody knows what it stands on.
        assert!(folder.open(name).is_err());
        let options = Options { accept_changed_parent: true, ..Options::default() };
        let image = image::open(&folder.path(name), &options, &FolderGate::new()).unwrap();
        assert_same(&read_all(&*image.device), &content, "alone");
        assert!(image.problems[0].to_string().contains("nothing says what it stands on"));
        let below: Device = Arc::new(MemoryDevice::new(vec![7; content.len()]));
        let options = Options { below: Some(&below), ..Options::default() };
        let image = image::open(&folder.path(name), &options, &FolderGate::new()).unwrap();
        assert!(read_all(&*image.device).contains(&7));
    }
}

#[test]
fn a_journal_that_waits_is_refused() {
    let mut bytes = sesparse(&disk_content(1 << 20, 3));
    bytes[512 + 24] = 1;
    let said = format!("{:?}", open_memory(&bytes).unwrap_err());
    assert!(said.contains("a journal that waits to be replayed"), "{said}");
}

/// The larger fixtures beside the repository, made by the scripts there.
#[test]
fn fixtures() {
    let shared = std::env::var_os("GUESTMEND_FIXTURES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures"),
        PathBuf::from,
    );
    let source = shared.join("image");
    let expected = std::fs::read_to_string(source.join("SHA256.txt"));
    let Ok(expected) = expected else {
        println!("skipped: {} is absent", source.display());
        return;
    };
    let folder = Folder::new();
    for name in ["vm-cowd.vmdk", "vm-cowd-delta.vmdk", "vm-sesp.vmdk", "vm-sesp-sesparse.vmdk"] {
        let packed = source.join(format!("{name}.xz"));
        let bytes = if packed.exists() {
            let output = Command::new("xz").arg("-dc").arg(&packed).output();
            let Ok(output) = output else {
                println!("skipped: xz is not installed");
                return;
            };
            output.stdout
        } else {
            std::fs::read(source.join(name)).unwrap()
        };
        folder.write(name, &bytes);
    }
    for name in ["vm-cowd", "vm-sesp"] {
        let image = folder.open(&format!("{name}.vmdk")).unwrap();
        assert!(image.problems.is_empty(), "{:?}", image.problems);
        folder.write("content", &read_all(&*image.device));
        let Some(found) = sha256_of_tool(&folder, "content") else { return };
        assert!(expected.contains(&format!("{found}  {name}.expect")), "{name}: {found}");
        let report =
            image::check(&folder.path(&format!("{name}.vmdk")), &Options::default(), &FolderGate::new())
                .unwrap();
        assert_eq!(report.count(Severity::Error), 0, "{report:?}");
    }
}

#[test]
fn corpus() {
    let corpus = std::env::var_os("GUESTMEND_CORPUS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus"),
        PathBuf::from,
    );
    if !corpus.join("unpack.py").exists() {
        println!("skipped: {} is absent", corpus.display());
        return;
    }
    let folder = Folder::new();
    let unpack = |file: &str, to: &str| {
        let line = format!("python3 {} {} {to}", text(&corpus.join("unpack.py")), text(&corpus.join(file)));
        folder.must(&line);
    };
    unpack("dissect/dissect.hypervisor/disk/vmdk/sesparse.vmdk.gz", "sesparse.vmdk");
    unpack("plaso/image.vmdk.xz", "image.vmdk");
    let options = Options { accept_changed_parent: true, ..Options::default() };
    let image = image::open(&folder.path("sesparse.vmdk"), &options, &DenyAll).unwrap();
    let mut bytes = vec![0; 16 << 20];
    image.device.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes.iter().all(|byte| *byte == b'a'));
    let report = image::check(&folder.path("sesparse.vmdk"), &options, &DenyAll).unwrap();
    assert_eq!(report.count(Severity::Error), 1, "only the missing descriptor: {report:?}");
    assert_eq!(report.allocated, 16 << 20);
    let image = folder.open("image.vmdk").unwrap();
    assert!(image.problems.is_empty() && image.device.size() == 102_400);
    if has_qemu() {
        check(&folder, "image.vmdk");
    }
}
