//! What the tests of VHD and VDI share.

use std::process::Command;

use crate::support::{Folder, Random, assert_reads, assert_same, read_all};
use blockdev::BlockDevice;
use image::{FolderGate, Mode, Options, Report, Severity};

/// The disk inside an image, as QEMU reads it when it is told the format.
pub(crate) fn content(folder: &Folder, format: &str, name: &str) -> Vec<u8> {
    folder.must(&format!("qemu-img convert -f {format} -O raw {name} content.raw"));
    let bytes = folder.read("content.raw");
    std::fs::remove_file(folder.path("content.raw")).unwrap();
    bytes
}

/// Runs commands of `qemu-io` on an image.
pub(crate) fn qemu_io(folder: &Folder, format: &str, name: &str, commands: &[&str]) {
    let mut command = Command::new("qemu-io");
    command.args(["-f", format]).arg(folder.path(name));
    for line in commands {
        command.args(["-c", line]);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !said.contains("failed"), "{commands:?}: {said}");
}

/// The length of the disk as QEMU sees it.
pub(crate) fn size_in_qemu(folder: &Folder, format: &str, name: &str) -> u64 {
    let said = folder.must(&format!("qemu-img info --output=json -f {format} {name}"));
    // The file itself is listed first, as a child.
    let after = said.rsplit("\"virtual-size\": ").next().unwrap();
    after.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

/// Opens `name` without problems and compares all of it with QEMU's reading.
pub(crate) fn must_read_as_qemu(folder: &Folder, format: &str, name: &str) {
    let expected = content(folder, format, name);
    let image = folder.open(name).unwrap();
    assert!(image.problems.is_empty(), "{name}: {:?}", image.problems);
    assert_reads(&*image.device, &expected, name);
    must_own_what_it_reads(folder, name, &expected);
    let problems = image.take_read_problems();
    assert!(problems.is_empty(), "{name}: {problems:?}");
}

/// What a layer says of its own bytes must be true.
pub(crate) fn must_own_what_it_reads(folder: &Folder, name: &str, expected: &[u8]) {
    use image::OwnContent;
    let image = folder.open(name).unwrap();
    let file = folder.read(name);
    let layer = image.chain[0].disk.as_ref().unwrap();
    let mut at = 0;
    while at < expected.len() {
        let run = layer.own_run_at(at as u64).unwrap();
        let length = run.length as usize;
        assert!(length > 0 && at + length <= expected.len(), "{name}: {run:?} at {at}");
        let bytes = &expected[at..at + length];
        match run.content {
            OwnContent::Stored { file: 0, offset } => {
                assert_same(&file[offset as usize..offset as usize + length], bytes, name);
            }
            OwnContent::Absent if image.chain.len() > 1 => {}
            OwnContent::Absent | OwnContent::Zero => assert!(bytes.iter().all(|byte| *byte == 0), "{name}"),
            other => panic!("{name}: {other:?}"),
        }
        at += length;
    }
}

pub(crate) fn check(folder: &Folder, name: &str) -> Report {
    image::check(&folder.path(name), &Options::default(), &FolderGate::new()).unwrap()
}

/// The problems of an image, one line each: severity, structure, byte, summary, whether it can be mended.
pub(crate) fn found(report: &Report) -> Vec<String> {
    let line = |problem: &image::Problem| {
        let mended = problem.repair.as_ref().map_or(String::new(), |repair| format!("; {}", repair.title));
        let effect = if problem.effect.is_empty() { String::new() } else { format!(" ({})", problem.effect) };
        format!(
            "{:?} {} @{}: {}{effect}{mended}",
            problem.severity, problem.structure, problem.offset, problem.summary
        )
    };
    report.problems.iter().map(line).collect()
}

pub(crate) fn must_be_sound(folder: &Folder, name: &str) {
    let report = check(folder, name);
    assert!(report.problems.is_empty(), "{name}: {:?}", found(&report));
}

/// Applies every repair of a report to the file.
pub(crate) fn mend(folder: &Folder, name: &str, report: &Report) {
    let mut bytes = folder.read(name);
    let repairs = report.problems.iter().filter_map(|problem| problem.repair.as_ref());
    for patch in repairs.flat_map(|repair| &repair.patches) {
        let range = patch.offset as usize..patch.offset as usize + patch.bytes.len();
        bytes.resize(bytes.len().max(range.end), 0);
        bytes[range].copy_from_slice(&patch.bytes);
    }
    folder.write(name, &bytes);
}

/// Neither errors that cannot be mended nor blocks in two minds: leaks, and footers that can be written anew.
pub(crate) fn must_be_mendable(report: &Report, what: &str) {
    let is_bad = |problem: &&image::Problem| problem.severity == Severity::Error && problem.repair.is_none();
    let bad: Vec<_> = report.problems.iter().filter(is_bad).collect();
    assert!(bad.is_empty(), "{what}: {bad:?}");
}

/// Lengths that people write: sectors, pages, and more.
const LENGTHS: [usize; 9] = [1, 512, 512, 1024, 4096, 4096, 9_000, 65_536, 200_000];

/// Writes at random places, some flushed at once; `model` follows.
pub(crate) fn write_randomly(device: &dyn BlockDevice, model: &mut [u8], random: &mut Random, count: usize) {
    let disk = device.writable().unwrap();
    for number in 0..count {
        let offset = random.below(model.len() as u64) as usize;
        let length = LENGTHS[random.below(9) as usize].min(model.len() - offset);
        let mut bytes = vec![0; length];
        random.fill(&mut bytes);
        disk.write_all_at(&bytes, offset as u64).unwrap();
        model[offset..offset + length].copy_from_slice(&bytes);
        if random.below(30) == 0 {
            disk.flush().unwrap();
        }
        if number % 17 == 0 {
            let at = random.below(model.len() as u64) as usize;
            let length = (random.below(100_000) as usize).min(model.len() - at);
            let mut found = vec![0; length];
            disk.read_exact_at(&mut found, at as u64).unwrap();
            assert_same(&found, &model[at..at + length], "in between");
        }
    }
    disk.flush().unwrap();
}

/// Opens `name` for writing twice, writes, and reads what was written back in every way.
pub(crate) fn check_writes(folder: &Folder, name: &str, count: usize) -> Vec<u8> {
    let options = Options { mode: Mode::ReadWrite, ..Options::default() };
    let open = || image::open(&folder.path(name), &options, &FolderGate::new()).unwrap();
    let mut model = read_all(&*folder.open(name).unwrap().device);
    let mut random = Random::new(name.bytes().map(u64::from).sum());
    for round in 0..2 {
        let image = open();
        write_randomly(&*image.device, &mut model, &mut random, count);
        assert_reads(&*image.device, &model, &format!("{name}, round {round}, still open"));
        drop(image);
        must_be_sound(folder, name);
        assert_reads(&*folder.open(name).unwrap().device, &model, &format!("{name}, reopened"));
        must_own_what_it_reads(folder, name, &model);
    }
    model
}
