//! Random writes to VMDK images, judged by a model, by QEMU and by our own check; new images and whole streams.

use std::sync::Arc;

use crate::support::{Folder, Random, assert_reads, assert_same, disk_content, has_qemu, read_all};
use blockdev::{BlockDevice, BlockDeviceMut, Counter, Device, FileDevice, MemoryDevice};
use image::vmdk::write_stream_optimized;
use image::{FolderGate, Mode, NewImage, Options, Severity, Staging};

const SIZE: usize = 4 << 20;

/// Lengths that people write: sectors, pages, whole grains and more.
const LENGTHS: [u64; 9] = [1, 512, 512, 1024, 4096, 4096, 9_000, 65_536, 200_000];

/// Writes at random places, some flushed at once, some zeros; `model` follows.
fn write_randomly(device: &dyn BlockDevice, model: &mut [u8], random: &mut Random, count: usize) {
    let disk = device.writable().unwrap();
    for number in 0..count {
        let offset = random.below(model.len() as u64) as usize;
        let length = (LENGTHS[random.below(9) as usize] as usize).min(model.len() - offset);
        let mut bytes = vec![0; length];
        if random.below(4) > 0 {
            random.fill(&mut bytes);
        }
        disk.write_all_at(&bytes, offset as u64).unwrap();
        model[offset..offset + length].copy_from_slice(&bytes);
        if random.below(50) == 0 {
            disk.flush().unwrap();
        }
        if number % 97 == 0 {
            let at = random.below(model.len() as u64) as usize;
            let length = (random.below(100_000) as usize).min(model.len() - at);
            let mut found = vec![0; length];
            disk.read_exact_at(&mut found, at as u64).unwrap();
            assert_same(&found, &model[at..at + length], "in between");
        }
    }
    disk.flush().unwrap();
}

/// Fails unless QEMU and we find nothing wrong.
fn must_be_clean(folder: &Folder, name: &str) {
    let report = image::check(&folder.path(name), &Options::default(), &FolderGate::new()).unwrap();
    assert_eq!(report.count(Severity::Note), 0, "{name}: {report:?}");
    folder.must(&format!("qemu-img check -f vmdk {name}"));
}

/// Opens `name` for writing, writes, and lets everyone judge the result.
fn check_writes(folder: &Folder, name: &str, count: usize) {
    let mut model = folder.content_as("vmdk", name);
    let mut random = Random::new(name.bytes().map(u64::from).sum());
    for round in 0..2 {
        let image = folder.open_for_writing(name).unwrap();
        write_randomly(&*image.device, &mut model, &mut random, count);
        assert_reads(&*image.device, &model, &format!("{name}, round {round}, still open"));
        // QEMU refuses to look while we hold the lock.
        drop(image);
        must_be_clean(folder, name);
    }
    assert_reads(&*folder.open(name).unwrap().device, &model, &format!("{name}, reopened"));
    folder.write("model.raw", &model);
    folder.must(&format!("qemu-img compare -f vmdk -F raw {name} model.raw"));
}

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("base.raw", &disk_content(SIZE + 512 * 7, 3));
    folder
}

#[test]
fn images_of_qemu() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    for subformat in
        ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "zeroed_grain"]
    {
        let options = match subformat {
            "zeroed_grain" => "zeroed_grain=on".to_owned(),
            _ => format!("subformat={subformat}"),
        };
        folder.must(&format!("qemu-img create -q -f vmdk -o {options} empty-{subformat}.vmdk {SIZE}"));
        check_writes(&folder, &format!("empty-{subformat}.vmdk"), 800);
        folder.must(&format!("qemu-img convert -f raw -O vmdk -o {options} base.raw full-{subformat}.vmdk"));
        check_writes(&folder, &format!("full-{subformat}.vmdk"), 300);
    }
}

