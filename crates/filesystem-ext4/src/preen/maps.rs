//! The maps of all inodes: every block within the file system, and used once.

use ondisk::crc32c_raw;
use zerocopy::FromBytes;

use super::inode::{Scanned, is_node, mode};
use super::opening::Opened;
use super::state::{Check, Findings, Stop};
use crate::checksum::inode_seed;
use crate::extent_tree::{RawExtent, RawHeader, RawIndex, run_of};
use crate::features::incompat;
use crate::inode::flags;
use crate::mapping::Run;
use crate::units::{FsBlock, halves, join};

/// Deeper trees do not come from any system.
const MAX_DEPTH: u16 = 16;

/// The inode that keeps blocks for growing.
const RESIZE: u32 = 7;

/// What a walk through a map found.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Mapped {
    /// Blocks, those of the map itself counted.
    pub(super) blocks: u64,
    /// One more than the last file block.
    pub(super) end: u64,
    /// Where file block 0 lies.
    pub(super) first: Option<FsBlock>,
    /// Something was wrong, and the walk ended.
    pub(super) is_broken: bool,
}

/// Walks the map of an inode, and marks its blocks.
pub(super) fn walk(check: &mut Check<'_>, findings: &mut Findings, inode: &Scanned) -> Result<Mapped, Stop> {
    let mut walk = Walk { opened: check.opened, check, findings, inode, mapped: Mapped::default(), next: 0 };
    if inode.has_extents {
        walk.extents()?;
    } else {
        walk.block_map()?;
    }
    Ok(walk.mapped)
}

struct Walk<'a, 'b> {
    opened: &'a Opened,
    check: &'b mut Check<'a>,
    findings: &'b mut Findings,
    inode: &'b Scanned,
    mapped: Mapped,
    /// The first file block that no extent has mapped.
    next: u64,
}

/// A node of an extent tree, and what it must fit to.
struct Level<'a> {
    bytes: &'a [u8],
    /// Levels below it.
    depth: u16,
    /// The first file block that it may map; and the last, or 0.
    start: u64,
    end: u64,
    /// Where the last entry of an index node is taken to end.
    last_end: u32,
    is_checksum_good: bool,
}

impl Walk<'_, '_> {
    fn broken(&mut self, what: impl std::fmt::Display) -> Result<(), Stop> {
        self.mapped.is_broken = true;
        self.findings.by_hand(format!("inode {}: {what}", self.inode.number))
    }

    fn is_directory(&self) -> bool {
        self.inode.kind() == mode::DIRECTORY
    }

    fn holds(&self, block: FsBlock) -> bool {
        let superblock = &self.opened.disk.superblock;
        block >= superblock.first_data_block && block.0 < superblock.blocks
    }

    fn mark(&mut self, first: FsBlock, count: u64) -> Result<(), Stop> {
        self.mapped.blocks = self.mapped.blocks.saturating_add(count);
        if self.check.found.add(first, count) {
            let blocks = if count == 1 { String::new() } else { format!(" or one of the {count} from it") };
            return self.broken(format_args!("{first}{blocks} is used more than once"));
        }
        Ok(())
    }

    fn extents(&mut self) -> Result<(), Stop> {
        if !self.inode.has_tree() {
            return self.broken("its extent tree has no valid head");
        }
        let Ok((head, _)) = RawHeader::read_from_prefix(&self.inode.raw.i_block) else { return Ok(()) };
        let depth = head.eh_depth.get();
        if depth > MAX_DEPTH {
            return Err(self
                .findings
                .unknown(format!("inode {}: a tree of depth {depth}", self.inode.number)));
        }
        let blocks = self.opened.disk.superblock.block_size.blocks_for(self.inode.size());
        let bytes = self.inode.raw.i_block;
        let root = Level {
            bytes: &bytes,
            depth,
            start: 0,
            end: 0,
            last_end: halves(blocks).0,
            is_checksum_good: true,
        };
        self.node(&root)
    }

