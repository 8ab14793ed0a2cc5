//! RAID sets that a controller's firmware describes at the end of its disks.
//!
//! Offsets are those of the vendors' metadata as dmraid and util-linux read it.

use super::{Probe, Signature, Usage};

const SECTOR: u64 = 512;

pub(super) fn recognise(probe: &Probe<'_>) -> Option<Signature> {
    [ddf, intel, lsi, via, silicon, nvidia, promise, highpoint, adaptec, jmicron]
        .iter()
        .find_map(|recognise| recognise(probe))
}

fn new(kind: &'static str) -> Signature {
    Signature::new(kind, Usage::Raid)
}

/// SNIA Common RAID Disk Data Format: an anchor header in the last sector.
fn ddf(probe: &Probe<'_>) -> Option<Signature> {
    let header = [1, 257].into_iter().find_map(|back| {
        probe.before_end(back * SECTOR, 512).filter(|header| header.u32_be(0) == 0xde11_de11)
    })?;
    Some(new("ddf_raid_member").uuid(header.guid(8)).version(header.string(32, 8).unwrap_or_default()))
}

/// Intel Matrix Storage, as mdadm's IMSM reads it.
fn intel(probe: &Probe<'_>) -> Option<Signature> {
    let header =
        probe.before_end(2 * SECTOR, 512).filter(|header| header.has(0, b"Intel Raid ISM Cfg Sig. "))?;
    Some(new("isw_raid_member").version(header.string(24, 6).unwrap_or_default()))
}

fn lsi(probe: &Probe<'_>) -> Option<Signature> {
    probe
        .before_end(SECTOR, 512)
        .filter(|header| header.has(0, b"$XIDE$"))
        .map(|_| new("lsi_mega_raid_member"))
}

fn via(probe: &Probe<'_>) -> Option<Signature> {
    let header = probe.before_end(SECTOR, 512)?;
    let sum = header.part(0, 50).iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    let is_via = header.u16(0) == 0xaa55 && header.u8(2) <= 2 && header.u8(50) == sum;
    is_via.then(|| new("via_raid_member").version(header.u8(2)))
}

fn silicon(probe: &Probe<'_>) -> Option<Signature> {
    let header = probe.before_end(SECTOR, 512).filter(|header| header.u32(0x60) == 0x2f00_0000)?;
    let words = header.part(0, 0x13e).chunks_exact(2);
    let sum = words.fold(0_u16, |sum, word| sum.wrapping_add(u16::from_le_bytes([word[0], word[1]])));
    let is_silicon = header.u8(0x108) < 8 && sum.wrapping_neg() == header.u16(0x13e);
    is_silicon.then(|| {
        new("silicon_medley_raid_member").version(format!("{}.{}", header.u16(0x10a), header.u16(0x108)))
    })
}

fn nvidia(probe: &Probe<'_>) -> Option<Signature> {
    let header = probe.before_end(2 * SECTOR, 512).filter(|header| header.has(0, b"NVIDIA"))?;
    Some(new("nvidia_raid_member").version(header.u16(16)))
}

fn promise(probe: &Probe<'_>) -> Option<Signature> {
    const PLACES: [u64; 13] = [63, 255, 256, 16, 399, 591, 675, 735, 911, 974, 991, 951, 3087];
    let is_promise = PLACES
        .iter()
        .filter_map(|back| probe.before_end(back * SECTOR, 24))
        .any(|header| header.has(0, b"Promise Technology, Inc."));
    is_promise.then(|| new("promise_fasttrack_raid_member"))
}

fn highpoint(probe: &Probe<'_>) -> Option<Signature> {
    let magic =
        |header: &super::probe::Bytes| [0x5a78_16f0, 0x5a78_16f3, 0x5a78_16fd].contains(&header.u32(0));
    if probe.before_end(11 * SECTOR, 4).is_some_and(|header| magic(&header)) {
        return Some(new("hpt45x_raid_member"));
    }
    probe.at(9 * SECTOR + 32, 4).filter(magic).map(|_| new("hpt37x_raid_member"))
}

fn adaptec(probe: &Probe<'_>) -> Option<Signature> {
    let header = probe.before_end(SECTOR, 512)?;
    let is_adaptec = header.u32_be(0) == 0x37fc_4d1e && header.has(256, b"DPTM");
    is_adaptec.then(|| new("adaptec_raid_member").version(header.u8(63)))
}

fn jmicron(probe: &Probe<'_>) -> Option<Signature> {
    let header = probe.before_end(SECTOR, 512).filter(|header| header.has(0, b"JM"))?;
    let words = header.part(0, 128).chunks_exact(2);
    let sum = words.fold(0_u16, |sum, word| sum.wrapping_add(u16::from_le_bytes([word[0], word[1]])));
    let is_jmicron = matches!(sum, 0 | 1) && header.u8(8) <= 5;
    is_jmicron.then(|| new("jmicron_raid_member").version(format!("{}.{}", header.u8(3), header.u8(2))))
}
