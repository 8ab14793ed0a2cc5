//! Fast commits: small changes since the last transaction, in an area of their own behind the log.
//!
//! Linux `Documentation/filesystems/ext4/journal.rst`, "Fast commits". Little-endian, unlike the rest of the
//! journal: tags with a length and a value, none of which crosses a block. A head names the transaction that
//! they follow; each tail holds a CRC-32C over all since the tail before, without which that part is not there.

use ondisk::{Corrupt, Error, Result, crc32c_raw, le};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::extent_tree::{self, RawExtent};
use crate::mapping::Run;
use crate::units::widen;

/// The name of the structure in errors.
pub(crate) const STRUCTURE: &str = "fast commit block";

/// More changes than any area of a sensible size holds; bounds memory.
const MAX_CHANGES: usize = 1 << 20;

/// `fc_tag`.
mod tag {
    pub(super) const ADD_RANGE: u16 = 1;
    pub(super) const DEL_RANGE: u16 = 2;
    pub(super) const CREAT: u16 = 3;
    pub(super) const LINK: u16 = 4;
    pub(super) const UNLINK: u16 = 5;
    pub(super) const INODE: u16 = 6;
    pub(super) const PAD: u16 = 7;
    pub(super) const TAIL: u16 = 8;
    pub(super) const HEAD: u16 = 9;
}

/// What stands before each value.
#[expect(missing_docs, reason = "the fields carry the kernel's names")]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawTag {
    pub fc_tag: le::U16, // 0x0
    pub fc_len: le::U16, // 0x2 bytes of the value
}

/// The value of a head.
#[expect(missing_docs, reason = "the fields carry the kernel's names")]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawHead {
    pub fc_features: le::U32, // 0x0 none is defined
    pub fc_tid: le::U32,      // 0x4 the transaction that was running
}

/// The value of a tail; the rest of the block follows.
#[expect(missing_docs, reason = "the fields carry the kernel's names")]
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawTail {
    pub fc_tid: le::U32, // 0x0
    pub fc_crc: le::U32, // 0x4 up to here, from the end of the tail before
}

/// The value of a new range of a file.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawAddRange {
    fc_ino: le::U32,  // 0x0
    fc_ex: RawExtent, // 0x4
}

/// The value of a range that is a hole now.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawDelRange {
    fc_ino: le::U32,  // 0x0
    fc_lblk: le::U32, // 0x4
    fc_len: le::U32,  // 0x8
}

/// The value of a change of a directory; the name follows.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawDentry {
    fc_parent_ino: le::U32, // 0x0
    fc_ino: le::U32,        // 0x4
}

/// A name in a directory, and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The directory.
    pub parent: u32,
    /// The inode.
    pub inode: u32,
    /// The name, 1..=255 bytes.
    pub name: Vec<u8>,
}

/// One change, in the order in which they must be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The file blocks of the run lie where it says.
    AddRange {
        /// The file.
        inode: u32,
        /// The run; its place was not judged.
        run: Run,
    },
    /// File blocks that are a hole.
    DeleteRange {
        /// The file.
        inode: u32,
        /// The first.
        first: u64,
        /// How many.
        length: u64,
    },
    /// A new inode, which is there already, gets its name.
    Create(Name),
    /// An inode gets another name.
    Link(Name),
    /// An inode loses a name.
    Unlink(Name),
    /// The inode is like this, but for its block map and count of blocks.
    Inode {
        /// Its number.
        number: u32,
        /// The first bytes of it, at least 128.
        bytes: Vec<u8>,
    },
}

/// What the area holds.
#[derive(Debug, Default)]
pub struct FastCommits {
    /// How many commits are complete.
    pub commits: u64,
    /// Their changes.
    pub changes: Vec<Change>,
}

/// Gathers the changes block by block.
#[derive(Debug)]
pub(super) struct Scan {
    transaction: u32,
    inode_size: usize,
    crc: u32,
    found: FastCommits,
    pending: Vec<Change>,
    has_begun: bool,
}

