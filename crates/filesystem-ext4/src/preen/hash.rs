//! The hash of a name in a directory index.
//!
//! Linux `Documentation/filesystems/ext4/directory.rst`, "Hash Tree Directories": `legacy`, `half_md4` and `tea`.
//! Each exists for names of signed and of unsigned characters; the superblock says which it is.

/// `hash_version` of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Legacy,
    HalfMd4,
    Tea,
}

impl Version {
    pub(super) fn decode(stored: u8) -> Option<Self> {
        match stored {
            0 => Some(Self::Legacy),
            1 => Some(Self::HalfMd4),
            2 => Some(Self::Tea),
            _ => None,
        }
    }
}

/// The start of the states of MD4, for a seed of zeros.
const DEFAULT_SEED: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// How a file system hashes names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hasher {
    pub(super) version: Version,
    /// Characters count from 0 to 255.
    pub(super) is_unsigned: bool,
    /// `s_hash_seed`.
    pub(super) seed: [u32; 4],
}

impl Hasher {
    /// The hash, an even number.
    pub(super) fn hash(&self, name: &[u8]) -> u32 {
        let start = if self.seed == [0; 4] { DEFAULT_SEED } else { self.seed };
        let hash = match self.version {
            Version::Legacy => self.legacy(name),
            Version::HalfMd4 => {
                let mut state = start;
                let mut rest = name;
                while !rest.is_empty() {
                    half_md4(&mut state, &self.words(rest));
                    rest = rest.get(32..).unwrap_or_default();
                }
                let [_, hash, ..] = state;
                hash
            }
            Version::Tea => {
                let mut state = start;
                let mut rest = name;
                while !rest.is_empty() {
                    tea(&mut state, &self.words(rest));
                    rest = rest.get(16..).unwrap_or_default();
                }
                let [hash, ..] = state;
                hash
            }
        };
        hash & !1
    }

    fn character(&self, byte: u8) -> u32 {
        if self.is_unsigned { byte.into() } else { i32::from(byte.cast_signed()).cast_unsigned() }
    }

    fn legacy(&self, name: &[u8]) -> u32 {
        let (mut last, mut before) = (0x12a3_fe2d_u32, 0x37ab_e8f9_u32);
        for byte in name {
            let mixed = last ^ self.character(*byte).wrapping_mul(7_152_373);
            let mut next = before.wrapping_add(mixed);
            if next & 0x8000_0000 != 0 {
                next = next.wrapping_sub(0x7fff_ffff);
            }
            (before, last) = (last, next);
        }
        last.wrapping_shl(1)
    }

    /// The next words of a name, the first characters in the upper bits; padded with the length of what is left.
    fn words<const COUNT: usize>(&self, rest: &[u8]) -> [u32; COUNT] {
        let [length, ..] = rest.len().to_le_bytes();
        let padding = u32::from_ne_bytes([length; 4]);
        let mut words = [padding; COUNT];
        for (word, characters) in words.iter_mut().zip(rest.chunks(4)) {
            for byte in characters {
                *word = word.wrapping_shl(8).wrapping_add(self.character(*byte));
            }
        }
        words
    }
}

/// Three rounds of eight steps each, of MD4's functions: word, and the rotation.
const STEPS: [[(usize, u32); 8]; 3] = [
    [(0, 3), (1, 7), (2, 11), (3, 19), (4, 3), (5, 7), (6, 11), (7, 19)],
    [(1, 3), (3, 5), (5, 9), (7, 13), (0, 3), (2, 5), (4, 9), (6, 13)],
    [(3, 3), (7, 9), (2, 11), (6, 15), (1, 3), (5, 9), (0, 11), (4, 15)],
];

/// The square roots of 2 and 3, as MD4 has them.
const ADDED: [u32; 3] = [0, 0x5a82_7999, 0x6ed9_eba1];

fn half_md4(state: &mut [u32; 4], words: &[u32; 8]) {
    let [mut a, mut b, mut c, mut d] = *state;
    for (round, (steps, added)) in STEPS.iter().zip(ADDED).enumerate() {
        for (word, rotation) in steps {
            let mixed = match round {
                0 => b & c | !b & d,
                1 => b & c | b & d | c & d,
                _ => b ^ c ^ d,
            };
            let word = words.get(*word).copied().unwrap_or(0);
            let next = a.wrapping_add(mixed).wrapping_add(word).wrapping_add(added).rotate_left(*rotation);
            (a, b, c, d) = (d, next, b, c);
        }
    }
    for (old, new) in state.iter_mut().zip([a, b, c, d]) {
        *old = old.wrapping_add(new);
    }
}

fn tea(state: &mut [u32; 4], key: &[u32; 4]) {
    let [start_0, start_1, ..] = *state;
    let (mut v0, mut v1) = (start_0, start_1);
    let [k0, k1, k2, k3] = *key;
    let mut sum = 0_u32;
    for _ in 0..16 {
        sum = sum.wrapping_add(0x9e37_79b9);
        let half = |v: u32, left: u32, right: u32| {
            v.wrapping_shl(4).wrapping_add(left) ^ v.wrapping_add(sum) ^ (v >> 5).wrapping_add(right)
        };
        v0 = v0.wrapping_add(half(v1, k0, k1));
        v1 = v1.wrapping_add(half(v0, k2, k3));
    }
    let [state_0, state_1, ..] = state;
    *state_0 = start_0.wrapping_add(v0);
    *state_1 = start_1.wrapping_add(v1);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `debugfs -R 'dx_hash -h VERSION NAME'` prints.
    #[test]
    fn hashes_of_debugfs() {
        let long = "entry-with-a-fairly-long-name-number-1234567";
        for (version, is_unsigned, name, expected) in [
            (Version::Legacy, false, "a", 0xe74b_53e2),
            (Version::Legacy, false, "lost+found", 0x5e2a_ba24),
            (Version::Legacy, false, long, 0xdc10_5564),
            (Version::HalfMd4, false, "a", 0xd5fa_7d7a),
            (Version::HalfMd4, false, "lost+found", 0x591d_e422),
            (Version::HalfMd4, false, long, 0x6565_f174),
            (Version::HalfMd4, false, "äöü", 0x606c_99be),
            (Version::Tea, false, "a", 0x6d0e_a4c0),
            (Version::Tea, true, "lost+found", 0x2dbf_9e80),
            (Version::Tea, false, long, 0x39d5_0ca2),
        ] {
            let hash = Hasher { version, is_unsigned, seed: [0; 4] }.hash(name.as_bytes());
            assert_eq!(hash, expected, "{version:?} {name}");
        }
    }
}
