//! How arrays lay their blocks out, by the names of mdadm(8) and the numbers of `drivers/md/raid5.h`.

/// How the blocks of an array lie on its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// RAID 0: chunks in turn.
    Striped,
    /// RAID 1: every member holds everything.
    Mirrored,
    /// RAID 4, 5 and 6: chunks in turn, with one or two chunks of parity in each row.
    Parity(Parity),
    /// RAID 10.
    Raid10 {
        /// Copies in adjacent members, at least 1.
        near: u8,
        /// Copies at a distance, at least 1.
        far: u8,
        /// Where the far copies lie.
        spacing: FarSpacing,
    },
}

/// Where the parity of a row lies. Names as in mdadm(8), the numbers of `layout` in `drivers/md/raid5.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parity {
    /// RAID 4: all parity on the last member.
    Last,
    /// RAID 4 and DDF's variant (layout 4): all parity on the first member.
    First,
    /// RAID 5, layout 0.
    LeftAsymmetric,
    /// RAID 5, layout 1.
    RightAsymmetric,
    /// RAID 5, layout 2, the default.
    LeftSymmetric,
    /// RAID 5, layout 3.
    RightSymmetric,
    /// RAID 6, P and Q rotating, layouts 0 to 3.
    Double(Rotation),
    /// RAID 6, layout 8: as the zero-restart of DDF.
    ZeroRestart,
    /// RAID 6, layout 9.
    NRestart,
    /// RAID 6, layout 10.
    NContinue,
    /// RAID 6, layouts 16 to 19: a RAID 5 with Q on the last member.
    DoubleLast(Rotation),
    /// RAID 6, layout 20: P on the first member, Q on the last.
    DoubleFirst,
    /// RAID 6, layout 5: P and Q on the last two members.
    DoubleN,
    /// RAID 6, layout 4: P and Q on the first two members.
    DoubleZero,
}

/// The four ways in which parity rotates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// Towards the first member, data from the first member on.
    LeftAsymmetric,
    /// Towards the last member, data from the first member on.
    RightAsymmetric,
    /// Towards the first member, data from behind the parity on.
    LeftSymmetric,
    /// Towards the last member, data from behind the parity on.
    RightSymmetric,
}

/// Where RAID 10's far copies lie. The numbers are bits of md's `layout`.
///
/// A set is a group of members within which the far copies rotate; it is all members unless said otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FarSpacing {
    /// In the next part of the members.
    Far,
    /// In the next part, rotated within sets of members / far members (bit 17); LVM2's `raid10_far`.
    FarSets,
    /// In the next part, rotated within sets of near * far members (bit 18).
    FarSetsFixed,
    /// In the next row (bit 16).
    Offset,
    /// In the next row, rotated within sets of members / far members (bits 16 and 17); LVM2's `raid10_offset`.
    OffsetSets,
    /// In the next row, rotated within sets of near * far members (bits 16 and 18).
    OffsetSetsFixed,
}
