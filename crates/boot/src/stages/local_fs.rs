//! What systemd mounts by fstab and by units, and what of it keeps `local-fs.target` from being reached.

use std::time::Duration;

use filesystem::path::{PathError, resolve, resolve_no_follow};
use guest::Guest;
use guest_files::fstab::{Entry, Fstab};
use storage::{NodeId, Storage, udev_node};

use super::checks::Checks;
use super::default_target::Towards;
use super::devices::{Devices, Found};
use super::drivers::Drivers;
use super::fate::{self, Fate, Time};
use super::kernel::Kernel;
use super::{crypttab, gpt_auto, lvm, stage};
use crate::fstab::{self, Unit};
use crate::systemd::{self, Broken, Plan};
use crate::trace::{BootTrace, Cause, Evidence, Outcome, Stage, StageName, Verdict};

const NAME: StageName = StageName::LocalFileSystems;
const FSTAB: &str = "/etc/fstab";
/// The target that waits for them.
const LOCAL_FS: &str = "local-fs.target";
/// The service that mounts the root anew, with the options of fstab.
const REMOUNT: &str = "systemd-remount-fs.service";

/// A unit that mounts or swaps something, with the line that says so.
struct Started {
    unit: Unit,
    entry: Entry,
    file: String,
    /// A unit of the administrator's, not a line of fstab.
    is_own: bool,
    /// Its failure is that of `local-fs.target`.
    is_required: bool,
    /// What it mounts, where that is known without its name.
    node: Option<NodeId>,
}

/// What announces devices: the daemon, and what has it look at those that were there before it.
const UDEV: [&str; 2] = ["systemd-udevd.service", "systemd-udev-trigger.service"];

/// What decides over all mounts at once.
struct Ground<'a> {
    /// Why no device is announced: udev is not started.
    silent: Option<&'a Broken>,
    /// Whether `/` stays as the initramfs mounted it, and that is read-only.
    stays_read_only: bool,
    /// Why what makes it writable is not started.
    refused: Option<&'a Broken>,
    /// Whether the failure of `local-fs.target` ends the boot.
    stops: bool,
}

impl<'a> Ground<'a> {
    fn new(plan: Option<&'a Plan>, kernel: Option<&Kernel>, started: &[Started]) -> Self {
        let has_root = || started.iter().any(|started| started.unit.target == "/");
        let is_remounted = plan.map_or_else(has_root, |plan| plan.starts(REMOUNT));
        Self {
            silent: plan.and_then(|plan| UDEV.into_iter().find_map(|name| plan.refused(name))),
            stays_read_only: !is_remounted && kernel.is_some_and(is_read_only),
            refused: plan
                .and_then(|plan| [LOCAL_FS, REMOUNT].into_iter().find_map(|name| plan.refused(name))),
            stops: plan.is_none_or(|plan| plan.ends_in_emergency(LOCAL_FS)),
        }
    }

    /// What happens to a unit for one of these reasons.
    fn fate(&self, guest: &Guest, started: &Started) -> Option<Fate> {
        let unit = &started.unit;
        if self.stays_read_only && fate::is_missing(guest, unit) {
            let reason = format!("there is no {}, and / stays read-only", unit.target);
            let is_option = self.refused.is_some_and(|broken| *broken.place.file == *started.file);
            let rule = if is_option { "fstab.option-hazard" } else { "fstab.mountpoint-or-bind-invalid" };
            return Some(Fate::CannotMount(rule, reason));
        }
        let broken = self.silent.filter(|_| unit.device.is_some() && unit.target != "/")?;
        let reason = format!("{}: {}, so that no device appears", broken.unit, broken.reason);
        Some(Fate::NoDevice(reason, None))
    }

    /// What a root that stays read-only comes to.
    fn read_only_root(&self, kernel: Option<&Kernel>) -> (String, Cause) {
        let symptom = "Failed to start systemd-logind.service".to_owned();
        let arguments = kernel.map_or(&[][..], |kernel| &kernel.loaded.arguments);
        if let Some(broken) = self.refused {
            let is_word = arguments.iter().any(|(_, place)| *place.file == *broken.place.file);
            let rule = match is_word {
                true => "cmdline.debug-leftover",
                false if *broken.place.file == *FSTAB => "fstab.option-hazard",
                false => "systemd.default-target-broken",
            };
            let summary = format!("{}: {}, so that / stays read-only", broken.unit, broken.reason);
            return (summary, broken.place.cause(rule, &broken.unit, symptom));
        }
        if let Some(place) = systemd::fstab_word(arguments) {
            let summary = "the command line has fstab passed over, so that / stays read-only".to_owned();
            return (summary, place.cause("cmdline.debug-leftover", symptom));
        }
        let summary = format!("{FSTAB} has no line for /, so that it stays read-only");
        let file = FSTAB.to_owned();
        (summary, Cause { rule: "fstab.root-mismatch", file, line: None, unit: None, symptom })
    }
}

