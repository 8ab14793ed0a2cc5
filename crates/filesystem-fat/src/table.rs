//! The file allocation table: which cluster follows which.
//!
//! fatgen103, §"FAT Data Structure". An entry names the next cluster of a file, or says that there is none.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use blockdev::{BlockDevice, Device};
use ondisk::{Corrupt, Error, Result, read_bytes};

use crate::boot_sector::{BootSector, Width};

const STRUCTURE: &str = "FAT";

/// Bytes of a table that are read at once. Entries of 12 bits may straddle the border, so every window has one more.
const WINDOW: u64 = 64 << 10;
/// Windows that are kept.
const MAX_WINDOWS: usize = 64;

/// Clusters in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: u32,
    pub(crate) count: u32,
}

/// What an entry says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Cluster(u32),
    End,
    Free,
    Bad,
}

/// The table that is in use.
#[derive(Debug)]
pub(crate) struct Table {
    device: Device,
    /// First byte of the table in use.
    start: u64,
    size: u64,
    width: Width,
    clusters: u32,
    windows: Mutex<BTreeMap<u64, Arc<Vec<u8>>>>,
}

impl Table {
    pub(crate) fn new(device: Device, boot: &BootSector) -> Self {
        let start = boot.tables_start.saturating_add(boot.table_size.saturating_mul(u64::from(boot.active)));
        Self {
            device,
            start,
            size: boot.table_size,
            width: boot.width,
            clusters: boot.clusters,
            windows: Mutex::default(),
        }
    }

    /// The chain that starts at `first`, as runs, up to `limit` clusters.
    ///
    /// # Errors
    /// A chain that leads into itself, to a free or bad cluster, or to one that is not there.
    pub(crate) fn chain(&self, first: u32, limit: u64) -> Result<Vec<Run>> {
        let mut runs: Vec<Run> = Vec::new();
        let mut cluster = first;
        let mut done = 0_u64;
        // Brent's way to find a loop: a marker that is moved up at every power of two.
        let (mut marker, mut power) = (first, 1_u64);
        while done < limit {
            if !self.is_cluster(cluster) {
                return Err(self.corrupt(cluster, "a cluster number", format!("cluster {cluster}")));
            }
            match runs.last_mut() {
                Some(run) if run.first.checked_add(run.count) == Some(cluster) => {
                    run.count = run.count.saturating_add(1);
                }
                _ => runs.push(Run { first: cluster, count: 1 }),
            }
            done = done.saturating_add(1);
            if done == limit {
                break;
            }
            let next = match self.next(cluster)? {
                Next::Cluster(next) => next,
                Next::End => break,
                Next::Free => return Err(self.corrupt(cluster, "a cluster in use", "free".into())),
                Next::Bad => return Err(self.corrupt(cluster, "a cluster in use", "bad".into())),
            };
            if next == marker {
                return Err(self.corrupt(
                    cluster,
                    "a cluster not seen before",
                    format!("cluster {next} again"),
                ));
            }
            if done == power {
                (marker, power) = (next, power.saturating_mul(2));
            }
            cluster = next;
        }
        Ok(runs)
    }

    /// What the second entry says: whether the volume was unmounted, and whether no error was met.
    pub(crate) fn state(&self) -> Result<(bool, bool)> {
        let value = self.entry(1)?;
        Ok(match self.width {
            Width::Fat12 => (true, true),
            Width::Fat16 => (value & 0x8000 != 0, value & 0x4000 != 0),
            Width::Fat32 => (value & 0x0800_0000 != 0, value & 0x0400_0000 != 0),
        })
    }

    /// The first entry repeats the media byte, and has ones above it; no reader needs it.
    pub(crate) fn check_first(&self) -> Result<()> {
        let value = self.entry(0)?;
        let ones = match self.width {
            Width::Fat12 => 0xfff,
            Width::Fat16 => 0xffff,
            Width::Fat32 => 0x0fff_ffff,
        };
        if value | 0xff == ones && matches!(value & 0xff, 0xf0 | 0xf8..) {
            return Ok(());
        }
        Err(self.corrupt(0, "the media byte, with ones above it", format!("{value:#x}")))
    }

