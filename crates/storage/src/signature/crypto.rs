//! Encrypted volumes that are not LUKS.

use blockdev::BlockDevice;
use filesystem::Result;
use ondisk::read_bytes;

use super::{Probe, Signature, Usage};

/// LUKS whose header cannot be read whole; what can be is in [`luks::read`].
pub(super) fn luks(probe: &Probe<'_>) -> Option<Signature> {
    let header = probe.at(0, 512).filter(|header| header.has(0, b"LUKS\xba\xbe"))?;
    let version = header.u16_be(6);
    let label = (version == 2).then(|| header.text(24, 48)).flatten();
    let found = Signature::new("crypto_LUKS", Usage::Crypto).version(version);
    Some(found.uuid(header.string(168, 40)).label(label))
}

/// BitLocker: a boot sector with its own OEM name, or, on removable disks, a FAT one with a GUID.
pub(super) fn bitlocker(probe: &Probe<'_>) -> Option<Signature> {
    const GUID: [u8; 16] =
        [0x3b, 0xd6, 0x67, 0x49, 0x29, 0x2e, 0xd8, 0x4a, 0x83, 0x99, 0xf6, 0xa3, 0x39, 0xe3, 0xd0, 0x01];
    let sector = probe.at(0, 512)?;
    let is_jump = sector.has(0, b"\xeb\x52\x90") || sector.has(0, b"\xeb\x58\x90");
    let is_bitlocker =
        is_jump && (sector.has(3, b"-FVE-FS-") || (sector.has(3, b"MSWIN4.1") && sector.has(424, &GUID)));
    is_bitlocker.then(|| Signature::new("BitLocker", Usage::Crypto))
}

/// Bytes that are looked at, in pieces from the start.
const SAMPLE: usize = 16 << 10;

/// Random bytes: each value about equally often. The measure is chi squared with 255 degrees of freedom, whose values
/// for noise lie within 255 ± 5·22.6 but for one time in a million; compressed data fails it.
pub(super) fn is_noise(device: &dyn BlockDevice) -> Result<bool> {
    if device.size() < 256 << 10 {
        return Ok(false);
    }
    // The first sector holds a salt in VeraCrypt and data in plain dm-crypt: noise in both.
    for at in [0, 64 << 10, 128 << 10] {
        let bytes = read_bytes(device, at, SAMPLE)?;
        let mut counts = [0_u32; 256];
        bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        let expected = SAMPLE as f64 / 256.0;
        let chi: f64 = counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
        if !(142.0..368.0).contains(&chi) {
            return Ok(false);
        }
    }
    Ok(true)
}
