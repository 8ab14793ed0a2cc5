//! Feature bits: what a reader, and what a writer, must know to touch this file system.
//!
//! Linux `Documentation/filesystems/ext4/super.rst`, "Super Block Feature flags". Names are those that
//! `dumpe2fs` and `tune2fs` use.

/// The three words of the superblock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// Unknown bits here change nothing for anybody.
    pub compat: u32,
    /// Unknown bits here forbid reading.
    pub incompat: u32,
    /// Unknown bits here forbid writing.
    pub ro_compat: u32,
}

/// Bits of [`Features::compat`].
pub mod compat {
    #![expect(missing_docs, reason = "the names are the documentation's")]
    pub const HAS_JOURNAL: u32 = 0x4;
    pub const DIR_INDEX: u32 = 0x20;
    pub const LAZY_BG: u32 = 0x40;
    pub const EXCLUDE_BITMAP: u32 = 0x100;
    pub const SPARSE_SUPER2: u32 = 0x200;
    pub const ORPHAN_FILE: u32 = 0x1000;
}

/// Bits of [`Features::incompat`].
pub mod incompat {
    #![expect(missing_docs, reason = "the names are the documentation's")]
    pub const COMPRESSION: u32 = 0x1;
    pub const FILETYPE: u32 = 0x2;
    pub const RECOVER: u32 = 0x4;
    pub const JOURNAL_DEV: u32 = 0x8;
    pub const META_BG: u32 = 0x10;
    pub const EXTENTS: u32 = 0x40;
    pub const BITS64: u32 = 0x80;
    pub const MMP: u32 = 0x100;
    pub const FLEX_BG: u32 = 0x200;
    pub const EA_INODE: u32 = 0x400;
    pub const DIRDATA: u32 = 0x1000;
    pub const CSUM_SEED: u32 = 0x2000;
    pub const LARGE_DIR: u32 = 0x4000;
    pub const INLINE_DATA: u32 = 0x8000;
    pub const ENCRYPT: u32 = 0x1_0000;
    pub const CASEFOLD: u32 = 0x2_0000;
}

/// Bits of [`Features::ro_compat`].
pub mod ro_compat {
    #![expect(missing_docs, reason = "the names are the documentation's")]
    pub const SPARSE_SUPER: u32 = 0x1;
    pub const LARGE_FILE: u32 = 0x2;
    pub const HUGE_FILE: u32 = 0x8;
    pub const GDT_CSUM: u32 = 0x10;
    pub const DIR_NLINK: u32 = 0x20;
    pub const EXTRA_ISIZE: u32 = 0x40;
    pub const SNAPSHOT: u32 = 0x80;
    pub const QUOTA: u32 = 0x100;
    pub const BIGALLOC: u32 = 0x200;
    pub const METADATA_CSUM: u32 = 0x400;
    pub const REPLICA: u32 = 0x800;
    pub const PROJECT: u32 = 0x2000;
    pub const VERITY: u32 = 0x8000;
    pub const ORPHAN_PRESENT: u32 = 0x1_0000;
}

const READABLE: u32 = incompat::FILETYPE
    | incompat::RECOVER
    | incompat::META_BG
    | incompat::EXTENTS
    | incompat::BITS64
    | incompat::MMP
    | incompat::FLEX_BG
    | incompat::EA_INODE
    | incompat::CSUM_SEED
    | incompat::LARGE_DIR
    | incompat::INLINE_DATA
    | incompat::ENCRYPT
    | incompat::CASEFOLD;

const WRITABLE: u32 = ro_compat::SPARSE_SUPER
    | ro_compat::LARGE_FILE
    | ro_compat::HUGE_FILE
    | ro_compat::GDT_CSUM
    | ro_compat::DIR_NLINK
    | ro_compat::EXTRA_ISIZE
    | ro_compat::QUOTA
    | ro_compat::METADATA_CSUM
    | ro_compat::PROJECT
    | ro_compat::VERITY;

/// `compat` bits that put something on disk where the writer would not expect it.
const NEVER_WRITABLE: u32 = compat::LAZY_BG | compat::EXCLUDE_BITMAP;

const COMPAT_NAMES: &[(u32, &str)] = &[
    (0x1, "dir_prealloc"),
    (0x2, "imagic_inodes"),
    (compat::HAS_JOURNAL, "has_journal"),
    (0x8, "ext_attr"),
    (0x10, "resize_inode"),
    (compat::DIR_INDEX, "dir_index"),
    (compat::LAZY_BG, "lazy_bg"),
    (compat::EXCLUDE_BITMAP, "snapshot_bitmap"),
    (compat::SPARSE_SUPER2, "sparse_super2"),
    (0x400, "fast_commit"),
    (0x800, "stable_inodes"),
    (compat::ORPHAN_FILE, "orphan_file"),
];

const INCOMPAT_NAMES: &[(u32, &str)] = &[
    (incompat::COMPRESSION, "compression"),
    (incompat::FILETYPE, "filetype"),
    (incompat::RECOVER, "needs_recovery"),
    (incompat::JOURNAL_DEV, "journal_dev"),
    (incompat::META_BG, "meta_bg"),
    (incompat::EXTENTS, "extent"),
    (incompat::BITS64, "64bit"),
    (incompat::MMP, "mmp"),
    (incompat::FLEX_BG, "flex_bg"),
    (incompat::EA_INODE, "ea_inode"),
    (incompat::DIRDATA, "dirdata"),
    (incompat::CSUM_SEED, "metadata_csum_seed"),
    (incompat::LARGE_DIR, "large_dir"),
    (incompat::INLINE_DATA, "inline_data"),
    (incompat::ENCRYPT, "encrypt"),
    (incompat::CASEFOLD, "casefold"),
];

