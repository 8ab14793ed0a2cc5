//! Levels and layouts: md's numbers, mdadm's words, and what [`raid`](crate::raid) makes of them.

use crate::raid::{FarSpacing, Layout, Parity, Rotation};

/// The level's name as mdadm(8) spells it.
pub(super) fn name(level: i32) -> Option<&'static str> {
    Some(match level {
        -1 => "linear",
        0 => "raid0",
        1 => "raid1",
        4 => "raid4",
        5 => "raid5",
        6 => "raid6",
        10 => "raid10",
        -4 => "multipath",
        -5 => "faulty",
        -100 => "container",
        _ => return None,
    })
}

/// The layout of an array with redundancy; `None` for unknown levels and numbers.
pub(super) fn layout(level: i32, number: u32) -> Option<Layout> {
    Some(match level {
        1 => Layout::Mirrored,
        4 => Layout::Parity(Parity::Last),
        5 => Layout::Parity(match number {
            0 => Parity::LeftAsymmetric,
            1 => Parity::RightAsymmetric,
            2 => Parity::LeftSymmetric,
            3 => Parity::RightSymmetric,
            4 => Parity::First,
            5 => Parity::Last,
            _ => return None,
        }),
        6 => Layout::Parity(match number {
            0..=3 => Parity::Double(rotation(number)?),
            4 => Parity::DoubleZero,
            5 => Parity::DoubleN,
            8 => Parity::ZeroRestart,
            9 => Parity::NRestart,
            10 => Parity::NContinue,
            16..=19 => Parity::DoubleLast(rotation(number & 3)?),
            20 => Parity::DoubleFirst,
            _ => return None,
        }),
        10 => {
            let [near, far, flags, 0] = number.to_le_bytes() else { return None };
            let spacing = match flags {
                0 => FarSpacing::Far,
                1 => FarSpacing::Offset,
                2 => FarSpacing::FarSets,
                3 => FarSpacing::OffsetSets,
                4 => FarSpacing::FarSetsFixed,
                5 => FarSpacing::OffsetSetsFixed,
                _ => return None,
            };
            Layout::Raid10 { near, far, spacing }
        }
        _ => return None,
    })
}

fn rotation(number: u32) -> Option<Rotation> {
    Some(match number {
        0 => Rotation::LeftAsymmetric,
        1 => Rotation::RightAsymmetric,
        2 => Rotation::LeftSymmetric,
        3 => Rotation::RightSymmetric,
        _ => return None,
    })
}

/// The layout's name as `mdadm -E` spells it; `None` for levels without one.
pub(super) fn layout_name(level: i32, number: u32) -> Option<String> {
    let unknown = || format!("unknown layout {number:#x}");
    let known = match (level, number) {
        (0, 1) => "original",
        (0, 2) => "alternate",
        (5 | 6, 0) => "left-asymmetric",
        (5 | 6, 1) => "right-asymmetric",
        (5 | 6, 2) => "left-symmetric",
        (5 | 6, 3) => "right-symmetric",
        (5 | 6, 4) => "parity-first",
        (5 | 6, 5) => "parity-last",
        (6, 8) => "ddf-zero-restart",
        (6, 9) => "ddf-N-restart",
        (6, 10) => "ddf-N-continue",
        (6, 16) => "left-asymmetric-6",
        (6, 17) => "right-asymmetric-6",
        (6, 18) => "left-symmetric-6",
        (6, 19) => "right-symmetric-6",
        (6, 20) => "parity-first-6",
        (5 | 6, _) => return Some(unknown()),
        (10, _) => {
            let Some(Layout::Raid10 { near, far, spacing }) = layout(level, number) else {
                return Some(unknown());
            };
            let mut words = Vec::new();
            if near > 1 || far == 1 {
                words.push(format!("near={near}"));
            }
            if far > 1 {
                let (word, sets) = match spacing {
                    FarSpacing::Far => ("far", ""),
                    FarSpacing::FarSets | FarSpacing::FarSetsFixed => ("far", " in sets"),
                    FarSpacing::Offset => ("offset", ""),
                    FarSpacing::OffsetSets | FarSpacing::OffsetSetsFixed => ("offset", " in sets"),
                };
                words.push(format!("{word}={far}{sets}"));
            }
            return Some(words.join(", "));
        }
        _ => return None,
    };
    Some(known.into())
}
