//! Mapping pairs: where the clusters of an attribute are.
//!
//! Linux-NTFS documentation, "Data Runs". A run is a byte with two lengths, a count of clusters, and the signed
//! distance of its first cluster from that of the run before; no distance means a hole. A zero byte ends.

use crate::span::{Checked, Span};

/// Clusters that follow each other both in the attribute and on the volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// First cluster within the attribute.
    pub(crate) vcn: u64,
    /// Clusters, at least 1.
    pub(crate) count: u64,
    /// First cluster on the volume; `None` for a hole. Not yet compared with the size of the volume.
    pub(crate) lcn: Option<u64>,
}

impl Run {
    pub(crate) fn end(&self) -> u64 {
        self.vcn.saturating_add(self.count)
    }
}

/// Appends the runs that `span` holds, from cluster `first` of the attribute on; returns the cluster after them.
pub(crate) fn decode(span: &Span<'_>, first: u64, runs: &mut Vec<Run>) -> Checked<u64> {
    let (mut vcn, mut lcn, mut at) = (first, 0_i64, 0_usize);
    loop {
        let head = span.u8(at, "mapping_pairs")?;
        if head == 0 {
            return Ok(vcn);
        }
        let (count_length, lcn_length) = (usize::from(head & 15), usize::from(head >> 4));
        if count_length == 0 || count_length > 8 || lcn_length > 8 {
            return Err(span.corrupt(
                "mapping_pairs",
                "lengths of 1..=8 and 0..=8 bytes",
                format_args!("{head:#04x}"),
            ));
        }
        at = at.saturating_add(1);
        let count = signed(span.slice(at, count_length, "mapping_pairs")?);
        at = at.saturating_add(count_length);
        let distance = signed(span.slice(at, lcn_length, "mapping_pairs")?);
        at = at.saturating_add(lcn_length);
        let count = u64::try_from(count)
            .ok()
            .filter(|count| *count > 0)
            .ok_or_else(|| span.corrupt("mapping_pairs", "a count of clusters of at least 1", count))?;
        let next = vcn
            .checked_add(count)
            .filter(|next| *next <= i64::MAX.unsigned_abs())
            .ok_or_else(|| span.corrupt("mapping_pairs", "fewer than 2^63 clusters", count))?;
        let place = if lcn_length == 0 {
            None
        } else {
            lcn = lcn.wrapping_add(distance);
            // Volumes of version 1.2 and before mark holes so.
            if lcn == -1 && distance == -1 {
                lcn = 0;
                None
            } else {
                Some(
                    u64::try_from(lcn)
                        .map_err(|_| span.corrupt("mapping_pairs", "a cluster of at least 0", lcn))?,
                )
            }
        };
        runs.push(Run { vcn, count, lcn: place });
        vcn = next;
    }
}

/// A little-endian two's complement integer of 0..=8 bytes.
fn signed(bytes: &[u8]) -> i64 {
    let start = if bytes.last().is_some_and(|last| last & 0x80 != 0) { -1 } else { 0 };
    bytes.iter().rev().fold(start, |value, byte| value << 8 | i64::from(*byte))
}

/// The run that holds cluster `vcn` of the attribute.
pub(crate) fn find(runs: &[Run], vcn: u64) -> Option<Run> {
    let after = runs.partition_point(|run| run.vcn <= vcn);
    after.checked_sub(1).and_then(|index| runs.get(index)).filter(|run| vcn < run.end()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Checked<(u64, Vec<Run>)> {
        let mut runs = Vec::new();
        decode(&Span::new("attribute", 0, bytes), 10, &mut runs).map(|end| (end, runs))
    }

    #[test]
    fn runs_holes_and_steps_back() {
        let (end, runs) = all(&[0x21, 0x18, 0x34, 0x56, 0x01, 4, 0x11, 2, 0xf0, 0]).unwrap();
        assert_eq!(end, 10 + 24 + 4 + 2);
        let run = |vcn, count, lcn| Run { vcn, count, lcn };
        assert_eq!(runs, [run(10, 24, Some(0x5634)), run(34, 4, None), run(38, 2, Some(0x5624))]);
        assert_eq!(find(&runs, 9), None);
        assert_eq!(find(&runs, 37), Some(runs[1]));
        assert_eq!(find(&runs, 40), None);
        assert_eq!(all(&[0]).unwrap(), (10, Vec::new()));
    }

    #[test]
    fn damaged() {
        for bytes in [
            &[0x21, 1, 0][..],
            &[0x11, 0, 5, 0],
            &[0x11, 0x80, 5, 0],
            &[0x11, 1, 0xf0, 0],
            &[0x10, 1, 0],
            &[0x19, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1, 0],
            &[0x11, 1, 1],
            &[],
        ] {
            assert_eq!(all(bytes).unwrap_err().field, "mapping_pairs", "{bytes:x?}");
        }
    }
}
