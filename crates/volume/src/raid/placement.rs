//! Where the chunks of a row of RAID 4, 5 and 6 lie.
//!
//! `raid5_compute_sector` and `raid6_idx_to_slot` of `drivers/md/raid5.c`.

use super::layout::{Parity, Rotation};

/// The roles of the members in one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// The member with the sum of the data.
    pub(super) p: u64,
    /// The member with the weighted sum, in RAID 6.
    pub(super) q: Option<u64>,
    /// Whether the weight of a member's data follows from its place in the array, as in DDF, and not from its
    /// distance from Q.
    counts_all: bool,
    members: u64,
}

/// The chunks of parity in a row.
pub(super) fn redundancy(parity: Parity) -> u64 {
    match parity {
        Parity::Last
        | Parity::First
        | Parity::LeftAsymmetric
        | Parity::RightAsymmetric
        | Parity::LeftSymmetric
        | Parity::RightSymmetric => 1,
        _ => 2,
    }
}

/// The roles in row `row` of an array of `members`, at least two, and more than its [`redundancy`].
#[expect(
    clippy::arithmetic_side_effects,
    reason = "members are 2 to 384, and what is subtracted is a remainder of the same number"
)]
pub(super) fn row(parity: Parity, members: u64, row: u64) -> Row {
    let last = members - 1;
    // Where a single parity that rotates over `count` members lies.
    let left = |count: u64| count - 1 - row % count;
    let right = |count: u64| row % count;
    let of = |rotation, count| match rotation {
        Rotation::LeftAsymmetric | Rotation::LeftSymmetric => left(count),
        Rotation::RightAsymmetric | Rotation::RightSymmetric => right(count),
    };
    let next = |p: u64| Some((p + 1) % members);
    let (p, q, counts_all) = match parity {
        Parity::Last => (last, None, false),
        Parity::First => (0, None, false),
        Parity::LeftAsymmetric | Parity::LeftSymmetric => (left(members), None, false),
        Parity::RightAsymmetric | Parity::RightSymmetric => (right(members), None, false),
        Parity::Double(rotation) => {
            let p = of(rotation, members);
            (p, next(p), false)
        }
        Parity::ZeroRestart => (right(members), next(right(members)), true),
        Parity::NRestart => {
            let p = last - (row % members + 1) % members;
            (p, next(p), true)
        }
        Parity::NContinue => {
            let p = left(members);
            (p, Some((p + last) % members), true)
        }
        Parity::DoubleLast(rotation) => (of(rotation, last), Some(last), false),
        Parity::DoubleFirst => (0, Some(last), false),
        Parity::DoubleN => (last - 1, Some(last), false),
        Parity::DoubleZero => (0, Some(1), false),
    };
    Row { p, q, counts_all, members }
}

/// The member that holds the `index`th data chunk of `row`.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "members and the index are below 385, and there are at least two members"
)]
pub(super) fn data_member(parity: Parity, row: &Row, index: u64) -> u64 {
    let Row { p, q, members, .. } = *row;
    let skipping = || {
        // Steps over the parity, which is one run of members or lies at both ends.
        let mut member = index;
        let (low, high) = match q {
            Some(q) if q < p => (q, Some(p)),
            Some(q) => (p, Some(q)),
            None => (p, None),
        };
        if member >= low {
            member += 1;
        }
        if high.is_some_and(|high| member >= high) {
            member += 1;
        }
        member
    };
    match parity {
        Parity::LeftSymmetric | Parity::RightSymmetric | Parity::NContinue => (p + 1 + index) % members,
        Parity::Double(Rotation::LeftSymmetric | Rotation::RightSymmetric) => (p + 2 + index) % members,
        Parity::DoubleLast(Rotation::LeftSymmetric | Rotation::RightSymmetric) => {
            (p + 1 + index) % (members - 1)
        }
        _ => skipping(),
    }
}

