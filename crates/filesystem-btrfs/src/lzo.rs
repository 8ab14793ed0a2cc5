//! LZO1X, and the frame that btrfs puts around it.
//!
//! The stream format is that of the kernel's documentation ("LZO stream format as understood by Linux' LZO
//! decompressor"). The frame: a 32-bit length of all, then segments, each with its own 32-bit length and at
//! most one sector of content. A length never crosses the end of a sector; zeros fill the rest instead.
//! Little-endian.

use crate::number::index;

const LENGTH: usize = 4;

/// Fills the start of `output` from a frame; returns how many bytes it held.
pub(crate) fn decompress_frame(input: &[u8], sector: usize, output: &mut [u8]) -> Result<usize, String> {
    let total = length_at(input, 0).ok_or("a frame without a length")?;
    let input = input.get(..total).ok_or_else(|| format!("a frame of {total} bytes"))?;
    let (mut at, mut done) = (LENGTH, 0_usize);
    while at < input.len() && done < output.len() {
        let left = sector.saturating_sub(at.checked_rem(sector).unwrap_or(0));
        if left < LENGTH {
            at = at.saturating_add(left);
        }
        let Some(length) = length_at(input, at) else { break };
        let start = at.saturating_add(LENGTH);
        at = start.saturating_add(length);
        let segment = input.get(start..at).ok_or_else(|| format!("a segment of {length} bytes"))?;
        let end = done.saturating_add(sector).min(output.len());
        let room = output.get_mut(done..end).unwrap_or_default();
        let count = decompress(segment, room).ok_or_else(|| format!("a wrong LZO stream at byte {start}"))?;
        done = done.saturating_add(count);
        if count < sector {
            break;
        }
    }
    Ok(done)
}

fn length_at(input: &[u8], at: usize) -> Option<usize> {
    let bytes = input.get(at..at.checked_add(LENGTH)?)?;
    Some(index(u32::from_le_bytes(*bytes.first_chunk()?)))
}

/// One stream, from its first instruction to its end mark; returns how many bytes it held, `None` when it is wrong.
fn decompress(input: &[u8], output: &mut [u8]) -> Option<usize> {
    let mut codec = Codec { input, at: 0, output, done: 0 };
    // How many literals the last instruction copied; 4 stands for more.
    let mut state = 0;
    let first = usize::from(*input.first()?);
    if first > 17 {
        codec.at = 1;
        let count = first.checked_sub(17)?;
        codec.literals(count)?;
        state = count.min(4);
    }
    loop {
        let code = usize::from(codec.byte()?);
        let (length, distance, next) = match code {
            0..16 if state == 0 => {
                let count = codec.long(code, 15)?.checked_add(3)?;
                codec.literals(count)?;
                state = 4;
                continue;
            }
            0..16 => {
                let far = usize::from(codec.byte()?) << 2 | code >> 2;
                if state == 4 {
                    (3, far.checked_add(2049)?, code & 3)
                } else {
                    (2, far.checked_add(1)?, code & 3)
                }
            }
            16..32 => {
                let length = codec.long(code & 7, 7)?.checked_add(2)?;
                let (far, next) = codec.distance()?;
                let far = far | (code & 8) << 11;
                if far == 0 {
                    return (codec.at == input.len()).then_some(codec.done);
                }
                (length, far.checked_add(16384)?, next)
            }
            32..64 => {
                let length = codec.long(code & 31, 31)?.checked_add(2)?;
                let (far, next) = codec.distance()?;
                (length, far.checked_add(1)?, next)
            }
            _ => {
                let length = if code < 128 { (code >> 5 & 1) | 2 } else { (code >> 5 & 3).checked_add(4)? };
                let far = usize::from(codec.byte()?) << 3 | (code >> 2 & 7);
                (length.checked_add(1)?, far.checked_add(1)?, code & 3)
            }
        };
        codec.repeat(length, distance)?;
        codec.literals(next)?;
        state = next;
    }
}

struct Codec<'a, 'b> {
    input: &'a [u8],
    at: usize,
    output: &'b mut [u8],
    done: usize,
}

