//! ISO 9660 (ECMA-119) with Joliet.

use super::probe::Bytes;
use super::{Probe, Signature, Usage};

const SECTOR: u64 = 2048;
/// Descriptors that are looked at.
const MAX_DESCRIPTORS: u64 = 16;

pub(super) fn recognise(probe: &Probe<'_>) -> Option<Signature> {
    let mut primary = None;
    let mut joliet = None;
    for sector in 16..16 + MAX_DESCRIPTORS {
        let Some(descriptor) = probe.at(sector * SECTOR, 2048) else { break };
        if !descriptor.has(1, b"CD001") || descriptor.u8(0) == 255 {
            break;
        }
        match descriptor.u8(0) {
            1 if primary.is_none() => primary = Some(descriptor),
            // The escape sequences of UCS-2 levels 1 to 3.
            2 if joliet.is_none()
                && [b"%/@", b"%/C", b"%/E"].iter().any(|level| descriptor.has(88, *level)) =>
            {
                joliet = Some(descriptor);
            }
            _ => {}
        }
    }
    let primary = primary?;
    let plain = primary.text(40, 32);
    let label = match joliet.as_ref().and_then(|joliet| joliet.utf16_be(40, 32)) {
        Some(wide) => plain.as_ref().and_then(|plain| merge(&wide, plain)).or(Some(wide)),
        None => plain,
    };
    let found = Signature::new("iso9660", Usage::FileSystem)
        .uuid(date(&primary, 830).or_else(|| date(&primary, 813)));
    let found = if joliet.is_some() { found.version("Joliet Extension") } else { found };
    Some(found.label(label))
}

/// Joliet has room for 16 characters, the primary descriptor for 32, of fewer kinds: where they agree, the former are
/// followed by the rest of the latter.
fn merge(wide: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
    let wide = std::str::from_utf8(wide).ok()?;
    let plain: Vec<char> = String::from_utf8_lossy(plain).chars().collect();
    let long: Vec<char> = wide.chars().collect();
    let agree = long.iter().zip(&plain).all(|(wide, plain)| {
        *plain == '_' || *plain == '?' || wide == plain || wide.to_uppercase().eq(plain.to_uppercase())
    });
    if !agree || plain.len() <= long.len() || long.len() < 16 {
        return None;
    }
    let rest: String = plain[long.len()..].iter().collect();
    Some(format!("{wide}{rest}").into_bytes())
}

/// `YYYYMMDDHHMMSSCC` with dashes; `None` where it is not set.
fn date(descriptor: &Bytes, at: usize) -> Option<String> {
    let digits = descriptor.part(at, 16);
    let is_set = digits.iter().all(u8::is_ascii_digit) && digits.iter().any(|digit| *digit != b'0');
    let digits = std::str::from_utf8(digits).ok().filter(|_| is_set)?;
    let mut text = digits.get(..4)?.to_owned();
    for at in (4..16).step_by(2) {
        text.push('-');
        text.push_str(digits.get(at..at + 2)?);
    }
    Some(text)
}
