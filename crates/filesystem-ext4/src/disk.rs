//! A device and the superblock that explains it: where groups, inodes and blocks are.

use std::sync::Arc;

use blockdev::Device;
use filesystem::FileKind;
use ondisk::{Corrupt, Parsed, Result, read_bytes};

use crate::backup;
use crate::cache::Cache;
use crate::group_descriptor::{self, GroupDescriptor};
use crate::inode::{self, Inode};
use crate::superblock::{PRIMARY, RawSuperblock, Superblock};
use crate::units::{FsBlock, to_usize};

/// How many damaged group descriptors are reported one by one.
const MAX_GROUP_PROBLEMS: usize = 16;

/// A device that holds a file system. What was written is what is read, unless a reader that is told of writes
/// has asked for a cache.
#[derive(Debug)]
pub struct Disk {
    /// Where the bytes are.
    pub device: Device,
    /// The superblock, as it was when the device was opened.
    pub superblock: Superblock,
    cache: Option<Cache>,
}

impl Disk {
    /// A device whose superblock is known.
    pub fn new(device: Device, superblock: Superblock) -> Self {
        Self { device, superblock, cache: None }
    }

    /// The same with a cache for metadata.
    pub(crate) fn cached(self) -> Self {
        Self { cache: Some(Cache::default()), ..self }
    }

    /// Forgets what was read: the device was written to.
    pub(crate) fn forget(&self) {
        if let Some(cache) = &self.cache {
            cache.clear();
        }
    }

    /// One whole block of metadata.
    ///
    /// # Errors
    /// `Io`.
    pub fn metadata_block(&self, block: FsBlock) -> Result<Arc<Vec<u8>>> {
        match &self.cache {
            Some(cache) => cache.block(block, self.superblock.block_size, || self.block(block)),
            None => self.block(block).map(Arc::new),
        }
    }

    /// Bytes within a block of metadata.
    fn metadata(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        if self.cache.is_some() {
            let (block, within) = self.superblock.block_size.split(offset);
            let within = to_usize(within);
            // Near the end of a device that was cut short a whole block may not be there.
            if let Ok(bytes) = self.metadata_block(FsBlock(block))
                && let Some(part) = bytes.get(within..within.saturating_add(length))
            {
                return Ok(part.to_vec());
            }
        }
        read_bytes(&*self.device, offset, length)
    }

    /// Reads the superblock; a checksum that does not fit, and a device that is too short, are problems.
    ///
    /// # Errors
    /// `Io`, `Corrupt` when the superblock cannot be understood, `Unsupported` with the features' names.
    pub fn open(device: Device) -> Result<Parsed<Self>> {
        let raw = RawSuperblock::read(&*device)?.ok_or_else(|| {
            Corrupt::new("device", 0, "size", format_args!("at least {}", 2 * PRIMARY), device.size())
        })?;
        let superblock = Superblock::decode(&raw).map_err(|error| backup::with_hint(&*device, error))?;
        let mut problems = Vec::new();
        if let Err(corrupt) = raw.verify_checksum() {
            problems.push(corrupt.into());
        }
        if superblock.size() > device.size() {
            let available = superblock.block_size.split(device.size()).0;
            let expected = format!("up to {available}, which the device holds");
            let corrupt = Corrupt::new("superblock", PRIMARY, "s_blocks_count", expected, superblock.blocks);
            problems.push(corrupt.into());
        }
        Ok(Parsed { value: Self::new(device, superblock), problems })
    }

    /// What is wrong with the group descriptors: checksums, and tables outside the file system. Stops where
    /// the device ends.
    pub fn group_problems(&self) -> Vec<ondisk::Error> {
        let mut problems = Vec::new();
        for group in 0..self.superblock.groups {
            if problems.len() >= MAX_GROUP_PROBLEMS {
                break;
            }
            match self.group(group) {
                Ok(descriptor) => problems.extend(self.judge_group(&descriptor).err().map(Into::into)),
                Err(error) => {
                    problems.push(error);
                    break;
                }
            }
        }
        problems
    }

    /// Refuses a descriptor whose checksum does not fit, or whose places lie outside the file system.
    ///
    /// # Errors
    /// `Corrupt`.
    pub(crate) fn judge_group(&self, descriptor: &GroupDescriptor) -> Result<(), Corrupt> {
        descriptor.verify_checksum(self.superblock.checksums)?;
        let places = [
            ("bg_block_bitmap", descriptor.block_bitmap(), 1),
            ("bg_inode_bitmap", descriptor.inode_bitmap(), 1),
            ("bg_inode_table", descriptor.inode_table(), self.inode_table_blocks()),
        ];
        let descriptors = self.superblock.own_block().after(1)
            ..self.superblock.own_block().after(1).after(group_descriptor::table_blocks(&self.superblock));
        for (index, (field, first, count)) in places.into_iter().enumerate() {
            let mut before = places.iter().take(index);
            if let Some((other, ..)) =
                before.find(|(_, start, length)| first < start.after(*length) && *start < first.after(count))
            {
                let (expected, offset) = (format!("another place than {other}"), descriptor.offset);
                return Err(Corrupt::new(group_descriptor::STRUCTURE, offset, field, expected, first));
            }
            let is_over = first < descriptors.end && first.after(count) > descriptors.start;
            if is_over {
                let expected = format!("not in the group descriptors, up to {}", descriptors.end);
                let offset = descriptor.offset;
                return Err(Corrupt::new(group_descriptor::STRUCTURE, offset, field, expected, first));
            }
            if !self.superblock.holds(first, count) {
                let expected = format!("{count} blocks within {}", self.superblock.blocks);
                return Err(Corrupt::new(
                    group_descriptor::STRUCTURE,
                    descriptor.offset,
                    field,
                    expected,
                    first,
                ));
            }
        }
        Ok(())
    }

