//! The ways in which an archive can be compressed, recognised by their first bytes as `lib/decompress.c` does.

use std::fmt;
use std::io::{self, BufRead, Read};

use super::cpio::Stop;
use super::source::Source;

/// log2 of the largest zstd window in bytes; the kernel's own limit.
const MAX_WINDOW_LOG: u32 = 27;
/// KiB that an LZMA dictionary may take.
const MAX_DICTIONARY: u32 = 64 << 10;
/// Bytes that a block of LZ4's legacy format unpacks to at most.
const LZ4_BLOCK: usize = 8 << 20;
const LZ4_MAGIC: u32 = 0x184c_2102;

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// bzip2.
    Bzip2,
    /// LZMA with the old header of 13 bytes.
    Lzma,
    /// XZ.
    Xz,
    /// LZOP. Named only: no distribution has it as its default.
    Lzo,
    /// LZ4 in its legacy format, the only one that the kernel reads.
    Lz4,
    /// RFC 8878.
    Zstd,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "lzma",
            Self::Xz => "xz",
            Self::Lzo => "lzo",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

impl Compression {
    /// The option of the kernel's configuration without which it cannot unpack this.
    pub fn kernel_option(self) -> Option<&'static str> {
        Some(match self {
            Self::None => return None,
            Self::Gzip => "CONFIG_RD_GZIP",
            Self::Bzip2 => "CONFIG_RD_BZIP2",
            Self::Lzma => "CONFIG_RD_LZMA",
            Self::Xz => "CONFIG_RD_XZ",
            Self::Lzo => "CONFIG_RD_LZO",
            Self::Lz4 => "CONFIG_RD_LZ4",
            Self::Zstd => "CONFIG_RD_ZSTD",
        })
    }

    /// By the bytes at `offset` of the file: an archive begins at a multiple of four.
    pub(super) fn recognise(head: &[u8], offset: u64) -> Option<Self> {
        Some(match head {
            [b'0', ..] if offset.is_multiple_of(4) => Self::None,
            [0x1f, 0x8b | 0x9e, ..] => Self::Gzip,
            [b'B', b'Z', ..] => Self::Bzip2,
            [0x5d, 0, ..] => Self::Lzma,
            [0xfd, b'7', ..] => Self::Xz,
            [0x89, b'L', ..] => Self::Lzo,
            [0x02, 0x21, ..] => Self::Lz4,
            [0x28, 0xb5, ..] => Self::Zstd,
            _ => return None,
        })
    }

    /// A decoder that reads to the end of this archive and no further.
    pub(super) fn decoder<'s>(self, source: &'s mut Source<'_>) -> Result<Box<dyn Read + 's>, Stop> {
        let failed = |error: io::Error| Stop::damage(format!("{self}: {error}"));
        Ok(match self {
            Self::None => Box::new(source),
            Self::Gzip => Box::new(flate2::bufread::GzDecoder::new(source)),
            Self::Bzip2 => Box::new(bzip2::bufread::BzDecoder::new(source)),
            Self::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(source, false, MAX_DICTIONARY)),
            Self::Lzma => Box::new(
                lzma_rust2::LzmaReader::new_mem_limit(source, MAX_DICTIONARY, None)
                    .map_err(|error| failed(io::Error::other(error.to_string())))?,
            ),
            Self::Lzo => return Err(Stop::limit("LZO, which is not unpacked here")),
            Self::Lz4 => Box::new(Lz4Legacy::new(source)),
            Self::Zstd => zstd_decoder(source).map_err(failed)?,
        })
    }
}

#[cfg(feature = "zstd-c")]
fn zstd_decoder<'s>(source: &'s mut Source<'_>) -> io::Result<Box<dyn Read + 's>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(source)?.single_frame();
    decoder.window_log_max(MAX_WINDOW_LOG)?;
    Ok(Box::new(decoder))
}

#[cfg(not(feature = "zstd-c"))]
fn zstd_decoder<'s>(source: &'s mut Source<'_>) -> io::Result<Box<dyn Read + 's>> {
    let mut decoder = ruzstd::decoding::FrameDecoder::new();
    decoder.set_max_window_size(1 << MAX_WINDOW_LOG);
    ruzstd::decoding::StreamingDecoder::new_with_decoder(source, decoder)
        .map(|decoder| -> Box<dyn Read + 's> { Box::new(decoder) })
        .map_err(|error| io::Error::other(error.to_string()))
}

/// LZ4's legacy format: a magic number, then blocks, each behind its length; it ends with the file, a length that cannot be, or a
/// block that is not full.
struct Lz4Legacy<'s, 'a> {
    source: &'s mut Source<'a>,
    block: Vec<u8>,
    at: usize,
    packed: Vec<u8>,
    is_started: bool,
    is_ended: bool,
}

impl<'s, 'a> Lz4Legacy<'s, 'a> {
    fn new(source: &'s mut Source<'a>) -> Self {
        Self { source, block: Vec::new(), at: 0, packed: Vec::new(), is_started: false, is_ended: false }
    }

    fn word(&mut self) -> io::Result<Option<u32>> {
        let mut word = [0; 4];
        // The end of the file may come here, not within.
        if self.source.fill_buf()?.is_empty() {
            return Ok(None);
        }
        self.source.read_exact(&mut word)?;
        Ok(Some(u32::from_le_bytes(word)))
    }

    fn next_block(&mut self) -> io::Result<()> {
        if !self.is_started {
            self.is_started = true;
            if self.word()? != Some(LZ4_MAGIC) {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        if self.at > 0 && self.block.len() < LZ4_BLOCK {
            self.is_ended = true;
            return Ok(());
        }
        let length = match self.word()? {
            Some(LZ4_MAGIC) => self.word()?,
            other => other,
        };
        let Some(length) = length.filter(|length| *length != 0) else {
            self.is_ended = true;
            return Ok(());
        };
        let length = length as usize;
        if length > lz4_flex::block::get_maximum_output_size(LZ4_BLOCK) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a block longer than 8 MiB"));
        }
        self.packed.resize(length, 0);
        self.source.read_exact(&mut self.packed)?;
        // No byte of it stands for more than 255 others.
        self.block.resize(LZ4_BLOCK.min(length.saturating_mul(255).saturating_add(64)), 0);
        let count = lz4_flex::block::decompress_into(&self.packed, &mut self.block)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        self.block.truncate(count);
        self.at = 0;
        Ok(())
    }
}

impl Read for Lz4Legacy<'_, '_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at >= self.block.len() && !self.is_ended {
            self.next_block()?;
        }
        let rest = self.block.get(self.at..).unwrap_or_default();
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        self.at += count;
        Ok(count)
    }
}
