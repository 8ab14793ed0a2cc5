//! Reading here and there without reading anything twice.

use std::cell::{OnceCell, RefCell};
use std::ops::Range;

use blockdev::BlockDevice;
use filesystem::Error;
use ondisk::{Guid, read_bytes};

/// Most signatures lie in the first bytes of a device.
const HEAD: u64 = 68 << 10;
/// Some lie at its end.
const TAIL: u64 = 16 << 10;

/// The bytes of a device, as recognisers want them: what does not exist or cannot be read is `None`.
pub(crate) struct Probe<'a> {
    device: &'a dyn BlockDevice,
    head: OnceCell<Vec<u8>>,
    tail: OnceCell<Vec<u8>>,
    error: RefCell<Option<Error>>,
}

impl<'a> Probe<'a> {
    pub(crate) fn new(device: &'a dyn BlockDevice) -> Self {
        Self { device, head: OnceCell::new(), tail: OnceCell::new(), error: RefCell::new(None) }
    }

    /// The first error of a read.
    pub(crate) fn into_error(self) -> Option<Error> {
        self.error.into_inner()
    }

    /// Bytes.
    pub(crate) fn size(&self) -> u64 {
        self.device.size()
    }

    /// `length` bytes at `offset`, at most 1 MiB; `None` where the device does not reach so far.
    pub(crate) fn at(&self, offset: u64, length: usize) -> Option<Bytes> {
        let size = self.size();
        let end = offset.checked_add(length as u64)?;
        if end > size || length > 1 << 20 {
            return None;
        }
        let windows = [(0..HEAD.min(size), &self.head), (size.saturating_sub(TAIL)..size, &self.tail)];
        for (range, window) in windows {
            if range.start <= offset && end <= range.end {
                let bytes = window.get_or_init(|| self.read(range.clone()).unwrap_or_default());
                let start = (offset - range.start) as usize;
                return bytes.get(start..start + length).map(|part| Bytes(part.to_vec()));
            }
        }
        self.read(offset..end).map(Bytes)
    }

    /// `length` bytes that end `back` bytes before the end.
    pub(crate) fn before_end(&self, back: u64, length: usize) -> Option<Bytes> {
        self.at(self.size().checked_sub(back)?, length)
    }

    /// Whether `magic` stands at `offset`.
    pub(crate) fn has(&self, offset: u64, magic: &[u8]) -> bool {
        self.at(offset, magic.len()).is_some_and(|bytes| bytes.0 == magic)
    }

    fn read(&self, range: Range<u64>) -> Option<Vec<u8>> {
        match read_bytes(self.device, range.start, (range.end - range.start) as usize) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.error.borrow_mut().get_or_insert(error);
                None
            }
        }
    }
}

/// Bytes of a structure; a field past their end is zero, which no valid structure has where it counts.
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
    }

    pub(crate) fn u8(&self, at: usize) -> u8 {
        u8::from_le_bytes(self.array(at))
    }

    pub(crate) fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }

    pub(crate) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    pub(crate) fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    pub(crate) fn u16_be(&self, at: usize) -> u16 {
        u16::from_be_bytes(self.array(at))
    }

    pub(crate) fn u32_be(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.array(at))
    }

    pub(crate) fn u64_be(&self, at: usize) -> u64 {
        u64::from_be_bytes(self.array(at))
    }

    /// `length` bytes, or as many as there are.
    pub(crate) fn part(&self, at: usize, length: usize) -> &[u8] {
        let rest = self.0.get(at..).unwrap_or_default();
        rest.get(..length).unwrap_or(rest)
    }

    /// Whether `magic` stands at `at`.
    pub(crate) fn has(&self, at: usize, magic: &[u8]) -> bool {
        self.part(at, magic.len()) == magic
    }

    /// 16 bytes as a UUID; `None` for zeros.
    pub(crate) fn guid(&self, at: usize) -> Option<String> {
        let guid = Guid::from_bytes(self.array(at));
        (!guid.is_nil()).then(|| guid.to_string())
    }

    /// A padded text: up to the first NUL, trailing blanks removed, `None` when nothing is left.
    pub(crate) fn text(&self, at: usize, length: usize) -> Option<Vec<u8>> {
        text(self.part(at, length))
    }

    /// Like [`text`](Self::text), as a string.
    pub(crate) fn string(&self, at: usize, length: usize) -> Option<String> {
        self.text(at, length).map(|text| String::from_utf8_lossy(&text).into_owned())
    }

    /// UTF-16LE up to the first NUL, as UTF-8.
    pub(crate) fn utf16_le(&self, at: usize, length: usize) -> Option<Vec<u8>> {
        let units = self.part(at, length).chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
        utf16(units)
    }

    /// UTF-16BE up to the first NUL, as UTF-8.
    pub(crate) fn utf16_be(&self, at: usize, length: usize) -> Option<Vec<u8>> {
        let units = self.part(at, length).chunks_exact(2).map(|unit| u16::from_be_bytes([unit[0], unit[1]]));
        utf16(units)
    }
}

fn utf16(units: impl Iterator<Item = u16>) -> Option<Vec<u8>> {
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    let text = String::from_utf16_lossy(&units);
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.as_bytes().to_vec())
}

/// A padded text: up to the first NUL, trailing blanks removed, `None` when nothing is left.
pub(crate) fn text(padded: &[u8]) -> Option<Vec<u8>> {
    let end = padded.iter().position(|byte| *byte == 0).unwrap_or(padded.len());
    let text = padded[..end].trim_ascii_end();
    (!text.is_empty()).then(|| text.to_vec())
}

/// `1A2B-3C4D`: four bytes, the last first.
pub(crate) fn serial(bytes: &[u8]) -> Option<String> {
    let [a, b, c, d] = *bytes.first_chunk()?;
    Some(format!("{d:02X}{c:02X}-{b:02X}{a:02X}"))
}