    /// Blocks of one group's inode table.
    pub fn inode_table_blocks(&self) -> u64 {
        let size = u64::from(self.superblock.inode_size);
        let bytes = u64::from(self.superblock.inodes_per_group.get()).saturating_mul(size);
        self.superblock.block_size.blocks_for(bytes)
    }

    /// The descriptor of a group, not judged.
    ///
    /// # Errors
    /// `Io`; `Corrupt` for a number that no group has.
    pub fn group(&self, group: u32) -> Result<GroupDescriptor> {
        let offset = GroupDescriptor::offset(&self.superblock, group);
        if group >= self.superblock.groups {
            let expected = format!("below {}", self.superblock.groups);
            return Err(Corrupt::new(group_descriptor::STRUCTURE, offset, "group", expected, group).into());
        }
        let bytes = self.metadata(offset, to_usize(self.superblock.descriptor_size))?;
        Ok(GroupDescriptor::decode(&self.superblock, group, bytes))
    }

    /// One whole block.
    ///
    /// # Errors
    /// `Io`.
    pub fn block(&self, block: FsBlock) -> Result<Vec<u8>> {
        read_bytes(&*self.device, self.offset_of(block), self.superblock.block_size.length())
    }

    /// Blocks side by side; `count` is small.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn blocks(&self, first: FsBlock, count: u64) -> Result<Vec<u8>> {
        let length = self.superblock.block_size.bytes().saturating_mul(count);
        read_bytes(&*self.device, self.offset_of(first), to_usize(length))
    }

    /// The first byte of a block.
    pub fn offset_of(&self, block: FsBlock) -> u64 {
        self.superblock.block_size.offset_of(block)
    }

    /// The inode with this number.
    ///
    /// # Errors
    /// `Io`; `Corrupt` for a number that no inode has, and for a damaged inode.
    pub fn inode(&self, number: u32) -> Result<Inode> {
        let offset = self.inode_offset(number)?;
        let bytes = self.metadata(offset, inode::length(&self.superblock))?;
        Ok(Inode::decode(&self.superblock, number, offset, bytes)?)
    }

    /// The first byte of the inode with this number.
    ///
    /// # Errors
    /// `Io`; `Corrupt` for a number that no inode has, and for a damaged group descriptor.
    pub(crate) fn inode_offset(&self, number: u32) -> Result<u64> {
        let (group, within) = inode::place(&self.superblock, number).ok_or_else(|| {
            Corrupt::new(
                inode::STRUCTURE,
                0,
                "number",
                format_args!("1..={}", self.superblock.inodes),
                number,
            )
        })?;
        let table = match &self.cache {
            Some(cache) => cache.table(group, || self.inode_table(group))?,
            None => self.inode_table(group)?,
        };
        Ok(self.offset_of(table).saturating_add(within))
    }

    /// Where a group's inode table begins: as its descriptor says, or where that is damaged as a copy of it does.
    fn inode_table(&self, group: u32) -> Result<FsBlock> {
        let descriptor = self.group(group)?;
        let table = descriptor.inode_table();
        if self.judge_group(&descriptor).is_ok() {
            return Ok(table);
        }
        if let Some(copy) = self.good_copy(group)? {
            return Ok(copy.inode_table());
        }
        if self.superblock.holds(table, self.inode_table_blocks()) {
            return Ok(table);
        }
        let expected = format!("within {} blocks", self.superblock.blocks);
        let (structure, offset) = (group_descriptor::STRUCTURE, descriptor.offset);
        Err(Corrupt::new(structure, offset, "bg_inode_table", expected, table).into())
    }

    /// The inode with this number, which must be of this kind.
    ///
    /// # Errors
    /// As [`inode`](Self::inode), and `Corrupt` for another kind.
    pub fn inode_of_kind(&self, number: u32, kind: FileKind, name: &'static str) -> Result<Inode> {
        let inode = self.inode(number)?;
        if inode.kind() == kind {
            return Ok(inode);
        }
        let found = format!("{:#o}", inode.raw.i_mode.get());
        Err(Corrupt::new(inode::STRUCTURE, inode.offset, "i_mode", name, found).into())
    }
}
