//! Who may know whom: the table of docs/architecture.md, checked against the manifests.

use std::collections::BTreeMap;
use std::path::Path;

/// Crates by floor, the ground first. A crate may use the floors below its own.
const FLOORS: [&[&str]; 9] = [
    &["blockdev", "boot-files", "guest-files"],
    &["ondisk"],
    &["luks"],
    &["image", "volume", "filesystem"],
    &[
        "filesystem-btrfs",
        "filesystem-ext4",
        "filesystem-fat",
        "filesystem-iso9660",
        "filesystem-ntfs",
        "filesystem-squashfs",
        "filesystem-xfs",
    ],
    &["storage"],
    &["definition", "guest"],
    &["boot", "repair", "export-fuse"],
    &["rules"],
];

#[test]
fn no_crate_sees_its_own_floor_or_a_higher_one() {
    let floor_of: BTreeMap<&str, usize> = FLOORS
        .iter()
        .enumerate()
        .flat_map(|(floor, crates)| crates.iter().map(move |name| (*name, floor)))
        .collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates");
    let mut seen = 0;
    for entry in std::fs::read_dir(root).unwrap() {
        let folder = entry.unwrap();
        let name = folder.file_name().into_string().unwrap();
        let floor = *floor_of.get(name.as_str()).unwrap_or_else(|| panic!("crates/{name} has no floor"));
        let manifest = std::fs::read_to_string(folder.path().join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or_default();
        let dependencies = dependencies.split("\n[").next().unwrap_or_default();
        for line in dependencies.lines() {
            let used = line.split(['.', ' ', '=']).next().unwrap_or_default();
            if let Some(used_floor) = floor_of.get(used) {
                assert!(*used_floor < floor, "{name} (floor {floor}) uses {used} (floor {used_floor})");
            }
        }
        seen += 1;
    }
    assert_eq!(seen, floor_of.len(), "a crate of the table is gone");
}
