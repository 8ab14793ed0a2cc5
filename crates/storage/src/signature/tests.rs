use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use blockdev::{FileDevice, MemoryDevice};

use super::*;

fn device(parts: &[(usize, &[u8])]) -> MemoryDevice {
    let mut content = vec![0; 1 << 20];
    for (at, part) in parts {
        content[*at..*at + part.len()].copy_from_slice(part);
    }
    MemoryDevice::new(content)
}

#[test]
fn signatures() {
    let swap = device(&[(4086, b"SWAPSPACE2"), (1036, &[0x11; 16]), (1052, b"swap0")]);
    let found = file_system(&swap).unwrap().unwrap();
    assert_eq!((found.kind, found.label), ("swap", Some(b"swap0".to_vec())));
    assert_eq!(found.uuid.as_deref(), Some("11111111-1111-1111-1111-111111111111"));
    for (kind, usage, parts) in [
        ("BitLocker", "crypto", vec![(0_usize, b"\xeb\x58\x90-FVE-FS-".as_slice())]),
        ("vdo", "raid", vec![(0, b"dmvdo001")]),
        ("stratis", "raid", vec![(516, b"!Stra0tis\x86\xff\x02^\x41rh")]),
        ("DM_verity_hash", "crypto", vec![(0, b"verity\0\0")]),
        ("DM_snapshot_cow", "other", vec![(0, b"SnAp")]),
        ("LVM1_member", "raid", vec![(0, b"HM\x01\0")]),
        ("ddf_raid_member", "raid", vec![((1 << 20) - 512, b"\xde\x11\xde\x11")]),
        ("nvidia_raid_member", "raid", vec![((1 << 20) - 1024, b"NVIDIA")]),
    ] {
        let found = container(&device(&parts)).unwrap().unwrap();
        assert_eq!((found.kind, found.usage.name()), (kind, usage));
    }
    assert_eq!(container(&device(&[])).unwrap(), None);
    assert_eq!(file_system(&MemoryDevice::new(vec![0; 10])).unwrap(), None);
}

#[test]
fn noise_is_told_from_data() {
    let mut state = 1_u64;
    let mut random = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u8
    };
    let noise: Vec<u8> = (0..512 << 10).map(|_| random()).collect();
    assert!(is_noise(&MemoryDevice::new(noise.clone())).unwrap());
    let text: Vec<u8> = noise.iter().map(|byte| byte & 0x7f).collect();
    assert!(!is_noise(&MemoryDevice::new(text)).unwrap());
    assert!(
        !is_noise(&device(&[])).unwrap() && !is_noise(&MemoryDevice::new(noise[..1000].to_vec())).unwrap()
    );
}

/// What one file of a list is, spelled as `blkid -p -o udev` prints it.
fn describe(device: &dyn BlockDevice) -> Vec<(&'static str, String)> {
    let found = container(device).unwrap().or_else(|| file_system(device).unwrap());
    let Some(found) = found else { return Vec::new() };
    let label = found.label.map(|label| String::from_utf8_lossy(&label).replace(' ', "_"));
    let fields = [
        ("TYPE", Some(found.kind.to_owned())),
        ("USAGE", Some(found.usage.name().to_owned())),
        ("UUID", found.uuid),
        ("UUID_SUB", found.sub_uuid),
        ("LABEL", label),
        ("VERSION", found.version.map(|version| version.replace(' ', "\\x20"))),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// util-linux' own samples, with what its tests expect: every field that is given there.
#[test]
fn the_samples_of_util_linux() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    let root = std::env::var_os("GUESTMEND_CORPUS").map_or(beside, PathBuf::from);
    let Ok(manifest) = std::fs::read_to_string(root.join("MANIFEST.tsv")) else {
        println!("skipped: no corpus at {}", root.display());
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (mut compared, mut wrong) = (0, Vec::new());
    for line in manifest.lines().filter(|line| line.starts_with("util-linux/blkid/images-fs/")) {
        let columns: Vec<&str> = line.split('\t').collect();
        let name = columns[0].rsplit('/').next().unwrap();
        // Those that other parts of the product know.
        if ["ext3", "ext4", "xfs-v5", "luks2", "lvm2", "mdraid"]
            .iter()
            .any(|own| name.starts_with(&format!("{own}.")))
        {
            continue;
        }
        let path = folder.path().join("image");
        let packed = Command::new("xz").arg("-dc").arg(root.join(columns[0])).output().unwrap();
        std::fs::write(&path, packed.stdout).unwrap();
        let found = describe(&FileDevice::open(&path).unwrap());
        // Of a disc with several sessions the list gives all; the last one is what a drive presents.
        let words = columns[10].split(' ');
        let expected: BTreeMap<&str, &str> =
            words.filter_map(|word| word.strip_prefix("ID_FS_")?.split_once('=')).collect();
        for (key, value) in expected {
            let ours = found.iter().find(|(name, _)| *name == key).map_or("", |(_, value)| value);
            let is_same = match value.strip_suffix('…') {
                Some(start) => ours.starts_with(start),
                None => ours == value,
            };
            if ["TYPE", "USAGE", "UUID", "UUID_SUB", "LABEL", "VERSION"].contains(&key) {
                compared += 1;
                if !is_same {
                    wrong.push(format!("{name}: {key} {value:?}, we say {ours:?}"));
                }
            }
        }
        assert!(!found.is_empty(), "{name} is not recognised");
    }
    assert!(wrong.is_empty() && compared > 250, "{compared} compared; {wrong:#?}");
}
