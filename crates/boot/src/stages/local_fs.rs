//! What systemd mounts by fstab, and what of it keeps `local-fs.target` from being reached.

use std::time::Duration;

use filesystem::path::{PathError, resolve};
use guest::Guest;
use guest_files::fstab::Entry;
use storage::{Content, NodeId, Storage, udev_node};

use super::devices::{Devices, Found};
use super::kernel::{Drivers, Kernel, Lack};
use super::mount_options;
use crate::fstab::{self, Unit};
use crate::trace::{BootTrace, Cause, Evidence, Outcome, Stage, StageName, Verdict};

/// What happens to one unit on this hardware.
enum Fate {
    Works,
    /// The device never comes.
    NoDevice(String),
    /// The device is there and cannot be mounted as asked.
    CannotMount(&'static str, String),
    /// It is the root, which is mounted already; the command that mounts it anew with fstab's options fails.
    StaysAsItIs(&'static str, String),
    /// Nothing here says whether it works.
    Unknown(String),
}

pub(crate) fn run(
    storage: &Storage,
    guest: &Guest,
    devices: &Devices<'_>,
    drivers: &Drivers<'_>,
    kernel: Option<&Kernel>,
    trace: &mut BootTrace,
) {
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
        let fate = fate(storage, guest, devices, drivers, unit, entry);
        let timeout = unit.device_timeout.unwrap_or(guest.device_timeout);
        let is_bare = storage::is_unstable_name(&unit.what);
        let mut rule = if is_bare { "fstab.unstable-device" } else { "fstab.unresolved-source" };
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
            Fate::StaysAsItIs(found, reason) => {
                stage.evidence.push(Evidence {
                    file: file.path.clone(),
                    line: Some(unit.line),
                    text: reason.clone(),
                });
                if trace.cause.is_none() {
                    trace.outcome = Outcome::Degraded;
                    trace.cause = Some(Cause {
                        rule: found,
                        file: file.path.clone(),
                        line: Some(unit.line),
                        unit: Some("systemd-remount-fs.service".into()),
                        symptom: "Failed to start systemd-remount-fs.service".into(),
                    });
                    stage.verdict = Verdict::Fail;
                    stage.summary = format!("systemd-remount-fs.service: {reason}");
                }
                continue;
            }
            Fate::NoDevice(reason) => {
                trace.delay = trace.delay.max(timeout);
                let device = unit.device.as_deref().unwrap_or(&unit.what);
                (reason, format!("Timed out waiting for device {device}"))
            }
            Fate::CannotMount(found, reason) => {
                rule = found;
                (reason, format!("Failed to mount {} - {}", unit.name, unit.target))
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
        if stage.verdict != Verdict::Fail || trace.outcome.is_up() {
            stage.verdict = Verdict::Fail;
            stage.summary = format!("{}: {reason}", unit.name);
        }
        // What stops the boot outweighs a root that stays read-only.
        if trace.cause.is_none() || trace.outcome.is_up() {
            let waits_for_ever = timeout == Duration::MAX && symptom.starts_with("Timed out");
            trace.outcome = if waits_for_ever { Outcome::Hang } else { Outcome::Emergency };
            let crypttab =
                crypttab_line(guest, devices, &unit.what).filter(|_| symptom.starts_with("Timed out"));
            let (rule, path, line) = match (crypttab, drivers.folder(guest)) {
                (Some(line), _) => ("luks.crypttab-unresolved", "/etc/crypttab".to_owned(), Some(line)),
                (None, Some(folder)) if rule == "kernel.modules-missing" => (rule, folder, None),
                _ => (rule, file.path.clone(), Some(unit.line)),
            };
            trace.cause = Some(Cause {
                rule,
                file: path,
                line,
                unit: Some(unit.device.clone().unwrap_or_else(|| unit.name.clone())),
                symptom,
            });
        }
    }
    let has_root = units.iter().any(|unit| unit.target == "/");
    if trace.cause.is_none() && !has_root && kernel.is_some_and(is_read_only) {
        stage.verdict = Verdict::Fail;
        stage.summary = format!("{} has no line for /, so that it stays read-only", file.path);
        trace.outcome = Outcome::Degraded;
        let symptom = "Failed to start systemd-logind.service".into();
        let path = file.path.clone();
        trace.cause =
            Some(Cause { rule: "fstab.root-mismatch", file: path, line: None, unit: None, symptom });
    }
    trace.stages.push(stage);
}

/// Whether the kernel's command line has the root mounted read-only: so it is unless `rw` comes last.
fn is_read_only(kernel: &Kernel) -> bool {
    let mut words = kernel.loaded.arguments.iter().rev().map(|(word, _)| word.as_str());
    let is_flag = |word: &str| {
        word.strip_prefix("rootflags=").is_some_and(|flags| flags.split(',').any(|flag| flag == "rw"))
    };
    !words.clone().any(is_flag) && words.find(|word| matches!(*word, "ro" | "rw")) != Some("rw")
}

fn fate(
    storage: &Storage,
    guest: &Guest,
    devices: &Devices<'_>,
    drivers: &Drivers<'_>,
    unit: &Unit,
    entry: &Entry,
) -> Fate {
    if unit.device.is_none() {
        // A bind mount, tmpfs, overlay or swap file: no device to wait for.
        // systemd makes the directory that a bind mount shows where there is none.
        let is_bind = entry.has_option("bind") || entry.has_option("rbind");
        if is_bind && matches!(resolve(&guest.tree, unit.what.as_bytes()), Err(PathError::NotADirectory(_))) {
            let reason = format!("{} cannot be made: a part of it is no directory", unit.what);
            return Fate::CannotMount("fstab.mountpoint-or-bind-invalid", reason);
        }
        return Fate::Works;
    }
    match devices.find(&unit.what) {
        Found::Node(node) if unit.target == "/" && node != guest.root => {
            Fate::Unknown(format!("/ is {}, which is not the root file system that was found", unit.what))
        }
        Found::Node(node) => mounted(storage, guest, drivers, node, unit, entry),
        Found::Ambiguous => Fate::Unknown(format!("several devices claim {}", unit.what)),
        Found::Extra => {
            let rule = "fstab.unstable-device";
            Fate::CannotMount(rule, format!("{} is a further disk without this content", unit.what))
        }
        // The initramfs has mounted it; systemd only mounts it anew with other options. mount(8) looks for what a tag
        // names, and does not look at a path.
        Found::Nothing(_) if unit.target == "/" => match entry.source.text().contains('=') {
            true => Fate::StaysAsItIs(
                "fstab.unresolved-source",
                format!("no disk provides {}, so that / stays read-only", unit.what),
            ),
            false => Fate::Works,
        },
        Found::Unknown(reason) => Fate::Unknown(reason),
        Found::Nothing(Some((_, reason))) => Fate::NoDevice(reason),
        Found::Nothing(None) => Fate::NoDevice(format!("no disk of this machine provides {}", unit.what)),
    }
}

fn mounted(
    storage: &Storage,
    guest: &Guest,
    drivers: &Drivers<'_>,
    node: NodeId,
    unit: &Unit,
    entry: &Entry,
) -> Fate {
    let found = storage.node(node);
    let kind = entry.kind.text();
    let Some(content) = found.content_type() else {
        let reason = format!("{} leads to {}, which holds nothing known", unit.what, found.path);
        return Fate::CannotMount("fs.wrong-type-or-missing", reason);
    };
    if matches!(found.content, Content::PhysicalVolume { .. } | Content::Partitions(_)) {
        let reason = format!("{} leads to {}, which is {content}", unit.what, found.path);
        return Fate::CannotMount("fstab.unresolved-source", reason);
    }
    let is_ext = |name: &str| matches!(name, "ext2" | "ext3" | "ext4");
    let fits = matches!(&*kind, "" | "auto")
        || kind.split(',').any(|kind| kind == content || is_ext(kind) && is_ext(content))
        || matches!((&*kind, content), ("msdos", "vfat") | ("ntfs3" | "ntfs-3g" | "fuseblk", "ntfs"));
    if !fits {
        return Fate::CannotMount("fstab.fstype-wrong", format!("{} holds {content}, not {kind}", unit.what));
    }
    let subvolume = entry.option_value("subvol").filter(|_| content == "btrfs");
    if let Some(subvolume) = subvolume
        && let Ok(known) = found.subvolumes()
    {
        let trimmed = String::from_utf8_lossy(subvolume).trim_matches('/').to_owned();
        if !trimmed.is_empty() && !known.iter().any(|known| known.path == trimmed.as_bytes()) {
            let reason = format!("{} has no subvolume {trimmed}", found.path);
            return Fate::CannotMount("fstab.option-hazard", reason);
        }
    }
    if let Some(option) = mount_options::unknown(content, entry.options()) {
        let (rule, reason) = ("fstab.option-hazard", format!("{content} knows no option {option}"));
        return match unit.target.as_str() {
            "/" => Fate::StaysAsItIs(rule, format!("{reason}, so that / stays read-only")),
            _ => Fate::CannotMount(rule, reason),
        };
    }
    // What the initramfs has loaded for the root stays loaded.
    if unit.target == "/" || storage.node(guest.root).content_type() == Some(content) {
        return Fate::Works;
    }
    let module = match content {
        "vfat" | "xfs" | "btrfs" | "ext4" | "f2fs" | "iso9660" => {
            if content == "iso9660" {
                "isofs"
            } else {
                content
            }
        }
        _ => return Fate::Works,
    };
    match drivers.check(module) {
        Ok(()) | Err(Lack::Unknown(_)) => Fate::Works,
        Err(Lack::Module(module) | Lack::NotInKernel(module)) => {
            let reason = format!("{content} needs the module {module}, which is not there");
            Fate::CannotMount("kernel.modules-missing", reason)
        }
    }
}

/// The line of crypttab that would make a device, where nothing has the source that it names.
fn crypttab_line(guest: &Guest, devices: &Devices<'_>, what: &str) -> Option<usize> {
    let name = what.strip_prefix("/dev/mapper/")?;
    let text = guest.read("/etc/crypttab", 1 << 20).ok()?;
    let text = String::from_utf8_lossy(&text);
    let (line, source) = (1..).zip(text.lines()).find_map(|(number, line)| {
        let mut words = line.split_whitespace();
        (words.next()? == name).then_some((number, words.next()?))
    })?;
    let device = udev_node(source.as_bytes()).unwrap_or_else(|| source.to_owned());
    matches!(devices.find(&device), Found::Nothing(None)).then_some(line)
}
