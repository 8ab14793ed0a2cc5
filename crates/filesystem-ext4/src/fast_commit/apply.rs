//! The changes, made one after another to a device that recovery writes to.

use std::collections::BTreeMap;
use std::sync::Arc;

use blockdev::{Device, Overlay};
use filesystem::FileKind;
use ondisk::{Corrupt, Error, Result, read_bytes, read_value};

use super::bitmaps::Bitmaps;
use super::entries;
use crate::bytes::copy_common;
use crate::dir_block::{self, Rules};
use crate::disk::Disk;
use crate::extent_tree;
use crate::features::{compat, incompat, ro_compat};
use crate::inode::{self, Inode, flags};
use crate::journal::fast_commit::{Change, Name};
use crate::mapping::{self, Piece, Run};
use crate::recover::write;
use crate::superblock::{PRIMARY, RawSuperblock, Superblock};
use crate::units::{FsBlock, halves, widen};
use crate::{dir_index, xattr};

/// Where `i_block` lies in an inode, and where the fields after it do.
const BLOCK_AT: usize = 0x28;
const AFTER_BLOCK: usize = 0x64;

/// Makes the changes.
///
/// # Errors
/// `Io`, `Corrupt`; `Unsupported` for a change that the kernel would make in a way that is not known here.
pub(crate) fn apply(overlay: &Arc<Overlay>, changes: &[Change]) -> Result<()> {
    let device: Device = overlay.clone();
    let raw: RawSuperblock = read_value(&*device, PRIMARY)?;
    let disk = Disk::new(device, Superblock::decode(&raw)?);
    if disk.superblock.features.has_ro_compat(ro_compat::BIGALLOC) {
        return Err(refused("changes of a file system with bigalloc"));
    }
    let mut reserved = Vec::new();
    for change in changes {
        if let Change::AddRange { run, .. } = change {
            judge_run(&disk, run)?;
            reserved.push(run.physical.0..run.physical.after(run.length).0);
        }
    }
    let bitmaps = Bitmaps::new(&disk, reserved);
    let mut state = State { disk: &disk, overlay, bitmaps, files: BTreeMap::new() };
    for change in changes {
        state.make(change)?;
    }
    state.finish()
}

fn refused(reason: &str) -> Error {
    Error::unsupported("fast commit", reason)
}

fn judge_run(disk: &Disk, run: &Run) -> Result<(), Corrupt> {
    if run.length > 0
        && run.end() <= extent_tree::MAX_FILE_BLOCKS
        && disk.superblock.holds(run.physical, run.length)
    {
        return Ok(());
    }
    let expected = format!("blocks within {}", disk.superblock.blocks);
    let found = format!("{} blocks at {}", run.length, run.physical);
    Err(Corrupt::new("fast commit", 0, "fc_ex", expected, found))
}

/// An inode that was changed, and its map.
struct File {
    inode: Inode,
    /// By first file block; `None` where there is no extent tree.
    runs: Option<BTreeMap<u64, Run>>,
    /// The blocks of the map as it is on the device.
    nodes: Vec<FsBlock>,
    is_map_changed: bool,
    /// Whether the count of blocks is to be made anew.
    is_counted: bool,
    is_gone: bool,
}

struct State<'a> {
    disk: &'a Disk,
    overlay: &'a Overlay,
    bitmaps: Bitmaps<'a>,
    files: BTreeMap<u32, File>,
}

