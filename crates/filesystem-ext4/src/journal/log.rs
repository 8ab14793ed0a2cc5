//! The log as a whole: which transactions are complete, and what they leave behind.

use std::collections::HashMap;

use filesystem::FileKind;
use ondisk::{Corrupt, Result, read_value};

use super::block_header::{self, BlockType};
use super::commit_block::{self, Commit};
use super::descriptor_block::{self, Tag};
use super::fast_commit::{self, FastCommits};
use super::revocation_block;
use super::superblock::{Protection, RawSuperblock, Superblock};
use crate::checksum::crc32_be;
use crate::disk::Disk;
use crate::inode;
use crate::mapping::{self, Run};
use crate::superblock;
use crate::units::FsBlock;

/// The journal of a file system, which lies in an inode of it.
#[derive(Debug)]
pub struct Journal<'a> {
    disk: &'a Disk,
    /// Where the journal's blocks are, ascending.
    runs: Vec<Run>,
    raw: RawSuperblock,
    superblock: Superblock,
}

/// What the complete transactions of the log amount to.
#[derive(Debug)]
pub struct Recovery {
    /// How many complete transactions there are.
    pub transactions: u64,
    /// The copies to put in place, oldest first.
    pub copies: Vec<Copy>,
    /// The number of the transaction that would follow.
    pub next_sequence: u32,
    /// What was changed after the last of them.
    pub fast_commits: FastCommits,
}

/// A block of the log that belongs somewhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copy {
    /// The block of the journal.
    pub from: u32,
    /// Its transaction.
    pub sequence: u32,
    /// Where it belongs, and what to do to it first.
    pub tag: Tag,
}

impl<'a> Journal<'a> {
    /// Reads the map and superblock of the journal in inode `number`.
    ///
    /// # Errors
    /// `Io`, `Corrupt`, `Unsupported` for a feature of the journal.
    pub fn open(disk: &'a Disk, number: u32) -> Result<Self> {
        let inode = disk.inode_of_kind(number, FileKind::Regular, "a regular file that holds the journal")?;
        let size = disk.superblock.block_size;
        let blocks = size.split(inode.size).0;
        let mut runs: Vec<Run> = Vec::new();
        mapping::runs(disk, &inode, 0..blocks, &mut |run| {
            runs.push(run);
            Ok(())
        })?;
        let Some(place) = runs.first().filter(|run| run.logical == 0) else {
            return Err(
                Corrupt::new("journal", inode.offset, "mapped blocks", "the first one", "none").into()
            );
        };
        let offset = disk.offset_of(place.physical);
        let raw: RawSuperblock = read_value(&*disk.device, offset)?;
        let superblock = Superblock::decode(&raw, offset, size.bytes(), blocks)?;
        judge_runs(&runs, raw.s_maxlen.get().into(), inode.offset)?;
        Ok(Self { disk, runs, raw, superblock })
    }

    /// Whether there is anything in the log.
    pub fn is_empty(&self) -> bool {
        self.superblock.start.is_none()
    }

    /// Whether an error has stopped the journal.
    pub fn has_failed(&self) -> bool {
        self.superblock.errno != 0
    }

    /// The blocks of the file system that hold the journal.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The superblock of an empty log whose next transaction is `sequence`, and its place in bytes.
    pub fn emptied(&self, sequence: u32) -> Result<(u64, RawSuperblock)> {
        let mut raw = self.raw.clone();
        raw.empty(sequence);
        Ok((self.offset_of(0)?, raw))
    }

    /// Reads the log from its start to the last complete transaction, as jbd2 does. A log ends where a block
    /// does not continue it. A transaction whose checksums do not fit ends it too, unless the time in its
    /// commit block says that it is newer than the one before, and not a leftover of an earlier turn.
    ///
    /// # Errors
    /// `Io`; `Corrupt` for a damaged transaction or first fast commit, on which the kernel refuses to mount;
    /// `Unsupported` for features of fast commits.
    pub fn recover(&self) -> Result<Recovery> {
        let mut scan = Scan::new(self);
        let Some(start) = self.superblock.start else {
            return Ok(scan.finish());
        };
        let mut position = start;
        while let Some(next) = scan.step(position)? {
            position = next;
        }
        let fast_commits = self.fast_commits(scan.sequence)?;
        Ok(Recovery { fast_commits, ..scan.finish() })
    }

