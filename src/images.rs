//! The first stage of a boot: whether a machine can be started with these images at all.
//!
//! QEMU's own words, `block/qcow2.c` and `block.c`: it opens the images of a machine for writing, and everything that they name.

use boot::{BootTrace, Cause, Outcome, Stage, StageName, Verdict};
use image::{Error, Image, Refusal};

/// Puts the stage before those of a boot; where the machine does not start, nothing comes after it.
pub(crate) fn judge(images: &[Image], boot: &mut BootTrace) {
    let disks: Vec<usize> = boot.hardware.slots.iter().filter_map(|slot| slot.disk).collect();
    let opened = |disk: &usize| Some((*disk, images.get(*disk)?));
    // What lies below the first layer is only read.
    let corrupt = disks
        .iter()
        .filter_map(opened)
        .find(|(_, image)| image.chain.first().is_some_and(|layer| layer.is_marked_corrupt));
    if let Some((disk, image)) = corrupt {
        let symptom = format!("{}: Image is corrupt; cannot be opened read/write", image.format());
        let summary =
            format!("disk{disk} is marked corrupt, and is not opened for writing until it is checked");
        fail(boot, "img.corrupt-flag", symptom, summary);
        return;
    }
    let mistaken = disks.iter().filter_map(opened).find_map(|(disk, image)| Some((disk, mistaken(image)?)));
    if let Some((disk, what)) = mistaken.filter(|_| boot.guest.is_none()) {
        let summary = format!("disk{disk} is taken for a raw disk, and is {what}");
        fail(boot, "img.format-vs-definition", "Boot failed: not a bootable disk".to_owned(), summary);
        boot.outcome = Outcome::NoBootableDevice;
        return;
    }
    let formats: Vec<String> = disks
        .iter()
        .filter_map(opened)
        .map(|(disk, image)| format!("disk{disk}: {}", image.format()))
        .collect();
    boot.stages.insert(0, stage(Verdict::Pass, formats.join(", ")));
}

/// What an image is that is read as a raw disk and begins as a qcow2 image, with its magic number or without: QEMU
/// `docs/interop/qcow2.txt`, "Header".
fn mistaken(image: &Image) -> Option<&'static str> {
    let mut head = [0; 72];
    if image.format() != "raw" || image.device.read_exact_at(&mut head, 0).is_err() {
        return None;
    }
    let u32_at = |at: usize| head[at..at + 4].iter().fold(0_u32, |all, byte| all << 8 | u32::from(*byte));
    let u64_at = |at: usize| head[at..at + 8].iter().fold(0_u64, |all, byte| all << 8 | u64::from(*byte));
    let cluster_bits = u32_at(20);
    let is_table = |offset: u64| {
        offset != 0 && (9..=21).contains(&cluster_bits) && offset.is_multiple_of(1 << cluster_bits)
    };
    // The tables of the first level and of reference counts.
    let is_qcow2 =
        matches!(u32_at(4), 2 | 3) && u64_at(24) != 0 && is_table(u64_at(40)) && is_table(u64_at(48));
    is_qcow2.then(|| {
        if head.starts_with(b"QFI\xfb") { "a qcow2 image" } else { "a qcow2 image but for its first bytes" }
    })
}

/// Whether an image that could not be opened keeps a machine from being started with it, and not only us from reading it.
pub(crate) fn is_broken_chain(error: &Error) -> bool {
    match error {
        Error::Refused { source: Refusal::Open { source, .. }, .. } => {
            source.kind() == std::io::ErrorKind::NotFound
        }
        Error::Loop { .. } => true,
        _ => false,
    }
}

/// A boot that ends because a file that an image names is not there.
pub(crate) fn unopened(boot: &mut BootTrace, error: &str) {
    fail(boot, "img.chain-broken", "Could not open backing file".to_owned(), error.to_owned());
}

fn fail(boot: &mut BootTrace, rule: &'static str, symptom: String, summary: String) {
    boot.stages = vec![stage(Verdict::Fail, summary)];
    boot.outcome = Outcome::ImageError;
    boot.cause = Some(Cause { rule, file: String::new(), line: None, unit: None, symptom });
    boot.failing_lines.clear();
    boot.delay = std::time::Duration::ZERO;
}

fn stage(verdict: Verdict, summary: String) -> Stage {
    Stage { name: StageName::Images, verdict, summary, evidence: Vec::new() }
}
