//! The anti-forensic splitter: a key spread over many stripes, none of which may be missing.
//!
//! LUKS specification 1.2.3, §2.4.

use crate::{Hash, Secret};

/// The key of `length` bytes that was split into the stripes of `material`.
///
/// `None` when the material is not a whole number of stripes.
pub(crate) fn merge(material: &[u8], length: usize, hash: Hash) -> Option<Secret> {
    if length == 0 || material.is_empty() || material.len().checked_rem(length)? != 0 {
        return None;
    }
    let mut key = Secret::new(vec![0; length]);
    let mut stripes = material.chunks_exact(length).peekable();
    while let Some(stripe) = stripes.next() {
        key.iter_mut().zip(stripe).for_each(|(key, stripe)| *key ^= stripe);
        if stripes.peek().is_some() {
            diffuse(&mut key, hash);
        }
    }
    Some(key)
}

/// Hashes every digest-sized block with its number in front, in place.
fn diffuse(key: &mut [u8], hash: Hash) {
    for (block, number) in key.chunks_mut(hash.size()).zip(0_u32..) {
        let digest = hash.digest(&[&number.to_be_bytes(), block]);
        block.iter_mut().zip(digest).for_each(|(byte, new)| *byte = new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `merge` undoes.
    fn split(key: &[u8], stripes: usize, hash: Hash) -> Vec<u8> {
        let mut material = Vec::new();
        let mut state = vec![0; key.len()];
        for number in 0..stripes - 1 {
            let stripe: Vec<u8> = (0..key.len()).map(|index| (index * 7 + number * 13) as u8).collect();
            state.iter_mut().zip(&stripe).for_each(|(state, stripe)| *state ^= stripe);
            diffuse(&mut state, hash);
            material.extend_from_slice(&stripe);
        }
        material.extend(state.iter().zip(key).map(|(state, key)| state ^ key));
        material
    }

    #[test]
    fn split_and_merged() {
        for hash in [Hash::Sha1, Hash::Sha256, Hash::Sha512] {
            for length in [16, 32, 64] {
                let key: Vec<u8> = (0..length).map(|index| index as u8 ^ 0x5a).collect();
                let material = split(&key, 50, hash);
                assert_eq!(merge(&material, length, hash).unwrap().as_slice(), key);
            }
        }
        assert!(merge(&[1; 33], 32, Hash::Sha1).is_none() && merge(&[], 32, Hash::Sha1).is_none());
    }
}