impl State<'_> {
    fn make(&mut self, change: &Change) -> Result<()> {
        match change {
            Change::AddRange { inode, run } => self.change_map(*inode, run.logical, run.length, Some(run)),
            Change::DeleteRange { inode, first, length } => self.change_map(*inode, *first, *length, None),
            Change::Create(name) => self.create(name),
            Change::Link(name) => self.link(name),
            Change::Unlink(name) => self.unlink(name),
            Change::Inode { number, bytes } => self.store_inode(*number, bytes),
        }
    }

    /// The bytes of an inode as they are now, and where they lie.
    fn bytes(&self, number: u32) -> Result<(u64, Vec<u8>)> {
        if let Some(file) = self.files.get(&number) {
            return Ok((file.inode.offset, file.inode.encode()));
        }
        let offset = self.disk.inode_offset(number)?;
        Ok((offset, read_bytes(&*self.disk.device, offset, inode::length(&self.disk.superblock))?))
    }

    /// Reads an inode, if that was not done yet. Returns whether it is in use: the kernel passes over changes
    /// of one that is not.
    fn load(&mut self, number: u32) -> Result<bool> {
        if let Some(file) = self.files.get(&number) {
            return Ok(!file.is_gone);
        }
        let (offset, bytes) = self.bytes(number)?;
        let inode = Inode::decode_any(&self.disk.superblock, number, offset, bytes)?;
        if inode.raw.i_links_count.get() == 0 || inode.raw.i_mode.get() == 0 {
            return Ok(false);
        }
        inode.verify_checksum()?;
        let file = self.file(inode)?;
        self.files.insert(number, file);
        Ok(true)
    }

    fn file(&self, inode: Inode) -> Result<File> {
        let (mut runs, mut nodes) = (None, Vec::new());
        if inode.has_flag(flags::EXTENTS) {
            let found = runs.get_or_insert_with(BTreeMap::new);
            mapping::walk(self.disk, &inode, 0..u64::MAX, &mut |piece| {
                match piece {
                    Piece::Node(block) => nodes.push(block),
                    Piece::Run(run) => drop(found.insert(run.logical, run)),
                }
                Ok(())
            })?;
        }
        Ok(File { inode, runs, nodes, is_map_changed: false, is_counted: false, is_gone: false })
    }

    fn loaded(&mut self, number: u32) -> Result<&mut File> {
        self.files
            .get_mut(&number)
            .ok_or_else(|| Corrupt::new("fast commit", 0, "fc_ino", "an inode in use", number).into())
    }

    /// Takes file blocks out of a map, and puts a run in their place.
    fn change_map(&mut self, number: u32, first: u64, length: u64, new: Option<&Run>) -> Result<()> {
        if !self.load(number)? {
            return Ok(());
        }
        let file = self.loaded(number)?;
        let Some(runs) = file.runs.as_mut() else {
            return Err(refused("ranges of a file without extents"));
        };
        let end = first.saturating_add(length);
        let start = runs.range(..=first).next_back().map_or(first, |(start, _)| *start);
        let touched: Vec<Run> =
            runs.range(start..end).map(|(_, run)| *run).filter(|run| run.end() > first).collect();
        let mut freed = Vec::new();
        for run in touched {
            runs.remove(&run.logical);
            for kept in [0..first, end..u64::MAX] {
                if let Some(part) = run.clipped(&kept) {
                    runs.insert(part.logical, part);
                }
            }
            freed.extend(run.clipped(&(first..end)));
        }
        if let Some(new) = new {
            runs.insert(new.logical, *new);
        }
        file.is_map_changed = true;
        file.is_counted = true;
        for run in freed {
            self.bitmaps.mark(run.physical, run.length, false)?;
        }
        Ok(())
    }

    fn store_inode(&mut self, number: u32, stored: &[u8]) -> Result<()> {
        let superblock = &self.disk.superblock;
        let (offset, mut bytes) = self.bytes(number)?;
        let old = Inode::decode_any(superblock, number, offset, bytes.clone())?;
        let is_old = self.files.get(&number).map_or_else(
            || old.raw.i_links_count.get() > 0 && old.raw.i_mode.get() != 0,
            |file| !file.is_gone,
        );
        for part in [0..BLOCK_AT, AFTER_BLOCK..stored.len()] {
            if let (Some(to), Some(from)) = (bytes.get_mut(part.clone()), stored.get(part)) {
                to.copy_from_slice(from);
            }
        }
        let mut new = Inode::decode_any(superblock, number, offset, bytes)?;
        if new.has_flag(flags::INLINE_DATA) {
            let block = stored.get(BLOCK_AT..AFTER_BLOCK).unwrap_or_default();
            copy_common(&mut new.raw.i_block, block);
        }
        let before = self.files.remove(&number);
        let mut file = match before {
            Some(before) if before.runs.is_some() == new.has_flag(flags::EXTENTS) => {
                File { inode: new, is_gone: false, ..before }
            }
            _ if !new.has_flag(flags::EXTENTS) => File {
                inode: new,
                runs: None,
                nodes: Vec::new(),
                is_map_changed: false,
                is_counted: false,
                is_gone: false,
            },
            _ if extent_tree::is_root(&new.raw.i_block) => {
                // What the nodes are seeded with does not change before they are written again.
                let mut mapped = old.clone();
                mapped.raw.i_flags.set(flags::EXTENTS);
                File { inode: new, ..self.file(mapped)? }
            }
            _ => File {
                inode: new,
                runs: Some(BTreeMap::new()),
                nodes: Vec::new(),
                is_map_changed: true,
                is_counted: true,
                is_gone: false,
            },
        };
        file.is_map_changed |= file.runs.is_some() && file.inode.seed != old.seed;
        file.is_counted = file.runs.is_some();
        let is_in_use = file.inode.raw.i_links_count.get() > 0 && file.inode.raw.i_mode.get() != 0;
        let was_directory = is_old && old.kind() == FileKind::Directory;
        let is_directory = file.inode.kind() == FileKind::Directory;
        self.files.insert(number, file);
        self.bitmaps.mark_inode(self.overlay, number, true)?;
        if was_directory != is_directory {
            self.bitmaps.count_directory(number, is_directory)?;
        }
        if is_in_use { Ok(()) } else { self.delete(number) }
    }

    fn create(&mut self, name: &Name) -> Result<()> {
        if !self.load(name.inode)? {
            return Ok(());
        }
        let is_directory = self.loaded(name.inode)?.inode.kind() == FileKind::Directory;
        if is_directory {
            if !self.load(name.parent)? {
                return Ok(());
            }
            self.begin_directory(name.inode, name.parent)?;
        }
        self.link(name)?;
        self.loaded(name.inode)?.inode.raw.i_links_count.set(if is_directory { 2 } else { 1 });
        Ok(())
    }

    /// Gives a new directory its first block.
    fn begin_directory(&mut self, number: u32, parent: u32) -> Result<()> {
        let block_size = self.disk.superblock.block_size;
        let has_kinds = self.disk.superblock.features.has_incompat(incompat::FILETYPE);
        let kind = if has_kinds { dir_block::file_type(FileKind::Directory) } else { 0 };
        let home = inode::place(&self.disk.superblock, number).map_or(0, |(group, _)| group);
        let inode = &self.loaded(number)?.inode;
        if inode.has_flag(flags::INLINE_DATA) {
            return Err(refused("a new directory with inline data"));
        }
        let (room, seed) = (dir_block::room(block_size.length(), inode), inode.seed);
        self.change_map(number, 0, extent_tree::MAX_FILE_BLOCKS, None)?;
        let physical = self.bitmaps.allocate(home)?;
        let run = Run { logical: 0, length: 1, physical, is_written: true };
        self.change_map(number, 0, 1, Some(&run))?;
        let file = self.loaded(number)?;
        file.inode.set_size(block_size.bytes());
        file.inode.raw.i_flags.set(file.inode.raw.i_flags.get() & !flags::INDEX);
        let bytes = entries::first_block(room, number, parent, kind);
        write(self.overlay, self.disk.offset_of(physical), &entries::with_tail(bytes, seed))
    }

    fn link(&mut self, name: &Name) -> Result<()> {
        if !self.load(name.inode)? || !self.load(name.parent)? || self.find(name)?.is_some() {
            return Ok(());
        }
        let kind = self.loaded(name.inode)?.inode.kind();
        self.insert(name, kind)?;
        self.change_links(name.inode, 1)?;
        if kind == FileKind::Directory { self.change_links(name.parent, 1) } else { Ok(()) }
    }

    fn unlink(&mut self, name: &Name) -> Result<()> {
        if !self.load(name.inode)? || !self.load(name.parent)? {
            return Ok(());
        }
        let Some((block, number, found)) = self.find(name)? else { return Ok(()) };
        let is_directory = self.loaded(name.inode)?.inode.kind() == FileKind::Directory;
        if found == name.inode {
            self.change_block(name.parent, block, number, |bytes| entries::remove(bytes, &name.name))?;
            if is_directory {
                self.change_links(name.parent, -1)?;
            }
        }
        self.change_links(name.inode, if is_directory { -2 } else { -1 })?;
        let is_last = self.loaded(name.inode)?.inode.raw.i_links_count.get() == 0;
        if is_last { self.delete(name.inode) } else { Ok(()) }
    }

    fn change_links(&mut self, number: u32, by: i16) -> Result<()> {
        let links = &mut self.loaded(number)?.inode.raw.i_links_count;
        links.set(links.get().saturating_add_signed(by));
        Ok(())
    }

    /// Frees an inode that has no name any more, and all that it has.
    fn delete(&mut self, number: u32) -> Result<()> {
        let file = self.loaded(number)?;
        let runs: Vec<Run> = file.runs.iter().flat_map(BTreeMap::values).copied().collect();
        let nodes = std::mem::take(&mut file.nodes);
        if file.runs.is_none()
            && file.inode.kind() == FileKind::Regular
            && !file.inode.has_flag(flags::INLINE_DATA)
        {
            return Err(refused("the end of a file without extents"));
        }
        let inode = file.inode.clone();
        file.runs = file.runs.take().map(|_| BTreeMap::new());
        (file.is_map_changed, file.is_counted, file.is_gone) = (true, true, true);
        file.inode.raw.i_links_count.set(0);
        file.inode.set_size(0);
        // Any time will do; 0 would mean that it was not deleted.
        file.inode.raw.i_dtime.set(inode.raw.i_ctime.get().cast_unsigned().max(1));
        file.inode.raw.i_file_acl_lo.set(0);
        file.inode.raw.l_i_file_acl_high.set(0);
        for run in runs {
            self.bitmaps.mark(run.physical, run.length, false)?;
        }
        for node in nodes {
            self.bitmaps.mark(node, 1, false)?;
        }
        if let Some(block) = inode.attribute_block(&self.disk.superblock)
            && let Some(bytes) = xattr::released(self.disk, block)?
        {
            write(self.overlay, self.disk.offset_of(block), &bytes)?;
        } else if let Some(block) = inode.attribute_block(&self.disk.superblock) {
            self.bitmaps.mark(block, 1, false)?;
        }
        self.bitmaps.mark_inode(self.overlay, number, false)?;
        if inode.kind() == FileKind::Directory {
            self.bitmaps.count_directory(number, false)?;
        }
        Ok(())
    }

    /// The blocks of a directory, ascending, with their numbers.
    fn directory_blocks(&self, number: u32) -> Result<Vec<(FsBlock, u64)>> {
        let Some(file) = self.files.get(&number) else { return Ok(Vec::new()) };
        let inode = &file.inode;
        if inode.kind() != FileKind::Directory {
            let found = format!("{:#o}", inode.raw.i_mode.get());
            return Err(Corrupt::new(inode::STRUCTURE, inode.offset, "i_mode", "a directory", found).into());
        }
        if inode.has_flag(flags::ENCRYPT) || inode.has_flag(flags::CASEFOLD) {
            return Err(refused("changes in an encrypted or casefolded directory"));
        }
        let Some(runs) = &file.runs else {
            return Err(refused("changes in a directory without extents"));
        };
        let blocks = self.disk.superblock.block_size.blocks_for(inode.size);
        let inside = runs.values().filter_map(|run| run.clipped(&(0..blocks)));
        let each = inside.flat_map(|run| {
            (0..run.length).map(move |index| (run.physical.after(index), run.logical.saturating_add(index)))
        });
        Ok(each.collect())
    }

    fn rules(&self) -> Rules {
        Rules { inodes: self.disk.superblock.inodes, is_encrypted: false }
    }

    /// The block with a name, its number, and what the name stands for.
    fn find(&self, name: &Name) -> Result<Option<(FsBlock, u64, u32)>> {
        for (block, number) in self.directory_blocks(name.parent)? {
            let Some((_, bytes)) = self.plain_block(name.parent, block, number)? else { continue };
            let decoded = dir_block::decode(&bytes, self.disk.offset_of(block), self.rules())?;
            if let Some(entry) = decoded.iter().find(|entry| entry.name == name.name) {
                return Ok(Some((block, number, entry.inode)));
            }
        }
        Ok(None)
    }

    /// The inode of the directory and one of its blocks without the tail; `None` for one of its index.
    fn plain_block(&self, directory: u32, block: FsBlock, number: u64) -> Result<Option<(&Inode, Vec<u8>)>> {
        let Some(file) = self.files.get(&directory) else { return Ok(None) };
        let bytes = self.disk.block(block)?;
        if self.is_indexed(&file.inode) && number > 0 && dir_index::is_index_block(&bytes, number) {
            return Ok(None);
        }
        if self.is_indexed(&file.inode) && number == 0 {
            return Ok(Some((&file.inode, bytes)));
        }
        let plain = dir_block::without_tail(&bytes, self.disk.offset_of(block), &file.inode)?.to_vec();
        Ok(Some((&file.inode, plain)))
    }

    fn is_indexed(&self, inode: &Inode) -> bool {
        inode.has_flag(flags::INDEX) && self.disk.superblock.features.has_compat(compat::DIR_INDEX)
    }

    /// Changes a block that has no part of an index in it; returns what `change` does.
    fn change_block(
        &self,
        directory: u32,
        block: FsBlock,
        number: u64,
        change: impl FnOnce(&mut [u8]) -> bool,
    ) -> Result<bool> {
        let Some((inode, mut bytes)) = self.plain_block(directory, block, number)? else { return Ok(false) };
        let offset = self.disk.offset_of(block);
        dir_block::decode(&bytes, offset, self.rules())?;
        if !change(&mut bytes) {
            return Ok(false);
        }
        write(self.overlay, offset, &entries::with_tail(bytes, inode.seed))?;
        Ok(true)
    }

    fn insert(&mut self, name: &Name, kind: FileKind) -> Result<()> {
        let superblock = &self.disk.superblock;
        let has_kinds = superblock.features.has_incompat(incompat::FILETYPE);
        let file_type = if has_kinds { dir_block::file_type(kind) } else { 0 };
        let put = |bytes: &mut [u8]| entries::insert(bytes, name.inode, file_type, &name.name);
        self.drop_index(name.parent)?;
        for (block, number) in self.directory_blocks(name.parent)? {
            if self.change_block(name.parent, block, number, put)? {
                return Ok(());
            }
        }
        let home = inode::place(superblock, name.parent).map_or(0, |(group, _)| group);
        let physical = self.bitmaps.allocate(home)?;
        let block_size = superblock.block_size;
        let inode = &mut self.loaded(name.parent)?.inode;
        let logical = block_size.blocks_for(inode.size);
        inode.set_size(block_size.bytes().saturating_mul(logical.saturating_add(1)));
        let mut bytes = entries::empty(dir_block::room(block_size.length(), inode));
        let seed = inode.seed;
        put(&mut bytes);
        let run = Run { logical, length: 1, physical, is_written: true };
        self.change_map(name.parent, logical, 1, Some(&run))?;
        write(self.overlay, self.disk.offset_of(physical), &entries::with_tail(bytes, seed))
    }

    /// Makes a plain directory of one with an index: a name in a block that its hash does not lead to would
    /// not be found.
    fn drop_index(&mut self, number: u32) -> Result<()> {
        let Some(file) = self.files.get(&number).filter(|file| self.is_indexed(&file.inode)) else {
            return Ok(());
        };
        let length = self.disk.superblock.block_size.length();
        let (room, seed) = (dir_block::room(length, &file.inode), file.inode.seed);
        for (block, index) in self.directory_blocks(number)? {
            let bytes = self.disk.block(block)?;
            if dir_index::is_index_block(&bytes, index) {
                let plain = entries::with_tail(entries::unindexed(&bytes, room, index), seed);
                write(self.overlay, self.disk.offset_of(block), &plain)?;
            }
        }
        let inode = &mut self.loaded(number)?.inode;
        inode.raw.i_flags.set(inode.raw.i_flags.get() & !flags::INDEX);
        Ok(())
    }

    /// Writes inodes, maps and bitmaps.
    fn finish(mut self) -> Result<()> {
        // All blocks in use are marked before new ones are taken.
        for file in self.files.values().filter(|file| !file.is_gone) {
            for run in file.runs.iter().flat_map(BTreeMap::values) {
                self.bitmaps.mark(run.physical, run.length, true)?;
            }
            for node in &file.nodes {
                self.bitmaps.mark(*node, 1, true)?;
            }
        }
        let size = self.disk.superblock.block_size;
        for (number, file) in &mut self.files {
            if file.is_map_changed
                && let Some(runs) = &file.runs
            {
                let joined = joined(runs);
                let wanted = extent_tree::nodes_needed(&joined, size);
                while file.nodes.len() > wanted {
                    if let Some(node) = file.nodes.pop() {
                        self.bitmaps.mark(node, 1, false)?;
                    }
                }
                let home = inode::place(&self.disk.superblock, *number).map_or(0, |(group, _)| group);
                while file.nodes.len() < wanted {
                    file.nodes.push(self.bitmaps.allocate(home)?);
                }
                let tree = extent_tree::build(&joined, size, file.inode.seed, &file.nodes)
                    .ok_or_else(|| refused("a file whose map cannot be expressed"))?;
                file.inode.raw.i_block = tree.root;
                for (block, bytes) in tree.nodes {
                    write(self.overlay, self.disk.offset_of(block), &bytes)?;
                }
            }
            if file.is_counted {
                count(self.disk, file)?;
            }
            write(self.overlay, file.inode.offset, &file.inode.encode())?;
        }
        self.bitmaps.finish(self.overlay)
    }
}

/// The runs, joined where one goes on where the last ends.
fn joined(runs: &BTreeMap<u64, Run>) -> Vec<Run> {
    let mut joined: Vec<Run> = Vec::new();
    for run in runs.values() {
        if !joined.last_mut().is_some_and(|last| last.join(run)) {
            joined.push(*run);
        }
    }
    joined
}

/// Counts the blocks of a file.
fn count(disk: &Disk, file: &mut File) -> Result<()> {
    let superblock = &disk.superblock;
    let data =
        file.runs.iter().flat_map(BTreeMap::values).fold(0_u64, |sum, run| sum.saturating_add(run.length));
    let attributes = u64::from(file.inode.attribute_block(superblock).is_some());
    let blocks = data.saturating_add(widen(file.nodes.len())).saturating_add(attributes);
    let unit = file.inode.allocation_unit(superblock);
    let units = blocks.saturating_mul(superblock.block_size.bytes()).checked_div(unit).unwrap_or(0);
    let (low, high) = halves(units);
    let high = u16::try_from(high).map_err(|_| refused("more blocks than an inode can count"))?;
    file.inode.raw.i_blocks_lo.set(low);
    file.inode.raw.l_i_blocks_high.set(high);
    Ok(())
}