    fn node(&mut self, node: &Level<'_>) -> Result<(), Stop> {
        let Ok((head, _)) = RawHeader::read_from_prefix(node.bytes) else { return Ok(()) };
        let count = usize::from(head.eh_entries.get());
        let entries: Vec<&[u8]> =
            node.bytes.get(12..).unwrap_or_default().chunks_exact(12).take(count).collect();
        let mut start = node.start;
        let mut is_written_again = false;
        for (index, entry) in entries.iter().enumerate() {
            if node.depth == 0 {
                let Ok(raw) = RawExtent::read_from_bytes(entry) else { continue };
                let run = run_of(&raw);
                is_written_again |= self.is_directory() && !run.is_written;
                self.leaf(node, &run, start)?;
                start = run.end().saturating_sub(1);
            } else {
                let Ok(raw) = RawIndex::read_from_bytes(entry) else { continue };
                let following = index.checked_add(1).and_then(|next| entries.get(next));
                let following = following.and_then(|entry| entry.first_chunk::<4>());
                let end = following.map_or(node.last_end, |bytes| u32::from_le_bytes(*bytes));
                self.child(node, &raw, end, start)?;
            }
            if self.mapped.is_broken {
                return Ok(());
            }
        }
        match (node.is_checksum_good, is_written_again) {
            (true, _) => Ok(()),
            (false, false) => self.broken("the checksum of a node of its extent tree does not fit"),
            (false, true) => Err(self.findings.unknown("a damaged node in the map of a directory")),
        }
    }

    fn leaf(&mut self, node: &Level<'_>, run: &Run, start: u64) -> Result<(), Stop> {
        let Run { logical, length, physical, is_written } = *run;
        let superblock = &self.opened.disk.superblock;
        let last = logical.saturating_add(length).wrapping_sub(1);
        let eof = superblock.block_size.blocks_for(self.inode.size()).wrapping_sub(1);
        let may_pass = last > eof && (!is_written || self.inode.has_flag(flags::VERITY));
        let log = superblock.block_size.bytes().trailing_zeros().saturating_sub(10);
        let most = 1_u64.checked_shl(21_u32.saturating_sub(log)).unwrap_or(0);
        let what = if physical.0 == 0 || !self.holds(physical) {
            "an extent begins outside the file system"
        } else if logical < start {
            "extents are out of order"
        } else if node.end != 0 && last > node.end && !may_pass {
            "an extent goes past what its node maps"
        } else if length == 0 {
            "an extent has no blocks"
        } else if physical.after(length).0 > superblock.blocks {
            "an extent ends outside the file system"
        } else if self.is_directory()
            && self.inode.raw.i_size_high.get() == 0
            && !superblock.features.has_incompat(incompat::LARGE_DIR)
            && run.end() > most
        {
            "it is too long for a directory"
        } else if logical < self.next {
            "extents map the same file block"
        } else if self.is_directory() && self.mapped.end < logical {
            "the directory has a hole"
        } else {
            self.next = run.end();
            if logical == 0 {
                self.mapped.first = Some(physical);
            }
            self.mapped.end = run.end();
            return self.mark(physical, length);
        };
        self.broken(what)
    }

    fn child(&mut self, node: &Level<'_>, raw: &RawIndex, end: u32, start: u64) -> Result<(), Stop> {
        let logical = raw.ei_block.get();
        let block = FsBlock(join(raw.ei_leaf_lo.get(), raw.ei_leaf_hi.get().into()));
        let length = end.wrapping_sub(logical);
        let last = u64::from(logical).wrapping_add(length.into()).wrapping_sub(1);
        let eof = self.opened.disk.superblock.block_size.blocks_for(self.inode.size()).wrapping_sub(1);
        let may_pass = last > eof && self.inode.has_flag(flags::VERITY);
        if block.0 == 0 || !self.holds(block) {
            return self.broken("a node of its extent tree lies outside the file system");
        }
        if u64::from(logical) < start {
            return self.broken("nodes of its extent tree are out of order");
        }
        if node.end != 0 && last > node.end && !may_pass {
            return self.broken("a node goes past what the one above it maps");
        }
        self.mark(block, 1)?;
        if self.mapped.is_broken {
            return Ok(());
        }
        let bytes = self.opened.disk.block(block)?;
        let Ok((head, _)) = RawHeader::read_from_prefix(&bytes) else { return Ok(()) };
        if !is_node(&bytes) || head.eh_entries.get() == 0 {
            return self.broken("a node of its extent tree has no valid head");
        }
        let first = bytes.get(12..).and_then(|rest| rest.first_chunk::<4>()).copied().unwrap_or_default();
        let first = u32::from_le_bytes(first);
        if first != logical {
            return self.broken("a node does not begin where the one above it says");
        }
        let is_checksum_good = self.verify_node(&bytes, &head);
        self.node(&Level {
            bytes: &bytes,
            depth: node.depth.saturating_sub(1),
            start: first.into(),
            end: last,
            last_end: end,
            is_checksum_good,
        })
    }