impl Codec<'_, '_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.input.get(self.at)?;
        self.at = self.at.checked_add(1)?;
        Some(byte)
    }

    /// A length that does not fit its instruction: each zero byte adds 255.
    fn long(&mut self, short: usize, most: usize) -> Option<usize> {
        if short != 0 {
            return Some(short);
        }
        let mut length = most;
        loop {
            match self.byte()? {
                0 => length = length.checked_add(255)?,
                byte => return length.checked_add(byte.into()),
            }
        }
    }

    /// Fourteen bits of distance, and how many literals follow.
    fn distance(&mut self) -> Option<(usize, usize)> {
        let value = usize::from(u16::from_le_bytes([self.byte()?, self.byte()?]));
        Some((value >> 2, value & 3))
    }

    fn literals(&mut self, count: usize) -> Option<()> {
        let (from, to) = (self.at.checked_add(count)?, self.done.checked_add(count)?);
        self.output.get_mut(self.done..to)?.copy_from_slice(self.input.get(self.at..from)?);
        (self.at, self.done) = (from, to);
        Some(())
    }

    /// Copies from what is already there; the two ranges may overlap, which repeats a pattern.
    fn repeat(&mut self, count: usize, distance: usize) -> Option<()> {
        let (start, end) = (self.done.checked_sub(distance)?, self.done.checked_add(count)?);
        if end > self.output.len() {
            return None;
        }
        if count <= distance {
            self.output.copy_within(start..start.checked_add(count)?, self.done);
        } else {
            let (before, now) = self.output.get_mut(start..end)?.split_at_mut_checked(distance)?;
            if let [byte] = before {
                now.fill(*byte);
            } else {
                for piece in now.chunks_mut(distance) {
                    let length = piece.len();
                    piece.copy_from_slice(before.get(..length)?);
                }
            }
        }
        self.done = end;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(input: &[u8]) -> Option<Vec<u8>> {
        let mut output = [0xee; 400];
        decompress(input, &mut output).map(|count| output[..count].to_vec())
    }

    #[test]
    fn every_instruction() {
        let end = [0x11, 0, 0];
        let with_end = |start: &[u8]| stream(&[start, &end].concat());
        assert_eq!(with_end(&[21, b'a', b'b', b'c', b'd']).unwrap(), b"abcd");
        // Three literals, then two bytes from one back.
        assert_eq!(with_end(&[20, b'a', b'b', b'c', 0, 0]).unwrap(), b"abccc");
        // A literal run of 3 + 5, then length 3 from distance 2.
        assert_eq!(
            with_end(&[5, 1, 2, 3, 4, 5, 6, 7, 8, 0x44, 0]).unwrap(),
            [1, 2, 3, 4, 5, 6, 7, 8, 7, 8, 7]
        );
        // 64..128 with L: 4 bytes; 128..: 5 to 8 bytes; then one literal.
        assert_eq!(with_end(&[21, 1, 2, 3, 4, 0x6c, 0]).unwrap(), [1, 2, 3, 4, 1, 2, 3, 4]);
        assert_eq!(
            with_end(&[21, 1, 2, 3, 4, 0xe1, 0, 9]).unwrap(),
            [&[1, 2, 3, 4][..], &[4; 8], &[9]].concat()
        );
        // 32..64 with a long length: 2 + 31 + 10.
        assert_eq!(with_end(&[21, 1, 2, 3, 4, 0x20, 10, 0, 0]).unwrap(), [&[1, 2, 3][..], &[4; 44]].concat());
        // A literal run of 3 + 15 + 255 + 2.
        let run = [&[0, 0, 2][..], &[5; 275]].concat();
        assert_eq!(with_end(&run).unwrap(), [5; 275]);
    }

    #[test]
    fn wrong_streams_end() {
        for input in [
            &[][..],
            &[21, 1],
            &[21, 1, 2, 3, 4],
            &[21, 1, 2, 3, 4, 0x44, 9],
            &[0, 0, 0, 0],
            &[0x11, 0, 0, 5],
        ] {
            assert_eq!(stream(input), None, "{input:?}");
        }
        let mut output = [0; 2];
        assert_eq!(decompress(&[20, 1, 2, 3, 0x11, 0, 0], &mut output), None);
    }

    #[test]
    fn lengths_do_not_cross_sectors() {
        // Sectors of 24 bytes: the first segment yields one, and ends two bytes before the end of its sector.
        let mut frame = vec![0; 4];
        frame.extend_from_slice(&14_u32.to_le_bytes());
        frame.extend_from_slice(&[21, 7, 7, 7, 7, 0x28, 0, 0, 0x28, 0, 0, 0x11, 0, 0]);
        assert_eq!(frame.len(), 22);
        frame.extend_from_slice(&[0, 0]);
        frame.extend_from_slice(&8_u32.to_le_bytes());
        frame.extend_from_slice(&[21, b'a', b'b', b'c', b'd', 0x11, 0, 0]);
        let total = frame.len() as u32;
        frame[..4].copy_from_slice(&total.to_le_bytes());
        frame.extend_from_slice(&[0xff; 9]);
        let mut output = [0; 100];
        assert_eq!(decompress_frame(&frame, 24, &mut output), Ok(28));
        assert_eq!(output[..28], [&[7; 24][..], b"abcd"].concat());
        assert!(decompress_frame(&frame[..20], 24, &mut output).is_err());
        assert!(decompress_frame(&frame[..3], 24, &mut output).is_err());
    }
}