#[test]
fn images_of_our_own() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    for subformat in ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"] {
        let name = format!("{subformat}.vmdk");
        let new = NewImage {
            size: SIZE as u64 + 1000,
            subformat: Some(subformat.to_owned()),
            ..NewImage::default()
        };
        image::create(&folder.path(&name), "vmdk", &new).unwrap();
        must_be_clean(&folder, &name);
        assert_eq!(folder.content_as("vmdk", &name), vec![0; SIZE + 1024]);
        check_writes(&folder, &name, 500);
        // And QEMU on top of ours.
        folder.qemu_io_as("vmdk", &name, &["write -P 9 1000k 300k", "write -P 8 0 512", "write -P 7 4M 1k"]);
        must_be_clean(&folder, &name);
        let image = folder.open(&name).unwrap();
        assert_reads(&*image.device, &folder.content_as("vmdk", &name), &name);
    }
    let new = NewImage { size: 1 << 20, cluster_size: Some(4096), ..NewImage::default() };
    image::create(&folder.path("small.vmdk"), "vmdk", &new).unwrap();
    check_writes(&folder, "small.vmdk", 500);
}

#[test]
fn what_cannot_be_created() {
    let folder = Folder::new();
    let create =
        |name: &str, new: NewImage| image::create(&folder.path(name), "vmdk", &new).unwrap_err().to_string();
    let new = |size| NewImage { size, ..NewImage::default() };
    let sub = |subformat: &str| NewImage { subformat: Some(subformat.to_owned()), ..new(1 << 20) };
    for (name, new, expected) in [
        ("a.vmdk", new(0), "a disk of 0 bytes"),
        ("a.vmdk", new(2 << 40), "a sparse extent cannot hold 2 TiB"),
        ("a.vmdk", sub("vmfs"), "there is no subformat vmfs"),
        ("a.vmdk", sub("streamOptimized"), "written as a whole"),
        ("a.vmdk", NewImage { cluster_size: Some(1000), ..new(1 << 20) }, "a grain size of 1000 bytes"),
        ("a.vmdk", NewImage { sector_size: Some(4096), ..new(1 << 20) }, "its sectors have 512 bytes"),
        ("a\"b.vmdk", new(1 << 20), "cannot hold this file name"),
    ] {
        let said = create(name, new);
        assert!(said.contains(expected), "{said}");
        assert!(!folder.path(name).exists());
    }
    // What was there stays, and what was made goes.
    folder.write("b-s002.vmdk", b"mine");
    let split = NewImage { size: 3 << 30, ..sub("twoGbMaxExtentSparse") };
    assert!(create("b.vmdk", split).starts_with("cannot open"));
    assert_eq!(folder.read("b-s002.vmdk"), b"mine");
    assert!(!folder.path("b-s001.vmdk").exists() && !folder.path("b.vmdk").exists());
}

#[test]
fn five_gigabytes_at_the_edges() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    folder.must("qemu-img create -q -f vmdk -o subformat=twoGbMaxExtentSparse qemu.vmdk 5G");
    let new =
        NewImage { size: 5 << 30, subformat: Some("twoGbMaxExtentSparse".to_owned()), ..NewImage::default() };
    image::create(&folder.path("ours.vmdk"), "vmdk", &new).unwrap();
    let name = |number: u32| folder.path(&format!("ours-s{number:03}.vmdk")).exists();
    assert!(name(1) && name(2) && name(3) && !name(4));
    for (image_name, edge) in [("qemu.vmdk", 2_u64 << 30), ("ours.vmdk", 2047 << 20)] {
        let image = folder.open_for_writing(image_name).unwrap();
        let disk = image.device.writable().unwrap();
        let bytes: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8 + 1).collect();
        let places = [0, edge - 150_000, 2 * edge - 7, (5 << 30) - 300_000];
        for place in places {
            disk.write_all_at(&bytes, place).unwrap();
        }
        disk.flush().unwrap();
        drop(image);
        must_be_clean(&folder, image_name);
        folder.must(&format!("qemu-img convert -f vmdk -O raw {image_name} content.raw"));
        let theirs: Device = Arc::new(FileDevice::open(&folder.path("content.raw")).unwrap());
        let ours = folder.open(image_name).unwrap();
        for place in places {
            let mut found = [vec![0; 300_000], vec![0; 300_000]];
            theirs.read_exact_at(&mut found[0], place).unwrap();
            ours.device.read_exact_at(&mut found[1], place).unwrap();
            assert_same(&found[0], &bytes, "by QEMU");
            assert_same(&found[1], &bytes, "by us");
        }
        std::fs::remove_file(folder.path("content.raw")).unwrap();
    }
}