impl Scan {
    pub(super) fn new(transaction: u32, inode_size: usize) -> Self {
        let found = FastCommits::default();
        Self { transaction, inode_size, crc: 0, found, pending: Vec::new(), has_begun: false }
    }

    pub(super) fn finish(self) -> FastCommits {
        self.found
    }

    /// Takes one block in; returns whether another may follow. What does not continue a complete commit ends
    /// the area; before the first one is complete it is damage, on which the kernel refuses to mount.
    pub(super) fn block(&mut self, bytes: &[u8], offset: u64) -> Result<bool> {
        if !self.has_begun && !is_tagged(bytes, tag::HEAD) {
            return Ok(false);
        }
        self.has_begun = true;
        let mut rest = bytes;
        while let Ok((raw, after)) = RawTag::read_from_prefix(rest) {
            let at = offset.saturating_add(widen(bytes.len().saturating_sub(rest.len())));
            let length = usize::from(raw.fc_len.get());
            let Some((value, next)) = after.split_at_checked(length) else {
                return self.end(at, "fc_len", raw.fc_len.get());
            };
            match raw.fc_tag.get() {
                tag::HEAD => {
                    let Ok(head) = RawHead::read_from_bytes(value) else {
                        return self.end(at, "fc_len", raw.fc_len.get());
                    };
                    if head.fc_features.get() != 0 {
                        let features = format!("features {:#x}", head.fc_features);
                        return Err(Error::unsupported("fast commit", features));
                    }
                    if head.fc_tid.get() != self.transaction {
                        // A leftover of an earlier transaction.
                        return Ok(false);
                    }
                }
                tag::TAIL => {
                    let Ok((tail, _)) = RawTail::read_from_prefix(value) else {
                        return self.end(at, "fc_len", raw.fc_len.get());
                    };
                    let state = crc32c_raw(crc32c_raw(self.crc, raw.as_bytes()), tail.fc_tid.as_bytes());
                    if tail.fc_tid.get() != self.transaction || tail.fc_crc.get() != state {
                        return self.end(at, "fc_crc", tail.fc_crc.get());
                    }
                    self.crc = 0;
                    self.found.commits = self.found.commits.saturating_add(1);
                    self.found.changes.append(&mut self.pending);
                    rest = next;
                    continue;
                }
                tag::PAD => {}
                number => {
                    let Some(change) = decode(number, value, self.inode_size) else {
                        return self.end(at, "fc_tag", number);
                    };
                    self.pending.push(change);
                    if self.pending.len().saturating_add(self.found.changes.len()) > MAX_CHANGES {
                        let reason = format!("more than {MAX_CHANGES} changes");
                        return Err(Error::unsupported("fast commit", reason));
                    }
                }
            }
            self.crc = crc32c_raw(crc32c_raw(self.crc, raw.as_bytes()), value);
            rest = next;
        }
        Ok(true)
    }

    fn end(&self, at: u64, field: &'static str, found: impl std::fmt::Display) -> Result<bool> {
        if self.found.commits > 0 {
            return Ok(false);
        }
        let expected = "what makes the first fast commit complete";
        Err(Corrupt::new(STRUCTURE, at, field, expected, found).into())
    }
}

fn is_tagged(bytes: &[u8], tag: u16) -> bool {
    RawTag::read_from_prefix(bytes).is_ok_and(|(raw, _)| raw.fc_tag.get() == tag)
}

/// `None` for a tag or a length that cannot be.
fn decode(number: u16, value: &[u8], inode_size: usize) -> Option<Change> {
    Some(match number {
        tag::ADD_RANGE => {
            let raw = RawAddRange::read_from_bytes(value).ok()?;
            Change::AddRange { inode: raw.fc_ino.get(), run: extent_tree::run_of(&raw.fc_ex) }
        }
        tag::DEL_RANGE => {
            let raw = RawDelRange::read_from_bytes(value).ok()?;
            let (first, length) = (raw.fc_lblk.get().into(), raw.fc_len.get().into());
            Change::DeleteRange { inode: raw.fc_ino.get(), first, length }
        }
        tag::CREAT => Change::Create(decode_name(value)?),
        tag::LINK => Change::Link(decode_name(value)?),
        tag::UNLINK => Change::Unlink(decode_name(value)?),
        tag::INODE => {
            let (number, bytes) = le::U32::read_from_prefix(value).ok()?;
            if bytes.len() < crate::inode::BASE_SIZE || bytes.len() > inode_size {
                return None;
            }
            Change::Inode { number: number.get(), bytes: bytes.to_vec() }
        }
        _ => return None,
    })
}