    fn verify_node(&self, bytes: &[u8], head: &RawHeader) -> bool {
        let Some(seed) = self.opened.disk.superblock.checksums.seed() else { return true };
        // The program reads the inode once more for its generation, which then fails.
        if !self.inode.is_checksum_good {
            return false;
        }
        let seed = inode_seed(seed, self.inode.number, self.inode.raw.i_generation.get());
        let end = usize::from(head.eh_max.get()).saturating_add(1).saturating_mul(12);
        let stored = bytes.get(end..).and_then(|rest| rest.first_chunk::<4>());
        let covered = bytes.get(..end);
        matches!((covered, stored), (Some(covered), Some(stored))
            if crc32c_raw(seed, covered) == u32::from_le_bytes(*stored))
    }

    fn block_map(&mut self) -> Result<(), Stop> {
        let size = self.opened.disk.superblock.block_size;
        let per_block = size.bytes() / 4;
        for index in 0..12 {
            self.data(self.inode.block(index), u64::try_from(index).unwrap_or(0))?;
            if self.mapped.is_broken {
                return Ok(());
            }
        }
        let mut first = 12;
        let mut covered = per_block;
        for level in 1..=3_u8 {
            self.indirect(self.inode.block(usize::from(level).saturating_add(11)), level, first, covered)?;
            if self.mapped.is_broken {
                return Ok(());
            }
            first = first.saturating_add(covered);
            covered = covered.saturating_mul(per_block);
        }
        Ok(())
    }

    /// A block of the map; it covers `covered` file blocks from `first`.
    fn indirect(&mut self, block: u32, level: u8, first: u64, covered: u64) -> Result<(), Stop> {
        if block == 0 || !self.judge_place(block, None)? {
            return Ok(());
        }
        let block = FsBlock(block.into());
        if self.inode.number == RESIZE && level != 2 {
            // Those lie in the blocks that are kept.
            self.mapped.blocks = self.mapped.blocks.saturating_add(1);
        } else {
            self.mark(block, 1)?;
        }
        if self.mapped.is_broken {
            return Ok(());
        }
        let bytes = self.opened.disk.block(block)?;
        let per_block = self.opened.disk.superblock.block_size.bytes() / 4;
        let step = covered.checked_div(per_block).unwrap_or(1);
        let mut next = first;
        for entry in bytes.chunks_exact(4) {
            let entry = entry.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
            if level == 1 {
                self.data(entry, next)?;
            } else {
                self.indirect(entry, level.saturating_sub(1), next, step)?;
            }
            if self.mapped.is_broken {
                return Ok(());
            }
            next = next.saturating_add(step);
        }
        Ok(())
    }

    fn data(&mut self, block: u32, logical: u64) -> Result<(), Stop> {
        if block == 0 || !self.judge_place(block, Some(logical))? {
            return Ok(());
        }
        if self.is_directory() && self.mapped.end < logical {
            if self.opened.disk.superblock.features.has_incompat(incompat::LARGE_DIR) {
                let number = self.inode.number;
                return Err(self.findings.unknown(format!("inode {number}: a directory with a hole")));
            }
            return self.broken("the directory has a hole");
        }
        let block = FsBlock(block.into());
        if logical == 0 {
            self.mapped.first = Some(block);
        }
        self.mapped.end = logical.saturating_add(1);
        if self.inode.number == RESIZE {
            self.mapped.blocks = self.mapped.blocks.saturating_add(1);
            return Ok(());
        }
        self.mark(block, 1)
    }

    /// Whether a pointer is good; `logical` is `None` for blocks of the map.
    fn judge_place(&mut self, block: u32, logical: Option<u64>) -> Result<bool, Stop> {
        let superblock = &self.opened.disk.superblock;
        let log = superblock.block_size.bytes().trailing_zeros().saturating_sub(10);
        let most = 1_u64.checked_shl(31_u32.saturating_sub(log)).unwrap_or(0);
        let is_full = self.mapped.blocks.saturating_add(1) >= most;
        let longest = 1_u64.checked_shl(21_u32.saturating_sub(log)).unwrap_or(0);
        let is_large = superblock.features.has_incompat(incompat::LARGE_DIR);
        let what = match self.inode.kind() {
            _ if !self.holds(FsBlock(block.into())) => "a block outside the file system",
            mode::DIRECTORY if is_full => "it is too long for a directory",
            mode::DIRECTORY
                if !is_large
                    && self.inode.raw.i_size_high.get() == 0
                    && logical.is_some_and(|logical| logical > longest) =>
            {
                "it is too long for a directory"
            }
            mode::REGULAR if is_full => "it is too long for a file",
            mode::DIRECTORY | mode::REGULAR => return Ok(true),
            _ if logical.is_some_and(|logical| logical > 0) => "it is too long for a symlink",
            _ => return Ok(true),
        };
        self.broken(what)?;
        Ok(false)
    }
}
