//! md arrays that a kernel made, whole and with members missing, and members that were tampered with.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use blockdev::{BlockDevice, Device, MemoryDevice, Overlay, Slice};
use ondisk::Parsed;
use volume::md::{Array, Member, Role, State, Version, assemble, read_member};

use super::support::{assert_pattern, image};

const STRIDE: u64 = 512 << 10;

/// An array of `test-images/volume/md-{group}.zst`.
struct Case {
    name: String,
    members: Vec<Device>,
    /// Bytes.
    size: u64,
}

fn cases(group: &str) -> Vec<Case> {
    let packed = image(&format!("md-{group}"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../test-images/volume");
    let text = std::fs::read_to_string(folder.join(format!("md-{group}.toml"))).unwrap();
    let (_, list) = text.split_once("[arrays]\n").unwrap();
    let number = |text: &str| text.trim_matches([' ', '{', '}', '[', ']']).parse::<u64>().unwrap();
    list.lines()
        .map(|line| {
            let (name, rest) = line.split_once(" = ").unwrap();
            let first = number(between(rest, "first = ", ", members"));
            let members = between(rest, "members = ", ", size")
                .split(',')
                .zip(first..)
                .map(|(size, index)| -> Device {
                    Arc::new(Slice::new(packed.clone(), index * STRIDE, number(size)).unwrap())
                })
                .collect();
            let size = number(rest.split_once("size = ").unwrap().1);
            Case { name: name.into(), members, size }
        })
        .collect()
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    text.split_once(before).unwrap().1.split_once(after).unwrap().0
}

fn case(group: &str, name: &str) -> Case {
    cases(group).into_iter().find(|case| case.name == name).unwrap()
}

/// The members without those at `missing`, each without problems.
fn members(devices: &[Device], missing: &[usize]) -> Vec<Member> {
    devices
        .iter()
        .enumerate()
        .filter(|(index, _)| !missing.contains(index))
        .map(|(_, device)| {
            let Parsed { value, problems } = read_member(device).unwrap().unwrap();
            assert!(problems.is_empty(), "{problems:?}");
            value
        })
        .collect()
}

fn one(members: &[Member]) -> Parsed<Array> {
    let mut arrays = assemble(members);
    assert_eq!(arrays.len(), 1);
    arrays.remove(0)
}

/// The array's device, after its size was compared with the kernel's.
fn device(case: &Case, missing: &[usize]) -> Result<Device, String> {
    let array = one(&members(&case.members, missing)).value;
    assert_eq!(array.size, case.size, "{} without {missing:?}", case.name);
    assert_eq!(array.is_degraded, !missing.is_empty() && array.raid_disks as usize == case.members.len());
    array.device
}

fn assert_reads(case: &Case, missing: &[usize], seed: u8) {
    let device = device(case, missing).unwrap_or_else(|e| panic!("{} without {missing:?}: {e}", case.name));
    assert_eq!(device.size(), case.size);
    // The recipe fills whole blocks of 4 KiB.
    assert_pattern(&*device, seed, 0..case.size / 4096 * 8);
}

/// Reads every array of `group` whole, with any `redundancy` members missing, and finds it refused with one more.
fn check_group(group: &str, redundancy: impl Fn(&str, usize) -> usize) {
    let cases = cases(group);
    for case in &cases {
        let count = case.members.len();
        let allowed = redundancy(&case.name, count);
        assert_reads(case, &[], 1);
        for first in 0..count {
            match allowed {
                0 => assert!(one(&members(&case.members, &[first])).value.device.is_err(), "{}", case.name),
                _ => assert_reads(case, &[first], 1),
            }
            for second in first + 1..count {
                match allowed {
                    _ if count == 2 => {}
                    // Of RAID 10, some pairs hold no chunk alone.
                    1 if case.name.starts_with("raid10") && device(case, &[first, second]).is_ok() => {
                        assert_reads(case, &[first, second], 1);
                    }
                    1 => assert!(device(case, &[first, second]).is_err(), "{}", case.name),
                    2.. => assert_reads(case, &[first, second], 1),
                    0 => {}
                }
            }
        }
        if allowed == 2 && count > 3 {
            let error = one(&members(&case.members, &[0, 1, 2])).value.device.unwrap_err();
            assert!(error.contains("no member for role 0, 1, 2"), "{error}");
        }
    }
    println!("{group}: {} arrays", cases.len());
}

#[test]
fn linear() {
    check_group("linear", |_, _| 0);
}

#[test]
fn raid0() {
    check_group("raid0", |_, _| 0);
}

#[test]
fn raid1() {
    check_group("raid1", |_, count| count - 1);
}

#[test]
fn raid4_and_raid5() {
    check_group("raid5", |_, _| 1);
}

#[test]
fn raid6() {
    check_group("raid6", |_, _| 2);
}

#[test]
fn raid10() {
    check_group("raid10", |name, _| if name.contains('3') { 2 } else { 1 });
}

/// The states of the members that were given, in their order.
fn states(array: &Array) -> Vec<State> {
    array.members.iter().map(|member| member.state.clone()).collect()
}

#[test]
fn stale_members_are_left_out() {
    for (name, stale) in [("stale-raid1", 1), ("stale-raid5", 0), ("stale-090", 0)] {
        let case = case("states", name);
        let Parsed { value: array, problems } = one(&members(&case.members, &[]));
        for (index, state) in states(&array).iter().enumerate() {
            let is_stale = matches!(state, State::Stale { behind } if *behind > 1);
            assert_eq!(is_stale, index == stale, "{name}: {state:?}");
        }
        assert!(array.is_degraded && !array.is_dirty);
        assert_eq!(array.read_only, None, "{name}: the fresh members know of the failure");
        assert!(problems[0].to_string().contains("events"), "{problems:?}");
        assert_pattern(&*array.device.unwrap(), 2, 0..case.size / 512 / 8 * 8);
        // Alone, the stale member of a mirror is all there is.
        if name == "stale-raid1" {
            let array = one(&members(&case.members, &[0])).value;
            assert_eq!(states(&array), [State::InUse, State::Missing]);
            assert!(array.read_only.is_some());
            assert_pattern(&*array.device.unwrap(), 1, 0..64);
        }
        // Without the fresh one, RAID 5 has too few.
        if name == "stale-raid5" {
            assert!(one(&members(&case.members, &[1])).value.device.is_err());
        }
    }
}

#[test]
fn spares_are_not_read() {
    let case = case("states", "spare");
    let array = one(&members(&case.members, &[])).value;
    let states = states(&array);
    assert_eq!(states.iter().filter(|state| **state == State::InUse).count(), 3);
    assert!(states.contains(&State::Spare));
    assert!(!array.is_degraded);
    assert_pattern(&*array.device.unwrap(), 1, 0..case.size / 512);
    let array = one(&members(&case.members, &[0])).value;
    assert!(array.is_degraded);
    assert!(array.read_only.unwrap().contains("role 0 was not given"));
    assert_pattern(&*array.device.unwrap(), 1, 0..case.size / 512);
}

#[test]
fn members_that_were_being_rebuilt_are_not_read() {
    for name in ["recovering-1.2", "recovering-0.90"] {
        let case = case("states", name);
        let array = one(&members(&case.members, &[])).value;
        let states = states(&array);
        assert!(
            matches!(states[..], [State::InUse, State::Recovering { .. } | State::Spare, State::InUse, ..]),
            "{name}: {states:?}"
        );
        assert!(array.is_degraded, "{name}");
        assert_pattern(&*array.device.unwrap(), 1, 0..case.size / 512);
        assert!(one(&members(&case.members, &[0])).value.device.is_err());
    }
    let case = case("states", "replacing");
    let array = one(&members(&case.members, &[])).value;
    assert_eq!(states(&array), [State::InUse, State::InUse, State::Replacement]);
    assert!(array.read_only.is_some());
    assert_pattern(&*array.device.unwrap(), 1, 0..case.size / 512);
}

#[test]
fn bad_blocks_are_read_from_the_others() {
    for name in ["bad-blocks-raid1", "bad-blocks-raid5"] {
        let case = case("states", name);
        let all = members(&case.members, &[]);
        let first = &all[0].superblock;
        let start = first.data_offset + 8 * 512;
        assert_eq!(first.bad_blocks, [(start, start + 8 * 512)]);
        assert_eq!(all[1].superblock.bad_blocks.len(), 1);
        let array = one(&all).value;
        assert_pattern(&*array.device.unwrap(), 1, 0..case.size / 512);
        // Without the other, these sectors are lost, and no others.
        let missing = if name == "bad-blocks-raid1" { 1 } else { 2 };
        let device = one(&members(&case.members, &[missing])).value.device.unwrap();
        let mut sector = [0; 512];
        let lost =
            (0..case.size / 512).filter(|n| device.read_exact_at(&mut sector, n * 512).is_err()).count();
        assert!((8..=22).contains(&lost), "{name}: {lost} sectors are lost");
    }
}

#[test]
fn a_dirty_array_is_read_whole_and_refused_degraded() {
    let case = case("states", "dirty");
    let Parsed { value: array, problems } = one(&members(&case.members, &[]));
    assert!(array.is_dirty && !array.is_degraded);
    assert!(problems[0].to_string().contains("active"), "{problems:?}");
    assert_pattern(&*array.device.unwrap(), 1, 0..case.size / 512);
    let Parsed { value: array, problems } = one(&members(&case.members, &[1]));
    assert!(array.device.unwrap_err().contains("dirty degraded array"));
    assert_eq!(problems.len(), 1);
}

#[test]
fn an_interrupted_reshape_is_refused() {
    let case = case("states", "reshape");
    let array = one(&members(&case.members, &[])).value;
    assert!(array.device.unwrap_err().contains("reshape was interrupted"));
}

#[test]
fn a_journal_must_be_there_and_empty() {
    let case = case("states", "journal");
    let all = members(&case.members, &[]);
    let array = one(&all).value;
    assert_eq!(states(&array)[3], State::Journal);
    assert_pattern(&*array.device.unwrap(), 1, 0..case.size / 512);
    let array = one(&members(&case.members, &[3])).value;
    assert!(array.device.unwrap_err().contains("journal is missing"));
    assert!(one(&all).value.read_only.unwrap().contains("journal"));
    // A block of data in the journal that the members lack: its first is behind the meta block.
    let journal = &all[3].superblock;
    let tail = journal.data_offset + journal.journal_tail.unwrap();
    let mut devices = case.members.clone();
    devices[3] = changed(&devices[3], tail + 4096, b"other");
    let array = one(&members(&devices, &[])).value;
    assert!(array.device.unwrap_err().contains("holds writes"));
    // Degraded, the parity in it would be needed.
    let array = one(&members(&case.members, &[0])).value;
    assert!(array.device.unwrap_err().contains("holds writes"));
}

/// A copy of `device` with other bytes at `offset`.
fn changed(device: &Device, offset: u64, bytes: &[u8]) -> Device {
    let overlay = Overlay::new(device.clone());
    overlay.writable().unwrap().write_all_at(bytes, offset).unwrap();
    Arc::new(overlay)
}

#[test]
fn writes_reach_all_copies_and_the_parity() {
    for (group, name) in [
        ("raid0", "raid0-12-zones-original"),
        ("linear", "linear-12"),
        ("raid1", "raid1-090"),
        ("raid5", "raid5-left-symmetric"),
        ("raid6", "raid6-ddf-N-continue"),
        ("raid10", "raid10-f2-odd"),
    ] {
        let case = case(group, name);
        let overlays: Vec<Device> =
            case.members.iter().map(|device| -> Device { Arc::new(Overlay::new(device.clone())) }).collect();
        let array = one(&members(&overlays, &[])).value;
        assert_eq!(array.read_only, None);
        let device = array.device.unwrap();
        let writable = device.writable().unwrap_or_else(|| panic!("{name} cannot be written"));
        let bytes: Vec<u8> = (0..70_000_u32).map(|n| (n % 249) as u8).collect();
        writable.write_all_at(&bytes, 12_345).unwrap();
        writable.flush().unwrap();
        let missing: &[&[usize]] = match group {
            "raid0" | "linear" => &[&[]],
            "raid6" => &[&[], &[0, 1], &[2, 4], &[3]],
            _ => &[&[], &[0], &[1]],
        };
        for missing in missing {
            let array = one(&members(&overlays, missing)).value;
            let device = array.device.unwrap();
            // Its absent members are active by the superblock.
            assert_eq!(device.writable().is_some(), missing.is_empty(), "{name}");
            let mut found = vec![0; bytes.len()];
            device.read_exact_at(&mut found, 12_345).unwrap();
            assert!(found == bytes, "{name} without {missing:?}");
            assert_pattern(&*device, 1, 0..24);
            assert_pattern(&*device, 1, 161..200);
        }
    }
    // What the members know to have failed may be left behind.
    let case = case("states", "stale-raid1");
    let overlays: Vec<Device> =
        case.members.iter().map(|device| -> Device { Arc::new(Overlay::new(device.clone())) }).collect();
    let device = one(&members(&overlays, &[])).value.device.unwrap();
    device.writable().unwrap().write_all_at(&[7; 512], 0).unwrap();
}

/// A big-endian host's 0.90, and one that a later array left at the end.
#[test]
fn superblocks_of_other_hosts_and_other_times() {
    let old = case("raid1", "raid1-090");
    let little = members(&old.members, &[]);
    let offset = little[0].superblock.offset;
    let mut block = vec![0; 4096];
    old.members[0].read_exact_at(&mut block, offset).unwrap();
    let swapped = big_endian(&block);
    let other = changed(&old.members[0], offset, &swapped);
    let big = members(&[other], &[]).remove(0);
    assert_eq!(big.superblock.version, Version::V0_90 { is_big_endian: true });
    let mut expected = little[0].superblock.clone();
    expected.version = big.superblock.version;
    assert_eq!(big.superblock, expected);

    let new = case("raid1", "raid1-12-three");
    let both = changed(&new.members[0], offset, &block);
    let Parsed { value, problems } = read_member(&both).unwrap().unwrap();
    let newest_is_12 =
        members(&new.members, &[])[0].superblock.creation_time > little[0].superblock.creation_time;
    let expected = if newest_is_12 { Version::V1_2 } else { little[0].superblock.version };
    assert_eq!(value.superblock.version, expected);
    assert_eq!(value.others.len(), 1);
    assert_eq!(problems.len(), 1);
    // A bad checksum loses against any whole one.
    let damaged = changed(&both, 4096 + 0x30, b"?");
    let Parsed { value, problems } = read_member(&damaged).unwrap().unwrap();
    assert_eq!(value.superblock.version, little[0].superblock.version);
    assert!(value.others[0].refusal.as_ref().unwrap().contains("sb_csum"));
    assert_eq!(problems.len(), 2);
}

/// The superblock as a big-endian host writes it: the two halves of long numbers change places, too.
fn big_endian(block: &[u8]) -> Vec<u8> {
    let mut words: Vec<[u8; 4]> = block.chunks_exact(4).map(|word| word.try_into().unwrap()).collect();
    for low in [39, 41, 44] {
        words.swap(low, low + 1);
    }
    words
        .into_iter()
        .flat_map(|mut word| {
            word.reverse();
            word
        })
        .collect()
}

#[test]
fn a_damaged_member_is_named_and_left_out() {
    let case = case("raid5", "raid5-left-symmetric");
    let mut devices = case.members.clone();
    devices[1] = changed(&devices[1], 4096 + 0x30, b"?");
    let all: Vec<Member> = devices.iter().map(|device| read_member(device).unwrap().unwrap().value).collect();
    let array = one(&all).value;
    assert!(matches!(&states(&array)[1], State::Damaged(reason) if reason.contains("sb_csum")));
    assert_pattern(&*array.device.unwrap(), 1, 0..case.size / 512);
    // A truncated member.
    let short: Device = Arc::new(Slice::new(case.members[0].clone(), 0, 200 << 10).unwrap());
    let Parsed { value, problems } = read_member(&short).unwrap().unwrap();
    assert!(value.superblock.refusal.unwrap().contains("data ends"));
    assert_eq!(problems.len(), 1);
    // The same member twice.
    let mut twice = members(&case.members, &[]);
    twice.push(twice[2].clone());
    let Parsed { value: array, problems } = one(&twice);
    assert_eq!(states(&array)[3], State::Duplicate);
    assert_eq!(problems.len(), 1);
}

fn all_cases() -> Vec<Case> {
    ["linear", "raid0", "raid1", "raid5", "raid6", "raid10", "states"].into_iter().flat_map(cases).collect()
}

/// What `mdadm -E` and `blkid -p` say of every member.
#[test]
fn mdadm_and_blkid_agree() {
    if Command::new("mdadm").arg("--version").output().is_err() {
        println!("skipped: no mdadm");
        return;
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut count = 0;
    for case in all_cases() {
        for (index, device) in case.members.iter().enumerate() {
            let mut bytes = vec![0; device.size() as usize];
            device.read_exact_at(&mut bytes, 0).unwrap();
            std::fs::write(file.path(), &bytes).unwrap();
            let member = members(std::slice::from_ref(device), &[]).remove(0);
            compare_with_mdadm(&format!("{} member {index}", case.name), file.path(), &member);
            // blkid looks for no RAID on what is as small as a floppy disk; the other versions lie at the end.
            if index == 0 && member.superblock.version > Version::V1_0 {
                std::fs::File::options().write(true).open(file.path()).unwrap().set_len(2 << 20).unwrap();
                compare_with_blkid(&case.name, file.path(), &member);
            }
            count += 1;
        }
    }
    println!("{count} members");
}

fn compare_with_mdadm(name: &str, file: &Path, member: &Member) {
    let output = Command::new("mdadm").arg("-E").arg(file).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let fields: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once(" : ")).map(|(k, v)| (k.trim(), v.trim())).collect();
    let superblock = &member.superblock;
    let colons = |text: String| text.replace('-', "");
    let field = |name: &str| fields.get(name).copied().unwrap_or_default();
    let uuid = [field("Array UUID"), field("UUID")].concat();
    assert_eq!(
        uuid.split(' ').next().unwrap().replace(':', ""),
        colons(superblock.array_uuid.to_string()),
        "{name}"
    );
    assert!(field("Checksum").ends_with("- correct"), "{name}");
    assert_eq!(field("Events").parse::<u64>().unwrap(), superblock.events, "{name}");
    assert_eq!(field("Raid Devices").parse::<u32>().unwrap(), superblock.raid_disks, "{name}");
    let state = if superblock.is_clean { "clean" } else { "active" };
    assert_eq!(field("State"), state, "{name}");
    assert!(field("Version").starts_with(&superblock.version.to_string()), "{name}");
    let array = one(std::slice::from_ref(member)).value;
    assert_eq!(field("Raid Level"), array.level, "{name}");
    if let (Some(layout), false) = (&array.layout, field("Layout").is_empty()) {
        assert_eq!(field("Layout"), layout, "{name}");
    }
    if superblock.chunk > 0 && !field("Chunk Size").is_empty() {
        assert_eq!(field("Chunk Size"), format!("{}K", superblock.chunk / 1024), "{name}");
    }
    if superblock.device_uuid.is_none() {
        let this = text.lines().find(|line| line.starts_with("this")).unwrap();
        let role: Vec<&str> = this.split_whitespace().collect();
        match superblock.role {
            Role::Active(number) => assert_eq!(role[4], number.to_string(), "{name}: {this}"),
            other => assert!(this.contains("spare") || this.contains("faulty"), "{name}: {other:?}, {this}"),
        }
        return;
    }
    assert_eq!(field("Device UUID").replace(':', ""), colons(superblock.device_uuid.unwrap().to_string()));
    assert_eq!(field("Name").split("  (").next().unwrap(), superblock.name.as_deref().unwrap(), "{name}");
    let role = match superblock.role {
        Role::Active(number) if superblock.features.has(volume::md::Features::REPLACEMENT) => {
            format!("Replacement device {number}")
        }
        Role::Active(number) => format!("Active device {number}"),
        Role::Journal => "Journal".into(),
        Role::Spare | Role::Faulty => "spare".into(),
    };
    assert_eq!(field("Device Role"), role, "{name}");
    assert_eq!(field("Feature Map"), format!("{:#x}", superblock.features.0), "{name}");
    if superblock.data_offset > 0 {
        assert_eq!(field("Data Offset"), format!("{} sectors", superblock.data_offset / 512), "{name}");
    }
    let avail = field("Avail Dev Size").split(' ').next().unwrap().parse::<u64>().unwrap();
    assert_eq!(avail * 512, superblock.data_size, "{name}");
    let map = field("Array State").split(' ').next().unwrap();
    for (number, letter) in (0..superblock.raid_disks).zip(map.chars()) {
        assert_eq!(letter != '.', superblock.knows_active(number), "{name}: {map}");
    }
}

fn compare_with_blkid(name: &str, file: &Path, member: &Member) {
    let Ok(output) = Command::new("blkid").args(["-p", "-o", "export"]).arg(file).output() else {
        println!("skipped: no blkid");
        return;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    let field = |key: &str| {
        let prefix = format!("{key}=");
        text.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned)
    };
    let identity = member.identity();
    assert_eq!(field("TYPE").as_deref(), Some(identity.kind), "{name}");
    assert_eq!(field("UUID"), Some(identity.uuid), "{name}");
    assert_eq!(field("UUID_SUB"), identity.uuid_sub, "{name}");
    assert_eq!(field("LABEL"), identity.label, "{name}");
}

/// Samples that others made.
#[test]
fn samples_of_a_corpus() {
    let root = std::env::var_os("GUESTMEND_CORPUS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus"),
        std::path::PathBuf::from,
    );
    let blkid = root.join("util-linux/blkid");
    let unpacked = |path: &Path| {
        let output = Command::new("xz").arg("-dkc").arg(path).output().ok()?;
        output.status.success().then(|| -> Device { Arc::new(MemoryDevice::new(output.stdout)) })
    };
    let Some(device) = find(&blkid, "mdraid.img.xz").and_then(|path| unpacked(&path)) else {
        println!("skipped: no corpus, or no xz");
        return;
    };
    let all = members(std::slice::from_ref(&device), &[]);
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut bytes = vec![0; device.size() as usize];
    device.read_exact_at(&mut bytes, 0).unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    compare_with_blkid("mdraid", file.path(), &all[0]);
    assert_eq!(all[0].identity().uuid, "37c76b91-011a-05c5-d30c-1fd4c5c3dbbc");
    let array = one(&all).value;
    assert_eq!((array.level.as_str(), array.size), ("raid1", 10176 << 10));
    assert!(array.is_degraded && array.device.unwrap().writable().is_none());
    let fixtures: Vec<Device> =
        (0..3).filter_map(|n| unpacked(&root.join(format!("../fixtures/md/m{n}.img.xz")))).collect();
    if fixtures.len() < 3 {
        println!("skipped: no fixtures/md");
        return;
    }
    // The second one's checksum is wrong, and the third one is an event behind.
    let all: Vec<Member> =
        fixtures.iter().map(|device| read_member(device).unwrap().unwrap().value).collect();
    let array = one(&all).value;
    assert_eq!((array.level.as_str(), array.size), ("raid5", 6 << 20));
    assert!(matches!(states(&array)[..], [State::InUse, State::Damaged(_), State::InUse]));
    assert!(array.device.is_ok());
}

fn find(folder: &Path, name: &str) -> Option<std::path::PathBuf> {
    std::fs::read_dir(folder).ok()?.filter_map(Result::ok).find_map(|entry| {
        let path = entry.path();
        if path.is_dir() { find(&path, name) } else { (entry.file_name() == name).then_some(path) }
    })
}

/// A sequence of numbers that is the same every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Changes a superblock's field, and its checksum after it in half of the cases.
fn mutate(random: &mut Random, block: &mut [u8], is_old: bool) {
    for _ in 0..1 + random.below(3) {
        // Mostly the fields and the first roles, seldom the rest.
        let end = if random.below(8) == 0 {
            4096
        } else if is_old {
            640
        } else {
            272
        };
        let width = [1, 2, 4, 8][random.below(4)];
        let at = if is_old && random.below(4) == 0 { 3968 + random.below(20) } else { random.below(end - 8) };
        let at = at / width * width;
        let mut value = [0; 8];
        value[..width].copy_from_slice(&block[at..at + width]);
        let old = u64::from_le_bytes(value);
        let new = match random.below(7) {
            0 => 0,
            1 => 1,
            2 => u64::MAX,
            3 => old.wrapping_add(1),
            4 => old.wrapping_sub(1),
            5 => old ^ 1 << random.below(width * 8),
            _ => random.next(),
        };
        block[at..at + width].copy_from_slice(&new.to_le_bytes()[..width]);
    }
    if random.below(2) == 0 {
        let (at, length) = if is_old {
            (152, 4096)
        } else {
            let max_dev = u32::from_le_bytes(block[220..224].try_into().unwrap()) as usize;
            (0xd8, (256 + max_dev.min(1920) * 2).min(4096))
        };
        block[at..at + 4].fill(0);
        let sum: u64 = block[..length]
            .chunks(4)
            .map(|word| {
                let mut bytes = [0; 4];
                bytes[..word.len()].copy_from_slice(word);
                u64::from(u32::from_le_bytes(bytes))
            })
            .sum();
        block[at..at + 4].copy_from_slice(&((sum as u32).wrapping_add((sum >> 32) as u32)).to_le_bytes());
    }
}

#[test]
fn mutations_do_no_harm() {
    let mut random = Random(0x5eed_0fa1);
    let (mut assembled, mut readable, mut reads) = (0, 0, 0);
    let cases: Vec<Vec<Member>> = all_cases().iter().map(|case| members(&case.members, &[])).collect();
    for number in 0..22_000 {
        let mut all = cases[number % cases.len()].clone();
        for _ in 0..1 + random.below(2) {
            let index = random.below(all.len());
            let Member { device, superblock, .. } = &all[index];
            let mut block = vec![0; 4096];
            device.read_exact_at(&mut block, superblock.offset).unwrap();
            mutate(&mut random, &mut block, superblock.device_uuid.is_none());
            let device = changed(device, superblock.offset, &block);
            match read_member(&device).unwrap() {
                Some(member) => all[index] = member.value,
                None => drop(all.remove(index)),
            }
            if all.is_empty() {
                break;
            }
        }
        for array in assemble(&all) {
            assembled += 1;
            let Ok(device) = array.value.device else {
                assert!(!array.problems.is_empty());
                continue;
            };
            readable += 1;
            assert_eq!(device.size(), array.value.size);
            let mut buffer = [0; 1500];
            for offset in [0, 1000, device.size() / 2, device.size().saturating_sub(1500)] {
                if offset < device.size() {
                    let run = device.extent_at(offset);
                    assert!(
                        run.is_err()
                            || run.is_ok_and(|run| (1..=device.size() - offset).contains(&run.length))
                    );
                    reads += usize::from(device.read_exact_at(&mut buffer, offset).is_ok());
                }
            }
            if let Some(writable) = device.writable().filter(|device| device.size() > 3000) {
                let _ = writable.write_all_at(&buffer, 1000);
            }
        }
    }
    println!("{assembled} arrays, {readable} readable, {reads} reads");
    assert!(assembled >= 22_000 && readable > 8_000 && reads > 20_000);
    std::io::stdout().flush().unwrap();
}
