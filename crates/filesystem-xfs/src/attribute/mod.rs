//! Extended attributes: small values beside each other, large ones in blocks of their own.
//!
//! XFS Algorithms & Data Structures, "Extended Attributes". Few attributes live in the inode; more fill
//! leaves that are chained in hash order, with an index above them when there is more than one. Only leaves
//! are read: down the first pointers to the first leaf, then along the chain.

mod inline;
mod leaf;
mod remote;

use std::collections::HashSet;

use ondisk::{Error, Result};

use crate::Xfs;
use crate::extent::FILE_BLOCKS;
use crate::inode::{DiskInode, Fork, Format};
use crate::mapping::{Place, run_at};
use crate::span::{Checked, Span};

/// Names with a prefix and their values.
pub(crate) type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// Most bytes that the attributes of one inode may have together. Linux lists at most 64 KiB of names and
/// lets a value have 64 KiB, so anything near this is damage.
const MOST_BYTES: usize = 16 << 20;
/// The longest value that Linux stores.
const LONGEST_VALUE: u32 = 65536;

/// Bits of an entry's flags.
mod flags {
    pub(super) const LOCAL: u8 = 0x01;
    pub(super) const ROOT: u8 = 0x02;
    pub(super) const SECURE: u8 = 0x04;
    pub(super) const PARENT: u8 = 0x08;
    pub(super) const INCOMPLETE: u8 = 0x80;
}

/// One attribute as stored.
#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    flags: u8,
    name: &'a [u8],
    value: Value<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Value<'a> {
    Here(&'a [u8]),
    /// In the blocks of the attribute fork from this one on.
    Remote {
        block: u32,
        length: u32,
    },
}

/// Gathers the attributes that were asked for.
struct Gather<'a> {
    xfs: &'a Xfs,
    fork: Fork<'a>,
    /// Only this one, or all.
    wanted: Option<&'a [u8]>,
    found: Attributes,
    bytes: usize,
}

/// All attributes of `inode`, or only the one with the full name `wanted`.
pub(crate) fn read(xfs: &Xfs, inode: &DiskInode, wanted: Option<&[u8]>) -> Result<Attributes> {
    let Some(fork) = inode.attribute_fork()? else { return Ok(Vec::new()) };
    let mut gather = Gather { xfs, fork, wanted, found: Vec::new(), bytes: 0 };
    match fork.format {
        Format::Local => inline::for_each(&fork.span, |entry| gather.add(entry))?,
        Format::Extents if fork.extents == 0 => {}
        Format::Extents | Format::Btree => gather.leaves()?,
        Format::Device => {
            return Err(inode.span().corrupt("di_aformat", "1..=3", inode.core.di_aformat).into());
        }
    }
    Ok(gather.found)
}

impl Gather<'_> {
    fn add(&mut self, entry: Entry<'_>) -> Result<()> {
        // Parent pointers are metadata of the file system itself; an incomplete value was never visible.
        if entry.flags & (flags::PARENT | flags::INCOMPLETE) != 0 {
            return Ok(());
        }
        let name = [prefix(&self.fork.span, entry.flags)?, entry.name].concat();
        if self.wanted.is_some_and(|wanted| wanted != name) {
            return Ok(());
        }
        let value = match entry.value {
            Value::Here(value) => value.to_vec(),
            Value::Remote { block, length } => remote::read(self.xfs, &self.fork, block, length)?,
        };
        self.bytes = self.bytes.saturating_add(name.len()).saturating_add(value.len());
        if self.bytes > MOST_BYTES {
            let feature = format!("more than {MOST_BYTES} bytes of extended attributes");
            return Err(Error::unsupported("inode", feature));
        }
        self.found.push((name, value));
        Ok(())
    }

    /// Follows the chain of leaves.
    fn leaves(&mut self) -> Result<()> {
        let mut seen = HashSet::new();
        let mut at = self.first_leaf(&mut seen)?;
        loop {
            let (offset, bytes) = read_block(self.xfs, &self.fork, at)?;
            let span = Span::new("attribute leaf", offset, &bytes);
            let leaf = leaf::Leaf::decode(self.xfs, &self.fork, span)?;
            leaf.for_each(|entry| self.add(entry))?;
            at = match leaf.next {
                0 => return Ok(()),
                next => next,
            };
            if !seen.insert(at) {
                return Err(span.corrupt("forw", "a leaf that was not visited", at).into());
            }
        }
    }

    /// Goes down the first pointers from block 0 to a leaf.
    fn first_leaf(&self, seen: &mut HashSet<u32>) -> Result<u32> {
        let mut at = 0;
        loop {
            let (offset, bytes) = read_block(self.xfs, &self.fork, at)?;
            let span = Span::new("attribute node", offset, &bytes);
            if !seen.insert(at) {
                return Err(span.corrupt("before", "a block that was not visited", at).into());
            }
            match leaf::first_child(self.xfs, &self.fork, &span)? {
                None => return Ok(at),
                Some(child) => at = child,
            }
        }
    }
}

/// What stands before the name, as Linux spells it.
fn prefix(span: &Span<'_>, flags: u8) -> Checked<&'static [u8]> {
    match flags & (flags::ROOT | flags::SECURE) {
        0 => Ok(b"user."),
        flags::ROOT => Ok(b"trusted."),
        flags::SECURE => Ok(b"security."),
        _ => Err(span.corrupt("flags", "one namespace", format_args!("{flags:#04x}"))),
    }
}

/// Reads block `at` of the attribute fork: its first byte on the device, and its bytes.
fn read_block(xfs: &Xfs, fork: &Fork<'_>, at: u32) -> Result<(u64, Vec<u8>)> {
    let geometry = &xfs.superblock.geometry;
    debug_assert!(u64::from(at) < FILE_BLOCKS, "32 bits are below 54 bits");
    let place = run_at(xfs, fork, u64::from(at))?.place;
    let offset = match place {
        Place::Written(block) => geometry.byte(block),
        _ => None,
    };
    let offset = offset.ok_or_else(|| {
        fork.span.corrupt("attribute block", "a written block", format_args!("{place:?} at {at}"))
    })?;
    Ok((offset, ondisk::read_bytes(&*xfs.device, offset, geometry.block_size())?))
}
