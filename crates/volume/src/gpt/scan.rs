//! The search for a backup that is no longer at the end.

use blockdev::{BlockDevice, ExtentKind};

use super::copy::BACKUP;
use super::{Header, RawHeader};

/// One read, in bytes.
const STEP: u64 = 1 << 20;
/// Runs of data that are remembered; a more fragmented disk is searched in its last ones only.
const MAX_RUNS: usize = 1 << 16;
/// Questions for the kind of a run.
const MAX_QUESTIONS: usize = 1 << 20;

/// The backup header nearest to the end: its sector and sector size in bytes. Reads at most `budget` bytes of
/// data; holes cost nothing. Both sector sizes are tried.
pub(super) fn backup(disk: &dyn BlockDevice, budget: u64) -> Option<(u64, u64)> {
    let mut left = budget;
    for (start, end) in data_runs(disk).into_iter().rev() {
        let mut upper = end;
        while upper > start && left > 0 {
            // Pieces begin at multiples of the step, so that no sector is cut.
            let lower = (upper.saturating_sub(1) & !(STEP.saturating_sub(1))).max(start & !4095);
            let length = upper.saturating_sub(lower);
            if let Some(found) = within(disk, lower, length) {
                return Some(found);
            }
            left = left.saturating_sub(length);
            upper = lower;
        }
    }
    None
}

/// The last header in a range that says its own place.
fn within(disk: &dyn BlockDevice, start: u64, length: u64) -> Option<(u64, u64)> {
    let bytes = ondisk::read_bytes(disk, start, usize::try_from(length).ok()?).ok()?;
    for (index, sector) in bytes.chunks(512).enumerate().rev() {
        if sector.starts_with(b"EFI PART") {
            let at = u64::try_from(index).ok()?.saturating_mul(512).saturating_add(start);
            if let Some(found) = judge(disk, at, sector) {
                return Some(found);
            }
        }
    }
    None
}

fn judge(disk: &dyn BlockDevice, at: u64, sector: &[u8]) -> Option<(u64, u64)> {
    let (raw, _) = <RawHeader as zerocopy::FromBytes>::read_from_prefix(sector).ok()?;
    let lba = raw.my_lba.get();
    let sector_size = [512, 4096].into_iter().find(|size| lba.checked_mul(*size) == Some(at))?;
    let whole = ondisk::read_bytes(disk, at, usize::try_from(sector_size).ok()?).ok()?;
    (lba > 1 && Header::decode(&whole, lba, BACKUP.header).is_ok()).then_some((lba, sector_size))
}

/// The runs of data, in order; where they are too many, the last ones.
fn data_runs(disk: &dyn BlockDevice) -> std::collections::VecDeque<(u64, u64)> {
    let mut runs = std::collections::VecDeque::new();
    let mut offset = 0;
    for _ in 0..MAX_QUESTIONS {
        if offset >= disk.size() {
            break;
        }
        // A device that does not know is data to the end.
        let rest = disk.size().saturating_sub(offset);
        let (length, is_data) = match disk.extent_at(offset) {
            Ok(extent) => (extent.length.clamp(1, rest), extent.kind == ExtentKind::Data),
            Err(_) => (rest, true),
        };
        let end = offset.saturating_add(length);
        if is_data {
            match runs.back_mut() {
                Some((_, last)) if *last == offset => *last = end,
                _ => runs.push_back((offset, end)),
            }
        }
        if runs.len() > MAX_RUNS {
            runs.pop_front();
        }
        offset = end;
    }
    if offset < disk.size() {
        runs.push_back((offset, disk.size()));
    }
    runs
}
