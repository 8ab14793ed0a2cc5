//! The head of the log: the basic block that the next record would go to.

use ondisk::Result;

use super::{Ring, record};
use crate::span::Span;

/// The head, or `None` for a log that was never written.
///
/// Cycles are N up to the head and N - 1 from there on, so a binary search finds where they change. A crash
/// can leave both kinds mixed around the head; any place found then is not behind an unmount record unless
/// everything from there on was never acknowledged.
pub(super) fn find(log: &Ring<'_>) -> Result<Option<u64>> {
    let last = log.blocks.saturating_sub(1);
    let (first_cycle, last_cycle) = (cycle(log, 0)?, cycle(log, last)?);
    if first_cycle == last_cycle {
        return Ok((first_cycle != 0).then_some(0));
    }
    if first_cycle == 0 {
        return Err(log.corrupt(0, "cycle", "a cycle, as in the last block", 0).into());
    }
    // `same` has the first block's cycle, `other` does not.
    let (mut same, mut other) = (0, last);
    while other.saturating_sub(same) > 1 {
        let middle = same.midpoint(other);
        match cycle(log, middle)? == first_cycle {
            true => same = middle,
            false => other = middle,
        }
    }
    Ok(Some(other))
}

/// The cycle that wrote `block`.
fn cycle(log: &Ring<'_>, block: u64) -> Result<u32> {
    let bytes = log.read(block)?;
    let span = Span::new("log", log.byte(block), &bytes);
    let first = span.u32(0, "cycle")?;
    Ok(if first == record::MAGIC { span.u32(4, "h_cycle")? } else { first })
}
