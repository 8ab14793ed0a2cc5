//! [`FileSystem`] for NTFS.

use std::sync::Arc;

use filesystem::{DirEntry, FileKind, FileSystem, FsInfo, Inode, Metadata, Timestamp};
use ondisk::{Corrupt, Error, Result, le};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::Ntfs;
use crate::file::File;
use crate::index::{self, FileName, Index};
use crate::interix::{self, Interix};
use crate::mft::{self, number};
use crate::name;
use crate::record::{RECORD_MASK, kind};
use crate::reparse::Reparse;
use crate::security;
use crate::span::Span;
use crate::stream::Stream;

/// The index of names.
const NAMES: &str = "$I30";
/// Linux shows no longer value of an extended attribute.
const MAX_LISTED: u64 = 64 << 10;
const MAX_VALUE: u64 = 16 << 20;
const MAX_REPARSE: u64 = 64 << 10;

/// Bits of `file_attributes`.
mod attributes {
    pub(super) const HIDDEN: u32 = 0x2;
    pub(super) const SYSTEM: u32 = 0x4;
    pub(super) const REPARSE_POINT: u32 = 0x400;
}

/// `$STANDARD_INFORMATION`; times count 100 ns since 1601.
#[derive(Debug, Clone, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Information {
    creation_time: le::U64,         // 0x00
    last_data_change_time: le::U64, // 0x08
    last_mft_change_time: le::U64,  // 0x10
    last_access_time: le::U64,      // 0x18
    file_attributes: le::U32,       // 0x20
    versions: [u8; 12],             // 0x24
}

impl Information {
    /// Byte of the number of the security descriptor, in a value of version 3.
    const SECURITY_ID: usize = 0x34;

    fn read(ntfs: &Ntfs, file: &File) -> Result<(Self, Vec<u8>)> {
        let value = file.value(ntfs, kind::STANDARD_INFORMATION, &[], 4096)?.unwrap_or_default();
        let span = Span::new("$STANDARD_INFORMATION", file.base.offset, &value);
        Ok((span.value(0, "value_length")?, value))
    }

    fn has(&self, bit: u32) -> bool {
        self.file_attributes.get() & bit != 0
    }
}

/// What a file is, beyond what its record says.
enum Nature {
    Plain(FileKind),
    Reparse(Reparse),
    Interix(Interix),
}

impl Nature {
    fn kind(&self, file: &File) -> FileKind {
        match self {
            Self::Plain(kind) | Self::Reparse(Reparse::Special(kind)) => *kind,
            Self::Reparse(Reparse::Other(_)) => stored_kind(file),
            Self::Reparse(Reparse::Link(_) | Reparse::Away(_)) | Self::Interix(Interix::Symlink(_)) => {
                FileKind::Symlink
            }
            Self::Interix(Interix::Device(kind, _)) => *kind,
        }
    }
}

fn stored_kind(file: &File) -> FileKind {
    if file.base.is_directory() { FileKind::Directory } else { FileKind::Regular }
}

impl Ntfs {
    fn file(&self, inode: Inode) -> Result<Arc<File>> {
        self.cache.files.get(inode.0, |_| 0, || File::open(self, inode))
    }

    fn data(&self, inode: Inode, file: &File) -> Result<Arc<Stream>> {
        self.cache.streams.get(inode.0, Stream::weight, || {
            file.stream(self, kind::DATA, &[])?
                .ok_or_else(|| file.base.span().corrupt("attributes", "unnamed $DATA", "none").into())
        })
    }

    fn nature(&self, file: &File, information: &Information) -> Result<Nature> {
        if information.has(attributes::REPARSE_POINT)
            && let Some(value) = file.value(self, kind::REPARSE_POINT, &[], MAX_REPARSE)?
        {
            let span = Span::new("$REPARSE_POINT", file.base.offset, &value);
            return Ok(Nature::Reparse(Reparse::decode(&span)?));
        }
        if !information.has(attributes::SYSTEM)
            || file.base.is_directory()
            || file.base.number < number::FIRST_USER
        {
            return Ok(Nature::Plain(stored_kind(file)));
        }
        let Some(first) = file.first(self, kind::DATA, &[])? else {
            return Ok(Nature::Plain(FileKind::Regular));
        };
        let (size, _) = first.sizes();
        match size {
            0 if !information.has(attributes::HIDDEN) => return Ok(Nature::Plain(FileKind::Fifo)),
            1 if !information.has(attributes::HIDDEN) => return Ok(Nature::Plain(FileKind::Socket)),
            0..=8 => return Ok(Nature::Plain(FileKind::Regular)),
            _ if size > interix::MAX_LENGTH => return Ok(Nature::Plain(FileKind::Regular)),
            _ => {}
        }
        // A file that cannot be read is reported when it is read.
        let data = file.stream(self, kind::DATA, &[])?.and_then(|stream| {
            let mut data =
                vec![0; usize::try_from(stream.size).ok().filter(|_| stream.size <= interix::MAX_LENGTH)?];
            stream.read(&self.volume, &mut data, 0).ok()?;
            Some(data)
        });
        Ok(data
            .and_then(|data| Interix::decode(&data))
            .map_or(Nature::Plain(FileKind::Regular), Nature::Interix))
    }

