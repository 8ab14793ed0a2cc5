//! Directories: B+trees of file names, the root in the record and the other nodes in index blocks.
//!
//! Linux-NTFS documentation, "$INDEX_ROOT", "$INDEX_ALLOCATION"; layouts as in `fs/ntfs3/ntfs.h`. Little-endian.

use std::collections::HashSet;
use std::ops::ControlFlow;

use ondisk::{Corrupt, Error, Result};

use crate::Ntfs;
use crate::file::File;
use crate::fixup;
use crate::mft;
use crate::name;
use crate::number::wide;
use crate::record::kind;
use crate::span::{Checked, Span, units};
use crate::stream::Stream;
use crate::volume::Volume;

/// Nodes below each other; a tree of 2^63 bytes has fewer.
const MAX_DEPTH: usize = 32;
/// `$FILE_NAME` is at most 66 + 2 * 255 bytes, and blocks are 4 KiB; this is far beyond.
const MAX_BLOCK: u32 = 64 << 10;

const HAS_CHILDREN: u32 = 1;
const ENTRY_HAS_CHILD: u16 = 1;
const ENTRY_IS_LAST: u16 = 2;

/// An index of one file, opened.
pub(crate) struct Index<'a> {
    volume: &'a Volume,
    root: Vec<u8>,
    root_offset: u64,
    blocks: Option<Stream>,
    block_size: u32,
    /// Bytes that a VCN of a child counts.
    vcn_size: u64,
}

/// An entry of an index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    /// Bytes 0..8: a file reference in a directory, a place of data in others.
    pub(crate) head: [u8; 8],
    pub(crate) key: &'a [u8],
    /// The whole entry.
    pub(crate) bytes: &'a [u8],
    child: Option<u64>,
    is_last: bool,
}

/// Where an entry lies from what is sought.
pub(crate) enum Turn {
    /// What is sought lies behind this entry.
    After,
    /// What is sought lies before this entry.
    Before,
    /// Nothing more is sought.
    Found,
}

impl<'a> Index<'a> {
    /// The index called `name` of a file; `None` when there is none.
    pub(crate) fn open(ntfs: &'a Ntfs, file: &File, name: &str) -> Result<Option<Self>> {
        let name = name::ascii(name);
        let Some(root) = file.first(ntfs, kind::INDEX_ROOT, &name)? else { return Ok(None) };
        let root_offset = root.record.offset;
        let Some(value) = root.value() else {
            return Err(Corrupt::new("$INDEX_ROOT", root_offset, "non_resident", 0, 1).into());
        };
        let span = Span::new("$INDEX_ROOT", root_offset, value);
        let block_size = span.u32(8, "index_block_size")?;
        if !block_size.is_power_of_two() || !(512..=MAX_BLOCK).contains(&block_size) {
            return Err(span.corrupt("index_block_size", "a power of two of 512..=65536", block_size).into());
        }
        let blocks = if span.u32(28, "flags")? & HAS_CHILDREN == 0 {
            None
        } else {
            let blocks = file.stream(ntfs, kind::INDEX_ALLOCATION, &name)?;
            Some(blocks.ok_or_else(|| span.corrupt("flags", "$INDEX_ALLOCATION beside it", "none"))?)
        };
        let cluster = ntfs.volume.geometry.cluster_size();
        let vcn_size = if cluster <= u64::from(block_size) { cluster } else { 512 };
        let root = value.to_vec();
        Ok(Some(Self { volume: &ntfs.volume, root, root_offset, blocks, block_size, vcn_size }))
    }

    /// Visits all entries in order.
    pub(crate) fn for_each(&self, visit: &mut dyn FnMut(Entry<'_>) -> Result<()>) -> Result<()> {
        self.walk(&self.root_node(), 0, &mut HashSet::new(), visit)
    }

    fn root_node(&self) -> Span<'_> {
        Span::new("$INDEX_ROOT", self.root_offset, self.root.get(16..).unwrap_or_default())
    }