    fn is_cluster(&self, cluster: u32) -> bool {
        cluster.checked_sub(2).is_some_and(|index| index < self.clusters)
    }

    fn corrupt(&self, cluster: u32, expected: &str, found: String) -> Error {
        let (at, _) = self.place(cluster);
        Corrupt::new(STRUCTURE, self.start.saturating_add(at), "entry", expected, found).into()
    }

    fn next(&self, cluster: u32) -> Result<Next> {
        let value = self.entry(cluster)?;
        let (bad, end) = match self.width {
            Width::Fat12 => (0xff7, 0xff8),
            Width::Fat16 => (0xfff7, 0xfff8),
            Width::Fat32 => (0x0fff_fff7, 0x0fff_fff8),
        };
        Ok(match value {
            0 => Next::Free,
            _ if value >= end => Next::End,
            _ if value == bad => Next::Bad,
            _ => Next::Cluster(value),
        })
    }

    /// The byte of the table at which an entry starts, and the bits that are below it there.
    fn place(&self, cluster: u32) -> (u64, u32) {
        let cluster = u64::from(cluster);
        match self.width {
            Width::Fat12 => (cluster.saturating_mul(3) / 2, if cluster & 1 == 0 { 0 } else { 4 }),
            Width::Fat16 => (cluster.saturating_mul(2), 0),
            Width::Fat32 => (cluster.saturating_mul(4), 0),
        }
    }

    fn entry(&self, cluster: u32) -> Result<u32> {
        let (at, shift) = self.place(cluster);
        let (length, mask) = match self.width {
            Width::Fat12 => (2, 0xfff),
            Width::Fat16 => (2, 0xffff),
            Width::Fat32 => (4, 0x0fff_ffff),
        };
        let window = self.window(at / WINDOW)?;
        let within = usize::try_from(at % WINDOW).unwrap_or(0);
        let bytes = window.get(within..).unwrap_or_default().iter().take(length);
        let value = bytes.rev().fold(0_u32, |value, byte| value << 8 | u32::from(*byte));
        Ok(value.wrapping_shr(shift) & mask)
    }

    fn window(&self, number: u64) -> Result<Arc<Vec<u8>>> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(window) = windows.get(&number) {
            return Ok(window.clone());
        }
        let at = number.saturating_mul(WINDOW);
        let length = self.size.saturating_sub(at).min(WINDOW.saturating_add(4));
        let bytes = read_bytes(
            self.device.as_ref(),
            self.start.saturating_add(at),
            usize::try_from(length).unwrap_or(0),
        )?;
        if windows.len() >= MAX_WINDOWS {
            windows.pop_first();
        }
        let window = Arc::new(bytes);
        windows.insert(number, window.clone());
        Ok(window)
    }
}

/// Compares the copies of the table, at most `limit` bytes of each; the first difference of every copy.
pub(crate) fn compare(device: &dyn BlockDevice, boot: &BootSector, limit: u64) -> Vec<Error> {
    let length = usize::try_from(boot.table_size.min(limit)).unwrap_or(0);
    let table = |number: u8| {
        let at = boot.tables_start.saturating_add(boot.table_size.saturating_mul(u64::from(number)));
        read_bytes(device, at, length).map(|bytes| (at, bytes))
    };
    let mut problems = Vec::new();
    let (_, used) = match table(boot.active) {
        Ok(used) => used,
        Err(error) => return vec![error],
    };
    for number in (0..boot.tables).filter(|number| *number != boot.active).take(4) {
        match table(number) {
            Ok((_, other)) if other == used => {}
            Ok((start, other)) => {
                let different = used.iter().zip(&other).position(|(one, other)| one != other);
                if let Some(at) = different {
                    let offset = start.saturating_add(u64::try_from(at).unwrap_or(0));
                    let expected = format!("the same as table {}", boot.active);
                    let found = format!("something else in table {number}");
                    problems.push(Corrupt::new(STRUCTURE, offset, "entry", expected, found).into());
                }
            }
            Err(error) => problems.push(error),
        }
    }
    problems
}
