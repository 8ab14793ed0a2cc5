//! Partition tables that are named and not read.

use super::Probe;

pub(super) fn recognise(probe: &Probe<'_>) -> Option<&'static str> {
    let sector = probe.at(0, 512)?;
    if sector.u32_be(0) == 0x0be5_a941 {
        return Some("sgi");
    }
    let words = sector.part(0, 512).chunks_exact(2);
    if sector.u16_be(508) == 0xdabe
        && words.fold(0, |sum, word| sum ^ u16::from_be_bytes([word[0], word[1]])) == 0
    {
        return Some("sun");
    }
    if sector.has(0, b"ER") && probe.has(512, b"PM") {
        return Some("mac");
    }
    if [0, 512].into_iter().any(|at| probe.has(at, &0x8256_4557_u32.to_le_bytes())) {
        return Some("bsd");
    }
    // Four entries of flag, three letters, start and length; big-endian, and nothing but their sense says so.
    let sectors = probe.size() / 512;
    let mut entries =
        [0x1c6, 0x1d2, 0x1de, 0x1ea].into_iter().filter(|at| sector.u8(*at) & 1 != 0).peekable();
    let is_atari = entries.peek().is_some()
        && entries.all(|at| {
            let (start, length) = (u64::from(sector.u32_be(at + 4)), u64::from(sector.u32_be(at + 8)));
            sector.part(at + 1, 3).iter().all(u8::is_ascii_alphanumeric)
                && start > 0
                && start + length <= sectors
        });
    is_atari.then_some("atari")
}