    /// The bytes of a copy as they belong to their place.
    ///
    /// # Errors
    /// `Io`; `Corrupt` when the checksum does not fit.
    pub fn copy(&self, copy: &Copy) -> Result<Vec<u8>> {
        let mut bytes = self.block(copy.from)?;
        if let Some(computed) =
            descriptor_block::copy_checksum(&bytes, copy.sequence, self.superblock.protection)
            && computed != copy.tag.checksum
        {
            let offset = self.offset_of(copy.from)?;
            return Err(Corrupt::checksum("journalled block", offset, computed, copy.tag.checksum).into());
        }
        if let Some(head) = bytes.first_chunk_mut::<4>().filter(|_| copy.tag.is_escaped) {
            *head = block_header::MAGIC.to_be_bytes();
        }
        Ok(bytes)
    }

    /// The fast commits that follow the last transaction, where `sequence` would come next.
    fn fast_commits(&self, sequence: u32) -> Result<FastCommits> {
        let mut scan = fast_commit::Scan::new(sequence, inode::length(&self.disk.superblock));
        for block in self.superblock.fast_commits.clone() {
            if !scan.block(&self.block(block)?, self.offset_of(block)?)? {
                break;
            }
        }
        Ok(scan.finish())
    }

    fn offset_of(&self, block: u32) -> Result<u64> {
        let logical = u64::from(block);
        let run = self.runs.iter().find(|run| run.logical <= logical && logical < run.end());
        let place = run.map(|run| run.physical.after(logical.saturating_sub(run.logical)));
        let place = place.ok_or_else(|| {
            Corrupt::new("journal", 0, "mapped blocks", "all", format_args!("none at {block}"))
        })?;
        Ok(self.disk.offset_of(place))
    }

    fn block(&self, block: u32) -> Result<Vec<u8>> {
        ondisk::read_bytes(
            &*self.disk.device,
            self.offset_of(block)?,
            self.disk.superblock.block_size.length(),
        )
    }

    /// The block of the log `count` after this one, at the end of the log round to its start.
    fn after(&self, block: u32, count: u32) -> u32 {
        let length = self.superblock.end.saturating_sub(self.superblock.first).max(1);
        let within = block.saturating_sub(self.superblock.first);
        let sum = u64::from(within).saturating_add(count.into()).checked_rem(length.into()).unwrap_or(0);
        self.superblock.first.saturating_add(u32::try_from(sum).unwrap_or(0))
    }
}

/// Refuses a journal with a hole in it.
fn judge_runs(runs: &[Run], blocks: u64, offset: u64) -> Result<(), Corrupt> {
    let mut next = 0;
    for run in runs.iter().filter(|run| run.is_written) {
        if run.logical != next {
            break;
        }
        next = run.end();
    }
    if next >= blocks {
        return Ok(());
    }
    let expected = format!("all {blocks}");
    Err(Corrupt::new("journal", offset, "mapped blocks", expected, format_args!("none at {next}")))
}

/// One pass over the log. A transaction gathers in `pending` until its commit block is found.
struct Scan<'a> {
    journal: &'a Journal<'a>,
    /// The transaction that the next block must belong to.
    sequence: u32,
    transactions: u64,
    /// Blocks of the log that are left before the walk would meet itself.
    left: u32,
    pending: Pending,
    /// `h_commit_sec` of the last complete transaction.
    last_commit: u64,
    copies: Vec<Copy>,
    /// The last transaction that revoked a block.
    revoked: HashMap<u64, u32>,
}

struct Pending {
    copies: Vec<Copy>,
    revoked: Vec<u64>,
    /// The first descriptor or revocation block that is not what its checksum, or its length, says.
    damage: Option<Corrupt>,
    /// CRC-32 of descriptor blocks and copies.
    content: u32,
}

impl Default for Pending {
    fn default() -> Self {
        Self { copies: Vec::new(), revoked: Vec::new(), damage: None, content: !0 }
    }
}

impl<'a> Scan<'a> {
    fn new(journal: &'a Journal<'a>) -> Self {
        Self {
            journal,
            sequence: journal.superblock.sequence,
            transactions: 0,
            left: journal.superblock.end.saturating_sub(journal.superblock.first),
            pending: Pending::default(),
            last_commit: 0,
            copies: Vec::new(),
            revoked: HashMap::new(),
        }
    }

    /// Takes the block of the log at `position` in; returns where the next one is, `None` at the end.
    fn step(&mut self, position: u32) -> Result<Option<u32>> {
        let bytes = self.journal.block(position)?;
        let offset = self.journal.offset_of(position)?;
        let Some((kind, _)) = block_header::decode(&bytes).filter(|(_, found)| *found == self.sequence)
        else {
            return Ok(None);
        };
        self.spend(1)?;
        match kind {
            BlockType::Descriptor => {
                let count = self.descriptor(&bytes, position, offset)?;
                Ok(Some(self.journal.after(position, count.saturating_add(1))))
            }
            BlockType::Revocation => {
                self.revocation(&bytes, offset);
                Ok(Some(self.journal.after(position, 1)))
            }
            BlockType::Commit => {
                let goes_on = self.commit(&bytes, offset)?;
                Ok(Some(self.journal.after(position, 1)).filter(|_| goes_on))
            }
            BlockType::SuperblockV1 | BlockType::SuperblockV2 => Ok(None),
        }
    }

