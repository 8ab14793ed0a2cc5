//! One inode of the first pass: its fields, its attributes and its map.

use filesystem::FileKind;

use super::attributes::{self, Found, Outcome};
use super::directory_block;
use super::inode::{IMAGIC, Scanned, mode};
use super::maps::{self, Mapped};
use super::opening::Opened;
use super::state::{Check, Directory, Findings, Shared, Stop, Use};
use crate::dir_block;
use crate::features::{compat, incompat, ro_compat};
use crate::inode::{ROOT, flags};
use crate::superblock::Superblock;
use crate::units::{FsBlock, widen};

/// `compat`: extended attributes.
const EXT_ATTR: u32 = 0x8;

/// Blocks of attributes, distinct ones, that are kept in mind.
const MAX_SHARED: usize = 1 << 20;

/// Reserved inode numbers.
const USER_QUOTAS: u32 = 3;
const GROUP_QUOTAS: u32 = 4;
const BOOT_LOADER: u32 = 5;
const RESIZE: u32 = 7;
const JOURNAL: u32 = 8;

/// `file_type` of entries for inodes with this mode.
pub(super) fn file_type(mode: u16) -> u8 {
    dir_block::file_type(FileKind::from_mode(mode.into()))
}

/// One inode under inspection.
pub(super) struct Inspection<'a, 'b> {
    pub(super) check: &'b mut Check<'a>,
    pub(super) findings: &'b mut Findings,
    pub(super) inode: Scanned,
}

impl Inspection<'_, '_> {
    fn opened(&self) -> &Opened {
        self.check.opened
    }

    fn superblock(&self) -> &Superblock {
        &self.check.opened.disk.superblock
    }

    fn by_hand(&mut self, what: impl std::fmt::Display) -> Result<(), Stop> {
        self.findings.by_hand(format!("inode {}: {what}", self.inode.number))
    }

    fn unknown(&self, what: impl std::fmt::Display) -> Stop {
        self.findings.unknown(format!("inode {}: {what}", self.inode.number))
    }

    fn set(&mut self, usage: Use, is_disposable: bool) {
        let file_type = file_type(self.inode.raw.i_mode.get());
        if let Some(state) = self.check.state_mut(self.inode.number) {
            state.usage = usage;
            state.file_type = file_type;
            state.is_disposable = is_disposable;
        }
    }

    pub(super) fn judge(mut self) -> Result<(), Stop> {
        let number = self.inode.number;
        if number == 1 {
            // That one was judged before.
            self.set(Use::Other, false);
            return Ok(());
        }
        if self.opened().deleted.contains(&number) && self.inode.raw.i_links_count.get() == 0 {
            return Ok(());
        }
        self.judge_deletion()?;
        let is_reserved = number < self.superblock().first_inode && number != ROOT;
        let is_project = self.is_project_quotas();
        if self.inode.raw.i_links_count.get() == 0 && number != ROOT && !is_reserved && !is_project {
            return Ok(());
        }
        if self.inode.raw.i_links_count.get() == 0 && number == ROOT {
            return Ok(());
        }
        self.judge_flags()?;
        let is_orphan_file = self.superblock().orphan_inode == Some(number);
        if is_reserved || is_project || is_orphan_file {
            return self.judge_reserved(is_orphan_file);
        }
        if number == ROOT && self.inode.kind() != mode::DIRECTORY {
            return self.by_hand("the root is not a directory");
        }
        self.judge_kind()
    }

    fn is_project_quotas(&self) -> bool {
        let number = self.opened().raw.s_prj_quota_inum.get();
        number != 0 && number == self.inode.number
    }

    /// A time of deletion so low is the next number in a list of orphans.
    fn judge_deletion(&mut self) -> Result<(), Stop> {
        let opened = self.opened();
        let inodes = opened.disk.superblock.inodes;
        let is_early = |time: u32| time != 0 && time < inodes;
        let raw = &opened.raw;
        let has_early_clock =
            is_early(raw.s_wtime.get()) || is_early(raw.s_mtime.get()) || is_early(raw.s_mkfs_time.get());
        let is_deleted_already = opened.deleted.contains(&self.inode.number);
        if is_early(self.inode.raw.i_dtime.get()) && !has_early_clock && !is_deleted_already {
            self.by_hand("it was in a list of orphans that is broken")?;
        }
        Ok(())
    }

