//! Metadata blocks: 8 KiB of a table, compressed, each behind a length of two bytes; and data blocks.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use blockdev::Device;
use ondisk::{Corrupt, Error, Result, read_bytes};

use crate::codec::Compression;
use crate::number::{index, narrow, wide};

/// Bytes of a metadata block before compression.
pub(crate) const METADATA: usize = 8192;
/// Set in the length of a metadata block that is stored as it is.
const STORED: u16 = 1 << 15;
/// Set in the length of a data block that is stored as it is.
const DATA_STORED: u32 = 1 << 24;

/// Metadata blocks that are kept: 8 MiB.
const MAX_METADATA: usize = 1024;
/// Data blocks and fragments that are kept, at most 8 MiB.
const MAX_DATA: usize = 8;

/// A metadata block, and where the next one begins.
#[derive(Debug, Clone)]
struct Metadata {
    bytes: Arc<[u8]>,
    next: u64,
}

/// What was decompressed last; the oldest goes first.
#[derive(Debug)]
struct Cache<V> {
    by_place: HashMap<u64, V>,
    order: VecDeque<u64>,
    most: usize,
}

impl<V: Clone> Cache<V> {
    fn new(most: usize) -> Self {
        Self { by_place: HashMap::new(), order: VecDeque::new(), most }
    }

    fn insert(&mut self, place: u64, value: V) {
        if self.by_place.insert(place, value).is_none() {
            self.order.push_back(place);
        }
        while self.order.len() > self.most {
            if let Some(oldest) = self.order.pop_front() {
                self.by_place.remove(&oldest);
            }
        }
    }
}

/// The blocks of a device.
#[derive(Debug)]
pub(crate) struct Blocks {
    device: Device,
    compression: Compression,
    metadata: Mutex<Cache<Metadata>>,
    data: Mutex<Cache<Arc<[u8]>>>,
}