const RO_COMPAT_NAMES: &[(u32, &str)] = &[
    (ro_compat::SPARSE_SUPER, "sparse_super"),
    (ro_compat::LARGE_FILE, "large_file"),
    (ro_compat::HUGE_FILE, "huge_file"),
    (ro_compat::GDT_CSUM, "uninit_bg"),
    (ro_compat::DIR_NLINK, "dir_nlink"),
    (ro_compat::EXTRA_ISIZE, "extra_isize"),
    (ro_compat::SNAPSHOT, "snapshot"),
    (ro_compat::QUOTA, "quota"),
    (ro_compat::BIGALLOC, "bigalloc"),
    (ro_compat::METADATA_CSUM, "metadata_csum"),
    (ro_compat::REPLICA, "replica"),
    (0x1000, "read-only"),
    (ro_compat::PROJECT, "project"),
    (0x4000, "shared_blocks"),
    (ro_compat::VERITY, "verity"),
    (ro_compat::ORPHAN_PRESENT, "orphan_present"),
];

impl Features {
    /// Whether this `compat` bit is set.
    pub fn has_compat(&self, bit: u32) -> bool {
        self.compat & bit != 0
    }

    /// Whether this `incompat` bit is set.
    pub fn has_incompat(&self, bit: u32) -> bool {
        self.incompat & bit != 0
    }

    /// Whether this `ro_compat` bit is set.
    pub fn has_ro_compat(&self, bit: u32) -> bool {
        self.ro_compat & bit != 0
    }

    /// Every bit that has a name.
    pub(crate) fn named() -> Self {
        let all = |names: &[(u32, &str)]| names.iter().fold(0, |all, (bit, _)| all | bit);
        Self { compat: all(COMPAT_NAMES), incompat: all(INCOMPAT_NAMES), ro_compat: all(RO_COMPAT_NAMES) }
    }

    /// All names, in the order that `dumpe2fs` prints them.
    pub fn names(&self) -> Vec<String> {
        let mut names = name_bits(self.compat, COMPAT_NAMES, 'C');
        names.extend(name_bits(self.incompat, INCOMPAT_NAMES, 'I'));
        names.extend(name_bits(self.ro_compat, RO_COMPAT_NAMES, 'R'));
        names
    }

    /// The features that this code cannot read, by name; empty when it knows all.
    pub fn unreadable(&self) -> Vec<String> {
        name_bits(self.incompat & !READABLE, INCOMPAT_NAMES, 'I')
    }

    /// The features that this code cannot keep intact while writing, by name.
    pub fn unwritable(&self) -> Vec<String> {
        let mut names = name_bits(self.compat & NEVER_WRITABLE, COMPAT_NAMES, 'C');
        names.extend(self.unreadable());
        names.extend(name_bits(self.ro_compat & !WRITABLE, RO_COMPAT_NAMES, 'R'));
        names
    }

    /// `ext2`, `ext3` or `ext4`: the least driver that knows these features, as libblkid decides it.
    pub fn kind(&self) -> &'static str {
        let ext3_incompat = incompat::FILETYPE | incompat::RECOVER | incompat::META_BG;
        // 0x4 was to be "btree_dir"; ext2 and ext3 accept it.
        let ext3_ro_compat = ro_compat::SPARSE_SUPER | ro_compat::LARGE_FILE | 0x4;
        if self.incompat & !ext3_incompat != 0 || self.ro_compat & !ext3_ro_compat != 0 {
            "ext4"
        } else if self.has_compat(compat::HAS_JOURNAL) {
            "ext3"
        } else {
            "ext2"
        }
    }
}

/// The names of the set bits, ascending; unknown ones as e2fsprogs prints them: `FEATURE_I11`.
fn name_bits(word: u32, names: &[(u32, &str)], family: char) -> Vec<String> {
    (0..32)
        .filter(|bit| word & 1_u32.wrapping_shl(*bit) != 0)
        .map(|bit| {
            let known = names.iter().find(|(mask, _)| *mask == 1_u32.wrapping_shl(bit));
            known.map_or_else(|| format!("FEATURE_{family}{bit}"), |(_, name)| (*name).to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_follow_libblkid() {
        let kind = |compat, incompat, ro_compat| Features { compat, incompat, ro_compat }.kind();
        assert_eq!(kind(0x38, 0x2, 0x3), "ext2");
        assert_eq!(kind(0x3c, 0x2, 0x3), "ext3");
        assert_eq!(kind(0x3c, 0x6, 0x3), "ext3");
        assert_eq!(kind(0x3c, 0x12, 0x3), "ext3");
        assert_eq!(kind(0x3c, 0x242, 0x3), "ext4");
        assert_eq!(kind(0x38, 0x2, 0xb), "ext4");
    }

    #[test]
    fn unknown_bits_have_a_name() {
        let features = Features { compat: 0x8000_0004, incompat: 0x802, ro_compat: 0x1_0001 };
        assert_eq!(
            features.names(),
            ["has_journal", "FEATURE_C31", "filetype", "FEATURE_I11", "sparse_super", "orphan_present"]
        );
        assert_eq!(features.unreadable(), ["FEATURE_I11"]);
        assert_eq!(features.unwritable(), ["FEATURE_I11", "orphan_present"]);
    }
}
