//! Changing the content ID, by which children notice that their parent is no longer what they were made from.
//!
//! VMware changes it at the first write after opening. The new digits take the place of the old ones, so that the
//! text keeps its length, and each differs from the one it replaces: of a write that was torn, any mixture is new.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::ops::Range;

use blockdev::{BlockDevice, Device};

use super::descriptor::{Cid, Descriptor};
use crate::arithmetic::to_index;

/// A change that the first write brings.
#[derive(Debug)]
pub(super) struct Change {
    /// The file that holds the descriptor.
    file: Device,
    /// Where digits are replaced by the new ones.
    places: Vec<Range<u64>>,
}

impl Change {
    /// `None` without a content ID.
    pub(super) fn new(file: &Device, descriptor: &Descriptor) -> Option<Self> {
        let cid = descriptor.cid.as_ref()?;
        let mut places = vec![cid.digits.clone()];
        places.extend(tail_of_long_id(&**file, descriptor, cid));
        Some(Self { file: file.clone(), places })
    }

    /// Writes the new ID, durably: no content may change before it does.
    pub(super) fn write(&self) -> io::Result<()> {
        let file = blockdev::writable(&self.file)?;
        let mut digits = None;
        for place in &self.places {
            let digits = match &digits {
                Some(digits) => digits,
                None => {
                    let old = read(&*self.file, place)?;
                    digits.insert(new_digits(&old, RandomState::new().hash_one(place.start)))
                }
            };
            file.write_all_at(digits, place.start)?;
        }
        file.flush()
    }
}

/// The last eight digits of the long ID, where they are the short one.
fn tail_of_long_id(file: &dyn BlockDevice, descriptor: &Descriptor, cid: &Cid) -> Option<Range<u64>> {
    let long = descriptor.long_content_id.clone()?;
    let tail = long.end.checked_sub(8)?..long.end;
    let is_same = cid.digits.end.checked_sub(cid.digits.start)? == 8
        && read(file, &tail).ok()?.eq_ignore_ascii_case(&read(file, &cid.digits).ok()?);
    is_same.then_some(tail)
}

fn read(file: &dyn BlockDevice, range: &Range<u64>) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; to_index(range.end.saturating_sub(range.start))?];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes)
}

/// Other digits in each place; never all `f`, which says that there is no content.
fn new_digits(old: &[u8], random: u64) -> Vec<u8> {
    let mut random = random;
    let mut digits = Vec::with_capacity(old.len());
    for (index, old) in old.iter().enumerate() {
        let free: Vec<u8> = b"0123456789abcdef"
            .iter()
            .copied()
            .filter(|digit| !digit.eq_ignore_ascii_case(old) && (index > 0 || *digit != b'f'))
            .collect();
        let count = u64::try_from(free.len()).unwrap_or(1).max(1);
        let chosen = usize::try_from(random.checked_rem(count).unwrap_or(0)).unwrap_or(0);
        digits.push(free.get(chosen).copied().unwrap_or(b'0'));
        random = random.checked_div(count).unwrap_or(0);
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_digit_changes() {
        for random in 0..2000_u64 {
            let random = random.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            for old in ["0badcafe", "FFFFFFFF", "00000000", "7", "abc"] {
                let new = new_digits(old.as_bytes(), random);
                assert_eq!(new.len(), old.len());
                assert!(new.iter().zip(old.bytes()).all(|(new, old)| !new.eq_ignore_ascii_case(&old)));
                assert!(new.iter().all(u8::is_ascii_hexdigit) && new[0] != b'f');
            }
        }
    }
}
