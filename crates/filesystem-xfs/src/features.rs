//! Feature bits: what a file system uses, by the names that `xfs_info` prints.
//!
//! XFS Algorithms & Data Structures, "Superblocks": `sb_versionnum` and `sb_features2` on version 4, the four
//! feature words on version 5. A set incompatible bit that is not known here forbids reading, a read-only
//! compatible one forbids writing, a log incompatible one says that the log holds items of that kind.

use ondisk::Error;

/// `sb_versionnum` bits of version 4.
pub(crate) mod version {
    pub(crate) const NUMBER: u16 = 0x000f;
    pub(crate) const SHARED: u16 = 0x0200;
    pub(crate) const DIRECTORY_V2: u16 = 0x2000;
    pub(crate) const ASCII_CI: u16 = 0x4000;
    pub(crate) const MORE_BITS: u16 = 0x8000;
}

/// `sb_features2` bits.
mod features2 {
    pub(super) const LAZY_COUNT: u32 = 0x002;
    pub(super) const ATTR2: u32 = 0x008;
    pub(super) const PROJID32: u32 = 0x080;
    pub(super) const FTYPE: u32 = 0x200;
}

/// `sb_features_ro_compat` bits.
pub(crate) mod ro_compat {
    pub(crate) const RMAPBT: u32 = 0x2;
    pub(crate) const REFLINK: u32 = 0x4;
    pub(super) const NAMES: [&str; 4] = ["finobt", "rmapbt", "reflink", "inobtcount"];
}

/// `sb_features_incompat` bits.
pub(crate) mod incompat {
    pub(crate) const FTYPE: u32 = 0x1;
    pub(crate) const META_UUID: u32 = 0x4;
    pub(crate) const NEEDS_REPAIR: u32 = 0x10;
    pub(super) const NAMES: [&str; 11] = [
        "ftype",
        "sparse",
        "metauuid",
        "bigtime",
        "needsrepair",
        "nrext64",
        "exchange",
        "parent",
        "metadir",
        "zoned",
        "zone_gaps",
    ];
    /// Up to `parent`; the later ones move data or metadata to places that this code does not look at.
    pub(super) const READABLE: u32 = 0xff;
}

/// `sb_features_log_incompat` bits.
mod log_incompat {
    pub(super) const NAMES: [&str; 1] = ["xattrs"];
}

/// The feature words of one file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Features {
    /// Version 5: every metadata block has a checksum and says what and where it is.
    pub(crate) crc: bool,
    pub(crate) version: u16,
    pub(crate) features2: u32,
    pub(crate) ro_compat: u32,
    pub(crate) incompat: u32,
    pub(crate) log_incompat: u32,
}

impl Features {
    /// Whether directory entries store the kind of file they name.
    pub(crate) fn has_file_type(&self) -> bool {
        if self.crc { self.incompat & incompat::FTYPE != 0 } else { self.has_features2(features2::FTYPE) }
    }

    /// Whether names are compared without regard to case.
    pub(crate) fn ignores_case(&self) -> bool {
        self.version & version::ASCII_CI != 0
    }

    /// Whether the metadata UUID is stored apart from the one that users see.
    pub(crate) fn has_meta_uuid(&self) -> bool {
        self.crc && self.incompat & incompat::META_UUID != 0
    }

    /// Whether a tool asked for `xfs_repair` before the next mount.
    pub(crate) fn needs_repair(&self) -> bool {
        self.crc && self.incompat & incompat::NEEDS_REPAIR != 0
    }

    pub(crate) fn has_reverse_map(&self) -> bool {
        self.crc && self.ro_compat & ro_compat::RMAPBT != 0
    }

    pub(crate) fn has_reflink(&self) -> bool {
        self.crc && self.ro_compat & ro_compat::REFLINK != 0
    }

    /// Whether the counts of the superblock are summed up from the groups after a crash.
    pub(crate) fn has_lazy_counts(&self) -> bool {
        self.crc || self.has_features2(features2::LAZY_COUNT)
    }

    /// Why a log of this file system cannot be recovered, if it cannot: the kernel refuses too.
    pub(crate) fn reason_against_recovery(&self) -> Option<String> {
        let known = (1_u32 << log_incompat::NAMES.len()).wrapping_sub(1);
        if self.crc && self.log_incompat & !known != 0 {
            let names = names(self.log_incompat & !known, &log_incompat::NAMES).join(", ");
            return Some(format!("recovery with the log incompatible feature {names}"));
        }
        let known = (1_u32 << ro_compat::NAMES.len()).wrapping_sub(1);
        if self.crc && self.ro_compat & !known != 0 {
            let names = names(self.ro_compat & !known, &ro_compat::NAMES).join(", ");
            return Some(format!("recovery with the read-only compatible feature {names}"));
        }
        None
    }