#[test]
fn over_a_parent() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O vmdk base.raw base.vmdk");
    let before = folder.read("base.vmdk");
    for options in ["zeroed_grain=off", "zeroed_grain=on"] {
        folder.must(&format!("qemu-img create -q -f vmdk -o {options} -b base.vmdk -F vmdk {options}.vmdk"));
        check_writes(&folder, &format!("{options}.vmdk"), 600);
        assert!(before == folder.read("base.vmdk"));
    }
}

/// The digits of the content ID in the descriptor of `name`.
fn cid(folder: &Folder, name: &str) -> String {
    let text = String::from_utf8_lossy(&folder.read(name)).into_owned();
    let digits = text.split("\nCID=").nth(1).unwrap();
    digits.chars().take_while(char::is_ascii_hexdigit).collect()
}

#[test]
fn the_first_write_changes_the_content_id() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O vmdk base.raw base.vmdk");
    folder.must("qemu-img create -q -f vmdk -b base.vmdk -F vmdk child.vmdk");
    let first = cid(&folder, "base.vmdk");
    let image = folder.open_for_writing("base.vmdk").unwrap();
    drop(image);
    assert_eq!(cid(&folder, "base.vmdk"), first, "opening changes nothing");
    let image = folder.open_for_writing("base.vmdk").unwrap();
    let disk = image.device.writable().unwrap();
    disk.write_all_at(&[1; 512], 0).unwrap();
    let second = cid(&folder, "base.vmdk");
    assert_ne!(first, second);
    disk.write_all_at(&[2; 512], 0).unwrap();
    disk.flush().unwrap();
    drop(image);
    assert_eq!(cid(&folder, "base.vmdk"), second, "once for each opening");
    assert!(folder.open("child.vmdk").unwrap_err().to_string().contains("was made from a"));
    // The long ID ends with the short one.
    let long = "00112233445566778899aabb0badcafe";
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=0badcafe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
         RW 16 FLAT \"f.raw\" 0\nddb.longContentID = \"{long}\"\n"
    );
    folder.write("f.vmdk", text.as_bytes());
    folder.write("f.raw", &[0; 8192]);
    let image = folder.open_for_writing("f.vmdk").unwrap();
    image.device.writable().unwrap().write_all_at(&[1], 5000).unwrap();
    drop(image);
    let new = cid(&folder, "f.vmdk");
    assert_ne!(new, "0badcafe");
    let text = String::from_utf8(folder.read("f.vmdk")).unwrap();
    assert!(text.contains(&format!("\"00112233445566778899aabb{new}\"")), "{text}");
}

