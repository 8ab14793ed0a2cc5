//! What systemd mounts by fstab, and what of it keeps `local-fs.target` from being reached.

use std::time::Duration;

use guest::Guest;
use guest_files::fstab::Entry;
use storage::{Content, NodeId, Storage, udev_node};

use super::initramfs::{Devices, Found};
use crate::fstab::{self, Unit};
use crate::trace::{BootTrace, Cause, Evidence, Outcome, Stage, StageName, Verdict};

const CRYPTTAB: &str = "/etc/crypttab";

/// What happens to one unit on this hardware.
enum Fate {
    Works,
    /// The device never comes.
    NoDevice(String),
    /// The device is there and cannot be mounted as asked.
    CannotMount(String),
    /// It holds another type than the line says.
    WrongType(String),
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
        let is_wrong_type = matches!(fate, Fate::WrongType(_));
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
            Fate::CannotMount(reason) | Fate::WrongType(reason) => {
                (reason, format!("Failed to mount {} ({})", unit.name, unit.target))
            }
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
            let rule = if is_wrong_type {
                "fstab.fstype-wrong"
            } else if storage::is_unstable_name(&unit.what) {
                "fstab.unstable-device"
            } else {
                "fstab.unresolved-source"
            };
            let opened = crypttab_line(guest, devices, &unit.what);
            trace.cause = Some(Cause {
                rule: if opened.is_some() { "luks.crypttab-unresolved" } else { rule },
                file: opened.map_or_else(|| file.path.clone(), |_| CRYPTTAB.into()),
                line: opened.or(Some(unit.line)),
                unit: Some(unit.device.clone().unwrap_or_else(|| unit.name.clone())),
                symptom,
            });
        }
    }
    trace.stages.push(stage);
}

/// The line of crypttab that is to open a device, if nothing is what it opens.
fn crypttab_line(guest: &Guest, devices: &Devices<'_>, what: &str) -> Option<usize> {
    let name = what.strip_prefix("/dev/mapper/")?;
    let text = guest.read(CRYPTTAB, 1 << 20).ok()?;
    let text = String::from_utf8_lossy(&text);
    let (line, source) = (1..).zip(text.lines()).find_map(|(number, line)| {
        let mut words = line.split_whitespace();
        (words.next()? == name).then_some((number, words.next()?))
    })?;
    let device = udev_node(source.as_bytes()).unwrap_or_else(|| source.to_owned());
    matches!(devices.find(&device), Found::Nothing(None)).then_some(line)
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
    if fstab::is_mountable_as(&kind, content) {
        Fate::Works
    } else {
        Fate::WrongType(format!("{} holds {content}, not {kind}", unit.what))
    }
}
