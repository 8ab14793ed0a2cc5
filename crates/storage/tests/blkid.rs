//! util-linux' own samples, with what its tests expect of `blkid -p -o udev`.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says what it skips")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use blockdev::{Device, FileDevice};
use luks::Keyring;
use storage::{Content, Node, Storage, discover};

/// The columns of the corpus' list for one folder of samples; `None` where there is no corpus.
fn samples(folder: &str) -> Option<Vec<(PathBuf, String)>> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    let root = std::env::var_os("GUESTMEND_CORPUS").map_or(beside, PathBuf::from);
    let Ok(manifest) = std::fs::read_to_string(root.join("MANIFEST.tsv")) else {
        println!("skipped: no corpus at {}", root.display());
        return None;
    };
    let of = |line: &str| {
        let columns: Vec<&str> = line.split('\t').collect();
        columns[0].starts_with(folder).then(|| (root.join(columns[0]), columns[10].to_owned()))
    };
    Some(manifest.lines().filter_map(of).collect())
}

fn examined(packed: &Path, folder: &Path) -> Storage {
    let path = folder.join("image");
    let output = Command::new("xz").arg("-dc").arg(packed).output().unwrap();
    std::fs::write(&path, output.stdout).unwrap();
    let device: Device = Arc::new(FileDevice::open(&path).unwrap());
    discover(&[device], &Keyring::default())
}

/// What lies on a node, spelled as blkid does.
fn described(node: &Node) -> BTreeMap<&'static str, String> {
    let signature = match &node.content {
        Content::Recognised(signature) => Some(signature),
        _ => None,
    };
    let label = node.label().map(|label| String::from_utf8_lossy(label).replace(' ', "_"));
    let fields = [
        ("TYPE", node.content_type().map(str::to_owned)),
        ("USAGE", node.usage().map(|usage| usage.name().to_owned())),
        ("UUID", node.uuid().map(str::to_owned)),
        ("LABEL", label),
        ("UUID_SUB", signature.and_then(|signature| signature.sub_uuid.clone())),
        ("VERSION", signature.and_then(|signature| signature.version.clone()?.replace(' ', "\\x20").into())),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

#[test]
fn every_sample_is_what_blkid_says() {
    let Some(samples) = samples("util-linux/blkid/images-fs/") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (mut compared, mut wrong) = (0, Vec::new());
    for (path, expectation) in &samples {
        let name = path.file_name().unwrap().to_string_lossy();
        let storage = examined(path, folder.path());
        let node = &storage.nodes[0];
        let found = described(node);
        assert!(!found.is_empty(), "{name} is not recognised");
        // Of a disc with several sessions the list gives all; the last one is what a drive presents.
        let words = expectation.split(' ').filter_map(|word| word.strip_prefix("ID_FS_")?.split_once('='));
        for (key, value) in words.collect::<BTreeMap<_, _>>() {
            let is_shown = ["TYPE", "USAGE", "UUID", "LABEL"].contains(&key)
                || (matches!(node.content, Content::Recognised(_)) && ["UUID_SUB", "VERSION"].contains(&key));
            if !is_shown {
                continue;
            }
            let ours = found.get(key).map_or("", String::as_str);
            // The list cuts what is long.
            let is_same = value.strip_suffix('…').map_or(ours == value, |start| ours.starts_with(start));
            compared += 1;
            if !is_same {
                wrong.push(format!("{name}: {key} {value:?}, we say {ours:?}"));
            }
        }
    }
    println!("{} samples, {compared} fields", samples.len());
    assert!(wrong.is_empty() && samples.len() > 75 && compared > 280, "{compared} compared; {wrong:#?}");
}

#[test]
fn partition_tables_are_read_or_named() {
    let Some(samples) = samples("util-linux/blkid/images-pt/") else { return };
    let folder = tempfile::tempdir().unwrap();
    for (path, expectation) in &samples {
        let name = path.file_name().unwrap().to_string_lossy();
        let storage = examined(path, folder.path());
        let kind = expectation.split("PT: ").nth(1).unwrap().split(',').next().unwrap();
        match &storage.nodes[0].content {
            Content::Partitions(table) => {
                assert_eq!(table.kind.name(), kind, "{name}");
                assert!(expectation.contains(&table.id), "{name}: {}", table.id);
            }
            _ => {
                let named = format!("partition table: {kind} is not supported");
                let problems: Vec<String> =
                    storage.nodes[0].problems.iter().map(ToString::to_string).collect();
                assert!(problems.contains(&named), "{name}: {kind}: {problems:?}");
            }
        }
    }
    assert!(samples.len() >= 5, "{}", samples.len());
}

/// cryptsetup's sample of a physical volume in whose metadata area the second header of a LUKS2 device is left.
#[test]
fn a_label_wins_over_a_leftover_header() {
    let Some(samples) = samples("cryptsetup/blkid-luks2-pv") else { return };
    let folder = tempfile::tempdir().unwrap();
    let storage = examined(&samples[0].0, folder.path());
    assert_eq!(storage.nodes[0].content_type(), Some("LVM2_member"));
    assert_eq!(storage.nodes[0].uuid(), Some("yhF8yJ-jhG2-w7Yt-2T9B-z6MV-e1IC-ee4XHf"));
}