    fn judge_flags(&mut self) -> Result<(), Stop> {
        let features = self.superblock().features;
        let is_user = self.inode.number >= self.superblock().first_inode;
        let has_inline = features.has_incompat(incompat::INLINE_DATA);
        if self.inode.has_flag(flags::CASEFOLD) {
            if self.inode.kind() != mode::DIRECTORY || !features.has_incompat(incompat::CASEFOLD) {
                self.by_hand("it ignores case without a reason")?;
            } else {
                return Err(self.unknown("a directory that ignores case"));
            }
        }
        if self.inode.has_flag(flags::INLINE_DATA) {
            if self.inode.has_extents {
                return Err(self.unknown("content in the inode, and extents"));
            }
            if is_user && !has_inline {
                let area = self.inode.attributes().map(attributes::judge_area);
                match area {
                    None => {}
                    Some(Outcome::Good(found)) if found.inline_length.is_none() => {}
                    Some(_) => return Err(self.unknown("content in the inode without the feature")),
                }
                self.by_hand("content in the inode without the feature")?;
            } else if !is_user {
                return Err(self.unknown("content in a reserved inode"));
            }
        }
        let has_extents = features.has_incompat(incompat::EXTENTS);
        if self.inode.has_extents && !has_extents {
            self.by_hand("an extent tree without the feature")?;
        }
        let has_map = matches!(self.inode.kind(), mode::REGULAR | mode::DIRECTORY);
        if has_extents
            && !self.inode.has_extents
            && self.inode.raw.i_links_count.get() != 0
            && has_map
            && self.inode.has_tree()
        {
            self.inode.has_extents = true;
            self.inode.is_checksum_good = true;
        }
        Ok(())
    }

    /// The inodes that no directory names.
    fn judge_reserved(&mut self, is_orphan_file: bool) -> Result<(), Stop> {
        let (number, opened) = (self.inode.number, self.opened());
        let raw = &opened.raw;
        let has_quotas = opened.disk.superblock.features.has_ro_compat(ro_compat::QUOTA);
        let quotas = [&raw.s_usr_quota_inum, &raw.s_grp_quota_inum, &raw.s_prj_quota_inum];
        let is_quotas = quotas.iter().any(|stored| stored.get() == number);
        let is_journal = raw.s_journal_inum.get() == number;
        let has_links = self.inode.raw.i_links_count.get() != 0;
        self.set(Use::Other, false);
        let is_kept = match number {
            _ if is_orphan_file => true,
            JOURNAL => is_journal,
            USER_QUOTAS | GROUP_QUOTAS => has_quotas && is_quotas,
            _ if self.is_project_quotas() => has_quotas,
            _ => true,
        };
        let is_mode_good = match number {
            BOOT_LOADER => self.inode.kind() != mode::DIRECTORY,
            RESIZE => matches!(self.inode.kind(), 0 | mode::REGULAR),
            JOURNAL | USER_QUOTAS | GROUP_QUOTAS => true,
            _ => is_orphan_file || self.is_project_quotas() || self.inode.raw.i_mode.get() == 0,
        };
        if !is_mode_good {
            self.inode.raw.i_mode.set(0);
            self.inode.is_checksum_good = true;
        }
        if !is_kept {
            // It is cleared, and then nothing is left to look at.
            return Ok(());
        }
        // The mode of these is made that of a file.
        let is_file_by_right = is_orphan_file || matches!(number, JOURNAL | USER_QUOTAS | GROUP_QUOTAS);
        if is_file_by_right && self.inode.kind() != mode::REGULAR {
            self.inode.raw.i_mode.set(mode::REGULAR);
            self.inode.is_checksum_good = true;
        }
        if number >= self.superblock().first_inode && !has_links {
            return Err(self.unknown("a file of the system without links"));
        }
        self.judge_blocks()?;
        Ok(())
    }

