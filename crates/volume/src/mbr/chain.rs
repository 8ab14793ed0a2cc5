//! Following the entries as Linux follows them.

use std::collections::BTreeSet;

use ondisk::{Corrupt, Error};
use zerocopy::FromBytes;

use super::{RawBootSector, RawEntry};
use crate::sectors::Sectors;

/// Numbers that Linux gives out: up to 255.
const DISK_MAX_PARTS: u32 = 256;
/// Records without a partition in them that Linux follows.
const MAX_EMPTY: u32 = 100;

/// A partition in the order in which Linux finds it.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// 1 to 4 primary, from 5 logical.
    pub(crate) number: u32,
    /// The entry as stored.
    pub(crate) entry: RawEntry,
    /// First logical sector on the disk.
    pub(crate) start: u64,
    /// Byte of the boot record it stands in.
    pub(crate) record: u64,
}

/// Which loops are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Limits {
    /// None: the second visit of a record is a problem and ends the chain.
    Reader,
    /// As Linux does: until numbers run out.
    Linux,
}

/// All partitions of the table in `sector`; what ends a chain early is a problem.
pub(crate) fn walk(
    disk: &mut Sectors<'_>,
    sector: &RawBootSector,
    sector_size: u64,
    limits: Limits,
) -> (Vec<Found>, Vec<Error>) {
    let mut walk = Walk {
        disk,
        sector_size,
        limits,
        next: 5,
        seen: BTreeSet::new(),
        found: Vec::new(),
        problems: Vec::new(),
    };
    for (number, entry) in (1_u32..).zip(&sector.entries) {
        if !entry.is_used() {
            continue;
        }
        let start = u64::from(entry.start.get());
        walk.found.push(Found { number, entry: entry.clone(), start, record: 0 });
        if entry.is_extended() {
            walk.chain(start, u64::from(entry.sectors.get()));
        }
    }
    let mut found = walk.found;
    found.sort_by_key(|partition| partition.number);
    (found, walk.problems)
}

struct Walk<'a, 'b> {
    disk: &'a mut Sectors<'b>,
    sector_size: u64,
    limits: Limits,
    next: u32,
    seen: BTreeSet<u64>,
    found: Vec<Found>,
    problems: Vec<Error>,
}

impl Walk<'_, '_> {
    /// The chain of the extended partition at sector `first`, `length` sectors long.
    fn chain(&mut self, first: u64, length: u64) {
        let (mut this, mut this_length) = (first, length);
        let mut empty = 0_u32;
        loop {
            empty = empty.saturating_add(1);
            let at = this.saturating_mul(self.sector_size);
            if empty > MAX_EMPTY {
                self.problem(at, "link", format!("at most {MAX_EMPTY} records without a partition"), "more");
                return;
            }
            if self.next >= DISK_MAX_PARTS {
                self.problem(at, "link", format!("at most {DISK_MAX_PARTS} partitions"), "more");
                return;
            }
            if !self.seen.insert(this) && self.limits == Limits::Reader {
                self.problem(at, "link", "a record not seen before", format!("sector {this} again"));
                return;
            }
            let sector = match self.disk.read("extended boot record", at, 512) {
                Ok(bytes) => RawBootSector::read_from_bytes(&bytes).ok(),
                Err(corrupt) => {
                    self.problems.push(corrupt.into());
                    return;
                }
            };
            let Some(sector) = sector else { return };
            if sector.signature != [0x55, 0xaa] {
                self.problem(at, "signature", "55 aa", format!("{:02x?}", sector.signature));
                return;
            }
            for (index, entry) in sector.entries.iter().enumerate() {
                let (offset, sectors) = (u64::from(entry.start.get()), u64::from(entry.sectors.get()));
                let start = this.saturating_add(offset);
                // Linux: garbage is known in the third and fourth entry, so these must fit.
                let fits = offset.saturating_add(sectors) <= this_length
                    && start >= first
                    && start.saturating_add(sectors) <= first.saturating_add(length);
                if !entry.is_used() || entry.is_extended() || (index >= 2 && !fits) {
                    continue;
                }
                self.found.push(Found { number: self.next, entry: entry.clone(), start, record: at });
                empty = 0;
                self.next = self.next.saturating_add(1);
                if self.next >= DISK_MAX_PARTS {
                    self.problem(at, "link", format!("at most {DISK_MAX_PARTS} partitions"), "more");
                    return;
                }
            }
            let Some(link) = sector.entries.iter().find(|entry| entry.is_used() && entry.is_extended())
            else {
                return;
            };
            this = first.saturating_add(u64::from(link.start.get()));
            this_length = link.sectors.get().into();
        }
    }

    fn problem(
        &mut self,
        at: u64,
        field: &'static str,
        expected: impl std::fmt::Display,
        found: impl std::fmt::Display,
    ) {
        self.problems.push(Corrupt::new("extended boot record", at, field, expected, found).into());
    }
}
