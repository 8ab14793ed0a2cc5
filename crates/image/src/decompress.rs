//! Compressed clusters and grains: raw deflate (RFC 1951), zlib (RFC 1950) or zstd (RFC 8878), one stream for each.
//!
//! The pool lends a decompressor to each thread that reads, so that threads do not wait for each other.
//! Both are Rust, so that the Rust toolchain alone builds this. The feature `zstd-c` exchanges the zstd decoder
//! for the C library, which is far faster on well compressible data.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use flate2::{Decompress, FlushDecompress};

/// log2 of the largest zstd window in bytes. Nothing in a cluster is further apart than 2 MiB, but an encoder
/// that does not know its input's length announces its level's window, 8 MiB at most without special options.
const MAX_WINDOW_LOG: u32 = 23;

/// What a stream is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    /// Deflate without a frame: qcow2.
    Deflate,
    /// Deflate in a frame with a checksum: VMDK.
    Zlib,
    /// qcow2.
    Zstd,
}

/// Decompressors that wait for work; one for each thread that has ever read at the same time.
pub(crate) struct Decompressors {
    codec: Codec,
    idle: Mutex<Vec<Decompressor>>,
}

/// The state of one decompressor with a buffer for its input.
pub(crate) struct Decompressor {
    state: State,
    /// Compressed bytes; the caller fills it before each call.
    pub(crate) input: Vec<u8>,
}

enum State {
    Inflate { inflate: Decompress, has_frame: bool },
    Zstd(zstd_codec::Decoder),
}

impl Decompressors {
    pub(crate) fn new(codec: Codec) -> Self {
        Self { codec, idle: Mutex::new(Vec::new()) }
    }

    /// Lends a decompressor to `work`.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Decompressor) -> T) -> T {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut decompressor = idle.unwrap_or_else(|| Decompressor::new(self.codec));
        let result = work(&mut decompressor);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(decompressor);
        result
    }
}

impl fmt::Debug for Decompressors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decompressors({:?})", self.codec)
    }
}

impl Decompressor {
    fn new(codec: Codec) -> Self {
        let inflate = |has_frame| State::Inflate { inflate: Decompress::new(has_frame), has_frame };
        let state = match codec {
            Codec::Deflate => inflate(false),
            Codec::Zlib => inflate(true),
            Codec::Zstd => State::Zstd(zstd_codec::decoder()),
        };
        Self { state, input: Vec::new() }
    }

    /// Fills `output` from the stream at byte `start` of `input`; what follows the stream is ignored, and so
    /// is a missing end once `output` is full.
    ///
    /// # Errors
    /// What is wrong with the stream, in its codec's words.
    pub(crate) fn decompress(&mut self, start: usize, output: &mut [u8]) -> Result<(), String> {
        let input = self.input.get(start..).unwrap_or_default();
        match &mut self.state {
            State::Inflate { inflate, has_frame } => {
                inflate.reset(*has_frame);
                deflate(inflate, input, output)
            }
            State::Zstd(decoder) => zstd_codec::decompress(decoder, input, output),
        }
    }
}

fn deflate(inflate: &mut Decompress, input: &[u8], output: &mut [u8]) -> Result<(), String> {
    inflate.decompress(input, output, FlushDecompress::Finish).map_err(|error| error.to_string())?;
    full(usize::try_from(inflate.total_out()).unwrap_or(usize::MAX), output)
}

fn full(done: usize, output: &[u8]) -> Result<(), String> {
    if done == output.len() { Ok(()) } else { Err(format!("a stream of {done} bytes")) }
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

    pub(super) fn decompress(decoder: &mut Decoder, input: &[u8], output: &mut [u8]) -> Result<(), String> {
        let mut source = input;
        decoder.init(&mut source).map_err(|error| error.to_string())?;
        let mut done = 0;
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
        super::full(done, output)
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

    pub(super) fn decompress(decoder: &mut Decoder, input: &[u8], output: &mut [u8]) -> Result<(), String> {
        let decoder = decoder.as_mut().ok_or("zstd has no memory")?;
        let mut input = InBuffer::around(input);
        let mut output_buffer = OutBuffer::around(&mut *output);
        decoder.reinit().map_err(|error| error.to_string())?;
        loop {
            let before = (input.pos(), output_buffer.pos());
            let hint = decoder.run(&mut input, &mut output_buffer).map_err(|error| error.to_string())?;
            let after = (input.pos(), output_buffer.pos());
            if hint == 0 || before == after {
                break;
            }
        }
        let done = output_buffer.pos();
        super::full(done, output)
    }
}

#[cfg(test)]
mod tests {
    use flate2::{Compress, FlushCompress};

    use super::*;

    fn deflated(bytes: &[u8], has_frame: bool) -> Vec<u8> {
        let mut stream = Vec::with_capacity(bytes.len() + 1024);
        Compress::new(flate2::Compression::default(), has_frame)
            .compress_vec(bytes, &mut stream, FlushCompress::Finish)
            .unwrap();
        stream
    }

    fn decompress(codec: Codec, input: &[u8], length: usize) -> Result<Vec<u8>, String> {
        let mut output = vec![0xaa; length];
        Decompressors::new(codec).with(|decompressor| {
            decompressor.input = input.to_vec();
            decompressor.decompress(0, &mut output)
        })?;
        Ok(output)
    }

    #[test]
    fn streams_may_be_followed_by_anything() {
        let bytes: Vec<u8> = (0..4096_u32).map(|n| ((n * n) >> 5) as u8).collect();
        for codec in [Codec::Deflate, Codec::Zlib] {
            let mut stream = deflated(&bytes, codec == Codec::Zlib);
            stream.extend_from_slice(&[0xff; 300]);
            assert_eq!(decompress(codec, &stream, 4096), Ok(bytes.clone()));
        }
        let mut stream =
            ruzstd::encoding::compress_to_vec(&bytes[..], ruzstd::encoding::CompressionLevel::Fastest);
        stream.extend_from_slice(&[0xff; 300]);
        assert_eq!(decompress(Codec::Zstd, &stream, 4096), Ok(bytes));
    }

    #[test]
    fn short_and_broken_streams_are_errors() {
        let stream = deflated(&[7; 100], false);
        assert_eq!(decompress(Codec::Deflate, &stream, 200), Err("a stream of 100 bytes".to_owned()));
        assert!(decompress(Codec::Deflate, &stream[..3], 100).is_err());
        assert!(decompress(Codec::Deflate, &[0xff; 40], 100).is_err());
        assert!(decompress(Codec::Zstd, &[0xff; 40], 100).is_err());
        assert!(decompress(Codec::Zstd, &[], 100).is_err());
    }

    #[test]
    fn the_checksum_of_a_zlib_frame_is_checked() {
        let mut stream = deflated(&[7; 100], true);
        *stream.last_mut().unwrap() ^= 1;
        assert!(decompress(Codec::Zlib, &stream, 100).is_err());
        assert_eq!(decompress(Codec::Zlib, &stream, 99).unwrap(), [7; 99]);
    }

    #[test]
    fn a_window_of_gigabytes_is_refused() {
        // Magic, descriptor without content size, window descriptor of 2 GiB.
        let stream = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
        assert!(decompress(Codec::Zstd, &stream, 100).is_err());
    }
}