    fn judge_kind(&mut self) -> Result<(), Stop> {
        let features = self.superblock().features;
        if self.inode.raw.i_dtime.get() != 0 {
            self.inode.is_checksum_good = true;
        }
        let found = self.judge_attributes()?;
        // What was corrected is written, with a checksum that fits.
        self.inode.is_checksum_good |= self.inode.is_extra_bad() || self.inode.has_bad_times();
        if self.inode.raw.i_flags.get() & IMAGIC != 0 {
            self.by_hand("it has the flag imagic")?;
        }
        if self.inode.has_flag(flags::ENCRYPT) {
            if found.has_encryption || self.has_encryption_in_block()? {
                return Err(self.unknown("it is encrypted"));
            }
            self.by_hand("it is encrypted, and does not say how")?;
        }
        self.judge_hidden_directory()?;
        let mapped;
        let usage = match self.inode.kind() {
            mode::DIRECTORY => {
                mapped = self.judge_blocks()?;
                if self.inode.has_flag(flags::INLINE_DATA) {
                    return Err(self.unknown("a directory in its inode"));
                }
                if mapped.blocks == 0 {
                    // Cleared, with the entries that name it.
                    return Ok(());
                }
                self.add_directory(&mapped)?;
                Use::Directory
            }
            mode::REGULAR => {
                if self.inode.has_flag(flags::INLINE_DATA)
                    && features.has_incompat(incompat::INLINE_DATA)
                    && found.inline_length.is_none()
                {
                    self.by_hand("the content in the inode is damaged")?;
                }
                mapped = self.judge_blocks()?;
                Use::Regular
            }
            mode::SYMLINK => {
                if self.inode.has_extents && !self.inode.has_blocks(self.opened()) {
                    self.by_hand("an extent tree in a symlink without blocks")?;
                }
                self.judge_symlink(&found)?;
                mapped = self.judge_blocks()?;
                Use::Other
            }
            mode::CHARACTER | mode::BLOCK | mode::FIFO | mode::SOCKET => {
                self.judge_device()?;
                mapped = self.judge_blocks()?;
                Use::Other
            }
            other => {
                self.by_hand(format_args!("the mode {other:#o} is that of no file"))?;
                mapped = Mapped::default();
                Use::Other
            }
        };
        self.judge_rest(&mapped)?;
        let is_disposable = mapped.blocks == 0
            && self.inode.attributes().is_none()
            && matches!(usage, Use::Regular | Use::Directory);
        self.set(usage, is_disposable);
        Ok(())
    }

    fn has_encryption_in_block(&self) -> Result<bool, Stop> {
        let number = self.inode.attribute_block(self.opened());
        let superblock = self.superblock();
        if number == 0 {
            return Ok(false);
        }
        if number < superblock.first_data_block.0 || number >= superblock.blocks {
            return Ok(true);
        }
        let bytes = self.opened().disk.block(FsBlock(number))?;
        let outcome = attributes::judge_block(&bytes, number, superblock.checksums.seed());
        Ok(!matches!(outcome, Outcome::Good(Found { has_encryption: false, .. })))
    }

    /// The attributes behind the fields; those that are removed are gone afterwards.
    fn judge_attributes(&mut self) -> Result<Found, Stop> {
        let room = usize::from(self.superblock().inode_size.saturating_sub(128));
        if self.inode.extra >= room.saturating_sub(4) {
            return Ok(Found::default());
        }
        let Some(area) = self.inode.attributes() else { return Ok(Found::default()) };
        match attributes::judge_area(area) {
            Outcome::Good(found) => Ok(found),
            Outcome::Unknown(what) => Err(self.unknown(what)),
            Outcome::ByHand(what) => self.by_hand(what).map(|()| Found::default()),
            Outcome::Removed => {
                if self.inode.has_flag(flags::INLINE_DATA) {
                    return Err(self.unknown("content among damaged attributes"));
                }
                let at = self.inode.extra.saturating_add(128);
                if let Some(magic) = self.inode.bytes.get_mut(at..at.saturating_add(4)) {
                    magic.fill(0);
                }
                self.inode.is_checksum_good = true;
                Ok(Found::default())
            }
        }
    }

