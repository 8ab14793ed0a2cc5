//! The archives themselves: cpio in its "newc" form, as `init/initramfs.c` reads it.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead, Read};

use super::{Entry, EntryKind, Limits};

/// Bytes of a header.
const HEADER: usize = 110;
/// Longest name that the kernel takes, with its NUL; entries of longer ones are passed over.
const PATH_MAX: u64 = 4096;
const END: &[u8] = b"TRAILER!!!";

/// Why unpacking ends.
#[derive(Debug)]
pub(super) struct Stop {
    pub(super) reason: String,
    pub(super) is_limit: bool,
}

impl Stop {
    pub(super) fn damage(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_limit: false }
    }

    pub(super) fn limit(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_limit: true }
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::damage("the archive is cut off"),
            _ => Self::damage(error.to_string()),
        }
    }
}

/// The fields of a header that matter here.
struct Header {
    inode: u32,
    mode: u32,
    links: u32,
    size: u64,
    device: (u32, u32),
    name_size: u64,
}

impl Header {
    fn parse(bytes: &[u8; HEADER]) -> Result<Self, Stop> {
        match &bytes[..6] {
            b"070701" | b"070702" => {}
            b"070707" => return Err(Stop::damage("incorrect cpio method used: use -H newc option")),
            _ => return Err(Stop::damage("no cpio magic")),
        }
        let field = |index: usize| -> Result<u32, Stop> {
            let digits = &bytes[6 + 8 * index..14 + 8 * index];
            let digits = std::str::from_utf8(digits).ok().filter(|text| !text.starts_with('+'));
            digits
                .and_then(|text| u32::from_str_radix(text, 16).ok())
                .ok_or_else(|| Stop::damage("a header with a number that is none"))
        };
        Ok(Self {
            inode: field(0)?,
            mode: field(1)?,
            links: field(4)?,
            size: u64::from(field(6)?),
            device: (field(7)?, field(8)?),
            name_size: u64::from(field(11)?),
        })
    }

    fn kind(&self) -> Option<EntryKind> {
        Some(match self.mode & 0o17_0000 {
            0o10_0000 => EntryKind::File,
            0o04_0000 => EntryKind::Directory,
            0o12_0000 => EntryKind::Symlink,
            0o02_0000 | 0o06_0000 | 0o01_0000 | 0o14_0000 => EntryKind::Special,
            _ => return None,
        })
    }
}

/// The names of one file.
#[derive(Default)]
struct Names {
    /// Those that wait for the one with the content.
    waiting: Vec<Vec<u8>>,
    /// One that has it.
    known: Option<Vec<u8>>,
}

/// Inode, and the device that it is on.
type FileId = (u32, (u32, u32));

/// Reads archives and gathers what they hold.
pub(super) struct Unpacker<'w> {
    limits: Limits,
    wants: &'w dyn Fn(&[u8], u64) -> bool,
    found: BTreeMap<Vec<u8>, Entry>,
    /// Files with several names.
    links: HashMap<FileId, Names>,
    segment: usize,
    entries: usize,
    all_entries: usize,
    unpacked: u64,
    all_unpacked: u64,
    kept: u64,
    /// Bytes of names.
    names: u64,
    /// The last directory that an entry was put in: as the archive names it, and where it leads.
    parent: Option<(Vec<u8>, Vec<u8>)>,
}

impl<'w> Unpacker<'w> {
    pub(super) fn new(limits: Limits, wants: &'w dyn Fn(&[u8], u64) -> bool) -> Self {
        Self {
            limits,
            wants,
            found: BTreeMap::new(),
            links: HashMap::new(),
            segment: 0,
            entries: 0,
            all_entries: 0,
            unpacked: 0,
            all_unpacked: 0,
            kept: 0,
            names: 0,
            parent: None,
        }
    }

    pub(super) fn begin(&mut self, segment: usize) {
        (self.segment, self.entries, self.unpacked) = (segment, 0, 0);
    }