#[test]
fn what_is_not_written_says_why() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O vmdk -o subformat=streamOptimized base.raw stream.vmdk");
    folder.must("qemu-img convert -f raw -O vmdk base.raw sparse.vmdk");
    folder.must("qemu-img convert -f raw -O vmdk -o subformat=monolithicFlat base.raw flat.vmdk");
    let mut version_3 = folder.read("sparse.vmdk");
    version_3[4] = 3;
    folder.write("three.vmdk", &version_3);
    let flat = String::from_utf8(folder.read("flat.vmdk")).unwrap();
    folder.write("closed.vmdk", flat.replace("RW ", "RDONLY ").as_bytes());
    folder.write("anonymous.vmdk", flat.replace("\nCID=", "\nXID=").as_bytes());
    for (name, expected) in [
        ("stream.vmdk", "compressed, and are written only as a whole"),
        ("three.vmdk", "version 3 of its header tracks changes"),
        ("closed.vmdk", "parts that are not to be written"),
        ("anonymous.vmdk", "no content ID"),
    ] {
        let said = folder.open_for_writing(name).unwrap_err().to_string();
        assert!(said.contains("must not be written") && said.contains(expected), "{name}: {said}");
        assert!(folder.open(name).is_ok());
    }
    // Two grains in one place: whoever writes one changes the other.
    let mut shared = folder.read("sparse.vmdk");
    let word = |at: usize| u32::from_le_bytes(shared[at..at + 4].try_into().unwrap()) as usize;
    let (tables, redundant) = (word(word(56) * 512) * 512, word(word(48) * 512) * 512);
    let used: Vec<usize> = (0..64).filter(|entry| word(tables + entry * 4) != 0).collect();
    for table in [tables, redundant] {
        shared.copy_within(table + used[0] * 4..table + used[0] * 4 + 4, table + used[1] * 4);
    }
    folder.write("shared.vmdk", &shared);
    let said = folder.open_for_writing("shared.vmdk").unwrap_err().to_string();
    assert!(said.contains("2 grains lie where other grains lie too"), "{said}");
    let report = image::check(&folder.path("shared.vmdk"), &Options::default(), &FolderGate::new()).unwrap();
    let problem = report.problems.iter().find(|problem| problem.summary.contains("other grains")).unwrap();
    let starts: Vec<u64> = used[..2].iter().map(|entry| *entry as u64 * 65_536).collect();
    for start in starts {
        assert!(problem.guest.iter().any(|range| range.contains(&start)), "{problem:?}");
    }
}

#[test]
fn tables_that_do_not_exist_yet_are_made() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    folder.must("qemu-img create -q -f vmdk disk.vmdk 100M");
    let mut bytes = folder.read("disk.vmdk");
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    for directory in [word(56) * 512, word(48) * 512] {
        bytes[directory..directory + 16].fill(0);
    }
    folder.write("disk.vmdk", &bytes);
    let mut model = vec![0; 100 << 20];
    let image = folder.open_for_writing("disk.vmdk").unwrap();
    let disk = image.device.writable().unwrap();
    for (number, offset) in [5_usize, 40 << 20, 99 << 20, 99 << 20, (32 << 20) - 100].into_iter().enumerate()
    {
        let bytes = vec![number as u8 + 1; 70_000];
        disk.write_all_at(&bytes, offset as u64).unwrap();
        model[offset..offset + bytes.len()].copy_from_slice(&bytes);
        if number == 2 {
            disk.flush().unwrap();
        }
    }
    assert_same(&read_all(disk), &model, "open");
    disk.flush().unwrap();
    assert_same(&read_all(disk), &model, "flushed");
    drop(image);
    assert_same(&folder.content_as("vmdk", "disk.vmdk"), &model, "by QEMU");
    let report = image::check(&folder.path("disk.vmdk"), &Options::default(), &FolderGate::new()).unwrap();
    assert_eq!(report.count(Severity::Error), 0, "{report:?}");
}

#[test]
fn staged_writes_touch_no_file() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O vmdk -o subformat=twoGbMaxExtentSparse base.raw disk.vmdk");
    let before = [folder.read("disk.vmdk"), folder.read("disk-s001.vmdk")];
    let staging = Staging::preview();
    let options = Options { staging: Some(&staging), ..Options::default() };
    let image = image::open(&folder.path("disk.vmdk"), &options, &FolderGate::new()).unwrap();
    let disk = image.device.writable().unwrap();
    disk.write_all_at(&[7; 100_000], 1_000_000).unwrap();
    disk.flush().unwrap();
    assert!(before == [folder.read("disk.vmdk"), folder.read("disk-s001.vmdk")]);
    assert_eq!(staging.files().len(), 2);
    drop(image);
    let again = image::open(&folder.path("disk.vmdk"), &options, &FolderGate::new()).unwrap();
    let mut expected = folder.read("base.raw");
    expected[1_000_000..1_100_000].fill(7);
    assert_same(&read_all(&*again.device), &expected, "opened again");
}

