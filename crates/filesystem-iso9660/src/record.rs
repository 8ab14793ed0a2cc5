//! Directory records: name, place and length of a file, or of a piece of it.
//!
//! ECMA-119 §9.1.

use filesystem::Timestamp;
use ondisk::{Corrupt, Result};

use crate::field::{u8_at, u16_at, u32_at};
use crate::time;

pub(crate) const DIRECTORY: u8 = 0x02;
/// A resource fork or the like of the record that follows.
pub(crate) const ASSOCIATED: u8 = 0x04;
/// The next record goes on with the same file.
pub(crate) const CONTINUED: u8 = 0x80;

/// A record whose lengths fit each other.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// Bytes of the whole record.
    pub(crate) length: usize,
    /// First byte of the content.
    pub(crate) start: u64,
    /// Bytes of the content.
    pub(crate) size: u32,
    pub(crate) time: Option<Timestamp>,
    pub(crate) flags: u8,
    pub(crate) is_interleaved: bool,
    /// As stored; one byte of 0 and 1 for the directory itself and its parent.
    pub(crate) name: Vec<u8>,
    pub(crate) system_use: Vec<u8>,
}

impl Record {
    /// The record at the start of `bytes`, which lies at byte `at` of the device; `None` where there are no more up to
    /// the end of the sector.
    pub(crate) fn decode(bytes: &[u8], at: u64, block_size: u32) -> Result<Option<Self>> {
        let corrupt = |field, expected: &str, found: usize| {
            Corrupt::new("ISO 9660 directory record", at, field, expected, found)
        };
        let length = usize::from(u8_at(bytes, 0).unwrap_or(0));
        if length == 0 {
            return Ok(None);
        }
        let Some(bytes) = bytes.get(..length).filter(|_| length >= 34) else {
            return Err(corrupt("length", "34 or more, within the sector", length).into());
        };
        let name_length = usize::from(u8_at(bytes, 32).unwrap_or(0));
        let name_end = name_length.saturating_add(33);
        let Some(name) = bytes.get(33..name_end).filter(|name| !name.is_empty()) else {
            return Err(
                corrupt("length of file identifier", "1 or more, within the record", name_length).into()
            );
        };
        // A byte of padding makes the length of the record even.
        let rest = if name_length % 2 == 0 { name_end.saturating_add(1) } else { name_end };
        let extent = u64::from(u32_at(bytes, 2).unwrap_or(0));
        let skipped = u64::from(u8_at(bytes, 1).unwrap_or(0));
        Ok(Some(Self {
            length,
            start: extent.saturating_add(skipped).saturating_mul(block_size.into()),
            size: u32_at(bytes, 10).unwrap_or(0),
            time: bytes.get(18..).and_then(time::short),
            flags: u8_at(bytes, 25).unwrap_or(0),
            is_interleaved: u16_at(bytes, 26) != Some(0),
            name: name.to_vec(),
            system_use: bytes.get(rest..).unwrap_or_default().to_vec(),
        }))
    }

    pub(crate) fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether it stands for the directory itself or its parent.
    pub(crate) fn is_dot(&self) -> bool {
        self.name == [0] || self.name == [1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Vec<u8> {
        let mut bytes = vec![0; 48];
        bytes[0] = 48;
        bytes[2] = 20;
        bytes[10..14].copy_from_slice(&3000_u32.to_le_bytes());
        bytes[18..25].copy_from_slice(&[126, 11, 26, 20, 0, 0, 0]);
        bytes[32] = 4;
        bytes[33..37].copy_from_slice(b"A.;1");
        bytes[38..].fill(7);
        bytes
    }

    #[test]
    fn one_field_at_a_time() {
        let decode = |bytes: &[u8]| Record::decode(bytes, 0, 2048);
        let record = decode(&good()).unwrap().unwrap();
        assert_eq!((record.start, record.size, record.length), (40_960, 3000, 48));
        assert_eq!((record.name, record.system_use), (b"A.;1".to_vec(), vec![7; 10]));
        let mut bytes = good();
        bytes[1] = 2;
        assert_eq!(decode(&bytes).unwrap().unwrap().start, 45_056);
        for (at, value, said) in
            [(0, 33, "length is 33"), (0, 49, "length is 49"), (32, 0, "is 0"), (32, 200, "is 200")]
        {
            let mut bytes = good();
            bytes[at] = value;
            let error = decode(&bytes).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        assert!(decode(&[0; 60]).unwrap().is_none() && decode(&[]).unwrap().is_none());
    }
}
