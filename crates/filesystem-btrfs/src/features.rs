//! Feature bits, by the names under `/sys/fs/btrfs/features`.

use ondisk::{Error, Result};

/// `incompat_flags`.
pub(crate) mod incompat {
    pub(crate) const METADATA_UUID: u64 = 1 << 10;
    pub(super) const NAMES: [&str; 17] = [
        "mixed_backref",
        "default_subvol",
        "mixed_groups",
        "compress_lzo",
        "compress_zstd",
        "big_metadata",
        "extended_iref",
        "raid56",
        "skinny_metadata",
        "no_holes",
        "metadata_uuid",
        "raid1c34",
        "zoned",
        "extent_tree_v2",
        "raid_stripe_tree",
        "bit 15",
        "simple_quota",
    ];
    /// All up to `raid1c34`, and `simple_quota`; the others move superblocks, roots or data to places that
    /// this code does not look at.
    pub(super) const READABLE: u64 = 0xfff | 1 << 16;
}

/// `compat_ro_flags`: none of them changes how files are read.
const COMPAT_RO: [&str; 4] = ["free_space_tree", "free_space_tree_valid", "verity", "block_group_tree"];

/// Refuses what cannot be read rightly.
pub(crate) fn check_readable(flags: u64) -> Result<()> {
    let unknown = flags & !incompat::READABLE;
    if unknown == 0 {
        return Ok(());
    }
    let names = names(unknown, &incompat::NAMES).join(", ");
    Err(Error::unsupported("superblock", format!("the incompatible feature {names}")))
}

/// All names of set bits.
pub(crate) fn all(incompat: u64, compat_ro: u64) -> Vec<String> {
    let mut found = names(incompat, &incompat::NAMES);
    found.extend(names(compat_ro, &COMPAT_RO));
    found
}

fn names(word: u64, known: &[&str]) -> Vec<String> {
    let name = |bit: u32| {
        let index = crate::number::index(bit);
        known.get(index).map_or_else(|| format!("bit {bit}"), |name| (*name).to_owned())
    };
    (0..64_u32).filter(|bit| word >> bit & 1 == 1).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_bits_are_named() {
        assert!(check_readable(0x1_0361).is_ok());
        assert_eq!(
            check_readable(0x40_0000_7000).unwrap_err().to_string(),
            "superblock: the incompatible feature zoned, extent_tree_v2, raid_stripe_tree, bit 38 is not supported"
        );
        assert_eq!(
            all(0x201, 0x3),
            ["mixed_backref", "no_holes", "free_space_tree", "free_space_tree_valid"]
        );
    }
}