    /// Something with a map to what begins as a directory is taken for one, not without asking.
    fn judge_hidden_directory(&mut self) -> Result<(), Stop> {
        let first = self.inode.block(0);
        let kind = self.inode.kind();
        let is_special = matches!(kind, mode::CHARACTER | mode::BLOCK | mode::FIFO | mode::SOCKET);
        if !is_special || first == 0 || self.inode.has_flag(flags::INLINE_DATA) {
            return Ok(());
        }
        if self.inode.has_extents {
            return self.by_hand("it has an extent tree, and is no file");
        }
        let is_device = matches!(kind, mode::CHARACTER | mode::BLOCK)
            && self.inode.raw.i_links_count.get() == 1
            && self.inode.blocks().skip(4).all(|block| block == 0);
        let (superblock, opened) = (self.superblock(), self.opened());
        let is_outside = |block: u32| {
            block != 0
                && (u64::from(block) < superblock.first_data_block.0 || u64::from(block) >= superblock.blocks)
        };
        if is_device || self.inode.blocks().any(is_outside) {
            return Ok(());
        }
        let bytes = opened.disk.block(FsBlock(first.into()))?;
        let inode = self.inode.to_inode(opened).filter(|_| self.inode.is_checksum_good);
        let is_like = inode.is_some_and(|inode| directory_block::has_good_checksum(&bytes, &inode))
            && directory_block::begins_as(&bytes, self.inode.number);
        if !is_like {
            return Ok(());
        }
        // Where something else has these blocks too it depends on the order.
        if self.inode.blocks().any(|block| block != 0 && self.check.found.has(FsBlock(block.into()))) {
            return Err(self.unknown("it may be a directory in disguise"));
        }
        self.by_hand("it is a directory in disguise")
    }

    fn judge_device(&mut self) -> Result<(), Stop> {
        let is_kept = self.inode.has_flag(flags::IMMUTABLE | flags::APPEND);
        // The flag of an index is cleared before that is looked at.
        let is_bad = self.inode.has_flag(flags::EXTENTS)
            || is_kept && self.inode.blocks().skip(4).any(|block| block != 0);
        if is_bad { self.by_hand("it is no sound device, FIFO or socket") } else { Ok(()) }
    }

    fn judge_symlink(&mut self, found: &Found) -> Result<(), Stop> {
        if self.is_sound_symlink(found)? { Ok(()) } else { self.by_hand("it is no sound symlink") }
    }

    fn is_sound_symlink(&self, found: &Found) -> Result<bool, Stop> {
        let (inode, superblock) = (&self.inode, self.superblock());
        let size = inode.size();
        if size == 0 || size > u64::from(u32::MAX) {
            return Ok(false);
        }
        if inode.has_flag(flags::INLINE_DATA) {
            return Ok(found
                .inline_length
                .is_some_and(|length| u64::from(length).saturating_add(60) == size));
        }
        let is_text = |bytes: &[u8]| {
            let length = bytes.iter().position(|byte| *byte == 0);
            length.is_some_and(|length| widen(length) == size)
        };
        if inode.is_fast_symlink() {
            return Ok(!inode.has_extents && is_text(&inode.raw.i_block));
        }
        let block = if inode.has_extents {
            let word = |index| inode.block(index);
            // One extent of one block, the first: entries, then depth, then the extent.
            let (head, length) = (word(0) >> 16, word(4) & 0xffff);
            let is_one = inode.has_tree() && head == 1 && word(1) >> 16 == 0;
            if !is_one || word(3) != 0 || !matches!(length, 1 | 0x8001) {
                return Ok(false);
            }
            crate::units::join(word(5), word(4) >> 16)
        } else {
            if inode.blocks().skip(1).any(|block| block != 0) {
                return Ok(false);
            }
            inode.block(0).into()
        };
        if block < superblock.first_data_block.0 || block >= superblock.blocks {
            return Ok(false);
        }
        Ok(is_text(&self.opened().disk.block(FsBlock(block))?))
    }

    /// Attributes in a block, and the map.
    fn judge_blocks(&mut self) -> Result<Mapped, Stop> {
        let attributes = self.judge_attribute_block()?;
        let mut mapped = Mapped::default();
        if self.inode.has_blocks(self.opened()) {
            mapped = maps::walk(self.check, self.findings, &self.inode)?;
        }
        mapped.blocks = mapped.blocks.saturating_add(attributes);
        Ok(mapped)
    }