fn decode_name(value: &[u8]) -> Option<Name> {
    let (raw, name) = RawDentry::read_from_prefix(value).ok()?;
    let name = Some(name).filter(|name| (1..=255).contains(&name.len()))?.to_vec();
    Some(Name { parent: raw.fc_parent_ino.get(), inode: raw.fc_ino.get(), name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(block: &mut Vec<u8>, tag: u16, value: &[u8]) {
        block.extend(tag.to_le_bytes());
        block.extend((value.len() as u16).to_le_bytes());
        block.extend(value);
    }

    /// A block with these values, and a tail that fills it.
    fn block(transaction: u32, values: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut block = Vec::new();
        for (tag, value) in values {
            put(&mut block, *tag, value);
        }
        block.extend(tag::TAIL.to_le_bytes());
        block.extend((1024 - block.len() as u16 - 2).to_le_bytes());
        block.extend(transaction.to_le_bytes());
        let crc = crc32c_raw(0, &block);
        block.extend(crc.to_le_bytes());
        block.resize(1024, 0);
        block
    }

    fn head(transaction: u32) -> (u16, Vec<u8>) {
        (tag::HEAD, [0_u32.to_le_bytes(), transaction.to_le_bytes()].concat())
    }

    fn unlink(name: &[u8]) -> (u16, Vec<u8>) {
        (tag::UNLINK, [&2_u32.to_le_bytes(), &12_u32.to_le_bytes(), name].concat())
    }

    fn scan(blocks: &[Vec<u8>]) -> Result<FastCommits> {
        let mut scan = Scan::new(7, 256);
        for (block, offset) in blocks.iter().zip((0..).step_by(1024)) {
            if !scan.block(block, offset)? {
                break;
            }
        }
        Ok(scan.finish())
    }

    #[test]
    fn each_tail_completes_what_is_before_it() {
        let good = [block(7, &[head(7), unlink(b"a")]), block(7, &[unlink(b"b")]), vec![0; 1024]];
        let found = scan(&good).unwrap();
        assert_eq!(found.commits, 2);
        let name = |name: &[u8]| Change::Unlink(Name { parent: 2, inode: 12, name: name.to_vec() });
        assert_eq!(found.changes, [name(b"a"), name(b"b")]);
        let mut torn = good.clone();
        torn[1][12] ^= 1;
        assert_eq!(scan(&torn).unwrap().changes, [name(b"a")]);
        // One of another transaction ends it too.
        assert_eq!(scan(&[good[0].clone(), block(6, &[unlink(b"b")])]).unwrap().commits, 1);
    }

    #[test]
    fn leftovers_and_damage() {
        assert_eq!(scan(&[vec![0; 1024]]).unwrap().commits, 0);
        assert_eq!(scan(&[block(6, &[head(6), unlink(b"a")])]).unwrap().commits, 0);
        let field = |change: fn(&mut Vec<u8>)| {
            let mut block = block(7, &[head(7), unlink(b"a")]);
            change(&mut block);
            scan(&[block]).unwrap_err().as_corrupt().map(|corrupt| (corrupt.field, corrupt.offset))
        };
        assert_eq!(field(|block| block[24] ^= 1), Some(("fc_crc", 25)));
        assert_eq!(field(|block| block[12] = 99), Some(("fc_tag", 12)));
        assert_eq!(field(|block| block[15] = 0xff), Some(("fc_len", 12)));
        assert_eq!(field(|block| block[14] = 8), Some(("fc_tag", 12)));
        assert_eq!(field(|block| block[4] = 1), None);
    }
}
