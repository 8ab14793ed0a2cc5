//! The content of files: read in large pieces, verified sector by sector, each from a copy that is right.
//!
//! Checksums are in a tree of their own (`EXTENT_CSUM`), keyed by logical address: one for every sector as it
//! is on disk, so compressed extents are verified before they are decompressed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use filesystem::FileKind;
use ondisk::{Corrupt, Error, Result};

use crate::Btrfs;
use crate::extent::{Content, Extent};
use crate::inode::DiskInode;
use crate::key::{Key, kind, object};
use crate::number::{index, narrow, wide};
use crate::tree::{Cursor, Root};

/// Bytes that are read and then verified at once: large enough for the device, small enough for its cache.
const PIECE: usize = 512 << 10;

/// Decompressed extents that are kept for the next small read.
const KEPT: usize = 16;

/// The extents that were decompressed last, by logical address and length.
pub(crate) type Decompressed = Mutex<VecDeque<(u64, Arc<Vec<u8>>)>>;

/// A run of a compressed extent.
struct Packed {
    logical: u64,
    disk_length: usize,
    length: usize,
    offset: usize,
    codec: crate::compression::Codec,
}

impl Btrfs {
    /// Fills `buf` from byte `offset` of a file; everything must lie before the end of the file.
    pub(crate) fn read_file(
        &self,
        (root, number, inode): (&Root, u64, &DiskInode),
        buf: &mut [u8],
        offset: u64,
    ) -> Result<()> {
        inode.expect(FileKind::Regular, "a regular file")?;
        let end = offset.saturating_add(wide(buf.len()));
        let key = Key::new(number, kind::EXTENT_DATA, offset);
        let is_ours = |key: Key| key.objectid == number && key.kind == kind::EXTENT_DATA;
        let mut cursor = match Cursor::seek_back(&self.space, root, &key)? {
            Some(cursor) if cursor.item().is_some_and(|item| is_ours(item.key)) => cursor,
            _ => Cursor::seek(&self.space, root, &key)?,
        };
        let mut last_end = 0;
        // How much of `buf` is filled, which is also how far behind `offset` the walk is.
        let mut done = 0_usize;
        while let Some(item) = cursor.item().filter(|item| is_ours(item.key) && item.key.offset < end) {
            let extent = Extent::decode(&item, self.space.shape.sector_size)?;
            if extent.start < last_end {
                let expected = format!("at least {last_end}, where the extent before it ends");
                return Err(
                    Corrupt::new("file extent item", item.at, "key offset", expected, extent.start).into()
                );
            }
            last_end = extent.end;
            if extent.end > offset.saturating_add(wide(done)) {
                let start = narrow(extent.start.saturating_sub(offset)).max(done);
                let stop = narrow(extent.end.saturating_sub(offset)).min(buf.len());
                buf.get_mut(done..start).unwrap_or_default().fill(0);
                let within = offset.saturating_add(wide(start)).saturating_sub(extent.start);
                let piece = buf.get_mut(start..stop).unwrap_or_default();
                self.read_extent(&extent, piece, within, inode.has_checksums())?;
                done = stop;
            }
            if done >= buf.len() {
                return Ok(());
            }
            cursor.advance()?;
        }
        buf.get_mut(done..).unwrap_or_default().fill(0);
        Ok(())
    }

    /// Fills `buf` from byte `within` of the run of one extent.
    fn read_extent(&self, extent: &Extent<'_>, buf: &mut [u8], within: u64, verify: bool) -> Result<()> {
        match extent.content {
            Content::Zeros => buf.fill(0),
            Content::Inline { .. } => {
                let content = self.inline(extent)?;
                let from = content.get(narrow(within)..).unwrap_or_default();
                let count = from.len().min(buf.len());
                let Some((now, zeros)) = buf.split_at_mut_checked(count) else { return Ok(()) };
                now.copy_from_slice(from.get(..count).unwrap_or_default());
                zeros.fill(0);
            }
            Content::Plain { logical } => {
                let logical = logical.checked_add(within).ok_or_else(|| {
                    Error::unavailable("file extent", "it runs past the end of all addresses")
                })?;
                self.read_plain(buf, logical, verify)?;
            }
            Content::Compressed { logical, disk_length, length, offset, codec } => {
                let offset = offset.saturating_add(narrow(within));
                let packed = Packed { logical, disk_length, length, offset, codec };
                self.read_packed(&packed, buf, verify)?;
            }
        }
        Ok(())
    }