    fn directory(&self, dir: Inode) -> Result<Index<'_>> {
        let file = self.file(dir)?;
        let index = if file.base.is_directory() { Index::open(self, &file, NAMES)? } else { None };
        index.ok_or_else(|| index::not_a_directory(&file))
    }

    /// Names of a file without the DOS names, which Windows gives and counts too.
    fn links(&self, file: &File) -> Result<u32> {
        let pieces = file.pieces(&|number| self.record(number), kind::FILE_NAME, &|_, _| true)?;
        let is_shown = |value: Option<&[u8]>| {
            let span = Span::new("$FILE_NAME", file.base.offset, value.unwrap_or_default());
            Ok::<_, Error>(!FileName::decode(&span)?.is_dos)
        };
        let mut links = 0_u32;
        for piece in &pieces {
            links = links.saturating_add(u32::from(is_shown(piece.value())?));
        }
        Ok(if links == 0 { u32::from(file.base.links) } else { links })
    }

    /// The value of a named stream, at most [`MAX_VALUE`] bytes.
    fn named_stream(&self, file: &File, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(stream) = file.stream(self, kind::DATA, name)? else { return Ok(None) };
        let length = usize::try_from(stream.size).ok().filter(|_| stream.size <= MAX_VALUE);
        let Some(length) = length else {
            return Err(Error::unsupported("named stream", format!("a value of {} bytes", stream.size)));
        };
        let mut value = vec![0; length];
        stream.read(&self.volume, &mut value, 0)?;
        Ok(Some(value))
    }

    /// Where the security descriptor is: in the file since NT 4, in `$Secure` since Windows 2000.
    fn descriptor(&self, file: &File) -> Result<Option<Vec<u8>>> {
        let (_, value) = Information::read(self, file)?;
        let span = Span::new("$STANDARD_INFORMATION", file.base.offset, &value);
        match span.u32(Information::SECURITY_ID, "security_id") {
            Ok(id) if id != 0 => security::descriptor(self, id),
            _ => file.value(self, kind::SECURITY_DESCRIPTOR, &[], MAX_VALUE),
        }
    }
}

impl FileSystem for Ntfs {
    fn info(&self) -> &FsInfo {
        &self.info
    }

    fn root(&self) -> Inode {
        mft::inode(number::ROOT)
    }

    fn lookup(&self, dir: Inode, name: &[u8]) -> Result<Option<Inode>> {
        let index = self.directory(dir)?;
        let Some(wanted) = name::from_bytes(name) else { return Ok(None) };
        Ok(index::find(self, &index, &wanted)?.map(mft::inode))
    }

    fn metadata(&self, inode: Inode) -> Result<Metadata> {
        let file = self.file(inode)?;
        let (information, _) = Information::read(self, &file)?;
        let nature = self.nature(&file, &information)?;
        let kind = nature.kind(&file);
        let sized = match kind {
            FileKind::Directory => {
                file.first(self, kind::INDEX_ALLOCATION, &name::ascii(NAMES)).ok().flatten()
            }
            _ => file.first(self, kind::DATA, &[])?,
        };
        let (mut size, allocated) = sized.map_or((0, 0), |first| first.sizes());
        let mut device = (0, 0);
        match &nature {
            Nature::Reparse(Reparse::Link(target)) | Nature::Interix(Interix::Symlink(target)) => {
                size = crate::number::wide(target.len());
            }
            Nature::Interix(Interix::Device(_, numbers)) => (size, device) = (0, *numbers),
            _ => {}
        }
        Ok(Metadata {
            kind,
            permissions: 0o777,
            uid: 0,
            gid: 0,
            links: if kind == FileKind::Directory { 1 } else { self.links(&file)? },
            size,
            allocated,
            device,
            modified: time(information.last_data_change_time.get()),
            changed: time(information.last_mft_change_time.get()),
            accessed: time(information.last_access_time.get()),
        })
    }