impl Blocks {
    pub(crate) fn new(device: Device, compression: Compression) -> Self {
        let (metadata, data) = (Cache::new(MAX_METADATA), Cache::new(MAX_DATA));
        Self { device, compression, metadata: Mutex::new(metadata), data: Mutex::new(data) }
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    fn metadata(&self, at: u64) -> Result<Metadata> {
        let cache = || self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = cache().by_place.get(&at) {
            return Ok(found.clone());
        }
        let corrupt = |found: String| {
            Error::from(Corrupt::new("squashfs metadata block", at, "content", "8 KiB or less", found))
        };
        let header = read_bytes(self.device.as_ref(), at, 2)?;
        let header = header.first_chunk().map_or(0, |bytes| u16::from_le_bytes(*bytes));
        let length = match header & !STORED {
            0 => STORED,
            length => length,
        };
        if usize::from(length) > METADATA {
            return Err(corrupt(format!("{length} bytes as stored")));
        }
        let start = at.saturating_add(2);
        let stored = read_bytes(self.device.as_ref(), start, length.into())?;
        let bytes = if header & STORED != 0 {
            stored
        } else {
            let mut bytes = vec![0; METADATA];
            let count = self.compression.decompress(&stored, &mut bytes).map_err(corrupt)?;
            bytes.truncate(count);
            bytes
        };
        let block = Metadata { bytes: bytes.into(), next: start.saturating_add(length.into()) };
        cache().insert(at, block.clone());
        Ok(block)
    }

    /// Fills `output` with the data block at byte `at` whose length field is `length`; zeros where that is 0. A block
    /// that holds less is an error.
    pub(crate) fn read_data(&self, at: u64, length: u32, output: &mut [u8]) -> Result<()> {
        let stored = index(length & !DATA_STORED);
        if stored == 0 {
            output.fill(0);
            return Ok(());
        }
        let content = output.len();
        let corrupt = |found: String| {
            let expected = format!("{content} bytes");
            Error::from(Corrupt::new("squashfs data block", at, "content", expected, found))
        };
        if length & DATA_STORED != 0 {
            if stored != output.len() {
                return Err(corrupt(format!("{stored} bytes as stored")));
            }
            let length = wide(stored);
            return self.device.read_exact_at(output, at).map_err(|source| Error::Io {
                offset: at,
                length,
                source,
            });
        }
        // What is compressed is smaller than what it holds, else it would be stored.
        if stored > output.len() {
            return Err(corrupt(format!("{stored} bytes as stored")));
        }
        let input = read_bytes(self.device.as_ref(), at, stored)?;
        let found = self.compression.decompress(&input, output);
        match found {
            Ok(count) if count == output.len() => Ok(()),
            Ok(count) => Err(corrupt(format!("{count} bytes"))),
            Err(said) => Err(corrupt(said)),
        }
    }

    /// The fragment block at byte `at`: the ends of several files, together at most `most` bytes.
    pub(crate) fn fragment(&self, at: u64, length: u32, most: u32) -> Result<Arc<[u8]>> {
        let cache = || self.data.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = cache().by_place.get(&at) {
            return Ok(found.clone());
        }
        let corrupt = |found: String| {
            let expected = format!("{most} bytes or less");
            Error::from(Corrupt::new("squashfs fragment block", at, "content", expected, found))
        };
        let stored = length & !DATA_STORED;
        if stored > most {
            return Err(corrupt(format!("{stored} bytes as stored")));
        }
        let mut bytes = read_bytes(self.device.as_ref(), at, index(stored))?;
        if length & DATA_STORED == 0 {
            let mut output = vec![0; index(most)];
            let count = self.compression.decompress(&bytes, &mut output).map_err(corrupt)?;
            output.truncate(count);
            bytes = output;
        }
        let bytes: Arc<[u8]> = bytes.into();
        cache().insert(at, bytes.clone());
        Ok(bytes)
    }

    /// A whole data block that is asked for in pieces.
    pub(crate) fn data(&self, at: u64, length: u32, content: usize) -> Result<Arc<[u8]>> {
        let cache = || self.data.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = cache().by_place.get(&at).filter(|found| found.len() == content) {
            return Ok(found.clone());
        }
        let mut bytes = vec![0; content];
        self.read_data(at, length, &mut bytes)?;
        let bytes: Arc<[u8]> = bytes.into();
        cache().insert(at, bytes.clone());
        Ok(bytes)
    }

    /// A reader of the table that begins at byte `table`, from the place that `reference` names: the block's distance
    /// from the table's start above bit 16, the byte in its content below.
    pub(crate) fn cursor(&self, table: u64, reference: u64) -> Cursor<'_> {
        let at = table.saturating_add(reference >> 16);
        Cursor { blocks: self, at, within: narrow(reference & 0xffff), block: None }
    }
}

/// Reads a table across the ends of its blocks, forward only, so that no loop can keep it.
pub(crate) struct Cursor<'a> {
    blocks: &'a Blocks,
    at: u64,
    within: usize,
    block: Option<Metadata>,
}

impl Cursor<'_> {
    /// Where the block that is read next begins, for messages.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    pub(crate) fn read(&mut self, output: &mut [u8]) -> Result<()> {
        let mut done = 0_usize;
        while let Some(rest) = output.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let block = match self.block.take() {
                Some(block) => block,
                None => self.blocks.metadata(self.at)?,
            };
            let source = block.bytes.get(self.within..).unwrap_or_default();
            if source.is_empty() {
                if block.bytes.len() < METADATA || self.within > METADATA {
                    let found = format!("{} of {} bytes", self.within, block.bytes.len());
                    let expected = "a byte within the block";
                    return Err(
                        Corrupt::new("squashfs metadata block", self.at, "offset", expected, found).into()
                    );
                }
                self.at = block.next;
                self.within = 0;
                continue;
            }
            let count = source.len().min(rest.len());
            if let (Some(to), Some(from)) = (rest.get_mut(..count), source.get(..count)) {
                to.copy_from_slice(from);
            }
            done = done.saturating_add(count);
            self.within = self.within.saturating_add(count);
            self.block = Some(block);
        }
        Ok(())
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.bytes()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    /// `length` bytes; memory is taken as they come.
    pub(crate) fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let done = bytes.len();
            bytes.resize(length.min(done.saturating_add(METADATA)), 0);
            self.read(bytes.get_mut(done..).unwrap_or_default())?;
        }
        Ok(bytes)
    }
}