    /// The content of an inline extent, decompressed.
    pub(crate) fn inline(&self, extent: &Extent<'_>) -> Result<Vec<u8>> {
        let Content::Inline { bytes, codec, length, at } = extent.content else { return Ok(Vec::new()) };
        let Some(codec) = codec else { return Ok(bytes.to_vec()) };
        let mut content = vec![0; length];
        let sector = index(self.space.shape.sector_size);
        self.codecs.decompress(codec, bytes, sector, &mut content).map_err(|reason| {
            Corrupt::new("inline extent", at, "content", format!("{codec:?} data"), reason)
        })?;
        Ok(content)
    }

    fn read_packed(&self, packed: &Packed, buf: &mut [u8], verify: bool) -> Result<()> {
        if packed.offset == 0 && buf.len() == packed.length {
            return self.unpack(packed, buf, verify);
        }
        let kept =
            self.kept().iter().find(|(logical, _)| *logical == packed.logical).map(|(_, kept)| kept.clone());
        let content = match kept.filter(|kept| kept.len() == packed.length) {
            Some(kept) => kept,
            None => {
                let mut content = vec![0; packed.length];
                self.unpack(packed, &mut content, verify)?;
                let content = Arc::new(content);
                let mut kept = self.kept();
                kept.push_back((packed.logical, content.clone()));
                if kept.len() > KEPT {
                    kept.pop_front();
                }
                content
            }
        };
        let end = packed.offset.saturating_add(buf.len());
        let from = content.get(packed.offset..end).ok_or_else(|| {
            Error::unavailable("file extent", "it ends before the run that a file takes of it")
        })?;
        buf.copy_from_slice(from);
        Ok(())
    }