impl Row {
    /// The power of the generator by which the data of `member` counts in Q.
    #[expect(clippy::arithmetic_side_effects, reason = "members are 2 to 384, and a row of RAID 6 has a Q")]
    pub(super) fn weight(&self, member: u64) -> u8 {
        let Some(q) = self.q else { return 0 };
        if self.counts_all {
            return u8::try_from(member).unwrap_or(u8::MAX);
        }
        let first = (q + 1) % self.members;
        // Data members from `first` on, around the end, until this one.
        let distance = (member + self.members - first) % self.members;
        let p_distance = (self.p + self.members - first) % self.members;
        u8::try_from(distance - u64::from(p_distance < distance)).unwrap_or(u8::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows as pictures: data chunks by number, P and Q.
    fn picture(parity: Parity, members: u64, rows: u64) -> Vec<String> {
        let data = members - redundancy(parity);
        (0..rows)
            .map(|number| {
                let row = row(parity, members, number);
                let mut cells = vec![String::new(); members as usize];
                cells[row.p as usize].push('P');
                if let Some(q) = row.q {
                    cells[q as usize].push('Q');
                }
                for index in 0..data {
                    let member = data_member(parity, &row, index);
                    cells[member as usize].push_str(&(number * data + index).to_string());
                }
                cells.join(" ")
            })
            .collect()
    }

    #[test]
    fn rows_look_as_in_the_manual() {
        use Rotation::{LeftAsymmetric, LeftSymmetric, RightAsymmetric, RightSymmetric};
        for (parity, members, expected) in [
            (Parity::Last, 3, ["0 1 P", "2 3 P", "4 5 P"]),
            (Parity::First, 3, ["P 0 1", "P 2 3", "P 4 5"]),
            (Parity::LeftAsymmetric, 3, ["0 1 P", "2 P 3", "P 4 5"]),
            (Parity::RightAsymmetric, 3, ["P 0 1", "2 P 3", "4 5 P"]),
            (Parity::LeftSymmetric, 3, ["0 1 P", "3 P 2", "P 4 5"]),
            (Parity::RightSymmetric, 3, ["P 0 1", "3 P 2", "4 5 P"]),
            (Parity::Double(LeftAsymmetric), 4, ["Q 0 1 P", "2 3 P Q", "4 P Q 5"]),
            (Parity::Double(RightAsymmetric), 4, ["P Q 0 1", "2 P Q 3", "4 5 P Q"]),
            (Parity::Double(LeftSymmetric), 4, ["Q 0 1 P", "2 3 P Q", "5 P Q 4"]),
            (Parity::Double(RightSymmetric), 4, ["P Q 0 1", "3 P Q 2", "4 5 P Q"]),
            (Parity::ZeroRestart, 4, ["P Q 0 1", "2 P Q 3", "4 5 P Q"]),
            (Parity::NRestart, 4, ["0 1 P Q", "2 P Q 3", "P Q 4 5"]),
            (Parity::NContinue, 4, ["0 1 Q P", "3 Q P 2", "Q P 4 5"]),
            (Parity::DoubleLast(LeftAsymmetric), 4, ["0 1 P Q", "2 P 3 Q", "P 4 5 Q"]),
            (Parity::DoubleLast(RightAsymmetric), 4, ["P 0 1 Q", "2 P 3 Q", "4 5 P Q"]),
            (Parity::DoubleLast(LeftSymmetric), 4, ["0 1 P Q", "3 P 2 Q", "P 4 5 Q"]),
            (Parity::DoubleLast(RightSymmetric), 4, ["P 0 1 Q", "3 P 2 Q", "4 5 P Q"]),
            (Parity::DoubleFirst, 4, ["P 0 1 Q", "P 2 3 Q", "P 4 5 Q"]),
            (Parity::DoubleN, 4, ["0 1 P Q", "2 3 P Q", "4 5 P Q"]),
            (Parity::DoubleZero, 4, ["P Q 0 1", "P Q 2 3", "P Q 4 5"]),
        ] {
            assert_eq!(picture(parity, members, 3), expected, "{parity:?}");
        }
    }

    #[test]
    fn weights_count_data_only_or_all() {
        let near = row(Parity::Double(Rotation::LeftSymmetric), 5, 1);
        assert_eq!((near.p, near.q), (3, Some(4)));
        assert_eq!([0, 1, 2].map(|member| near.weight(member)), [0, 1, 2]);
        let split = row(Parity::DoubleFirst, 5, 0);
        assert_eq!([1, 2, 3].map(|member| split.weight(member)), [0, 1, 2]);
        let wrapped = row(Parity::Double(Rotation::LeftSymmetric), 5, 2);
        assert_eq!((wrapped.p, wrapped.q), (2, Some(3)));
        assert_eq!([4, 0, 1].map(|member| wrapped.weight(member)), [0, 1, 2]);
        let all = row(Parity::NContinue, 5, 1);
        assert_eq!((all.p, all.q), (3, Some(2)));
        assert_eq!([0, 1, 4].map(|member| all.weight(member)), [0, 1, 4]);
    }
}