    fn walk(
        &self,
        node: &Span<'_>,
        depth: usize,
        seen: &mut HashSet<u64>,
        visit: &mut dyn FnMut(Entry<'_>) -> Result<()>,
    ) -> Result<()> {
        entries(node, &mut |entry| {
            if let Some(vcn) = entry.child {
                if depth >= MAX_DEPTH || !seen.insert(vcn) {
                    return Err(node.corrupt("vcn", "a tree of blocks", format_args!("{vcn} again")).into());
                }
                let block = self.block(node, vcn)?;
                self.walk(&block.node(), depth.saturating_add(1), seen, visit)?;
            }
            if !entry.is_last {
                visit(entry)?;
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Goes down from the root to where `turn` leads.
    pub(crate) fn search(&self, turn: &mut dyn FnMut(Entry<'_>) -> Result<Turn>) -> Result<()> {
        let mut next = self.turn(&self.root_node(), turn)?;
        for _ in 0..MAX_DEPTH {
            let Some(vcn) = next else { return Ok(()) };
            let block = self.block(&self.root_node(), vcn)?;
            next = self.turn(&block.node(), turn)?;
        }
        Err(self.root_node().corrupt("depth", format_args!("at most {MAX_DEPTH} levels"), "more").into())
    }

    fn turn(&self, node: &Span<'_>, turn: &mut dyn FnMut(Entry<'_>) -> Result<Turn>) -> Result<Option<u64>> {
        let mut child = None;
        entries(node, &mut |entry| {
            let next = if entry.is_last { Turn::Before } else { turn(entry)? };
            Ok(match next {
                Turn::After => ControlFlow::Continue(()),
                Turn::Before => {
                    child = entry.child;
                    ControlFlow::Break(())
                }
                Turn::Found => ControlFlow::Break(()),
            })
        })?;
        Ok(child)
    }

    fn block(&self, parent: &Span<'_>, vcn: u64) -> Result<Block> {
        let Some(blocks) = &self.blocks else {
            return Err(parent.corrupt("flags", "children to be announced", "an entry with a child").into());
        };
        let at = vcn
            .checked_mul(self.vcn_size)
            .filter(|at| at.is_multiple_of(u64::from(self.block_size).min(self.vcn_size)));
        let at = at.ok_or_else(|| parent.corrupt("vcn", "a block of the index", vcn))?;
        let mut bytes = vec![0; usize::try_from(self.block_size).unwrap_or_default()];
        blocks.read_metadata(self.volume, &mut bytes, at)?;
        Ok(Block::decode(mft::place(self.volume, blocks, at), bytes, vcn)?)
    }
}

/// An index block that passed its update sequence.
struct Block {
    offset: u64,
    bytes: Vec<u8>,
}

impl Block {
    const HEADER: usize = 24;

    fn decode(offset: u64, mut bytes: Vec<u8>, vcn: u64) -> Checked<Self> {
        const STRUCTURE: &str = "index block";
        let span = Span::new(STRUCTURE, offset, &bytes);
        let magic = span.slice(0, 4, "magic")?;
        if magic != b"INDX" {
            return Err(span.corrupt("magic", "INDX", magic.escape_ascii()));
        }
        fixup::apply(STRUCTURE, offset, &mut bytes)?;
        let span = Span::new(STRUCTURE, offset, &bytes);
        let stored = span.u64(16, "index_block_vcn")?;
        if stored != vcn {
            return Err(span.corrupt("index_block_vcn", vcn, stored));
        }
        Ok(Self { offset, bytes })
    }

    fn node(&self) -> Span<'_> {
        Span::new("index block", self.offset, self.bytes.get(Self::HEADER..).unwrap_or_default())
    }
}

/// Visits the entries of a node, from its header on, up to and with the last, which has no key.
fn entries(node: &Span<'_>, visit: &mut dyn FnMut(Entry<'_>) -> Result<ControlFlow<()>>) -> Result<()> {
    let mut at = node.length32(0, "entries_offset")?;
    let length = node.length32(4, "index_length")?;
    let used = Span { bytes: node.slice(0, length, "index_length")?, ..*node };
    if at < 16 {
        return Err(node.corrupt("entries_offset", "at least 16", at).into());
    }
    loop {
        let entry_length = used.length16(at.saturating_add(8), "entry length")?;
        let bytes = used.slice(at, entry_length, "entry length")?;
        let entry = Entry::decode(&Span::new("index entry", used.offset.saturating_add(wide(at)), bytes))?;
        let is_last = entry.is_last;
        if visit(entry)?.is_break() || is_last {
            return Ok(());
        }
        at = at.saturating_add(entry_length);
    }
}

impl<'a> Entry<'a> {
    fn decode(span: &Span<'a>) -> Checked<Self> {
        let head = span.value::<[u8; 8]>(0, "entry length")?;
        let flags = span.u16(12, "flags")?;
        let is_last = flags & ENTRY_IS_LAST != 0;
        let key = if is_last { &[] } else { span.slice(16, span.length16(10, "key_length")?, "key_length")? };
        let child = if flags & ENTRY_HAS_CHILD == 0 {
            None
        } else {
            let at = span.bytes.len().checked_sub(8).filter(|at| *at >= 16);
            Some(span.u64(
                at.ok_or_else(|| span.corrupt("length", "room for a child", span.bytes.len()))?,
                "vcn",
            )?)
        };
        if span.bytes.len() < 16 {
            return Err(span.corrupt("length", "at least 16", span.bytes.len()));
        }
        Ok(Self { head, key, bytes: span.bytes, child, is_last })
    }

    /// The key as a file name.
    pub(crate) fn file_name(&self) -> Checked<FileName<'a>> {
        FileName::decode(&Span::new("$FILE_NAME", 0, self.key))
    }

    /// The reference of the file that an entry of a directory names.
    pub(crate) fn reference(&self) -> u64 {
        u64::from_le_bytes(self.head)
    }
}

/// `$FILE_NAME`, in an index or in a record: a name, and a copy of what the file is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileName<'a> {
    /// UTF-16, little-endian.
    pub(crate) name: &'a [u8],
    pub(crate) attributes: u32,
    pub(crate) is_dos: bool,
}

impl<'a> FileName<'a> {
    /// Set in `attributes` for a directory.
    pub(crate) const DIRECTORY: u32 = 0x1000_0000;
    const DOS: u8 = 2;

