//! The manifest of an appliance: a digest of each of its files.
//!
//! DMTF DSP0243, "Manifest". Lines of `SHA256(name)= hexadecimal`; SHA-1 in older ones.

use std::io;

use blockdev::BlockDevice;
use sha2::{Digest, Sha256, Sha512};

/// Bound on the text in bytes.
pub(super) const MAX_SIZE: u64 = 1 << 20;

/// A line of the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) name: &'a str,
    /// In lower case.
    pub(super) digest: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Sha256,
    Sha512,
    /// Known to be broken, and not computed here.
    Sha1,
}

/// The lines that are understood, and how many are not.
pub(super) fn parse(text: &str) -> (Vec<Line<'_>>, usize) {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let (found, odd): (Vec<_>, Vec<_>) = lines.map(line).partition(Option::is_some);
    (found.into_iter().flatten().collect(), odd.len())
}

fn line(line: &str) -> Option<Line<'_>> {
    let (algorithm, rest) = line.split_once('(')?;
    let (name, digest) = rest.rsplit_once(')')?;
    let digest = digest.trim().strip_prefix('=')?.trim();
    let (algorithm, length) = match algorithm.trim().to_ascii_uppercase().as_str() {
        "SHA256" => (Algorithm::Sha256, 64),
        "SHA512" => (Algorithm::Sha512, 128),
        "SHA1" => (Algorithm::Sha1, 40),
        _ => return None,
    };
    let is_digest = digest.len() == length && digest.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_digest.then(|| Line { algorithm, name, digest: digest.to_ascii_lowercase() })
}

/// The digest of all bytes of `device` in lower case; `None` for SHA-1.
pub(super) fn digest(device: &dyn BlockDevice, algorithm: Algorithm) -> io::Result<Option<String>> {
    match algorithm {
        Algorithm::Sha256 => digest_as::<Sha256>(device).map(Some),
        Algorithm::Sha512 => digest_as::<Sha512>(device).map(Some),
        Algorithm::Sha1 => Ok(None),
    }
}

fn digest_as<D: Digest>(device: &dyn BlockDevice) -> io::Result<String> {
    let mut digest = D::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0_u64;
    while at < device.size() {
        let length = device.size().saturating_sub(at).min(1 << 20);
        let piece = buffer.get_mut(..usize::try_from(length).unwrap_or(0)).unwrap_or_default();
        device.read_exact_at(piece, at)?;
        digest.update(&*piece);
        at = at.saturating_add(length);
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use blockdev::MemoryDevice;

    use super::*;

    #[test]
    fn lines() {
        let digest = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
        let text = format!(
            "SHA256(a (1).ovf)= {digest}\r\nsha1(b) =da39a3ee5e6b4b0d3255bfef95601890afd80709\nMD5(c)= 0\n"
        );
        let (lines, odd) = parse(&text);
        assert_eq!(odd, 1);
        assert_eq!((lines[0].name, lines[0].algorithm), ("a (1).ovf", Algorithm::Sha256));
        assert_eq!((lines[1].name, lines[1].algorithm), ("b", Algorithm::Sha1));
        let found = super::digest(&MemoryDevice::new(*b"abc"), Algorithm::Sha256).unwrap().unwrap();
        assert_eq!(found, lines[0].digest);
        let found = super::digest(&MemoryDevice::new([]), Algorithm::Sha512).unwrap().unwrap();
        assert!(found.starts_with("cf83e1357eefb8bd"));
    }
}
