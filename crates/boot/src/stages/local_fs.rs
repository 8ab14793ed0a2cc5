//! What systemd mounts by fstab, and what of it keeps `local-fs.target` from being reached.

use std::time::Duration;

use guest::Guest;
use guest_files::fstab::Entry;
use storage::{Content, NodeId, Storage};

use super::initramfs::{Devices, Found};
use crate::fstab::{self, Unit};
use crate::trace::{BootTrace, Cause, Evidence, Outcome, Stage, StageName, Verdict};

/// What happens to one unit on this hardware.
enum Fate {
    Works,
    /// The device never comes.
    NoDevice(String),
    /// The device is there and cannot be mounted as asked.
    CannotMount(String),
    /// Nothing here says whether it works.
    Unknown(String),
}

pub(crate) fn run(storage: &Storage, guest: &Guest, devices: &Devices<'_>, trace: &mut BootTrace) {
    let Some(file) = &guest.fstab else {
        trace.stages.push(Stage {
            name: StageName::LocalFileSystems,
            verdict: Verdict::Unknown,
            summary: "no /etc/fstab could be read".into(),
            evidence: Vec::new(),
        });
        return;
    };
    let (units, _) = fstab::generate(&file.document);
    let mut stage = Stage {
        name: StageName::LocalFileSystems,
        verdict: Verdict::Pass,
        summary: "everything that local-fs.target requires can be mounted".into(),
        evidence: Vec::new(),
    };
    for unit in units.iter().filter(|unit| unit.is_started()) {
        let Some(entry) = file.document.entries().iter().find(|entry| entry.line == unit.line) else {
            continue;
        };
        let fate = fate(storage, guest, devices, unit, entry);
        let timeout = unit.device_timeout.unwrap_or(guest.device_timeout);
        let (reason, symptom) = match fate {
            Fate::Works => continue,
            Fate::Unknown(reason) => {
                if unit.blocks_boot() && stage.verdict == Verdict::Pass {
                    stage.verdict = Verdict::Unknown;
                    stage.summary = reason.clone();
                }
                stage.evidence.push(Evidence {
                    file: file.path.clone(),
                    line: Some(unit.line),
                    text: reason,
                });
                continue;
            }
            Fate::NoDevice(reason) => {
                trace.delay = trace.delay.max(timeout);
                let device = unit.device.as_deref().unwrap_or(&unit.what);
                (reason, format!("Timed out waiting for device {device}"))
            }
            Fate::CannotMount(reason) => (reason, format!("Failed to mount {} ({})", unit.name, unit.target)),
        };
        trace.failing_lines.push(unit.line);
        stage.evidence.push(Evidence {
            file: file.path.clone(),
            line: Some(unit.line),
            text: reason.clone(),
        });
        if !unit.blocks_boot() {
            continue;
        }
        if stage.verdict != Verdict::Fail {
            stage.verdict = Verdict::Fail;
            stage.summary = format!("{}: {reason}", unit.name);
        }
        if trace.cause.is_none() {
            let waits_for_ever = timeout == Duration::MAX && symptom.starts_with("Timed out");
            trace.outcome = if waits_for_ever { Outcome::Hang } else { Outcome::Emergency };
            let is_bare = storage::is_unstable_name(&unit.what);
            trace.cause = Some(Cause {
                rule: if is_bare { "fstab.unstable-device" } else { "fstab.unresolved-source" },
                file: file.path.clone(),
                line: Some(unit.line),
                unit: Some(unit.device.clone().unwrap_or_else(|| unit.name.clone())),
                symptom,
            });
        }
    }
    trace.stages.push(stage);
}

fn fate(storage: &Storage, guest: &Guest, devices: &Devices<'_>, unit: &Unit, entry: &Entry) -> Fate {
    if unit.device.is_none() {
        // A bind mount, tmpfs, overlay or swap file: no device to wait for.
        return Fate::Works;
    }
    match devices.find(&unit.what) {
        Found::Node(node) if unit.target == "/" && node != guest.root => {
            Fate::Unknown(format!("/ is {}, which is not the root file system that was found", unit.what))
        }
        Found::Node(node) => mounted(storage, node, unit, entry),
        Found::Ambiguous => Fate::Unknown(format!("several devices claim {}", unit.what)),
        Found::Extra => Fate::CannotMount(format!("{} is a further disk without this content", unit.what)),
        // The initramfs has mounted it; systemd only mounts it anew with other options.
        Found::Nothing(_) if unit.target == "/" => {
            Fate::Unknown(format!("/ is {}, which no disk provides; the initramfs decides", unit.what))
        }
        Found::Unknown(reason) => Fate::Unknown(reason),
        Found::Nothing(Some((_, reason))) => Fate::NoDevice(reason),
        Found::Nothing(None) => Fate::NoDevice(format!("no disk of this machine provides {}", unit.what)),
    }
}

fn mounted(storage: &Storage, node: NodeId, unit: &Unit, entry: &Entry) -> Fate {
    let found = storage.node(node);
    let kind = entry.kind.text();
    let Some(content) = found.content_type() else {
        return Fate::CannotMount(format!(
            "{} leads to {}, which holds nothing known",
            unit.what, found.path
        ));
    };
    if matches!(found.content, Content::PhysicalVolume { .. } | Content::Partitions(_)) {
        return Fate::CannotMount(format!("{} leads to {}, which is {content}", unit.what, found.path));
    }
    let is_ext = |name: &str| matches!(name, "ext2" | "ext3" | "ext4");
    let fits = matches!(&*kind, "" | "auto")
        || kind.split(',').any(|kind| kind == content || is_ext(kind) && is_ext(content))
        || matches!((&*kind, content), ("msdos", "vfat") | ("ntfs3" | "ntfs-3g" | "fuseblk", "ntfs"));
    if fits { Fate::Works } else { Fate::CannotMount(format!("{} holds {content}, not {kind}", unit.what)) }
}