pub(crate) fn run(
    storage: &Storage,
    guest: &Guest,
    devices: &mut Devices<'_>,
    drivers: &Drivers<'_>,
    kernel: Option<&Kernel>,
    towards: Option<&Towards>,
    trace: &mut BootTrace,
) {
    let plan = towards.map(|towards| &towards.plan);
    let is_gone = || matches!(resolve(&guest.tree, FSTAB.as_bytes()), Err(PathError::NotFound(_)));
    if guest.fstab.is_none() && !is_gone() {
        trace.stages.push(stage(NAME, Verdict::Unknown, "no /etc/fstab could be read"));
        return;
    }
    let mut record = stage(NAME, Verdict::Pass, "everything that local-fs.target requires can be mounted");
    let opened = crypttab::open(storage, guest, devices, towards);
    record.evidence.extend(opened.evidence);
    if let Some(reason) = opened.unknown {
        (record.verdict, record.summary) = (Verdict::Unknown, reason);
    }
    let devices = &*devices;
    let mut started = started(guest, plan);
    started.extend(by_type(storage, guest, kernel));
    let ground = Ground::new(plan, kernel, &started);
    let checks = Checks::on_root(kernel, guest);
    let time = Time { storage, guest, devices, drivers, checks: &checks };
    let mut account = Account { guest, devices, drivers, ground: &ground, record, trace };
    for started in &started {
        let Started { unit, entry, .. } = started;
        let fate = ground.fate(guest, started).unwrap_or_else(|| match started.node {
            Some(node) => fate::mounted(&time, node, unit, entry),
            None => fate::of(&time, unit, entry),
        });
        account.tell(started, fate);
    }
    let Account { mut record, trace, .. } = account;
    if let (None, Some((outcome, cause, wait))) = (&trace.cause, opened.asks) {
        (record.verdict, record.summary) = (Verdict::Fail, wait);
        (trace.outcome, trace.cause) = (outcome, Some(cause));
    }
    if trace.cause.is_none() && ground.stays_read_only {
        let (summary, cause) = ground.read_only_root(kernel);
        (record.verdict, record.summary) = (Verdict::Fail, summary);
        (trace.outcome, trace.cause) = (Outcome::Degraded, Some(cause));
    }
    trace.stages.push(record);
}

/// Puts what happens to each unit on record.
struct Account<'a> {
    guest: &'a Guest,
    devices: &'a Devices<'a>,
    drivers: &'a Drivers<'a>,
    ground: &'a Ground<'a>,
    record: Stage,
    trace: &'a mut BootTrace,
}

