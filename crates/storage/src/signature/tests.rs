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

/// Every magic of this folder with noise around it: sizes, offsets and counts that lead anywhere.
#[test]
fn no_mutation_panics_or_hangs() {
    const MAGICS: [(usize, &[u8]); 34] = [
        (54, b"FAT16   "),
        (82, b"FAT32   "),
        (3, b"NTFS    "),
        (3, b"EXFAT   "),
        (0, b"\xeb\x52\x90-FVE-FS-"),
        (0, b"LUKS\xba\xbe\0\x02"),
        (0x400, b"H+\0\x04"),
        (0x400, b"BD"),
        (0x8001, b"CD001\x01"),
        (0x8001, b"BEA01"),
        (0x8801, b"NSR02"),
        (256 * 512, b"\x02\0"),
        (0x2000, b"\x49\xe8\x95\xf9"),
        (128 << 10, b"\x0c\xb1\xba\0\0\0\0\0"),
        (0x10034, b"ReIsEr3Fs"),
        (0x10000, b"ReIsEr4"),
        (0x10040, b"_BHRfS_M"),
        (0x8000, b"JFS1"),
        (0x410, b"\x7f\x13"),
        (0x406, b"\x34\x34"),
        (0x400, b"\x10\x20\xf5\xf2"),
        (1024, b"\xe2\xe1\xf5\xe0"),
        (4096 + 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"),
        (8192 + 1372, b"\x19\x01\x54\x19"),
        (0, b"hsqs"),
        (0, b"\x31\x18\x10\x06"),
        (4086, b"SWAPSPACE2"),
        (512, b"\xfe\xed\xba\xbe"),
        (0x800, b"OCFSV2"),
        (0, b"-rom1fs-"),
        (0, b"mpoolDev"),
        (32, b"NXSB"),
        (0, b"\x45\x3d\xcd\x28"),
        (0x10000, b"\x01\x16\x19\x70"),
    ];
    let mut state = 7_u64;
    let mut next = |bound: usize| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 20) as usize % bound
    };
    let mut recognised = 0;
    let mut content = vec![0_u8; 160 << 10];
    for round in 0..20_000 {
        let (at, magic) = MAGICS[round % MAGICS.len()];
        let start = at.saturating_sub(next(64));
        let end = (at + magic.len() + next(700)).min(content.len());
        let kind = next(4);
        for byte in &mut content[start..end] {
            *byte = match kind {
                0 => next(256) as u8,
                1 => [0, 0xff, 1, 0x80][next(4)],
                2 => {
                    if next(8) == 0 {
                        next(256) as u8
                    } else {
                        0
                    }
                }
                _ => 0xff,
            };
        }
        content[at..at + magic.len()].copy_from_slice(magic);
        if at < 512 {
            // Numbers of a boot sector that lead on.
            content[11..14].copy_from_slice(&[0, 2, 1 << next(8)]);
            content[510..512].copy_from_slice(&[0x55, 0xaa]);
        }
        let device = MemoryDevice::new(content[..content.len() - next(5) * 700].to_vec());
        for found in [container(&device), file_system(&device)] {
            recognised += usize::from(found.unwrap().is_some());
        }
        drop((is_noise(&device), table(&device)));
        content[start..end].fill(0);
        content[510..512].fill(0);
    }
    assert!(recognised > 5000, "{recognised}");
}
