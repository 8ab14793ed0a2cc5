//! A device and the superblock that explains it: where groups, inodes and blocks are.

use blockdev::Device;
use filesystem::FileKind;
use ondisk::{Corrupt, Parsed, Result, read_bytes};

use crate::group_descriptor::{self, GroupDescriptor};
use crate::inode::{self, Inode};
use crate::superblock::{PRIMARY, RawSuperblock, Superblock};
use crate::units::{FsBlock, to_usize};

/// How many damaged group descriptors are reported one by one.
const MAX_GROUP_PROBLEMS: usize = 16;

/// A device that holds a file system. Keeps no cache: what was written is what is read.
#[derive(Debug)]
pub struct Disk {
    /// Where the bytes are.
    pub device: Device,
    /// The superblock, as it was when the device was opened.
    pub superblock: Superblock,
}

impl Disk {
    /// A device whose superblock is known.
    pub fn new(device: Device, superblock: Superblock) -> Self {
        Self { device, superblock }
    }

    /// Reads the superblock; a checksum that does not fit, and a device that is too short, are problems.
    ///
    /// # Errors
    /// `Io`, `Corrupt` when the superblock cannot be understood, `Unsupported` with the features' names.
    pub fn open(device: Device) -> Result<Parsed<Self>> {
        let raw = RawSuperblock::read(&*device)?.ok_or_else(|| {
            Corrupt::new("device", 0, "size", format_args!("at least {}", 2 * PRIMARY), device.size())
        })?;
        let superblock = Superblock::decode(&raw)?;
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
        for (field, first, count) in places {
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
        let bytes = read_bytes(&*self.device, offset, to_usize(self.superblock.descriptor_size))?;
        Ok(GroupDescriptor::decode(&self.superblock, group, bytes))
    }

    /// One whole block.
    ///
    /// # Errors
    /// `Io`.
    pub fn block(&self, block: FsBlock) -> Result<Vec<u8>> {
        read_bytes(&*self.device, self.offset_of(block), self.superblock.block_size.length())
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
        let bytes = read_bytes(&*self.device, offset, inode::length(&self.superblock))?;
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
        let descriptor = self.group(group)?;
        let table = descriptor.inode_table();
        if !self.superblock.holds(table, self.inode_table_blocks()) {
            let expected = format!("within {} blocks", self.superblock.blocks);
            let (structure, offset) = (group_descriptor::STRUCTURE, descriptor.offset);
            return Err(Corrupt::new(structure, offset, "bg_inode_table", expected, table).into());
        }
        Ok(self.offset_of(table).saturating_add(within))
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