impl Account<'_> {
    fn tell(&mut self, started: &Started, fate: Fate) {
        let Started { unit, is_own, is_required, .. } = started;
        let evidence = |text: &str| Evidence {
            file: started.file.clone(),
            line: (!started.file.is_empty()).then_some(unit.line),
            text: text.to_owned(),
        };
        let cause = |rule, unit: &str, symptom| Cause {
            rule,
            file: started.file.clone(),
            line: (!started.file.is_empty()).then_some(started.unit.line),
            unit: Some(unit.to_owned()),
            symptom,
        };
        let is_first = self.trace.cause.is_none();
        let stops = *is_required && self.ground.stops;
        let is_failure = matches!(fate, Fate::NoDevice(..) | Fate::CannotMount(..));
        if is_failure && !is_own {
            self.trace.failing_lines.push(unit.line);
        }
        match fate {
            Fate::Works => {}
            Fate::Unknown(reason) => {
                self.record.evidence.push(evidence(&reason));
                if *is_required && self.record.verdict == Verdict::Pass {
                    (self.record.verdict, self.record.summary) = (Verdict::Unknown, reason);
                }
            }
            Fate::Chance(reason) => {
                self.record.evidence.push(evidence(&reason));
                if *is_required && is_first {
                    let symptom = "BTRFS warning: duplicate device".into();
                    self.trace.outcome = Outcome::Unknown;
                    self.trace.cause = Some(cause("id.duplicate", &unit.name, symptom));
                    (self.record.verdict, self.record.summary) = (Verdict::Unknown, reason);
                }
            }
            Fate::StaysAsItIs(rule, reason) => {
                self.record.evidence.push(evidence(&reason));
                if is_first {
                    self.degrades(
                        cause(rule, REMOUNT, format!("Failed to start {REMOUNT}")),
                        REMOUNT,
                        &reason,
                    );
                }
            }
            // It is failed, and nothing but a target that nobody requires waits for it.
            Fate::CannotMount(rule, reason) if !stops => {
                self.record.evidence.push(evidence(&reason));
                if is_first {
                    let cause = cause(rule, &unit.name, format!("Failed to start {}", unit.name));
                    self.degrades(cause, &unit.name, &reason);
                }
            }
            Fate::NoDevice(reason, rule) => {
                let timeout = unit.device_timeout.unwrap_or(self.guest.device_timeout);
                self.trace.delay = self.trace.delay.max(timeout);
                self.record.evidence.push(evidence(&reason));
                if stops {
                    let device = unit.device.as_deref().unwrap_or(&unit.what);
                    let symptom = format!("Timed out waiting for device {device}");
                    let outcome = if timeout == Duration::MAX { Outcome::Hang } else { Outcome::Emergency };
                    let cause = self.blame_for_device(started, rule, symptom);
                    self.ends(outcome, cause, &unit.name, &reason);
                }
            }
            Fate::CannotMount(rule, reason) => {
                self.record.evidence.push(evidence(&reason));
                let name = unit.device.as_deref().unwrap_or(&unit.name);
                let symptom = format!("Failed to mount {} - {}", unit.name, unit.target);
                let mut cause = cause(rule, name, symptom);
                if let (Some(folder), "kernel.modules-missing") = (self.drivers.folder(self.guest), rule) {
                    (cause.file, cause.line) = (folder, None);
                }
                self.ends(Outcome::Emergency, cause, &unit.name, &reason);
            }
        }
    }

    /// The system comes up, and a unit has failed.
    fn degrades(&mut self, cause: Cause, name: &str, reason: &str) {
        (self.record.verdict, self.record.summary) = (Verdict::Fail, format!("{name}: {reason}"));
        (self.trace.outcome, self.trace.cause) = (Outcome::Degraded, Some(cause));
    }

    /// The boot ends here. That outweighs what only degrades it.
    fn ends(&mut self, outcome: Outcome, cause: Cause, name: &str, reason: &str) {
        if self.record.verdict != Verdict::Fail || self.trace.outcome.is_up() {
            (self.record.verdict, self.record.summary) = (Verdict::Fail, format!("{name}: {reason}"));
        }
        if self.trace.cause.is_none() || self.trace.outcome.is_up() {
            (self.trace.outcome, self.trace.cause) = (outcome, Some(cause));
        }
    }

    /// What is to blame for a device that does not come.
    fn blame_for_device(&self, started: &Started, known: Option<&'static str>, symptom: String) -> Cause {
        let unit = &started.unit;
        let name = unit.device.as_deref().unwrap_or(&unit.name).to_owned();
        let told = |rule, file, line| Cause { rule, file, line, unit: Some(name.clone()), symptom };
        if let Some(broken) = self.ground.silent {
            let (file, line) = match broken.place.file.is_empty() {
                true => (started.file.clone(), Some(started.unit.line)),
                false => (broken.place.file.to_string(), None),
            };
            return told("systemd.default-target-broken", file, line);
        }
        if let Some(rule) = known.filter(|rule| rule.starts_with("lvm.")) {
            return told(rule, lvm::file_of(rule).to_owned(), None);
        }
        if let Some(line) = crypttab_line(self.guest, self.devices, &unit.what) {
            return told("luks.crypttab-unresolved", "/etc/crypttab".to_owned(), Some(line));
        }
        let rule = match started.is_own {
            true => "systemd.unit-broken",
            false => unresolved(&unit.what),
        };
        told(rule, started.file.clone(), Some(started.unit.line))
    }
}