#[test]
fn whole_streams() {
    if !has_qemu() {
        return;
    }
    let folder = Folder::new();
    for (name, size) in [("even", 40 << 20), ("odd", (5 << 20) + 700), ("tiny", 512)] {
        let mut content = disk_content(size, size as u64);
        if name == "even" {
            // A whole table of nothing.
            content.rotate_right(1 << 20);
            content[3 << 20..].fill(0);
            content[39 << 20] = 1;
        }
        let out = FileDevice::create_new(&folder.path(&format!("{name}.vmdk"))).unwrap();
        let summary = write_stream_optimized(&out, &MemoryDevice::new(content.clone()), "x.vmdk").unwrap();
        assert_eq!(summary.length, out.size());
        drop(out);
        content.resize(size.next_multiple_of(512), 0);
        let stored = content.chunks(65_536).filter(|grain| grain.iter().any(|byte| *byte != 0)).count();
        assert_eq!(summary.grains, stored as u64);
        folder.write("content.raw", &content);
        let name = format!("{name}.vmdk");
        folder.must(&format!("qemu-img compare -f vmdk -F raw {name} content.raw"));
        must_be_clean(&folder, &name);
        let image = folder.open(&name).unwrap();
        assert!(image.problems.is_empty(), "{:?}", image.problems);
        assert_reads(&*image.device, &content, &name);
    }
    let out = MemoryDevice::new([]);
    assert!(write_stream_optimized(&out, &MemoryDevice::new([1; 512]), "a\"b").is_err());
    assert_eq!(out.size(), 0);
    assert!(write_stream_optimized(&MemoryDevice::new([1]), &MemoryDevice::new([1; 512]), "a").is_err());
}

#[test]
fn a_stream_without_its_end_is_read_by_its_markers() {
    let content = disk_content(40 << 20, 8);
    let out = MemoryDevice::new([]);
    write_stream_optimized(&out, &MemoryDevice::new(content.clone()), "x.vmdk").unwrap();
    let whole = out.to_vec();
    let folder = Folder::new();
    let open = |bytes: &[u8]| {
        folder.write("stream.vmdk", bytes);
        folder.open("stream.vmdk").unwrap()
    };
    // Only the footer is lost: all grains are found.
    let image = open(&whole[..whole.len() - 700]);
    assert!(
        image.problems[0].to_string().contains("grains were found by their markers"),
        "{:?}",
        image.problems
    );
    assert_reads(&*image.device, &content, "without footer");
    // Something behind the end is no damage.
    let longer = [&whole[..], &[0; 5000]].concat();
    let image = open(&longer);
    assert!(image.problems.is_empty(), "{:?}", image.problems);
    assert_same(&read_all(&*image.device), &content, "longer");
    // Cut anywhere: what is there is read, and the rest is zeros.
    for length in [whole.len() / 2, whole.len() / 3 * 2 + 77, 70_000] {
        let image = open(&whole[..length]);
        let found = read_all(&*image.device);
        let end = found.iter().rposition(|byte| *byte != 0).map_or(0, |last| last / 65_536 * 65_536);
        assert_same(&found[..end], &content[..end], "cut");
        let report =
            image::check(&folder.path("stream.vmdk"), &Options::default(), &FolderGate::new()).unwrap();
        assert_eq!(report.count(Severity::Error), 1, "{report:?}");
        let lost = &report.problems[0];
        assert!(lost.effect.contains("cut short") && lost.guest[0].end == content.len() as u64, "{lost:?}");
        assert!(lost.guest[0].start >= end as u64);
    }
}