    pub(crate) fn decode(span: &Span<'a>) -> Checked<Self> {
        let length = usize::from(span.u8(64, "file_name_length")?).saturating_mul(2);
        let name = span.slice(66, length, "file_name_length")?;
        if name.is_empty() {
            return Err(span.corrupt("file_name_length", "at least 1", 0));
        }
        Ok(Self {
            name,
            attributes: span.u32(56, "file_attributes")?,
            is_dos: span.u8(65, "file_name_type")? == Self::DOS,
        })
    }
}

/// The reference that a directory holds for `wanted`, as Windows finds it: an exact match, or else one that
/// differs in case only.
pub(crate) fn find(ntfs: &Ntfs, index: &Index<'_>, wanted: &[u16]) -> Result<Option<u64>> {
    let (mut exact, mut alike) = (None, None);
    index.search(&mut |entry| {
        let name = entry.file_name()?;
        let ignoring_case = ntfs.upcase.compare(units(name.name), wanted.iter().copied());
        if ignoring_case.is_eq() {
            alike = alike.or(Some(entry.reference()));
        }
        // Names that differ in case only stand beside each other, in the order of their code units.
        Ok(match ignoring_case.then_with(|| units(name.name).cmp(wanted.iter().copied())) {
            std::cmp::Ordering::Less => Turn::After,
            std::cmp::Ordering::Greater => Turn::Before,
            std::cmp::Ordering::Equal => {
                exact = Some(entry.reference());
                Turn::Found
            }
        })
    })?;
    Ok(exact.or(alike))
}

/// The error for a file that is not a directory.
pub(crate) fn not_a_directory(file: &File) -> Error {
    file.base.span().corrupt("flags", "a directory", "a file").into()
}
