//! qcow2 L1 and L2 entries: what a guest cluster maps to.
//!
//! QEMU docs/interop/qcow2, "Cluster mapping" and "Extended L2 Entries". Big-endian words of 8 bytes.

use super::geometry::ClusterBits;

/// Bit 63: the refcount of what the entry points to is exactly one. Accurate in the active tables only.
pub(crate) const COPIED: u64 = 1 << 63;
/// Bit 62 of an L2 entry: a compressed cluster.
const COMPRESSED: u64 = 1 << 62;
/// Bit 0 of an L2 entry: reads as zeros, whatever the offset says.
const ZERO: u64 = 1;
/// Bits 9–55: a host offset.
pub(crate) const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// Bits that must be zero in an L1 entry.
pub(crate) const L1_RESERVED: u64 = 0x7f00_0000_0000_01ff;
/// Bits that must be zero in an L2 entry of an uncompressed cluster.
const L2_RESERVED: u64 = 0x3f00_0000_0000_01fe;
/// Every subcluster allocated, none marked zero.
pub(crate) const ALL_ALLOCATED: u64 = 0xffff_ffff;

/// What the bytes of a cluster, or of a subcluster, are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// As in the backing file; zeros where that is absent or shorter.
    Unallocated,
    /// Zeros.
    Zero,
    /// At this byte of the file that holds guest data: the start of the (sub)cluster.
    Host(u64),
    /// Deflated or zstd-compressed, always for a whole cluster.
    Compressed(CompressedRange),
}

/// The bytes that a compressed cluster may occupy; its stream may end earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CompressedRange {
    /// First byte, at any alignment.
    pub(crate) offset: u64,
    /// Length in bytes, at most two clusters.
    pub(crate) length: u64,
}

/// A field that breaks the rules: its name, what is allowed, and what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) field: &'static str,
    pub(crate) expected: String,
    pub(crate) found: u64,
}

/// How the entries of one image are to be understood.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EntryFormat {
    pub(crate) cluster_bits: ClusterBits,
    pub(crate) version: u32,
    /// Entries have a second word, with two bits for each of 32 subclusters.
    pub(crate) is_extended: bool,
    /// Guest data lies in another file, at the same offsets as on the disk.
    pub(crate) has_data_file: bool,
}

/// One L2 entry as stored; `bitmap` is 0 unless entries are extended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct L2Entry {
    pub(crate) word: u64,
    pub(crate) bitmap: u64,
}

impl EntryFormat {
    /// The entry of a cluster that reads as zeros and has no place; `None` in version 2, which has none.
    pub(crate) fn zero_entry(self) -> Option<L2Entry> {
        match (self.is_extended, self.version) {
            (true, _) => Some(L2Entry { word: 0, bitmap: ALL_ALLOCATED.wrapping_shl(32) }),
            (false, 3..) => Some(L2Entry { word: ZERO, bitmap: 0 }),
            (false, _) => None,
        }
    }

    /// Log2 of how many parts of a cluster are mapped on their own.
    pub(crate) fn part_bits(self) -> u32 {
        if self.is_extended { 5 } else { 0 }
    }

    /// What part `part` of the guest cluster that starts at byte `guest` holds.
    pub(crate) fn content(self, entry: L2Entry, part: u32, guest: u64) -> Result<Content, Damage> {
        if entry.word & COMPRESSED != 0 {
            return self.compressed(entry.word).map(Content::Compressed);
        }
        let host = self.host(entry.word, guest)?;
        if self.is_extended {
            return self.subcluster(entry, host, part);
        }
        if entry.word & ZERO != 0 {
            if self.version < 3 {
                return Err(damage("zero flag", "0 in version 2", entry.word));
            }
            return Ok(Content::Zero);
        }
        Ok(host.map_or(Content::Unallocated, Content::Host))
    }

    /// Bits that no valid entry has and that no reader needs.
    pub(crate) fn reserved_bits(self, word: u64) -> u64 {
        match word & COMPRESSED {
            0 if self.is_extended => word & (L2_RESERVED | ZERO),
            0 => word & L2_RESERVED,
            _ => 0,
        }
    }

    /// The host cluster that the entry owns, used or only preallocated.
    pub(crate) fn host(self, word: u64, guest: u64) -> Result<Option<u64>, Damage> {
        let host = word & OFFSET;
        if self.has_data_file {
            // Offset 0 is a place too there, and the flag tells it from "nowhere".
            if host == 0 && word & COPIED == 0 {
                return Ok(None);
            }
            if host != guest {
                return Err(damage("host cluster offset", format!("{guest:#x}, as on the disk"), word));
            }
            return Ok(Some(host));
        }
        if !self.cluster_bits.is_aligned(host) {
            let expected = format!("a multiple of {:#x}", self.cluster_bits.size());
            return Err(damage("host cluster offset", expected, word));
        }
        Ok((host != 0).then_some(host))
    }

    /// The range of a compressed cluster, or `None` for an entry of another kind.
    pub(crate) fn compressed_range(self, word: u64) -> Result<Option<CompressedRange>, Damage> {
        if word & COMPRESSED == 0 { Ok(None) } else { self.compressed(word).map(Some) }
    }

