use blockdev::MemoryDevice;

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
