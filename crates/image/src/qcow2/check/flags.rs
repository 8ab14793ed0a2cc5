//! The COPIED flags of the active tables: set where exactly one reference exists, and only there.

use ondisk::Result;

use super::super::entry::{COPIED, OFFSET};
use super::run::Checking;
use super::tables::{Uses, Walked, entry_format, entry_offset, read_l2};
use crate::{Patch, Problem};

/// Compares every flag with the references that were counted.
pub(super) fn check(checking: &mut Checking, walked: &Walked, snapshots: usize) -> Result<()> {
    let format = entry_format(checking);
    for (table, uses) in &walked.tables {
        let Some((index, entry)) = uses.active else { continue };
        check_l1(checking, index, entry);
        let mut wrong = Vec::new();
        // Data of an external file is never shared, and has no counts.
        let may_differ = uses.has_unflagged || checking.counts.has_shared_data();
        if !format.has_data_file && may_differ {
            for (number, entry) in read_l2(checking, format, *table)? {
                let host = entry.word & OFFSET;
                let is_compressed = entry.word & (1 << 62) != 0;
                let cluster = checking.header.cluster_bits.number(host);
                if is_compressed || host == 0 || checking.counts.get(cluster).references() == 0 {
                    continue;
                }
                let should = checking.counts.get(cluster).references() == 1;
                if should != (entry.word & COPIED != 0) {
                    wrong.push((entry_offset(format, *table, number), entry.word, should));
                }
            }
        }
        tell(checking, *table, *uses, &wrong, snapshots);
    }
    Ok(())
}

fn check_l1(checking: &mut Checking, index: u64, entry: u64) {
    let cluster = checking.header.cluster_bits.number(entry & OFFSET);
    let should = checking.counts.get(cluster).references() == 1;
    if should == (entry & COPIED != 0) {
        return;
    }
    let at = checking.header.l1_offset.saturating_add(index.saturating_mul(8));
    let summary = format!(
        "COPIED is {}, and the L2 table has {} references",
        !should,
        checking.counts.get(cluster).references()
    );
    let problem = Problem::error("qcow2 L1 table entry", at, summary).affecting(effect(should), []);
    checking.report.add(problem.repaired_by("correct the flag", vec![corrected(at, entry, should)]));
}

/// One problem for all wrong flags of a table.
fn tell(checking: &mut Checking, table: u64, uses: Uses, wrong: &[(u64, u64, bool)], snapshots: usize) {
    let Some((at, word, should)) = wrong.first() else { return };
    let unsafe_ones = wrong.iter().filter(|(_, _, should)| !should).count();
    let summary = format!(
        "COPIED is wrong in {} entries of the table at {table:#x} (L1 entry {}), {unsafe_ones} of them set on shared clusters; \
         the first is {word:#x}, with {} snapshots",
        wrong.len(),
        uses.active.map_or(0, |(index, _)| index),
        snapshots
    );
    let effect = effect(*should && unsafe_ones == 0);
    let patches = wrong.iter().map(|(at, word, should)| corrected(*at, *word, *should)).collect();
    let problem = Problem::error("qcow2 L2 table entry", *at, summary).affecting(effect, []);
    checking.report.add(problem.repaired_by("correct the flags", patches));
}

fn corrected(at: u64, entry: u64, should: bool) -> Patch {
    let entry = if should { entry | COPIED } else { entry & !COPIED };
    Patch { file: 0, offset: at, bytes: entry.to_be_bytes().to_vec() }
}

fn effect(should: bool) -> &'static str {
    match should {
        true => "none for reading; the next write copies what need not be copied",
        false => "a write changes a snapshot too",
    }
}