    fn compressed(self, word: u64) -> Result<CompressedRange, Damage> {
        if self.has_data_file {
            return Err(damage("compressed flag", "0 with a data file", word));
        }
        // 62 - (cluster_bits - 8), which is 49 to 61.
        let offset_bits = 70_u32.saturating_sub(self.cluster_bits.bits());
        let descriptor = word & !(COMPRESSED | COPIED);
        let sectors = descriptor.wrapping_shr(offset_bits);
        let offset = descriptor & 1_u64.wrapping_shl(offset_bits).wrapping_sub(1);
        if offset >= 1 << 56 {
            return Err(damage("compressed cluster offset", "less than 2^56", word));
        }
        let length = sectors.saturating_add(1).saturating_mul(512).saturating_sub(offset & 511);
        Ok(CompressedRange { offset, length })
    }

    fn subcluster(self, entry: L2Entry, host: Option<u64>, part: u32) -> Result<Content, Damage> {
        let is_allocated = entry.bitmap.wrapping_shr(part) & 1 == 1;
        let is_zero = entry.bitmap.wrapping_shr(part.saturating_add(32)) & 1 == 1;
        match (is_allocated, is_zero, host) {
            (true, true, _) => Err(damage("subcluster bitmap", "not both allocated and zero", entry.bitmap)),
            (false, true, _) => Ok(Content::Zero),
            (false, false, _) => Ok(Content::Unallocated),
            (true, false, None) => {
                Err(damage("host cluster offset", "set for an allocated subcluster", entry.word))
            }
            (true, false, Some(host)) => {
                let within = u64::from(part).saturating_mul(self.part_size());
                Ok(Content::Host(host.saturating_add(within)))
            }
        }
    }

    /// Bytes in the smallest part of a cluster that is mapped on its own.
    pub(crate) fn part_size(self) -> u64 {
        self.cluster_bits.size().wrapping_shr(self.part_bits())
    }
}

fn damage(field: &'static str, expected: impl Into<String>, found: u64) -> Damage {
    Damage { field, expected: expected.into(), found }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format(bits: u32) -> EntryFormat {
        EntryFormat {
            cluster_bits: ClusterBits::new(bits).unwrap(),
            version: 3,
            is_extended: false,
            has_data_file: false,
        }
    }

    fn content(format: EntryFormat, word: u64, bitmap: u64, part: u32) -> Result<Content, &'static str> {
        format.content(L2Entry { word, bitmap }, part, 0x50000).map_err(|damage| damage.field)
    }

    #[test]
    fn standard_entries() {
        let v3 = format(16);
        assert_eq!(content(v3, 0, 0, 0), Ok(Content::Unallocated));
        assert_eq!(content(v3, COPIED | 0x70000, 0, 0), Ok(Content::Host(0x70000)));
        assert_eq!(content(v3, 1, 0, 0), Ok(Content::Zero));
        assert_eq!(content(v3, COPIED | 0x70001, 0, 0), Ok(Content::Zero));
        assert_eq!(content(v3, 0x70200, 0, 0), Err("host cluster offset"));
        assert_eq!(content(EntryFormat { version: 2, ..v3 }, 1, 0, 0), Err("zero flag"));
        assert_eq!(v3.reserved_bits(COPIED | 0x70001), 0);
        assert_eq!(v3.reserved_bits(1 << 61 | 2), 1 << 61 | 2);
    }

    #[test]
    fn a_compressed_range_ends_at_a_sector() {
        let range = |bits, word| content(format(bits), COMPRESSED | word, 0, 0);
        let expected = |offset, length| Ok(Content::Compressed(CompressedRange { offset, length }));
        assert_eq!(range(16, 0x12345), expected(0x12345, 512 - 0x145));
        assert_eq!(range(16, 3 << 54 | 0x12345), expected(0x12345, 4 * 512 - 0x145));
        assert_eq!(range(9, 1 << 61 | 0x400), expected(0x400, 1024));
        assert_eq!(range(21, (1 << 62) - 1), expected((1 << 49) - 1, 8192 * 512 - 511));
        assert_eq!(range(9, 1 << 56), Err("compressed cluster offset"));
    }

    #[test]
    fn subclusters() {
        let extended = EntryFormat { is_extended: true, ..format(16) };
        assert_eq!(content(extended, 0x70000, 0b10, 1), Ok(Content::Host(0x70800)));
        assert_eq!(content(extended, 0x70000, 0b10, 0), Ok(Content::Unallocated));
        assert_eq!(content(extended, 0, 1 << 63, 31), Ok(Content::Zero));
        assert_eq!(content(extended, 0x70000, 1 << 63 | 1 << 31, 31), Err("subcluster bitmap"));
        assert_eq!(content(extended, 0, 1, 0), Err("host cluster offset"));
    }

    #[test]
    fn in_a_data_file_host_is_guest() {
        let external = EntryFormat { has_data_file: true, ..format(16) };
        assert_eq!(content(external, COPIED | 0x50000, 0, 0), Ok(Content::Host(0x50000)));
        assert_eq!(content(external, COPIED | 0x60000, 0, 0), Err("host cluster offset"));
        assert_eq!(external.host(COPIED, 0), Ok(Some(0)));
        assert_eq!(external.host(0, 0), Ok(None));
        assert_eq!(content(external, COMPRESSED | 0x50000, 0, 0), Err("compressed flag"));
    }
}
