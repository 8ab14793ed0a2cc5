//! VHD geometry, and how long a disk is when its footer says two things about it.
//!
//! The specification's appendix "CHS Calculation". Virtual PC shows the guest a disk of cylinders × heads ×
//! sectors; Hyper-V, Azure and everybody since shows the size field. QEMU 10 goes by the geometry for the
//! creators `vpc ` and `qemu`, unless it is the largest there is, which only says that the disk is larger. This
//! module does the same, so that a disk has one length whoever reads it here.

use super::footer::RawFooter;

/// Bytes in a sector of the geometry.
pub(super) const SECTOR: u64 = 512;

/// Cylinders, heads, sectors per track.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) cylinders: u16,
    pub(super) heads: u8,
    pub(super) sectors: u8,
}

/// Stands for every disk that is too large for a geometry.
pub(super) const LARGEST: Geometry = Geometry { cylinders: 65_535, heads: 16, sectors: 255 };

/// Creators whose disks are as long as their geometry says.
const BY_GEOMETRY: [[u8; 4]; 2] = [*b"vpc ", *b"qemu"];

/// What the footer says of the length of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    /// By the field, in bytes, cut to whole sectors.
    pub(super) field: u64,
    /// By the geometry, in bytes.
    pub(super) geometry: u64,
    pub(super) is_by_geometry: bool,
}

impl Geometry {
    pub(super) fn of(raw: &RawFooter) -> Self {
        Self { cylinders: raw.cylinders.get(), heads: raw.heads, sectors: raw.sectors_per_track }
    }

    /// Bytes: less than 2^41.
    pub(super) fn bytes(self) -> u64 {
        u64::from(self.cylinders)
            .saturating_mul(u64::from(self.heads))
            .saturating_mul(u64::from(self.sectors))
            .saturating_mul(SECTOR)
    }

    /// The geometry that has exactly `size` bytes by the specification's calculation, else the largest.
    pub(super) fn for_size(size: u64) -> Self {
        let sectors = size / SECTOR;
        let tracks_of = |per_track: u8| sectors.checked_div(u64::from(per_track)).unwrap_or(0);
        let candidate = |heads: u8, per_track: u8| {
            let cylinders = tracks_of(per_track).checked_div(u64::from(heads))?;
            let cylinders = u16::try_from(cylinders).ok()?;
            Some(Self { cylinders, heads, sectors: per_track })
        };
        let heads = u8::try_from(tracks_of(17).div_ceil(1024)).unwrap_or(u8::MAX).max(4);
        [candidate(heads.min(16), 17), candidate(16, 31), candidate(16, 63), candidate(16, 255)]
            .into_iter()
            .flatten()
            .find(|geometry| geometry.bytes() == size && size != 0)
            .unwrap_or(LARGEST)
    }
}

impl Sizes {
    pub(super) fn of(raw: &RawFooter) -> Self {
        let geometry = Geometry::of(raw);
        let field = raw.current_size.get();
        Self {
            field: field.saturating_sub(field % SECTOR),
            geometry: geometry.bytes(),
            is_by_geometry: BY_GEOMETRY.contains(&raw.creator_application)
                && geometry.bytes() != LARGEST.bytes(),
        }
    }

    /// Length of the disk in bytes.
    pub(super) fn disk(self) -> u64 {
        if self.is_by_geometry { self.geometry } else { self.field }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_or_largest() {
        let check = |size: u64, expected: (u16, u8, u8)| {
            let (cylinders, heads, sectors) = expected;
            assert_eq!(Geometry::for_size(size), Geometry { cylinders, heads, sectors }, "{size}");
        };
        check(3 * 4 * 17 * 512, (3, 4, 17));
        check(1000 * 9 * 17 * 512, (1000, 9, 17));
        check(2000 * 16 * 63 * 512, (2000, 16, 63));
        check(64 << 20, (65_535, 16, 255));
        check(0, (65_535, 16, 255));
        check(u64::MAX, (65_535, 16, 255));
        check(LARGEST.bytes(), (65_535, 16, 255));
    }
}
