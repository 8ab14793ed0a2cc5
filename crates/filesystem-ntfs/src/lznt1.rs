//! LZNT1: the compression of NTFS files.
//!
//! [MS-XCA] §2.5. Chunks of a 16-bit header and data; each yields up to 4096 bytes, and a header of zero ends.

/// Bytes that a chunk yields; a chunk that yields less is filled up with zeros.
const CHUNK: usize = 4096;

/// Fills `output` from a compressed unit; what the data does not reach is zeros.
///
/// # Errors
/// The place in `input` where the data breaks the format's rules, and the rule.
pub(crate) fn decompress(input: &[u8], output: &mut [u8]) -> Result<(), (usize, &'static str)> {
    let mut at = 0_usize;
    for chunk in output.chunks_mut(CHUNK) {
        let header = match input.get(at..).and_then(<[u8]>::first_chunk::<2>) {
            Some(bytes) => u16::from_le_bytes(*bytes),
            None => 0,
        };
        if header == 0 {
            at = input.len();
            chunk.fill(0);
            continue;
        }
        if header >> 12 & 7 != 3 {
            return Err((at, "a chunk header with the signature 3"));
        }
        let start = at.saturating_add(2);
        let end = start.saturating_add(usize::from(header & 0xfff)).saturating_add(1);
        let data = input.get(start..end).ok_or((at, "a chunk within the unit"))?;
        if header & 0x8000 == 0 {
            let (head, tail) = chunk.split_at_mut(data.len().min(CHUNK).min(chunk.len()));
            head.copy_from_slice(data.get(..head.len()).unwrap_or_default());
            tail.fill(0);
        } else {
            let filled = expand(data, chunk).map_err(|rule| (at, rule))?;
            chunk.get_mut(filled..).unwrap_or_default().fill(0);
        }
        at = end;
    }
    Ok(())
}

/// Expands one chunk; returns how many bytes it yields.
fn expand(data: &[u8], chunk: &mut [u8]) -> Result<usize, &'static str> {
    const TOO_LONG: &str = "a chunk of at most 4096 bytes";
    let mut input = data.iter().copied();
    let mut done = 0_usize;
    while let Some(tags) = input.next() {
        for bit in 0..8 {
            let Some(first) = input.next() else { return Ok(done) };
            if tags >> bit & 1 == 0 {
                *chunk.get_mut(done).ok_or(TOO_LONG)? = first;
                done = done.saturating_add(1);
                continue;
            }
            let second = input.next().ok_or("a phrase of two bytes")?;
            let phrase = usize::from(u16::from_le_bytes([first, second]));
            // The further into the chunk, the more bits are for the distance.
            let distance_bits =
                done.saturating_sub(1).checked_ilog2().map_or(4, |log| log.saturating_add(1).max(4));
            let length_bits = 16_u32.saturating_sub(distance_bits);
            let distance = (phrase >> length_bits).saturating_add(1);
            let length = (phrase & (0xffff >> distance_bits)).saturating_add(3);
            let from = done.checked_sub(distance).ok_or("a distance within the chunk")?;
            let end = done.checked_add(length).filter(|end| *end <= chunk.len()).ok_or(TOO_LONG)?;
            if distance >= length {
                chunk.copy_within(from..from.saturating_add(length), done);
            } else {
                let (before, after) = chunk.split_at_mut(done);
                let source = before.get(from..).unwrap_or_default();
                let target = after.get_mut(..length).unwrap_or_default();
                for (byte, value) in target.iter_mut().zip(source.iter().cycle()) {
                    *byte = *value;
                }
            }
            done = end;
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of [MS-XCA] §3.2.
    const EXAMPLE: [u8; 59] = [
        0x38, 0xb0, 0x88, 0x46, 0x23, 0x20, 0x00, 0x20, 0x47, 0x20, 0x41, 0x00, 0x10, 0xa2, 0x47, 0x01, 0xa0,
        0x45, 0x20, 0x44, 0x00, 0x08, 0x45, 0x01, 0x50, 0x79, 0x00, 0xc0, 0x45, 0x20, 0x05, 0x24, 0x13, 0x88,
        0x05, 0xb4, 0x02, 0x4a, 0x44, 0xef, 0x03, 0x58, 0x02, 0x8c, 0x09, 0x16, 0x01, 0x48, 0x45, 0x00, 0xbe,
        0x00, 0x9e, 0x00, 0x04, 0x01, 0x18, 0x90, 0x00,
    ];

    #[test]
    fn the_example_of_the_specification() {
        let mut output = [0xff; 200];
        decompress(&EXAMPLE, &mut output).unwrap();
        let text = b"F# F# G A A G F# E D D E F# F# E E F# F# G A A G F# E D D E F# E D D E E F# D E F# G F# D E F# G F# E D E A F# F# G A A G F# E D D E F# E D D\0";
        assert_eq!(&output[..text.len()], text);
        assert!(output[text.len()..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn plain_chunks_runs_and_ends() {
        let mut output = [0xff; 5000];
        // One byte, then a phrase that repeats it 4095 times; then a plain chunk of two bytes.
        decompress(&[0x03, 0xb0, 0x02, b'x', 0xfc, 0x0f, 0x01, 0x30, b'y', b'z'], &mut output).unwrap();
        assert!(output[..4096].iter().all(|byte| *byte == b'x'));
        assert_eq!(&output[4096..4099], b"yz\0");
        decompress(&[], &mut output).unwrap();
        assert_eq!(output, [0; 5000]);
    }

    #[test]
    fn damaged() {
        let mut output = [0; 4096];
        for (input, rule) in [
            (&[0x03, 0x80, 0, 0, 0, 0][..], "a chunk header with the signature 3"),
            (&[0x03, 0xb0, 0], "a chunk within the unit"),
            (&[0x02, 0xb0, 0x01, 0, 0], "a distance within the chunk"),
            (&[0x03, 0xb0, 0x02, b'x', 0xfd, 0x0f], "a chunk of at most 4096 bytes"),
            (&[0x02, 0xb0, 0x02, b'x', 0], "a phrase of two bytes"),
        ] {
            assert_eq!(decompress(input, &mut output), Err((0, rule)), "{input:x?}");
        }
    }
}