/// What systemd mounts and swaps on: lines of fstab, unless a unit of the administrator's hides them, and such units.
fn started(guest: &Guest, plan: Option<&Plan>) -> Vec<Started> {
    let mut started = Vec::new();
    for (file, unit) in guest
        .fstab
        .iter()
        .flat_map(|file| fstab::generate(&file.document).0.into_iter().map(move |unit| (file, unit)))
    {
        let is_started = plan.map_or_else(
            || unit.is_started(),
            |plan| {
                plan.unit(&unit.name).is_some_and(|found| found.is_generated)
                    && !unit.name.ends_with(".automount")
            },
        );
        let entry = file.document.entries().iter().find(|entry| entry.line == unit.line);
        let Some(entry) = entry.filter(|_| is_started) else { continue };
        let is_required =
            plan.map_or_else(|| unit.blocks_boot(), |plan| plan.is_required(LOCAL_FS, &unit.name));
        let entry = entry.clone();
        started.push(Started {
            unit,
            entry,
            file: file.path.clone(),
            is_own: false,
            is_required,
            node: None,
        });
    }
    let Some(plan) = plan else { return started };
    for found in plan.units().filter(|found| found.kind() == "mount" && !found.is_generated) {
        let text = |key: &str| {
            found.last("Mount", key).map_or_else(String::new, |(value, _)| value.replace(' ', "\\040"))
        };
        let or_default = |text: String| if text.is_empty() { "defaults".to_owned() } else { text };
        let (what, kind) = (text("What"), text("Type"));
        let line = format!(
            "{what} {} {} {} 0 0\n",
            text("Where"),
            if kind.is_empty() { "auto" } else { &kind },
            or_default(text("Options"))
        );
        let document = Fstab::parse(line.into_bytes());
        let Some(mut unit) = fstab::generate(&document).0.into_iter().next() else { continue };
        let Some(entry) = document.entries().first().cloned() else { continue };
        let (file, line) = found.last("Mount", "What").map_or_else(
            || (found.place.file.to_string(), 0),
            |(_, place)| (place.file.to_string(), place.line),
        );
        (unit.line, unit.name) = (line, found.name.clone());
        let is_required = plan.is_required(LOCAL_FS, &found.name);
        started.push(Started { unit, entry, file, is_own: true, is_required, node: None });
    }
    started
}

/// What is mounted by the type of its partition, unless a line of fstab or a unit says what lies there.
fn by_type(storage: &Storage, guest: &Guest, kernel: Option<&Kernel>) -> Vec<Started> {
    let found = gpt_auto::mounts(storage, guest, kernel).into_iter().filter_map(|(node, place)| {
        let uuid = partition_uuid(storage, node)?;
        let line = format!("PARTUUID={uuid} {place} auto defaults 0 2\n");
        let document = Fstab::parse(line.into_bytes());
        let unit = fstab::generate(&document).0.into_iter().next()?;
        let entry = document.entries().first()?.clone();
        let path = |folder: &str| format!("{folder}/systemd/system/{}", unit.name);
        let is_unit = ["/etc", "/usr/lib", "/lib"]
            .iter()
            .any(|folder| resolve_no_follow(&guest.tree, path(folder).as_bytes()).is_ok());
        (!is_unit).then(|| Started {
            unit,
            entry,
            file: String::new(),
            is_own: true,
            is_required: true,
            node: Some(node),
        })
    });
    found.collect()
}

/// The rule for a line of fstab whose device is not there.
pub(super) fn unresolved(what: &str) -> &'static str {
    if storage::is_unstable_name(what) { "fstab.unstable-device" } else { "fstab.unresolved-source" }
}

/// Whether the kernel's command line has the root mounted read-only: so it is unless `rw` comes last.
pub(super) fn is_read_only(kernel: &Kernel) -> bool {
    let mut words = kernel.loaded.arguments.iter().rev().map(|(word, _)| word.as_str());
    let is_flag = |word: &str| {
        word.strip_prefix("rootflags=").is_some_and(|flags| flags.split(',').any(|flag| flag == "rw"))
    };
    !words.clone().any(is_flag) && words.find(|word| matches!(*word, "ro" | "rw")) != Some("rw")
}

/// The line of crypttab that would make a device, where nothing has the source that it names.
fn crypttab_line(guest: &Guest, devices: &Devices<'_>, what: &str) -> Option<usize> {
    let name = what.strip_prefix("/dev/mapper/")?;
    let text = guest.read("/etc/crypttab", 1 << 20).ok()?;
    let entry = guest_files::crypttab::parse(&text).into_iter().find(|entry| entry.name == name)?;
    let device = udev_node(entry.source.as_bytes()).unwrap_or(entry.source);
    matches!(devices.find(&device), Found::Nothing(None)).then_some(entry.line)
}

fn partition_uuid(storage: &Storage, node: NodeId) -> Option<&str> {
    match &storage.node(node).kind {
        storage::NodeKind::Partition(partition) => Some(&partition.uuid),
        _ => None,
    }
}