    /// Returns how many blocks attributes fill: 0 or 1.
    fn judge_attribute_block(&mut self) -> Result<u64, Stop> {
        let number = self.inode.attribute_block(self.opened());
        if number == 0 {
            return Ok(0);
        }
        let superblock = self.superblock();
        let is_inside = number >= superblock.first_data_block.0 && number < superblock.blocks;
        if !superblock.features.has_compat(EXT_ATTR) || !is_inside {
            let is_reserved = self.inode.number < superblock.first_inode && self.inode.number != ROOT;
            return if is_reserved {
                Ok(0)
            } else {
                self.by_hand("its attribute block cannot be").map(|()| 0)
            };
        }
        let seed = superblock.checksums.seed();
        if let Some(shared) = self.check.shared.get_mut(&number) {
            shared.found = shared.found.saturating_add(1);
            return Ok(1);
        }
        let bytes = self.opened().disk.block(FsBlock(number))?;
        match attributes::judge_block(&bytes, number, seed) {
            Outcome::Removed => {
                self.inode.raw.i_file_acl_lo.set(0);
                self.inode.raw.l_i_file_acl_high.set(0);
                Ok(0)
            }
            Outcome::Unknown(what) => Err(self.unknown(what)),
            Outcome::ByHand(what) => {
                self.by_hand(format_args!("attribute block {number}: {what}")).map(|()| 0)
            }
            Outcome::Good(_) => {
                if self.check.shared.len() >= MAX_SHARED {
                    return Err(self.unknown("too many blocks of attributes"));
                }
                let stated = bytes.get(4..).and_then(|rest| rest.first_chunk::<4>());
                let stated = stated.map_or(0, |bytes| u32::from_le_bytes(*bytes));
                self.check.shared.insert(number, Shared { stated, found: 1 });
                if self.check.found.add(FsBlock(number), 1) {
                    self.by_hand(format_args!("attribute block {number} is used for something else too"))?;
                }
                Ok(1)
            }
        }
    }

    fn add_directory(&mut self, mapped: &Mapped) -> Result<(), Stop> {
        let is_indexed = self.inode.has_flag(flags::INDEX) && self.has_sound_index(mapped)?;
        let superblock = self.superblock();
        let number = self.inode.number;
        // The length is made that of the map.
        let blocks = mapped.end;
        let is_rebuilt = superblock.features.has_compat(compat::DIR_INDEX)
            && !is_indexed
            && blocks >= 3
            && self.check.lost_and_found != Some(number);
        let has_extents = self.inode.has_extents;
        let directory = Directory { is_indexed, is_rebuilt, has_extents, ..Directory::default() };
        self.check.directories.insert(number, directory);
        Ok(())
    }

    /// Whether the root of the index is one; if not, there is none any more.
    fn has_sound_index(&self, mapped: &Mapped) -> Result<bool, Stop> {
        let superblock = self.superblock();
        let Some(first) = mapped.first else { return Ok(false) };
        if !superblock.features.has_compat(compat::DIR_INDEX) {
            return Ok(false);
        }
        let bytes = self.opened().disk.block(first)?;
        let info = bytes.get(24..).and_then(|rest| rest.first_chunk::<8>()).copied().unwrap_or_default();
        let [zero_0, zero_1, zero_2, zero_3, version, length, levels, flags] = info;
        let is_large = superblock.features.has_incompat(incompat::LARGE_DIR);
        if [zero_0, zero_1, zero_2, zero_3] != [0; 4]
            || length < 8
            || version > 2
            || flags & 1 != 0
            || levels > 3
        {
            return Ok(false);
        }
        Ok(levels <= 2 || is_large)
    }

    /// Fields that are corrected when the inode is met in a directory, not without asking.
    fn judge_rest(&mut self, mapped: &Mapped) -> Result<(), Stop> {
        let superblock = self.superblock();
        let features = superblock.features;
        let log = superblock.block_size.bytes().trailing_zeros();
        let few = 1_u64.checked_shl(29_u32.saturating_sub(log)).unwrap_or(0);
        let units = mapped.blocks.saturating_mul(superblock.block_size.bytes() / 512);
        let raw = &self.inode.raw;
        let is_directory = self.inode.kind() == mode::DIRECTORY;
        let has_high_size =
            is_directory && !features.has_incompat(incompat::LARGE_DIR) && raw.i_size_high.get() != 0;
        // A wrong count is corrected before, with its upper half.
        let has_high_count = !features.has_ro_compat(ro_compat::HUGE_FILE)
            && raw.l_i_blocks_high.get() != 0
            && u64::from(raw.i_blocks_lo.get()) == units;
        if raw.i_obso_faddr.get() != 0 {
            self.by_hand("it has the address of a fragment")?;
        }
        if has_high_size && units < few {
            self.by_hand("it is too long for a directory")?;
        }
        if has_high_count {
            self.by_hand("its number of blocks is too large for the features")?;
        }
        Ok(())
    }
}