    fn unpack(&self, packed: &Packed, output: &mut [u8], verify: bool) -> Result<()> {
        let mut input = vec![0; packed.disk_length];
        self.read_plain(&mut input, packed.logical, verify)?;
        let sector = index(self.space.shape.sector_size);
        self.codecs.decompress(packed.codec, &input, sector, output).map_err(|reason| {
            let expected = format!("{:?} data of {} bytes", packed.codec, packed.length);
            let at = self.space.physical(packed.logical, 0);
            Corrupt::new("compressed extent", at, "content", expected, reason).into()
        })
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, VecDeque<(u64, Arc<Vec<u8>>)>> {
        self.decompressed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fills `buf` from a logical address on, in whole sectors where checksums ask for it.
    fn read_plain(&self, buf: &mut [u8], logical: u64, verify: bool) -> Result<()> {
        let sector = index(self.space.shape.sector_size);
        let (mut rest, mut logical) = (buf, logical);
        while !rest.is_empty() {
            let head = narrow(logical.checked_rem(wide(sector)).unwrap_or(0));
            let whole = rest.len().checked_div(sector).unwrap_or(0).saturating_mul(sector).min(PIECE);
            let length = if head != 0 || whole == 0 {
                let length = rest.len().min(sector.saturating_sub(head));
                let mut bytes = vec![0; sector];
                self.read_piece(&mut bytes, logical.saturating_sub(wide(head)), verify)?;
                let from = bytes.get(head..head.saturating_add(length)).unwrap_or_default();
                rest.get_mut(..length).unwrap_or_default().copy_from_slice(from);
                length
            } else {
                // Within one stripe, so that a copy is on one device.
                let place = self.space.place(logical, 0)?;
                let length = whole.min(narrow(place.length));
                self.read_piece(rest.get_mut(..length).unwrap_or_default(), logical, verify)?;
                length
            };
            logical = logical.saturating_add(wide(length));
            rest = rest.split_at_mut_checked(length).map_or(&mut [], |(_, later)| later);
        }
        Ok(())
    }

    /// Fills `buf`, whole sectors, from the first copy of each that is right.
    fn read_piece(&self, buf: &mut [u8], logical: u64, verify: bool) -> Result<()> {
        let sector = index(self.space.shape.sector_size);
        let sums = if verify { Some(self.sums(logical, buf.len())?) } else { None };
        let copies = self.space.copies(logical)?;
        let mut failed = None;
        for copy in 0..copies {
            if let Err(error) = self.space.read(buf, logical, copy) {
                failed.get_or_insert(error);
                continue;
            }
            let Some(sums) = &sums else { return Ok(()) };
            let size = self.space.shape.checksum.size();
            for ((number, bytes), sum) in buf.chunks_mut(sector).enumerate().zip(sums.chunks(size)) {
                if self.is_right(bytes, sum) {
                    continue;
                }
                let logical = logical.saturating_add(wide(number.saturating_mul(sector)));
                self.read_sector((bytes, sum), logical, (copy, copies))?;
            }
            return Ok(());
        }
        Err(failed.unwrap_or_else(|| Error::unavailable("file extent", "there is no copy")))
    }

    /// Fills one sector that was wrong in copy `wrong` from another.
    fn read_sector(
        &self,
        (bytes, sum): (&mut [u8], &[u8]),
        logical: u64,
        (wrong, copies): (usize, usize),
    ) -> Result<()> {
        let checksum = self.space.shape.checksum;
        let stored = checksum.stored(sum).map(|sum| sum.to_string()).unwrap_or_default();
        let at = self.space.physical(logical, wrong);
        let damage = Corrupt::new("file data", at, "checksum", stored, checksum.of(bytes));
        for copy in (0..copies).filter(|copy| *copy != wrong) {
            if self.space.read(bytes, logical, copy).is_ok() && self.is_right(bytes, sum) {
                return Ok(());
            }
        }
        Err(damage.into())
    }

    fn is_right(&self, bytes: &[u8], sum: &[u8]) -> bool {
        let checksum = self.space.shape.checksum;
        checksum.stored(sum) == Some(checksum.of(bytes))
    }

    /// The checksums of the sectors that begin at `logical`, one after the other.
    fn sums(&self, logical: u64, length: usize) -> Result<Vec<u8>> {
        let root = self
            .sums
            .as_ref()
            .ok_or_else(|| Error::unavailable("checksum tree", "there is none, or it cannot be read"))?;
        let (size, sector) = (self.space.shape.checksum.size(), index(self.space.shape.sector_size));
        let needed = length.checked_div(sector).unwrap_or(0).saturating_mul(size);
        let mut found = Vec::with_capacity(needed);
        let key = Key::new(object::EXTENT_CSUM, kind::EXTENT_CSUM, logical);
        let mut cursor = match Cursor::seek_back(&self.space, root, &key)? {
            Some(cursor) => cursor,
            None => Cursor::seek(&self.space, root, &key)?,
        };
        let mut position = logical;
        while found.len() < needed {
            let piece = cursor
                .item()
                .filter(|item| item.key.objectid == key.objectid && item.key.kind == key.kind)
                .and_then(|item| {
                    let sectors = position.checked_sub(item.key.offset)?.checked_div(wide(sector))?;
                    let start = narrow(sectors).checked_mul(size)?;
                    let all = item.data.len().checked_div(size)?.checked_mul(size)?;
                    item.data.get(start..all).filter(|piece| !piece.is_empty())
                });
            let Some(piece) = piece else {
                let at = self.space.physical(position, 0);
                let expected = format!("a checksum for the logical address {position}");
                return Err(Corrupt::new("file data", at, "checksum", expected, "none").into());
            };
            let taken = piece.get(..needed.saturating_sub(found.len())).unwrap_or(piece);
            found.extend_from_slice(taken);
            let sectors = wide(taken.len().checked_div(size).unwrap_or(0));
            position = position.saturating_add(sectors.saturating_mul(wide(sector)));
            if found.len() < needed {
                cursor.advance()?;
            }
        }
        Ok(found)
    }
}
