//! Boots in which no initramfs looks for a root file system: none is named, there is no initramfs, or a shell is asked for.

use std::collections::BTreeSet;

use guest::Guest;
use storage::{Firmware, Hardware, NodeKind, Storage};

use super::Step;
use super::devices::{Devices, Found};
use super::drivers::{Drivers, Lack};
use super::grub::GuestPlace;
use super::initramfs::{Root, device_of};
use super::kernel::{Kernel, Kind};
use crate::trace::{Cause, Outcome, StageName};

/// Nothing says what the root is. initramfs-tools and dracut stop; systemd in the image may find it by its type in a GPT.
pub(super) fn rootless(storage: &Storage, firmware: Firmware, kernel: &Kernel) -> Step<Root> {
    let name = StageName::Root;
    let summary = "the command line has no root=";
    let has_gpt = storage
        .iter()
        .any(|(_, node)| matches!(&node.kind, NodeKind::Partition(found) if found.type_id.len() > 2));
    let (outcome, symptom) = match kernel.initramfs.as_deref().map(|unpacked| unpacked.kind) {
        Some(Kind::InitramfsTools) => (
            Outcome::InitramfsShell,
            "No root device specified. Boot arguments must include a root= parameter.",
        ),
        Some(Kind::Dracut) if !has_gpt => (Outcome::DracutEmergency, "FATAL: No or empty root= argument"),
        // It looks on the disk that the loader names in a variable of the firmware, which a BIOS does not have.
        Some(Kind::Dracut) if firmware == Firmware::Bios => {
            (Outcome::DracutEmergency, "Failed to start initrd-switch-root.service - Switch Root.")
        }
        _ => return Step::unknown(name, summary),
    };
    Step::stops(name, outcome, kernel.loaded.place.cause("cmdline.root-unresolved", symptom), summary)
}

/// A shell that the command line asks for: `break` of initramfs-tools(7), `rd.break` of dracut.cmdline(7).
pub(super) fn asked_to_stop(kernel: &Kernel, kind: Kind) -> Option<Step<Root>> {
    let (key, outcome, symptom) = match kind {
        Kind::InitramfsTools => ("break", Outcome::InitramfsShell, "Spawning shell within the initramfs"),
        Kind::Dracut => ("rd.break", Outcome::DracutEmergency, "Entering emergency mode."),
        Kind::Mkinitcpio | Kind::Unknown => return None,
    };
    let is_asked =
        |word: &str| word == key || word.strip_prefix(key).is_some_and(|rest| rest.starts_with('='));
    let (word, place) = kernel.loaded.arguments.iter().find(|(word, _)| is_asked(word))?;
    let summary = format!("the command line asks for a shell: {word}");
    Some(Step::stops(StageName::Root, outcome, place.cause("cmdline.debug-leftover", symptom), summary))
}

/// The kernel itself, with what is built in.
pub(super) fn without(
    storage: &Storage,
    guest: Option<&Guest>,
    hardware: &Hardware,
    firmware: Firmware,
    kernel: &Kernel,
    (spec, place): &(String, GuestPlace),
) -> Step<Root> {
    let name = StageName::Root;
    let panic = "Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)";
    let stops = |cause: Cause, summary: String| Step::stops(name, Outcome::KernelPanic, cause, summary);
    // The entry names an initramfs that could not be loaded, or none.
    let missed = kernel.loaded.messages.iter().find(|(text, _)| text.contains("not found"));
    let blame = |rule, summary: String| match missed {
        Some((text, at)) => stops(at.cause("grub.entry-file-missing", panic), format!("{text} {summary}")),
        None => stops(kernel.loaded.entry.cause(rule, panic), summary),
    };
    let is_known_to_kernel =
        spec.starts_with("PARTUUID=") || spec.starts_with("/dev/") || spec.starts_with("PARTLABEL=");
    if !is_known_to_kernel {
        return blame("grub.no-initrd", format!("without an initramfs the kernel cannot find {spec}"));
    }
    let drivers = Drivers::built_in(kernel);
    let devices = Devices::new(storage, hardware, firmware, &drivers);
    let root = guest.map(|guest| guest.root);
    let kind = root.and_then(|root| storage.node(root).content_type()).unwrap_or_default().to_owned();
    match devices.find(&device_of(spec)) {
        Found::Node(id) if Some(id) == root => match drivers.check(&kind) {
            Ok(()) => Step::goes(
                name,
                format!("{spec}, without an initramfs"),
                Root { kind: Kind::Unknown, active: BTreeSet::new() },
            ),
            Err(Lack::Unknown(reason)) => Step::unknown(name, reason),
            Err(_) => blame("grub.no-initrd", format!("{kind} is not built into the kernel")),
        },
        Found::Unknown(reason) => Step::unknown(name, reason),
        Found::Nothing(Some((_, reason))) => blame("grub.no-initrd", reason),
        _ => stops(place.cause("cmdline.root-unresolved", panic), format!("nothing is {spec}")),
    }
}
