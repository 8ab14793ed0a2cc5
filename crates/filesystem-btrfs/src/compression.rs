//! Compressed extents: zlib (RFC 1950), LZO1X or zstd (RFC 8878).
//!
//! zstd is Rust, so that the Rust toolchain alone builds this; the feature `zstd-c` exchanges it for the C
//! library, which is several times as fast.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use flate2::{Decompress, FlushDecompress, Status};

use crate::lzo;

/// Bytes that a compressed extent may have, on disk and in the file.
pub(crate) const MOST: u64 = 128 << 10;

/// log2 of the largest zstd window in bytes: that of an extent's content.
const MAX_WINDOW_LOG: u32 = 17;

/// What an extent is compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Zlib,
    Lzo,
    Zstd,
}

/// Decompressors that wait for work; one for each thread that has ever read at the same time.
#[derive(Default)]
pub(crate) struct Decompressors {
    zlib: Mutex<Vec<Decompress>>,
    zstd: Mutex<Vec<zstd_codec::Decoder>>,
}

impl fmt::Debug for Decompressors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decompressors")
    }
}

impl Decompressors {
    /// Fills `output`; where the content is shorter, zeros follow, as they do in the file.
    ///
    /// # Errors
    /// What is wrong with the stream, in its codec's words.
    pub(crate) fn decompress(
        &self,
        codec: Codec,
        input: &[u8],
        sector: usize,
        output: &mut [u8],
    ) -> Result<(), String> {
        let done = match codec {
            Codec::Lzo => lzo::decompress_frame(input, sector, output)?,
            Codec::Zlib => lend(&self.zlib, || Decompress::new(true), |zlib| inflate(zlib, input, output))?,
            Codec::Zstd => {
                lend(&self.zstd, zstd_codec::decoder, |zstd| zstd_codec::decompress(zstd, input, output))?
            }
        };
        output.get_mut(done..).unwrap_or_default().fill(0);
        Ok(())
    }
}

fn lend<D, T>(idle: &Mutex<Vec<D>>, make: impl FnOnce() -> D, work: impl FnOnce(&mut D) -> T) -> T {
    let waiting = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut decoder = waiting.unwrap_or_else(make);
    let result = work(&mut decoder);
    idle.lock().unwrap_or_else(PoisonError::into_inner).push(decoder);
    result
}

fn inflate(zlib: &mut Decompress, input: &[u8], output: &mut [u8]) -> Result<usize, String> {
    zlib.reset(true);
    let status =
        zlib.decompress(input, output, FlushDecompress::Finish).map_err(|error| error.to_string())?;
    let done = usize::try_from(zlib.total_out()).unwrap_or(usize::MAX);
    if status == Status::StreamEnd || done == output.len() {
        return Ok(done);
    }
    Err(format!("a zlib stream that breaks off after {done} bytes"))
}

#[cfg(not(feature = "zstd-c"))]
mod zstd_codec {
    use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
    use ruzstd::io::Read;

    pub(super) type Decoder = Box<FrameDecoder>;

    pub(super) fn decoder() -> Decoder {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(1 << super::MAX_WINDOW_LOG);
        Box::new(decoder)
    }

    pub(super) fn decompress(
        decoder: &mut Decoder,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<usize, String> {
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
}

#[cfg(feature = "zstd-c")]
mod zstd_codec {
    use zstd::stream::raw::{self, DParameter, InBuffer, Operation, OutBuffer};

    /// `None` when the library could not make one, which fails every call.
    pub(super) type Decoder = Option<raw::Decoder<'static>>;

    pub(super) fn decoder() -> Decoder {
        let mut decoder = raw::Decoder::new().ok()?;
        decoder.set_parameter(DParameter::WindowLogMax(super::MAX_WINDOW_LOG)).ok()?;
        Some(decoder)
    }

    pub(super) fn decompress(
        decoder: &mut Decoder,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<usize, String> {
        let decoder = decoder.as_mut().ok_or("zstd has no memory")?;
        let length = output.len();
        let mut input = InBuffer::around(input);
        let mut output = OutBuffer::around(output);
        decoder.reinit().map_err(|error| error.to_string())?;
        loop {
            let before = (input.pos(), output.pos());
            let hint = decoder.run(&mut input, &mut output).map_err(|error| error.to_string())?;
            if hint == 0 || output.pos() == length {
                return Ok(output.pos());
            }
            if before == (input.pos(), output.pos()) {
                return Err(format!("a zstd stream that breaks off after {} bytes", output.pos()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, Compression, FlushCompress};

    use super::*;

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut stream = Vec::with_capacity(bytes.len() + 1024);
        Compress::new(Compression::default(), true)
            .compress_vec(bytes, &mut stream, FlushCompress::Finish)
            .unwrap();
        stream
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
    }

    #[test]
    fn streams_end_early_or_not() {
        let bytes: Vec<u8> = (0..5000_u32).map(|n| ((n * n) >> 5) as u8).collect();
        let pool = Decompressors::default();
        for (codec, stream) in [(Codec::Zlib, zlib(&bytes)), (Codec::Zstd, zstd(&bytes))] {
            let padded = [&stream[..], &[0; 100]].concat();
            for length in [8192, 5000, 4096] {
                let mut output = vec![0xaa; length];
                pool.decompress(codec, &padded, 4096, &mut output).unwrap();
                let mut expected = bytes.clone();
                expected.resize(length, 0);
                assert_eq!(output, expected);
            }
            let mut output = vec![0; 8192];
            let cut = &stream[..stream.len() / 2];
            assert!(pool.decompress(codec, cut, 4096, &mut output).is_err(), "{codec:?}");
        }
    }
}