    fn read_dir(&self, dir: Inode) -> Result<Vec<DirEntry>> {
        let index = self.directory(dir)?;
        let mut entries = Vec::new();
        index.for_each(&mut |entry| {
            let found = entry.file_name()?;
            let reference = entry.reference();
            if found.is_dos || reference & RECORD_MASK < number::FIRST_USER {
                return Ok(());
            }
            let name = name::to_bytes(found.name);
            if name.iter().any(|byte| matches!(byte, 0 | b'/')) || name == b"." || name == b".." {
                let expected = "a name that a directory may hold";
                return Err(Corrupt::new("$FILE_NAME", 0, "file_name", expected, name.escape_ascii()).into());
            }
            let kind = match found.attributes {
                bits if bits & attributes::REPARSE_POINT != 0 => FileKind::Unknown,
                bits if bits & FileName::DIRECTORY != 0 => FileKind::Directory,
                bits if bits & attributes::SYSTEM != 0 => FileKind::Unknown,
                _ => FileKind::Regular,
            };
            entries.push(DirEntry { name, inode: mft::inode(reference), kind });
            Ok(())
        })?;
        Ok(entries)
    }

    fn read_at(&self, file: Inode, buf: &mut [u8], offset: u64) -> Result<usize> {
        let inode = file;
        let file = self.file(inode)?;
        if file.base.is_directory() {
            return Err(file.base.span().corrupt("flags", "a regular file", "a directory").into());
        }
        let (information, _) = Information::read(self, &file)?;
        match self.nature(&file, &information)? {
            Nature::Plain(FileKind::Regular) => {}
            Nature::Reparse(other @ Reparse::Other(_)) => {
                return Err(Error::unsupported("file", other.name()));
            }
            nature => {
                let found = nature.kind(&file).letter();
                return Err(file.base.span().corrupt("file_attributes", "a regular file", found).into());
            }
        }
        let stream = self.data(inode, &file)?;
        let buf = stream.clip(buf, offset);
        stream.read(&self.volume, buf, offset)?;
        Ok(buf.len())
    }

    fn read_link(&self, link: Inode) -> Result<Vec<u8>> {
        let file = self.file(link)?;
        let (information, _) = Information::read(self, &file)?;
        match self.nature(&file, &information)? {
            Nature::Reparse(reparse) => reparse.target(file.base.offset),
            Nature::Interix(Interix::Symlink(target)) => Ok(target),
            nature => {
                let found = nature.kind(&file).letter();
                Err(file.base.span().corrupt("file_attributes", "a symlink", found).into())
            }
        }
    }

    fn xattr(&self, inode: Inode, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let file = self.file(inode)?;
        match name {
            b"system.ntfs_attrib" => {
                let (information, _) = Information::read(self, &file)?;
                Ok(Some(information.file_attributes.get().to_le_bytes().to_vec()))
            }
            b"system.ntfs_reparse_data" => file.value(self, kind::REPARSE_POINT, &[], MAX_REPARSE),
            b"system.ntfs_acl" => self.descriptor(&file),
            _ => match name.strip_prefix(b"user.").and_then(name::from_bytes) {
                Some(stream) if !stream.is_empty() => {
                    let stream: Vec<u8> = stream.into_iter().flat_map(u16::to_le_bytes).collect();
                    self.named_stream(&file, &stream)
                }
                _ => Ok(None),
            },
        }
    }

    fn xattrs(&self, inode: Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let file = self.file(inode)?;
        let is_wanted = |name: &[u8], vcn: u64| !name.is_empty() && vcn == 0;
        let pieces = file.pieces(&|number| self.record(number), kind::DATA, &is_wanted);
        // A directory has no data, so that what is damaged behind its attributes is not missed.
        let pieces = if file.base.is_directory() { pieces.unwrap_or_default() } else { pieces? };
        let mut found = Vec::new();
        for piece in pieces.iter().filter(|piece| piece.sizes().0 <= MAX_LISTED) {
            if let Some(value) = self.named_stream(&file, piece.name())? {
                found.push(([b"user.", &name::to_bytes(piece.name())[..]].concat(), value));
            }
        }
        Ok(found)
    }
}

/// From 100 ns since 1601-01-01.
fn time(stored: u64) -> Timestamp {
    const PER_SECOND: u64 = 10_000_000;
    const TO_1970: i64 = 11_644_473_600;
    let seconds = i64::try_from(stored / PER_SECOND).unwrap_or(i64::MAX).saturating_sub(TO_1970);
    let nanoseconds = u32::try_from(stored % PER_SECOND).unwrap_or_default().saturating_mul(100);
    Timestamp { seconds, nanoseconds }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(time(0).seconds, -11_644_473_600);
        let expected = Timestamp { seconds: 1_700_000_000, nanoseconds: 123_456_700 };
        assert_eq!(time((1_700_000_000 + 11_644_473_600) * 10_000_000 + 1_234_567), expected);
    }
}
