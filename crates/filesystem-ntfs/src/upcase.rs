//! `$UpCase`: the table by which names are compared.

use std::cmp::Ordering;

use ondisk::{Corrupt, Result};

use crate::Ntfs;
use crate::file::File;
use crate::mft::{self, number};
use crate::record::kind;
use crate::span::units;

const UNITS: usize = 0x1_0000;
const BYTES: u64 = 0x2_0000;

/// The upper case of each UTF-16 code unit.
#[derive(Debug)]
pub(crate) struct UpCase(Vec<u16>);

impl UpCase {
    /// The table of the volume, 65536 units.
    pub(crate) fn read(ntfs: &Ntfs) -> Result<Self> {
        let file = File::open(ntfs, mft::inode(number::UPCASE))?;
        let bytes = file.value(ntfs, kind::DATA, &[], BYTES)?.unwrap_or_default();
        let table: Vec<u16> = units(&bytes).collect();
        if table.len() != UNITS {
            let expected = format!("{BYTES} bytes");
            return Err(Corrupt::new("$UpCase", file.base.offset, "data_size", expected, bytes.len()).into());
        }
        Ok(Self(table))
    }

    /// What stands in for a table that cannot be read.
    pub(crate) fn builtin() -> Self {
        Self((0..=u16::MAX).map(upper).collect())
    }

    fn get(&self, unit: u16) -> u16 {
        self.0.get(usize::from(unit)).copied().unwrap_or(unit)
    }

    /// The order of names in a directory, but for case.
    pub(crate) fn compare(
        &self,
        one: impl Iterator<Item = u16>,
        other: impl Iterator<Item = u16>,
    ) -> Ordering {
        one.map(|unit| self.get(unit)).cmp(other.map(|unit| self.get(unit)))
    }
}

/// The upper case by Unicode, where it is one unit.
fn upper(unit: u16) -> u16 {
    let Some(character) = char::from_u32(u32::from(unit)) else { return unit };
    let mut all = character.to_uppercase();
    match (all.next().map(|first| u16::try_from(u32::from(first))), all.next()) {
        (Some(Ok(first)), None) => first,
        _ => unit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignores_case() {
        let table = UpCase::builtin();
        let compare = |one: &str, other: &str| table.compare(one.encode_utf16(), other.encode_utf16());
        assert_eq!(compare("straße", "STRAßE"), Ordering::Equal);
        assert_eq!(compare("é", "É"), Ordering::Equal);
        assert_eq!(compare("a", "B"), Ordering::Less);
        assert_eq!(compare("_", "a"), Ordering::Greater);
    }
}