    /// Bytes that the current segment has unpacked to.
    pub(super) fn unpacked(&self) -> u64 {
        self.unpacked
    }

    /// Entries of the current segment.
    pub(super) fn entries(&self) -> usize {
        self.entries
    }

    pub(super) fn finish(self) -> BTreeMap<Vec<u8>, Entry> {
        self.found
    }

    /// All archives in one decompressed stream, to its end.
    pub(super) fn archives(&mut self, input: &mut dyn BufRead) -> Result<(), Stop> {
        loop {
            let first = loop {
                let mut byte = [0];
                if input.read(&mut byte)? == 0 {
                    return Ok(());
                }
                self.count(1)?;
                match byte {
                    [0] => {}
                    [b'0'] => break byte,
                    _ => return Err(Stop::damage("junk within compressed archive")),
                }
            };
            self.rest_of_archive(first[0], input)?;
        }
    }

    /// One archive, to the entry that marks its end.
    pub(super) fn archive(&mut self, input: &mut dyn BufRead) -> Result<(), Stop> {
        let mut first = [0];
        self.fill(input, &mut first)?;
        self.rest_of_archive(first[0], input)
    }

    fn rest_of_archive(&mut self, first: u8, input: &mut dyn BufRead) -> Result<(), Stop> {
        let mut first = Some(first);
        loop {
            let mut bytes = [0; HEADER];
            let from = match first.take() {
                Some(byte) => {
                    bytes[0] = byte;
                    1
                }
                None => 0,
            };
            self.fill(input, &mut bytes[from..])?;
            let header = Header::parse(&bytes)?;
            if self.entry(&header, input)? {
                self.links.clear();
                return Ok(());
            }
        }
    }

