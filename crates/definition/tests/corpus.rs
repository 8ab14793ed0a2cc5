//! Every VMX file of libvirt's tests, against the domain that libvirt makes of it; every domain is read.
#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test may panic and say what it passed over")]

use std::path::{Path, PathBuf};

use definition::{Definition, Source, libvirt, vmx};

fn corpus() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    let folder = std::env::var_os("GUESTMEND_CORPUS").map_or(default, PathBuf::from);
    let found = folder.is_dir().then_some(folder);
    if found.is_none() {
        eprintln!("passed over: no corpus (GUESTMEND_CORPUS)");
    }
    found
}

fn files(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|found| found == suffix)).collect();
    files.sort();
    files
}

/// Bus and file name of each VMDK, sorted: the two list them differently. libvirt takes a host's CD drive for a disk.
fn disks(machine: &Definition) -> Vec<String> {
    let named = machine.disks.iter().filter_map(|disk| match &disk.source {
        Source::File(path) => {
            Some((disk.bus, path.to_string_lossy().rsplit(['/', '\\', ' ']).next()?.to_owned()))
        }
        Source::Elsewhere(_) => None,
    });
    let vmdks = named.filter(|(_, name)| name.to_lowercase().ends_with(".vmdk"));
    let mut disks: Vec<String> = vmdks.map(|(bus, name)| format!("{bus} {name}")).collect();
    disks.sort();
    disks
}

#[test]
fn vmx_as_libvirt_reads_it() {
    let Some(corpus) = corpus() else { return };
    let folder = corpus.join("libvirt/vmx2xmldata");
    let mut compared = 0;
    let mut with_disks = 0;
    for file in files(&folder, "vmx") {
        let Ok(text) = std::fs::read_to_string(file.with_extension("xml")) else { continue };
        let theirs = libvirt(&text).unwrap();
        let ours = vmx(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(disks(&ours), disks(&theirs), "{}", file.display());
        assert_eq!(ours.firmware, theirs.firmware, "{}", file.display());
        compared += 1;
        with_disks += usize::from(!ours.disks.is_empty());
    }
    assert!(compared >= 40 && with_disks >= 10, "{compared}, {with_disks} with disks");
}

#[test]
fn every_domain_is_read() {
    let Some(corpus) = corpus() else { return };
    let mut disks = 0;
    let mut refused = Vec::new();
    let folders = [("libvirt/qemuxmlconfdata", "xml"), ("insights-core/libvirt-domain-xml", "txt")];
    for file in folders.iter().flat_map(|(folder, suffix)| files(&corpus.join(folder), suffix)) {
        match libvirt(&std::fs::read_to_string(&file).unwrap()) {
            Ok(machine) => disks += machine.disks.len(),
            Err(error) => refused.push(format!("{}: {error}", file.display())),
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
    assert!(disks >= 60, "{disks}");
}
