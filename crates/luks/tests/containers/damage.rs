//! Damaged headers: both copies are judged, and nothing in them can hurt.

use luks::{Hash, Limits, Locked, read, read_secondary};

use crate::support::{PASSPHRASE, assert_pattern, device, image};

const SIZE: usize = 16 << 10;

type Damage = fn(&mut [u8]);

/// Makes the checksum of the copy at `at` right again.
fn seal(content: &mut [u8], at: usize) {
    content[at + 0x1c0..at + 0x200].fill(0);
    let digest = Hash::Sha256.digest(&[&content[at..at + SIZE]]);
    content[at + 0x1c0..][..32].copy_from_slice(&digest);
}

#[test]
fn either_copy_is_enough() {
    let good = image("luks2-argon2id-4096");
    let damages: [(&str, Damage, usize); 6] = [
        ("primary csum", |content| content[0x1c0] ^= 1, 1),
        ("primary text", |content| content[5000] ^= 1, 1),
        ("secondary gone", |content| content[SIZE..2 * SIZE].fill(0), 0),
        ("secondary text", |content| content[SIZE + 5000] ^= 1, 0),
        ("primary size", |content| content[0x0c..0x10].fill(0xff), 1),
        (
            "primary is no text",
            |content| {
                content[4096] = b'!';
                seal(content, 0);
            },
            1,
        ),
    ];
    for (what, damage, used) in damages {
        let mut content = good.clone();
        damage(&mut content);
        let device = device(content);
        let parsed = read(&device).unwrap().unwrap();
        assert!(!parsed.problems.is_empty(), "{what}");
        let copies = &parsed.value.copies;
        assert!(copies[used].is_used && copies[used].problem.is_none(), "{what}: {copies:?}");
        assert!(copies[1 - used].problem.is_some(), "{what}: {copies:?}");
        let (_, opened) = parsed.value.unlock(&device, PASSPHRASE, Limits::default()).unwrap();
        assert_pattern(opened.as_ref());
    }
}

#[test]
fn a_first_copy_that_is_gone() {
    let mut content = image("luks2-cbc");
    content[..SIZE].fill(0);
    let device = device(content.clone());
    assert!(read(&device).unwrap().is_none());
    let parsed = read_secondary(&device).unwrap().unwrap();
    assert_eq!(parsed.problems.len(), 1, "{:?}", parsed.problems);
    let (_, opened) = parsed.value.unlock(&device, PASSPHRASE, Limits::default()).unwrap();
    assert_pattern(opened.as_ref());
    content[SIZE..2 * SIZE].fill(0);
    assert!(read_secondary(&crate::support::device(content)).unwrap().is_none());
}

#[test]
fn the_newer_copy_wins() {
    let mut content = image("luks2-cbc");
    content[SIZE + 16..SIZE + 24].copy_from_slice(&1000_u64.to_be_bytes());
    seal(&mut content, SIZE);
    let parsed = read(&device(content)).unwrap().unwrap();
    assert!(parsed.value.copies[1].is_used && !parsed.value.copies[0].is_used);
    assert!(parsed.problems[0].to_string().contains("seqid"), "{:?}", parsed.problems);
}

/// Replaces text in both copies, which keep their lengths and get right checksums.
fn edited(name: &str, from: &str, to: &str) -> Vec<u8> {
    let mut content = image(name);
    for at in [0, SIZE] {
        let text = String::from_utf8(content[at + 4096..at + SIZE].to_vec()).unwrap();
        assert!(text.contains(from), "{text}");
        let mut text = text.replace(from, to).into_bytes();
        text.resize(SIZE - 4096, 0);
        content[at + 4096..at + SIZE].copy_from_slice(&text);
        seal(&mut content, at);
    }
    content
}

