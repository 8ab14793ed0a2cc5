//! From extents to bytes: the device of a logical volume.
//!
//! Linear segments only; every other type is refused by its name.

use std::collections::BTreeMap;
use std::sync::Arc;

use blockdev::{Concat, Device, Part};
use ondisk::{Corrupt, Error, Result};

use super::group::{PvRef, Segment};

pub(crate) struct Mapper<'a> {
    /// Bytes.
    pub(crate) extent_size: u64,
    pub(crate) pvs: &'a [PvRef],
    pub(crate) segments: &'a BTreeMap<&'a str, Vec<Segment>>,
}

impl Mapper<'_> {
    /// The bytes of the logical volume `name`.
    pub(crate) fn device(&self, name: &str) -> Result<Device> {
        let segments = self.segments.get(name).map(Vec::as_slice).unwrap_or_default();
        let mut parts = Vec::new();
        let mut next = 0_u64;
        for segment in segments {
            if segment.start != next {
                return Err(corrupt("start_extent", next, segment.start));
            }
            parts.push(self.part(segment)?);
            next = next.saturating_add(segment.count);
        }
        if parts.is_empty() {
            return Err(corrupt("segment_count", "at least 1", 0));
        }
        let length = next.saturating_mul(self.extent_size);
        Concat::new(parts).map(|concat| -> Device { Arc::new(concat) }).map_err(|source| Error::Io {
            offset: 0,
            length,
            source,
        })
    }

    fn part(&self, segment: &Segment) -> Result<Part> {
        let [target] = segment.targets.as_slice() else {
            let kind = match segment.targets.len() {
                0 => segment.kind.clone(),
                stripes => format!("{} over {stripes} stripes", segment.kind),
            };
            return Err(Error::unsupported("logical volume", format!("segment type {kind}")));
        };
        if segment.kind != "striped" {
            return Err(Error::unsupported("logical volume", format!("segment type {}", segment.kind)));
        }
        let Some(pv) = self.pvs.iter().find(|pv| pv.name == target.name) else {
            return Err(Error::unsupported("logical volume", "a segment on another logical volume"));
        };
        let Some(device) = &pv.device else {
            return Err(corrupt("stripes", format!("physical volume {}", pv.uuid), "no such device"));
        };
        let bytes = |extents: u64| {
            extents
                .checked_mul(self.extent_size)
                .ok_or_else(|| corrupt("extent_count", "fewer extents", extents))
        };
        let offset = pv.extents_start.saturating_add(bytes(target.start)?);
        Ok(Part { device: Some(device.clone()), offset, length: bytes(segment.count)? })
    }
}

fn corrupt(field: &'static str, expected: impl std::fmt::Display, found: impl std::fmt::Display) -> Error {
    Corrupt::new("LVM2 metadata text", 0, field, expected, found).into()
}
