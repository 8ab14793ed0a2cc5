//! `$UpCase`: the table by which names are compared.

use std::cmp::Ordering;

use ondisk::{Corrupt, Result};

use crate::Ntfs;
use crate::file::File;
use crate::mft::{self, number};
use crate::number::wide;
use crate::record::kind;

const BYTES: u64 = 0x2_0000;

/// The upper case of each UTF-16 code unit, little-endian as on disk.
#[derive(Debug)]
pub(crate) struct UpCase(Vec<u8>);

impl UpCase {
    /// The table of the volume, 65536 units.
    pub(crate) fn read(ntfs: &Ntfs) -> Result<Self> {
        let file = File::open(ntfs, mft::inode(number::UPCASE))?;
        let bytes = file.value(ntfs, kind::DATA, &[], BYTES)?.unwrap_or_default();
        if wide(bytes.len()) != BYTES {
            let expected = format!("{BYTES} bytes");
            return Err(Corrupt::new("$UpCase", file.base.offset, "data_size", expected, bytes.len()).into());
        }
        Ok(Self(bytes))
    }

    /// No table: names are compared as they are.
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    /// What stands in for a table that cannot be read.
    pub(crate) fn builtin() -> Self {
        Self((0..=u16::MAX).flat_map(|unit| upper(unit).to_le_bytes()).collect())
    }

    fn get(&self, unit: u16) -> u16 {
        let at = usize::from(unit).saturating_mul(2);
        let stored = self.0.get(at..).and_then(|rest| rest.first_chunk::<2>());
        stored.map_or(unit, |bytes| u16::from_le_bytes(*bytes))
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