#[test]
fn opening_reads_little() {
    // 64 TiB with 8 MiB of directories in a sparse file.
    let folder = Folder::new();
    let sectors: u64 = (64 << 40) / 512;
    let tables = sectors.div_ceil(128 * 512);
    let mut header = vec![0; 512];
    header[..12].copy_from_slice(b"KDMV\x01\0\0\0\x01\0\0\0");
    header[12..20].copy_from_slice(&sectors.to_le_bytes());
    header[20..28].copy_from_slice(&128_u64.to_le_bytes());
    header[28..36].copy_from_slice(&1_u64.to_le_bytes());
    header[36..44].copy_from_slice(&20_u64.to_le_bytes());
    header[44..48].copy_from_slice(&512_u32.to_le_bytes());
    header[56..64].copy_from_slice(&21_u64.to_le_bytes());
    header[64..72].copy_from_slice(&128_u64.to_le_bytes());
    header[73..77].copy_from_slice(b"\n \r\n");
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=1234abcd\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\n\
         RW {sectors} SPARSE \"x.vmdk\"\n"
    );
    header.extend_from_slice(text.as_bytes());
    let file = FileDevice::create_new(&folder.path("big.vmdk")).unwrap();
    file.grow(21 * 512 + tables * 4 + (1 << 20)).unwrap();
    file.write_all_at(&header, 0).unwrap();
    drop(file);
    let counter = Arc::new(Counter::new(Arc::new(FileDevice::open(&folder.path("big.vmdk")).unwrap())));
    let start = std::time::Instant::now();
    let image = image::open_device(counter.clone(), None, &Options::default(), &FolderGate::new()).unwrap();
    let took = start.elapsed();
    assert_eq!(image.device.size(), 64 << 40);
    assert!(counter.bytes() < 64 << 10, "{} bytes", counter.bytes());
    println!("opened 64 TiB in {took:?}, {} bytes read", counter.bytes());
    let mut questions = 0;
    let mut offset = 0;
    while offset < image.device.size() {
        offset += image.device.extent_at(offset).unwrap().length;
        questions += 1;
    }
    assert!(questions <= 16, "{questions} questions");
    let report = image::check(&folder.path("big.vmdk"), &Options::default(), &FolderGate::new()).unwrap();
    assert_eq!(report.count(Severity::Error), 0, "{report:?}");
}

#[test]
fn only_the_image_that_was_asked_for_is_opened_for_writing() {
    if !has_qemu() {
        return;
    }
    let folder = folder();
    folder.must("qemu-img convert -f raw -O vmdk -o subformat=twoGbMaxExtentSparse base.raw base.vmdk");
    folder.must("qemu-img create -q -f vmdk -b base.vmdk -F vmdk child.vmdk");
    let options = Options { mode: Mode::ReadWrite, ..Options::default() };
    let image = image::open(&folder.path("child.vmdk"), &options, &FolderGate::new()).unwrap();
    // QEMU may still write to the base: nobody locked it.
    folder.qemu_io_as("vmdk", "base.vmdk", &["read 0 512"]);
    assert!(image.chain[1].disk.as_ref().unwrap().writable().is_none());
}

#[test]
fn readers_do_not_disturb_a_writer() {
    let folder = Folder::new();
    let new = NewImage { size: 8 << 20, cluster_size: Some(4096), ..NewImage::default() };
    image::create(&folder.path("d.vmdk"), "vmdk", &new).unwrap();
    let image = folder.open_for_writing("d.vmdk").unwrap();
    let disk = image.device.writable().unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (stop, device) = (&stop, &image.device);
            scope.spawn(move || {
                let mut random = Random::new(seed);
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let sector = random.below(16_384);
                    let mut bytes = [0xee; 512];
                    device.read_exact_at(&mut bytes, sector * 512).unwrap();
                    // Each sector is written once, with its own number.
                    let written = (sector % 251) as u8 + 1;
                    assert!(bytes == [0; 512] || bytes == [written; 512], "sector {sector} is {}", bytes[0]);
                }
            });
        }
        let mut random = Random::new(9);
        for number in 0..4000 {
            let sector = random.below(16_384);
            disk.write_all_at(&[(sector % 251) as u8 + 1; 512], sector * 512).unwrap();
            if number % 100 == 0 {
                disk.flush().unwrap();
            }
        }
        disk.flush().unwrap();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let content = read_all(disk);
    drop(image);
    assert_same(&read_all(&*folder.open("d.vmdk").unwrap().device), &content, "reopened");
    let report = image::check(&folder.path("d.vmdk"), &Options::default(), &FolderGate::new()).unwrap();
    assert_eq!(report.problems, []);
}