    /// One entry; whether it marks the end.
    fn entry(&mut self, header: &Header, input: &mut dyn BufRead) -> Result<bool, Stop> {
        let body = padded(header.size);
        // The header is two bytes longer than a multiple of four.
        let name_room = padded(header.name_size.saturating_add(2)).saturating_sub(2);
        if header.name_size == 0 || header.name_size > PATH_MAX {
            self.skip(input, name_room.saturating_add(body))?;
            return Ok(false);
        }
        let mut name = vec![0; usize::try_from(name_room).unwrap_or_default()];
        self.fill(input, &mut name)?;
        let end = usize::try_from(header.name_size).unwrap_or_default().min(name.len());
        name.truncate(end);
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        name.truncate(end);
        if name == END {
            self.skip(input, body)?;
            return Ok(true);
        }
        self.all_entries += 1;
        self.entries += 1;
        if self.all_entries > self.limits.entries {
            return Err(Stop::limit(format!("more than {} entries", self.limits.entries)));
        }
        self.names += name.len() as u64;
        if self.names > self.limits.kept {
            return Err(Stop::limit(format!("names of more than {} bytes", self.limits.kept)));
        }
        let (Some(kind), Some(path)) = (header.kind(), self.place(&name)) else {
            self.skip(input, body)?;
            return Ok(false);
        };
        let is_link = kind == EntryKind::Symlink;
        let is_kept = match kind {
            EntryKind::Symlink => header.size <= PATH_MAX,
            EntryKind::File => {
                header.size <= self.limits.kept.saturating_sub(self.kept) && (self.wants)(&path, header.size)
            }
            EntryKind::Directory | EntryKind::Special => false,
        };
        let content = if is_kept {
            let mut content = Vec::new();
            self.count(header.size)?;
            // Grows with what is there, not with what the header says.
            if (&mut *input).take(header.size).read_to_end(&mut content)? as u64 != header.size {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.skip(input, body - header.size)?;
            self.kept += header.size;
            Some(content)
        } else {
            self.skip(input, body)?;
            None
        };
        if is_link && content.is_none() {
            return Ok(false);
        }
        let permissions = (header.mode & 0o7777) as u16;
        let entry = Entry { kind, permissions, size: header.size, content, segment: self.segment };
        self.add(header, path, entry);
        Ok(false)
    }

    /// The path that `name` stands for, links to its directory followed; `None` where there is no such directory, in which the
    /// kernel could not make anything.
    fn place(&mut self, name: &[u8]) -> Option<Vec<u8>> {
        let mut parts: Vec<&[u8]> = super::parts(name).collect();
        let last = parts.pop().unwrap_or_default();
        let parent = parts.join(&b'/');
        let is_same = self.parent.as_ref().is_some_and(|(asked, _)| *asked == parent);
        if !is_same {
            let found = super::resolve(&self.found, &parent)?;
            let is_directory = found.is_empty()
                || self.found.get(&found).is_some_and(|entry| entry.kind == EntryKind::Directory);
            if !is_directory {
                return None;
            }
            self.parent = Some((parent, found));
        }
        let mut path = self.parent.as_ref().map(|(_, found)| found.clone()).unwrap_or_default();
        if !path.is_empty() && !last.is_empty() {
            path.push(b'/');
        }
        path.extend(last);
        Some(path)
    }

    fn add(&mut self, header: &Header, path: Vec<u8>, entry: Entry) {
        if entry.kind == EntryKind::File && header.links > 1 {
            let names = self.links.entry((header.inode, header.device)).or_default();
            if entry.size > 0 {
                names.known = Some(path.clone());
                for name in std::mem::take(&mut names.waiting) {
                    let same = share(&entry, &mut self.kept, self.limits.kept);
                    self.found.insert(name, same);
                }
            } else if let Some(known) = names.known.as_ref().and_then(|known| self.found.get(known)) {
                let same = share(known, &mut self.kept, self.limits.kept);
                self.found.insert(path, same);
                return;
            } else {
                names.waiting.push(path.clone());
            }
        }
        // A directory over a directory, as it comes in every archive, changes nothing below; anything else over a
        // directory is refused by the kernel while the directory is not empty.
        let is_over_directory = self.found.get(&path).is_some_and(|old| old.kind == EntryKind::Directory);
        let is_in_use = || {
            let below = [path.as_slice(), b"/"].concat();
            self.found.range(below.clone()..).next().is_some_and(|(path, _)| path.starts_with(&below))
        };
        if is_over_directory && entry.kind != EntryKind::Directory && is_in_use() {
            return;
        }
        if entry.kind == EntryKind::Symlink || is_over_directory {
            self.parent = None;
        }
        if !path.is_empty() {
            self.found.insert(path, entry);
        }
    }

    fn fill(&mut self, input: &mut dyn BufRead, buf: &mut [u8]) -> Result<(), Stop> {
        self.count(buf.len() as u64)?;
        Ok(input.read_exact(buf)?)
    }

    fn skip(&mut self, input: &mut dyn BufRead, count: u64) -> Result<(), Stop> {
        self.count(count)?;
        let mut left = count;
        while left > 0 {
            let there = input.fill_buf()?.len();
            if there == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            let step = left.min(there as u64);
            input.consume(step as usize);
            left -= step;
        }
        Ok(())
    }

    fn count(&mut self, bytes: u64) -> Result<(), Stop> {
        self.unpacked = self.unpacked.saturating_add(bytes);
        self.all_unpacked = self.all_unpacked.saturating_add(bytes);
        if self.all_unpacked > self.limits.unpacked {
            return Err(Stop::limit(format!("more than {} bytes unpacked", self.limits.unpacked)));
        }
        Ok(())
    }
}

/// The same file under another name; its content only as long as there is room.
fn share(entry: &Entry, kept: &mut u64, limit: u64) -> Entry {
    let mut same = entry.clone();
    match same.content.is_some() && entry.size <= limit.saturating_sub(*kept) {
        true => *kept += entry.size,
        false => same.content = None,
    }
    same
}

/// Rounded up to a multiple of four.
fn padded(length: u64) -> u64 {
    length.next_multiple_of(4)
}
