//! The checksums that disk formats share.

/// CRC-32 (IEEE 802.3): GPT.
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// CRC-32C (Castagnoli) with the usual inversions: XFS, btrfs, VHDX.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// CRC-32C as Linux' `crc32c(seed, data)` computes it: no inversion before or after. ext4 and jbd2 chain it.
pub fn crc32c_raw(seed: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, bytes)
}

/// The CRC of LVM2 labels and metadata: the IEEE polynomial, initial value 0xf597a6cf, no final inversion.
pub fn lvm_crc(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!0xf597_a6cf);
    hasher.update(bytes);
    !hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, bit by bit: reflected polynomial, `state` in, state out.
    fn bitwise(polynomial: u32, mut state: u32, bytes: &[u8]) -> u32 {
        for byte in bytes {
            state ^= u32::from(*byte);
            for _ in 0..8 {
                state = if state & 1 == 1 { state >> 1 ^ polynomial } else { state >> 1 };
            }
        }
        state
    }

    #[test]
    fn all_agree_with_the_definition() {
        let bytes: Vec<u8> = (0..1000_u32).map(|n| (n * 7) as u8).collect();
        assert_eq!(crc32(&bytes), !bitwise(0xedb8_8320, !0, &bytes));
        assert_eq!(crc32c(&bytes), !bitwise(0x82f6_3b78, !0, &bytes));
        assert_eq!(crc32c_raw(0x1234_5678, &bytes), bitwise(0x82f6_3b78, 0x1234_5678, &bytes));
        assert_eq!(lvm_crc(&bytes), bitwise(0xedb8_8320, 0xf597_a6cf, &bytes));
    }
}
