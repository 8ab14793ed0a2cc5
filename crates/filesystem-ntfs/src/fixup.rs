//! Update sequences: the last two bytes of every 512 are kept aside, so that a torn write is seen.
//!
//! Linux-NTFS documentation, "Fixup". The stride is 512 bytes whatever the sector size.

use crate::number::wide;
use crate::span::{Checked, Span};

const STRIDE: usize = 512;

/// Checks the update sequence of a structure and puts the true bytes back.
///
/// # Errors
/// A sequence out of place, or a sector that belongs to another write.
pub(crate) fn apply(structure: &'static str, offset: u64, bytes: &mut [u8]) -> Checked<()> {
    let span = Span::new(structure, offset, bytes);
    let (at, count) = (span.length16(4, "usa_ofs")?, span.length16(6, "usa_count")?);
    let sectors = bytes.len() / STRIDE;
    if count != sectors.saturating_add(1) {
        return Err(span.corrupt("usa_count", sectors.saturating_add(1), count));
    }
    let array = span.slice(at, count.saturating_mul(2), "usa_ofs")?.to_vec();
    // The array lies in front of the first bytes that it replaces.
    if at < 8 || !at.is_multiple_of(2) || at.saturating_add(array.len()) > STRIDE.saturating_sub(2) {
        return Err(span.corrupt("usa_ofs", "an even place in the first 510 bytes", at));
    }
    let mut entries = array.chunks_exact(2);
    let number = entries.next().unwrap_or_default();
    for (index, (sector, entry)) in bytes.chunks_exact_mut(STRIDE).zip(entries).enumerate() {
        let Some(end) = sector.last_chunk_mut::<2>() else { continue };
        if *end != number {
            let at = offset.saturating_add(wide(index).saturating_mul(wide(STRIDE)));
            let expected = format!("{number:02x?} at the end of the sector");
            return Err(Span::new(structure, at, &[]).corrupt(
                "update sequence",
                expected,
                format_args!("{end:02x?}"),
            ));
        }
        end.copy_from_slice(entry);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn torn() -> Vec<u8> {
        let mut bytes = vec![0xee; 1024];
        bytes[4..8].copy_from_slice(&[0x30, 0, 3, 0]);
        bytes[0x30..0x36].copy_from_slice(&[9, 1, 0xa, 0xb, 0xc, 0xd]);
        for end in [510, 1022] {
            bytes[end..end + 2].copy_from_slice(&[9, 1]);
        }
        bytes
    }

    #[test]
    fn puts_the_bytes_back() {
        let mut bytes = torn();
        apply("test", 0, &mut bytes).unwrap();
        assert_eq!((&bytes[510..512], &bytes[1022..]), (&[0xa, 0xb][..], &[0xc, 0xd][..]));
    }

    #[test]
    fn sees_a_torn_write_and_a_wrong_sequence() {
        for (at, value, field) in [
            (1022, 8, "update sequence"),
            (6, 2, "usa_count"),
            (5, 2, "usa_ofs"),
            (4, 0x31, "usa_ofs"),
            (4, 2, "usa_ofs"),
        ] {
            let mut bytes = torn();
            bytes[at] = value;
            assert_eq!(apply("test", 0, &mut bytes).unwrap_err().field, field, "byte {at}");
        }
        assert!(apply("test", 0, &mut [0; 5]).is_err());
    }
}