    /// A log that is longer than the journal runs into itself.
    fn spend(&mut self, count: u32) -> Result<()> {
        self.left = self.left.checked_sub(count).ok_or_else(|| {
            let length = self.journal.superblock.end.saturating_sub(self.journal.superblock.first);
            Corrupt::new("journal", 0, "log", format_args!("up to {length} blocks"), "more")
        })?;
        Ok(())
    }

    /// Returns how many copies follow.
    fn descriptor(&mut self, bytes: &[u8], position: u32, offset: u64) -> Result<u32> {
        let superblock = &self.journal.superblock;
        if !descriptor_block::is_intact(bytes, superblock.protection) {
            self.pending.note_damage("descriptor block", offset);
        }
        let tags = descriptor_block::decode(bytes, superblock);
        let count = u32::try_from(tags.len()).unwrap_or(u32::MAX);
        self.spend(count)?;
        let is_summed = superblock.protection == Protection::Commit;
        if is_summed {
            self.pending.content = crc32_be(self.pending.content, bytes);
        }
        for (tag, index) in tags.into_iter().zip(1..) {
            let from = self.journal.after(position, index);
            if is_summed {
                self.pending.content = crc32_be(self.pending.content, &self.journal.block(from)?);
            }
            self.pending.copies.push(Copy { from, sequence: self.sequence, tag });
        }
        Ok(count)
    }

    fn revocation(&mut self, bytes: &[u8], offset: u64) {
        if !descriptor_block::is_intact(bytes, self.journal.superblock.protection) {
            self.pending.note_damage("revocation block", offset);
            return;
        }
        match revocation_block::decode(bytes, offset, &self.journal.superblock) {
            Ok(blocks) => self.pending.revoked.extend(blocks),
            Err(corrupt) => {
                self.pending.damage.get_or_insert(corrupt);
            }
        }
    }

    /// Returns whether the log goes on.
    fn commit(&mut self, bytes: &[u8], offset: u64) -> Result<bool> {
        let pending = std::mem::take(&mut self.pending);
        let protection = self.journal.superblock.protection;
        let Some(Commit { seconds, is_intact }) = commit_block::decode(bytes, pending.content, protection)
        else {
            return Ok(false);
        };
        let is_leftover = seconds < self.last_commit;
        if let Some(damage) = pending.damage {
            return if is_leftover { Ok(false) } else { Err(damage.into()) };
        }
        if !is_intact {
            // With asynchronous commits this block may have overtaken what it commits.
            if is_leftover || self.journal.superblock.is_async {
                return Ok(false);
            }
            return Err(Corrupt::new(
                "commit block",
                offset,
                "checksum",
                "that of the transaction",
                "another",
            )
            .into());
        }
        for block in pending.revoked {
            self.revoked.insert(block, self.sequence);
        }
        self.copies.extend(pending.copies);
        self.last_commit = seconds;
        self.transactions = self.transactions.saturating_add(1);
        self.sequence = self.sequence.wrapping_add(1);
        Ok(true)
    }

    fn finish(self) -> Recovery {
        let Self { mut copies, revoked, transactions, sequence, .. } = self;
        copies.retain(|copy| {
            // Transaction numbers wrap; the one that is less than 2^31 ahead is the later.
            let is_later = |by: u32| copy.sequence.wrapping_sub(by).cast_signed() > 0;
            revoked.get(&copy.tag.block).is_none_or(|by| is_later(*by))
        });
        Recovery { transactions, copies, next_sequence: sequence, fast_commits: FastCommits::default() }
    }
}

impl Pending {
    fn note_damage(&mut self, structure: &'static str, offset: u64) {
        self.damage.get_or_insert_with(|| {
            Corrupt::new(structure, offset, "checksum", "that of the block", "another")
        });
    }
}

impl Disk {
    /// Refuses a block that a copy must not be put in.
    pub(crate) fn judge_target(&self, block: u64) -> Result<FsBlock> {
        if block < self.superblock.blocks {
            return Ok(FsBlock(block));
        }
        let expected = format!("below {}", self.superblock.blocks);
        Err(Corrupt::new("descriptor block", superblock::PRIMARY, "t_blocknr", expected, block).into())
    }
}
