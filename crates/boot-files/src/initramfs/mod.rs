//! An initramfs: archives one after the other, each compressed in its own way, that the kernel unpacks into memory.
//!
//! Linux `Documentation/driver-api/early-userspace/buffer-format.rst`, `init/initramfs.c` and `lib/decompress.c`. Numbers are
//! ASCII hexadecimal. What the kernel would refuse ends the reading as it ends the kernel's; what was unpacked until then stays,
//! and counts there too.

mod compression;
mod cpio;
mod source;

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};

pub use compression::Compression;
use cpio::Unpacker;
use source::Source;

/// Bytes that are decompressed at once.
const PIECE: usize = 128 << 10;

/// Bounds on what is unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that all archives may unpack to, and of the file.
    pub unpacked: u64,
    /// Entries in all archives.
    pub entries: usize,
    /// Bytes of file content that are kept, and of names.
    pub kept: u64,
}

impl Default for Limits {
    /// More than is found anywhere; large images have some hundreds of MiB.
    fn default() -> Self {
        Self { unpacked: 1 << 30, entries: 200_000, kept: 32 << 20 }
    }
}

/// What was unpacked, as the kernel would have it before it starts `/init`.
#[derive(Debug, Clone, Default)]
pub struct Initramfs {
    /// The archives in the order of the file.
    pub segments: Vec<Segment>,
    /// By path without a slash at its start; the last entry of a path counts.
    pub entries: BTreeMap<Vec<u8>, Entry>,
    /// Why unpacking ended before the end of the file.
    pub damage: Option<Damage>,
}

/// One archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its first byte in the file.
    pub offset: u64,
    /// Bytes in the file, compressed; padding is not counted.
    pub length: u64,
    /// How it is compressed.
    pub compression: Compression,
    /// Bytes that it unpacks to.
    pub unpacked: u64,
    /// Entries in it, without those that mark ends.
    pub entries: usize,
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; its target is the content.
    Symlink,
    /// A device node, pipe or socket.
    Special,
}

/// One path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits.
    pub permissions: u16,
    /// Length of the content in bytes.
    pub size: u64,
    /// The content, where it was asked for; always that of symbolic links.
    pub content: Option<Vec<u8>>,
    /// The archive that it comes from, as an index.
    pub segment: usize,
}

/// Why the kernel would stop unpacking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The first byte of the archive that is damaged, or of what is none.
    pub segment: u64,
    /// About where the reading of the file ended, in bytes.
    pub offset: u64,
    /// How the archive is compressed, if it is one.
    pub compression: Option<Compression>,
    /// What is wrong, in words.
    pub reason: String,
    /// Whether the bytes may be right and only cannot be read here: an unknown compression, a limit.
    pub is_limit: bool,
}

impl Initramfs {
    /// Unpacks the file in `input`. Of regular files, the content is kept where `wants` says so, given path and size.
    ///
    /// # Errors
    /// Only what `input` itself cannot read; damage is part of the result.
    pub fn read(
        input: &mut dyn BufRead,
        limits: Limits,
        wants: &dyn Fn(&[u8], u64) -> bool,
    ) -> io::Result<Self> {
        let mut source = Source::new(input);
        let mut unpacker = Unpacker::new(limits, wants);
        let mut found = Self::default();
        loop {
            // A file may have holes without end.
            source.skip_zeros(limits.unpacked);
            let offset = source.position();
            let head = source.head();
            if head.is_empty() {
                break;
            }
            let compression = Compression::recognise(&head, offset);
            if offset >= limits.unpacked {
                found.damage = Some(Damage {
                    segment: offset,
                    offset,
                    compression,
                    reason: format!("more than {} bytes", limits.unpacked),
                    is_limit: true,
                });
                break;
            }
            unpacker.begin(found.segments.len());
            let result = match compression {
                Some(Compression::None) => unpacker.archive(&mut source),
                Some(compression) => compression
                    .decoder(&mut source)
                    .and_then(|decoder| unpacker.archives(&mut BufReader::with_capacity(PIECE, decoder))),
                None => Err(cpio::Stop::damage("invalid magic at start of compressed archive")),
            };
            if let Some(error) = source.take_error() {
                return Err(error);
            }
            if let Some(compression) = compression {
                found.segments.push(Segment {
                    offset,
                    length: source.position().saturating_sub(offset),
                    compression,
                    unpacked: unpacker.unpacked(),
                    entries: unpacker.entries(),
                });
            }
            if let Err(stop) = result {
                found.damage = Some(Damage {
                    segment: offset,
                    offset: source.position(),
                    compression,
                    reason: stop.reason,
                    is_limit: stop.is_limit,
                });
                break;
            }
        }
        if let Some(error) = source.take_error() {
            return Err(error);
        }
        found.entries = unpacker.finish();
        Ok(found)
    }

    /// The entry that `path` leads to, symbolic links followed as the kernel follows them, at most 40.
    pub fn resolve(&self, path: &[u8]) -> Option<(Vec<u8>, &Entry)> {
        let path = resolve(&self.entries, path)?;
        let entry = self.entries.get(&path)?;
        Some((path, entry))
    }

    /// The content of the file that `path` leads to, if it was kept.
    pub fn content(&self, path: &[u8]) -> Option<&[u8]> {
        self.resolve(path)?.1.content.as_deref()
    }

    /// Paths and entries directly or deeper below the directory `path`, links on the way followed.
    pub fn below<'a>(&'a self, path: &[u8]) -> impl Iterator<Item = (&'a [u8], &'a Entry)> {
        let mut prefix = self.resolve(path).map(|(path, _)| path);
        if let Some(prefix) = &mut prefix {
            prefix.push(b'/');
        }
        let from = prefix.clone().unwrap_or_default();
        self.entries
            .range(from..)
            .map(|(path, entry)| (path.as_slice(), entry))
            .take_while(move |(path, _)| prefix.as_ref().is_some_and(|prefix| path.starts_with(prefix)))
    }
}

/// The path without symbolic links that `path` leads to; the root is empty.
fn resolve(entries: &BTreeMap<Vec<u8>, Entry>, path: &[u8]) -> Option<Vec<u8>> {
    let mut left: Vec<Vec<u8>> = parts(path).rev().map(<[u8]>::to_vec).collect();
    let mut at = Vec::new();
    let mut followed = 0;
    while let Some(part) = left.pop() {
        let parent = at.len();
        if part == b".." {
            at.truncate(at.iter().rposition(|byte| *byte == b'/').unwrap_or_default());
            continue;
        }
        if parent > 0 {
            at.push(b'/');
        }
        at.extend(part);
        let entry = entries.get(&at)?;
        if let (EntryKind::Symlink, Some(target)) = (entry.kind, &entry.content) {
            followed += 1;
            if followed > 40 {
                return None;
            }
            at.truncate(if target.starts_with(b"/") { 0 } else { parent });
            left.extend(parts(target).rev().map(<[u8]>::to_vec));
        }
    }
    Some(at)
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

#[cfg(test)]
mod tests;
