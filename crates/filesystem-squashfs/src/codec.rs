//! Decompression of one block, with the size of its content as a bound.

use std::io::Read;

use flate2::{Decompress, FlushDecompress, Status};
use lzma_rust2::XzReader;

/// log2 of the largest zstd window, and of the largest xz dictionary: that of the largest block.
const MAX_WINDOW_LOG: u8 = 20;
/// The number of the filter that has a dictionary.
const LZMA2: u64 = 0x21;
/// Bytes of properties of one filter; known ones have at most four.
const MAX_PROPERTIES: u64 = 64;

/// How blocks are compressed; those that did not become smaller are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// zlib streams (RFC 1950), in spite of the name.
    Gzip,
    Xz,
    Lz4,
    Zstd,
}

impl Compression {
    /// As `mksquashfs -comp` spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// Decompresses `input` into `output`; returns how many bytes it held.
    ///
    /// # Errors
    /// What is wrong with the stream, in its codec's words, or that it holds more than `output` can take.
    pub(crate) fn decompress(self, input: &[u8], output: &mut [u8]) -> Result<usize, String> {
        match self {
            Self::Gzip => inflate(input, output),
            Self::Xz => unxz(input, output),
            Self::Lz4 => lz4_flex::block::decompress_into(input, output).map_err(|error| error.to_string()),
            Self::Zstd => zstd(input, output),
        }
    }
}

fn inflate(input: &[u8], output: &mut [u8]) -> Result<usize, String> {
    let mut zlib = Decompress::new(true);
    let status =
        zlib.decompress(input, output, FlushDecompress::Finish).map_err(|error| error.to_string())?;
    let done = usize::try_from(zlib.total_out()).unwrap_or(usize::MAX);
    // A full buffer may leave the stream's trailer unread.
    if status == Status::StreamEnd || done == output.len() {
        return Ok(done);
    }
    Err(format!("a zlib stream that breaks off after {done} bytes"))
}

fn unxz(input: &[u8], output: &mut [u8]) -> Result<usize, String> {
    dictionary_fits(input)?;
    fill(&mut XzReader::new(input, false), output)
}

/// Holds the dictionaries that the first block's filters ask for against the largest that the kernel grants.
fn dictionary_fits(input: &[u8]) -> Result<(), String> {
    const BROKEN: &str = "an xz block header that breaks off";
    // The stream header has 12 bytes; then come the size of the block header, its flags, sizes, filters.
    let mut bytes = input.iter().skip(13).copied();
    let flags = bytes.next().ok_or(BROKEN)?;
    for bit in [0x40, 0x80] {
        if flags & bit != 0 {
            number(&mut bytes).ok_or(BROKEN)?;
        }
    }
    for _ in 0..=flags & 3 {
        let id = number(&mut bytes).ok_or(BROKEN)?;
        let count = number(&mut bytes).ok_or(BROKEN)?;
        let mut properties = Vec::new();
        for _ in 0..count.min(MAX_PROPERTIES) {
            properties.push(bytes.next().ok_or(BROKEN)?);
        }
        // Two to the power of 12 and half the property; half as much again for odd ones.
        let is_large = properties.first().is_none_or(|property| *property > (MAX_WINDOW_LOG - 12) * 2);
        if id == LZMA2 && is_large {
            return Err("an xz dictionary of more than 1 MiB".into());
        }
    }
    Ok(())
}

/// A number of xz: seven bits a byte, the lowest first.
fn number(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let byte = bytes.next()?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// As much as there is; one byte more than `output` takes is an error.
fn fill(source: &mut impl Read, output: &mut [u8]) -> Result<usize, String> {
    let mut done = 0_usize;
    while let Some(rest) = output.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match source.read(rest).map_err(|error| error.to_string())? {
            0 => return Ok(done),
            count => done = done.saturating_add(count),
        }
    }
    match source.read(&mut [0]).map_err(|error| error.to_string())? {
        0 => Ok(done),
        _ => Err(format!("more than {done} bytes")),
    }
}

fn zstd(input: &[u8], output: &mut [u8]) -> Result<usize, String> {
    use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
    use ruzstd::io::Read as _;

    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(1 << MAX_WINDOW_LOG);
    let mut source = input;
    decoder.init(&mut source).map_err(|error| error.to_string())?;
    let mut done = 0_usize;
    while let Some(rest) = output.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let count = decoder.read(rest).map_err(|error| error.to_string())?;
        done = done.saturating_add(count);
        if count == 0 {
            if decoder.is_finished() {
                break;
            }
            // A block yields at most 128 KiB, and the loop ends when the input does.
            decoder
                .decode_blocks(&mut source, BlockDecodingStrategy::UptoBlocks(1))
                .map_err(|error| error.to_string())?;
        }
    }
    Ok(done)
}