    fn has_features2(&self, bit: u32) -> bool {
        self.version & version::MORE_BITS != 0 && self.features2 & bit != 0
    }

    /// Refuses what cannot be read rightly.
    pub(crate) fn check_readable(&self) -> Result<(), Error> {
        if !self.crc {
            if self.version & version::DIRECTORY_V2 == 0 {
                return Err(Error::unsupported("superblock", "version 1 directories"));
            }
            if self.version & version::SHARED != 0 {
                return Err(Error::unsupported("superblock", "shared read-only mounts"));
            }
            return Ok(());
        }
        let unknown = self.incompat & !incompat::READABLE;
        if unknown == 0 {
            return Ok(());
        }
        Err(Error::unsupported(
            "superblock",
            format!("the incompatible feature {}", names(unknown, &incompat::NAMES).join(", ")),
        ))
    }

    /// Why metadata that is written now could be wrong, if it could.
    pub(crate) fn reason_against_writing(&self) -> Option<String> {
        if self.needs_repair() {
            return Some("writing while xfs_repair is asked for (needsrepair)".into());
        }
        if self.crc && self.log_incompat != 0 {
            let names = names(self.log_incompat, &log_incompat::NAMES).join(", ");
            return Some(format!("writing with the log incompatible feature {names}"));
        }
        let known = (1_u32 << ro_compat::NAMES.len()).wrapping_sub(1);
        if self.crc && self.ro_compat & !known != 0 {
            let names = names(self.ro_compat & !known, &ro_compat::NAMES).join(", ");
            return Some(format!("writing with the read-only compatible feature {names}"));
        }
        None
    }

    /// What `xfs_info` prints as `name=1`.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        if self.crc {
            found.push("crc".into());
            found.extend(names(self.incompat, &incompat::NAMES));
            found.extend(names(self.ro_compat, &ro_compat::NAMES));
            let log = names(self.log_incompat, &log_incompat::NAMES);
            found.extend(log.into_iter().map(|name| format!("log-{name}")));
        } else if self.has_file_type() {
            found.push("ftype".into());
        }
        let older = [
            (features2::LAZY_COUNT, "lazy-count"),
            (features2::ATTR2, "attr2"),
            (features2::PROJID32, "projid32bit"),
        ];
        found.extend(
            older.into_iter().filter(|(bit, _)| self.has_features2(*bit)).map(|(_, name)| name.to_owned()),
        );
        if self.ignores_case() {
            found.push("ascii-ci".into());
        }
        found
    }
}

/// The names of the set bits; a bit without a name is spelled as `bit N`.
fn names(word: u32, known: &[&str]) -> Vec<String> {
    let name = |bit: usize| known.get(bit).map_or_else(|| format!("bit {bit}"), |name| (*name).to_owned());
    (0..32_u32).filter(|bit| word >> bit & 1 == 1).map(|bit| name(crate::number::index(bit))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V5: Features = Features {
        crc: true,
        version: 0xb4a5,
        features2: 0x18a,
        ro_compat: 5,
        incompat: 0xb,
        log_incompat: 0,
    };

    #[test]
    fn names_are_those_of_xfs_info() {
        let expected =
            ["crc", "ftype", "sparse", "bigtime", "finobt", "reflink", "lazy-count", "attr2", "projid32bit"];
        assert_eq!(V5.names(), expected);
        let v4 = Features { crc: false, version: 0xf4a4, features2: 0x28a, ..V5 };
        assert_eq!(v4.names(), ["ftype", "lazy-count", "attr2", "projid32bit", "ascii-ci"]);
    }

    #[test]
    fn unknown_bits_are_named() {
        let text = |features: Features| features.check_readable().unwrap_err().to_string();
        assert_eq!(
            text(Features { incompat: 0x4000_0101, ..V5 }),
            "superblock: the incompatible feature metadir, bit 30 is not supported"
        );
        assert_eq!(
            text(Features { crc: false, version: 0x9084, ..V5 }),
            "superblock: version 1 directories is not supported"
        );
        assert!(V5.check_readable().is_ok() && V5.reason_against_writing().is_none());
        let reason = |features: Features| features.reason_against_writing().unwrap();
        assert_eq!(
            reason(Features { ro_compat: 0x15, ..V5 }),
            "writing with the read-only compatible feature bit 4"
        );
        assert_eq!(
            reason(Features { log_incompat: 1, ..V5 }),
            "writing with the log incompatible feature xattrs"
        );
        assert!(reason(Features { incompat: 0x1b, ..V5 }).contains("needsrepair"));
    }
}