#[test]
fn what_cannot_be_read_is_named() {
    let open = |content: Vec<u8>| {
        let device = device(content);
        let parsed = read(&device).unwrap().unwrap();
        parsed.value.unlock(&device, PASSPHRASE, Limits::default()).map(drop).unwrap_err().to_string()
    };
    let name = "luks2-argon2id-4096";
    for (from, to, said) in [
        (
            r#""config":{"#,
            r#""config":{"requirements":{"mandatory":["online-reencrypt-v2"]},"#,
            "the header requires online-reencrypt-v2 is not supported",
        ),
        (r#""type":"crypt""#, r#""type":"linear""#, "a segment of type linear is not supported"),
        (
            r#""type":"crypt""#,
            r#""type":"crypt","integrity":{"type":"hmac(sha256)"}"#,
            "integrity protection (hmac(sha256)) is not supported",
        ),
        (r#""memory":64"#, r#""memory":4000000000"#, "the header asks for"),
        (r#""memory":64"#, r#""memory":2000000"#, "the limit is 1048576 KiB"),
        (r#""time":4"#, r#""time":4000000000"#, "the header asks for"),
        (
            r#""encryption":"aes-xts-plain64","key_size":32},"kdf""#,
            r#""encryption":"twofish-xts-plain64","key_size":32},"kdf""#,
            "the cipher twofish-xts-plain64 is not supported",
        ),
        (r#""keyslots":{"0""#, r#""keyslots":{"1""#, "no key slot is in use"),
    ] {
        let found = open(edited(name, from, to));
        assert!(found.contains(said), "{from}: {found}");
    }
}

#[test]
fn numbers_that_lead_nowhere() {
    for (from, to) in [
        (r#""offset":"1048576""#, r#""offset":"18446744073709551615""#),
        (r#""offset":"1048576""#, r#""offset":"0""#),
        (r#""size":"dynamic""#, r#""size":"18446744073709551615""#),
        (r#""digest":""#, r#""digest":"AAAA","x":""#),
    ] {
        assert!(read(&device(edited("luks2-argon2id-4096", from, to))).is_err(), "{to}");
    }
    for (from, to) in [
        (r#""stripes":4000"#, r#""stripes":4001"#),
        (r#""offset":"32768""#, r#""offset":"4096""#),
        (r#""offset":"32768""#, r#""offset":"99999999999""#),
    ] {
        let parsed = read(&device(edited("luks2-argon2id-4096", from, to))).unwrap().unwrap();
        assert!(
            parsed.value.key_slots.is_empty() && parsed.problems.len() == 1,
            "{to}: {:?}",
            parsed.problems
        );
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8) as usize % bound
    }
}

#[test]
fn no_mutation_of_version_2_panics_or_hangs() {
    let mut good = image("luks2-cbc");
    good.truncate(300_000);
    good.resize((1 << 20) + 4096, 0);
    let length = good[4096..].iter().position(|byte| *byte == 0).unwrap();
    let (mut parsed, mut deep, mut locked) = (0, 0, 0);
    let mut content = good.clone();
    for number in 0..20_000_u64 {
        let mut random = Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        content[..2 * SIZE].copy_from_slice(&good[..2 * SIZE]);
        let is_sealed = number % 8 != 0;
        for _ in 0..=random.below(3) {
            let at = match random.below(4) {
                0 => random.below(0x200),
                _ => 4096 + random.below(length),
            };
            let was = content[at];
            let digit = b"0123456789\"{}[],:"[random.below(17)];
            content[at] = [was ^ 1 << random.below(8), digit, digit, was.wrapping_add(1)][random.below(4)];
        }
        if is_sealed {
            seal(&mut content, 0);
        }
        // Both copies are the same where the second one must not save the first.
        if number % 4 == 1 {
            let copy = content[..SIZE].to_vec();
            content[SIZE..2 * SIZE].copy_from_slice(&copy);
            content[SIZE..SIZE + 6].copy_from_slice(b"SKUL\xba\xbe");
            content[SIZE + 0x100..SIZE + 0x108].copy_from_slice(&(SIZE as u64).to_be_bytes());
            seal(&mut content, SIZE);
        }
        let device = device(content.clone());
        drop(read_secondary(&device));
        let Ok(Some(found)) = read(&device) else { continue };
        parsed += 1;
        deep += usize::from(!found.value.key_slots.is_empty());
        if number % 400 == 0 {
            match found.value.unlock(&device, PASSPHRASE, Limits { memory: 64 }) {
                Ok((_, opened)) => drop(opened.read_exact_at(&mut [0; 100], 1000)),
                Err(Locked::TooMuchWork(_) | Locked::TooMuchMemory { .. }) => locked += 1,
                Err(_) => {}
            }
        }
    }
    assert!(parsed > 10_000 && deep > 10_000, "{parsed} {deep} {locked}");
}
