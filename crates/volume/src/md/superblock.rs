//! What superblocks of all versions say, in one form.

use std::fmt;

use ondisk::Guid;

/// `MD_SB_MAGIC`.
pub(super) const MAGIC: u32 = 0xa92b_4efc;

/// The bytes that a superblock of any version may take.
pub(super) const LENGTH: usize = 4096;

/// The format of a superblock, which also says where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.90, in the last 64 to 128 KiB, in the byte order of the host that made it.
    V0_90 {
        /// Whether that host was big-endian.
        is_big_endian: bool,
    },
    /// 1.0, in the last 8 to 12 KiB.
    V1_0,
    /// 1.1, at the beginning.
    V1_1,
    /// 1.2, at 4 KiB.
    V1_2,
}

impl fmt::Display for Version {
    /// As mdadm(8) spells it for `--metadata`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V0_90 { .. } => "0.90",
            Self::V1_0 => "1.0",
            Self::V1_1 => "1.1",
            Self::V1_2 => "1.2",
        })
    }
}

/// What a member is in its array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Number so and so, from 0.
    Active(u32),
    /// Waiting to replace another.
    Spare,
    /// Failed.
    Faulty,
    /// The write journal of RAID 4, 5 or 6.
    Journal,
}

/// The `feature_map` of versions 1.x; 0.90 has the bits that its fields amount to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Features(pub u32);

impl Features {
    /// There is a write-intent bitmap beside the superblock.
    pub const BITMAP: Self = Self(1);
    /// The member is in sync up to `recovery_offset` only.
    pub const RECOVERY_OFFSET: Self = Self(2);
    /// The array is between two shapes.
    pub const RESHAPE: Self = Self(4);
    /// The bad-block log has entries.
    pub const BAD_BLOCKS: Self = Self(8);
    /// The member is taking over the role of one that still works.
    pub const REPLACEMENT: Self = Self(16);
    /// A reshape goes from the end to the beginning.
    pub const RESHAPE_BACKWARDS: Self = Self(32);
    /// A reshape moves the data on the member.
    pub const NEW_OFFSET: Self = Self(64);
    /// The member is being recovered by the bitmap.
    pub const RECOVERY_BITMAP: Self = Self(128);
    /// Several hosts share the array.
    pub const CLUSTERED: Self = Self(256);
    /// The array has a write journal.
    pub const JOURNAL: Self = Self(512);
    /// Partial parity is logged beside the superblock.
    pub const PPL: Self = Self(1024);
    /// Partial parity is logged in several places.
    pub const MULTIPLE_PPLS: Self = Self(2048);
    /// `layout` tells RAID 0 over members of different sizes.
    pub const RAID0_LAYOUT: Self = Self(4096);

    /// In the order of their bits.
    const NAMES: [&'static str; 13] = [
        "bitmap",
        "recovery_offset",
        "reshape",
        "bad_blocks",
        "replacement",
        "reshape_backwards",
        "new_offset",
        "recovery_bitmap",
        "clustered",
        "journal",
        "ppl",
        "multiple_ppls",
        "raid0_layout",
    ];

    /// Whether any of the bits of `other` is set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Bits that no kernel is known to set.
    pub fn unknown(self) -> u32 {
        self.0 & !0x1fff
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for (bit, name) in (0_u32..).zip(Self::NAMES) {
            if self.has(Self(1_u32.wrapping_shl(bit))) {
                list.entry(&format_args!("{name}"));
            }
        }
        if self.unknown() != 0 {
            list.entry(&format_args!("{:#x}", self.unknown()));
        }
        list.finish()
    }
}

/// One superblock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    /// Its format.
    pub version: Version,
    /// Its first byte on the member.
    pub offset: u64,
    /// The array's identity, the same on all members. `Display` spells it as blkid does.
    pub array_uuid: Guid,
    /// The member's own identity; version 0.90 has none.
    pub device_uuid: Option<Guid>,
    /// The array's name, often `host:name`; version 0.90 has none.
    pub name: Option<String>,
    /// The level's number as stored: 0, 1, 4, 5, 6, 10, -1 for linear, other negative ones for what is no RAID.
    pub level: i32,
    /// The layout's number, whose meaning depends on the level.
    pub layout: u32,
    /// Bytes of a chunk.
    pub chunk: u64,
    /// Roles of the array.
    pub raid_disks: u32,
    /// The member's number among all that ever were in the array; an index into `roles`.
    pub device_number: u32,
    /// The member's role by its own account.
    pub role: Role,
    /// The roles of all members by this one's account, by their numbers.
    pub roles: Vec<Role>,
    /// Where data begins on the member, in bytes.
    pub data_offset: u64,
    /// Bytes of data that the member can hold.
    pub data_size: u64,
    /// Bytes of each member that the array uses, where all use the same; 0 for linear and RAID 0.
    pub used_size: u64,
    /// Counts updates of the superblock: the freshest member has the most.
    pub events: u64,
    /// When the array was made, in seconds since 1970.
    pub creation_time: u64,
    /// When the superblock was written, in seconds since 1970.
    pub update_time: u64,
    /// Whether redundancy was in sync when the superblock was written.
    pub is_clean: bool,
    /// What else is there.
    pub features: Features,
    /// How far a reshape came, in bytes of the array.
    pub reshape_position: Option<u64>,
    /// How far this member is in sync, in bytes of its data.
    pub recovery_offset: Option<u64>,
    /// Where the journal begins that was not written to the members yet, in bytes of its data; for journals only.
    pub journal_tail: Option<u64>,
    /// Ranges of the member, in bytes from its beginning, that could not be read or written.
    pub bad_blocks: Vec<(u64, u64)>,
    /// Why md cannot use the member.
    pub refusal: Option<String>,
}

impl Superblock {
    /// What the member with `number` is by this one's account.
    pub fn role_of(&self, number: u32) -> Role {
        usize::try_from(number).ok().and_then(|index| self.roles.get(index)).copied().unwrap_or(Role::Spare)
    }

    /// Whether this member knows one in role `role`.
    pub fn knows_active(&self, role: u32) -> bool {
        self.roles.contains(&Role::Active(role))
    }
}

/// Sectors as bytes; what overflows is longer than any device.
pub(super) fn sectors(count: u64) -> u64 {
    count.saturating_mul(512)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_spelled() {
        assert_eq!(format!("{:?}", Features(0x1009)), "[bitmap, bad_blocks, raid0_layout]");
        assert_eq!(format!("{:?}", Features(0x2000)), "[0x2000]");
    }
}
