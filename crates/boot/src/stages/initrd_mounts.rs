//! What an initramfs mounts below the root file system before it hands over.
//!
//! initramfs-tools 0.142, `init` and `scripts/local`: the first line of fstab whose second field is `/usr`, whatever its options
//! say. With systemd in the image, its generator (`src/fstab-generator/fstab-generator.c`, `mount_in_initrd`) reads the fstab of the
//! root file system once that is mounted: `/usr`, and every line with `x-initrd.mount`, are required or wanted by
//! `initrd-fs.target`.

use std::time::Duration;

use guest::Guest;
use guest_files::fstab::Entry;

use super::checks::Checks;
use super::devices::Devices;
use super::drivers::Drivers;
use super::fate::{self, Fate, Time};
use super::init;
use super::initramfs::Root;
use super::kernel::{Kernel, Kind, Unpacked};
use super::{Next, Step, local_fs};
use crate::fstab::{self, Link, Unit};
use crate::trace::{Cause, Outcome, StageName};

const FSTAB: &str = "/etc/fstab";
const USR: &str = "/usr";
/// A wait for a device from which on it is sure what follows.
const LONG: Duration = Duration::from_secs(15);
const NAME: StageName = StageName::Root;

/// The file systems of one search, and what it has to do with.
pub(super) struct Early<'a> {
    pub(super) storage: &'a storage::Storage,
    pub(super) guest: &'a Guest,
    pub(super) kernel: &'a Kernel,
    pub(super) unpacked: &'a Unpacked,
    pub(super) devices: &'a Devices<'a>,
    pub(super) drivers: &'a Drivers<'a>,
}

/// What comes of `/usr`.
enum Usr {
    /// It is there, or nothing says that it should be.
    Mounted,
    /// The root goes on without it.
    Left(Left),
    /// The boot ends here.
    Ends(Step<Root>),
}

/// A line that keeps `/usr` from being mounted, with the reason.
struct Left {
    rule: &'static str,
    line: Option<usize>,
    reason: String,
}

impl Early<'_> {
    /// Mounts what is to be mounted below the root, or stops there.
    pub(super) fn mount(&self, root: Root) -> Step<Root> {
        let usr = match self.unpacked.kind {
            Kind::InitramfsTools => self.initramfs_tools(),
            Kind::Dracut => self.dracut(),
            Kind::Mkinitcpio | Kind::Unknown => Usr::Mounted,
        };
        let goes_on = |root| Step { stages: Vec::new(), next: Next::Goes(root) };
        match usr {
            Usr::Mounted => goes_on(root),
            Usr::Left(left) => self.without_usr(&left).unwrap_or_else(|| goes_on(root)),
            Usr::Ends(step) => step,
        }
    }

    /// Where `/usr` is not mounted, init is looked for in the root file system alone.
    fn without_usr(&self, left: &Left) -> Option<Step<Root>> {
        let Step { mut stages, next } =
            init::not_there(self.guest.tree.root_alone(), self.kernel, self.unpacked.kind)?;
        let Next::Stops(mut stop) = next else { return Some(Step { stages, next: Next::Unknown }) };
        if let (Some(line), Some(cause)) = (left.line, &mut stop.cause) {
            *cause = Cause { rule: left.rule, ..at(line, std::mem::take(&mut cause.symptom)) };
        }
        for stage in stages.iter_mut().filter(|_| !left.reason.is_empty()) {
            stage.summary = format!("{}; {}", stage.summary, left.reason);
        }
        Some(Step { stages, next: Next::Stops(stop) })
    }

    /// Only `/usr`, by the line as a shell reads it.
    fn initramfs_tools(&self) -> Usr {
        let Some(file) = &self.guest.fstab else { return Usr::Mounted };
        let entries = file.document.entries();
        let Some(entry) = entries.iter().find(|entry| entry.target.value == USR.as_bytes()) else {
            let line = entries.iter().find(|entry| same(&entry.target.text(), USR)).map(|entry| entry.line);
            let reason = "no line of fstab says /usr as initramfs-tools looks for it".to_owned();
            return Usr::Left(Left { rule: "fstab.syntax", line, reason });
        };
        let Some(unit) = fstab::unit_of(entry) else { return Usr::Mounted };
        // Whatever is not 0 asks for a check, a field that is not there too.
        let line = file.document.slice(entry.span.clone());
        let sixth = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty()).nth(5);
        let unit = Unit { is_checked: sixth != Some(b"0"), ..unit };
        let stops = |rule, symptom: String, reason: String| {
            let cause = Cause { rule, ..at(entry.line, symptom) };
            Usr::Ends(Step::stops(NAME, Outcome::InitramfsShell, cause, format!("{USR}: {reason}")))
        };
        match self.fate(&unit, entry) {
            Fate::Works | Fate::StaysAsItIs(..) => match passed_on(entry) {
                Some(option) => {
                    let symptom = format!("Failed to mount {} as {USR} file system.", unit.what);
                    let reason =
                        format!("mount of the initramfs passes {option} on to a driver that refuses it");
                    stops("fstab.option-hazard", symptom, reason)
                }
                None => Usr::Mounted,
            },
            Fate::Unknown(reason) | Fate::Chance(reason) => {
                Usr::Ends(Step::unknown(NAME, format!("{USR}: {reason}")))
            }
            Fate::NoDevice(reason, _) => {
                let alert = format!("ALERT!  {} does not exist.  Dropping to a shell!", entry.source.text());
                stops(local_fs::unresolved(&unit.what), alert, reason)
            }
            Fate::CannotMount(rule, reason) => {
                let symptom = format!("Failed to mount {} as {USR} file system.", unit.what);
                stops(rule, symptom, reason)
            }
        }
    }

    fn dracut(&self) -> Usr {
        let Some(file) = &self.guest.fstab else { return Usr::Mounted };
        let (units, _) = fstab::generate(&file.document);
        let mut usr = Usr::Left(Left { rule: "init.missing", line: None, reason: String::new() });
        for unit in units.iter().filter(|unit| unit.name.ends_with(".mount") && unit.target != "/") {
            let Some(entry) = file.document.entries().iter().find(|entry| entry.line == unit.line) else {
                continue;
            };
            let is_usr = unit.target == USR;
            if !is_usr && !entry.has_option("x-initrd.mount") {
                continue;
            }
            let skipped = |rule, reason: &str| {
                Usr::Left(Left { rule, line: Some(unit.line), reason: format!("{USR}: {reason}") })
            };
            if unit.links.is_empty() {
                if is_usr {
                    usr = skipped("fstab.option-hazard", "noauto keeps the initramfs from mounting it");
                }
                continue;
            }
            let is_required = unit.links.iter().any(|link| matches!(link, Link::RequiredBy(_)));
            let mut outcome = Outcome::DracutEmergency;
            let (rule, symptom, reason) = match self.fate(unit, entry) {
                Fate::Works | Fate::StaysAsItIs(..) => {
                    if is_usr {
                        usr = Usr::Mounted;
                    }
                    continue;
                }
                Fate::Unknown(reason) | Fate::Chance(reason) if is_required || is_usr => {
                    return Usr::Ends(Step::unknown(NAME, format!("{}: {reason}", unit.target)));
                }
                Fate::Unknown(_) | Fate::Chance(_) => continue,
                Fate::NoDevice(reason, _) => {
                    let device = unit.device.as_deref().unwrap_or(&unit.what);
                    let symptom = format!("Timed out waiting for device {device}");
                    // The wait over, initrd-cleanup.service is next in the queue: it isolates the target of the hand-over, which stops
                    // the emergency shell and waits for the device anew, again and again. What fails at once stops the queue before
                    // that service is in it.
                    if self.unpacked.starts_systemd() {
                        outcome = Outcome::Hang;
                    }
                    let wait = unit.device_timeout.unwrap_or(Duration::MAX);
                    if is_required && outcome == Outcome::Hang && wait < LONG {
                        let summary = format!(
                            "{}: {reason}; after so short a wait it is chance whether the initramfs goes on without it",
                            unit.target
                        );
                        return Usr::Ends(Step::unknown(NAME, summary));
                    }
                    (local_fs::unresolved(&unit.what), symptom, reason)
                }
                Fate::CannotMount(rule, reason) => {
                    let symptom = format!("Failed to mount sysroot-{}", unit.name);
                    (rule, symptom, reason)
                }
            };
            if is_required {
                let cause = Cause { rule, ..at(unit.line, symptom) };
                return Usr::Ends(Step::stops(NAME, outcome, cause, format!("{}: {reason}", unit.target)));
            }
            if is_usr {
                usr = skipped(rule, &reason);
            }
        }
        usr
    }

    fn fate(&self, unit: &Unit, entry: &Entry) -> Fate {
        let Self { storage, guest, devices, drivers, .. } = *self;
        let checks = Checks::in_image(self.kernel, self.unpacked);
        fate::of(&Time { storage, guest, devices, drivers, checks: &checks }, unit, entry)
    }
}

/// A word for mount(8) and systemd that busybox' mount does not know, and takes for one of the driver's.
fn passed_on(entry: &Entry) -> Option<String> {
    let is_passed_on = |option: &&[u8]| {
        option.starts_with(b"x-")
            || option.starts_with(b"X-")
            || matches!(*option, b"auto" | b"fail" | b"owner" | b"group" | b"nogroup" | b"noowner")
    };
    entry.options().find(is_passed_on).map(|option| String::from_utf8_lossy(option).into_owned())
}

fn same(path: &str, other: &str) -> bool {
    path.trim_end_matches('/') == other
}

fn at(line: usize, symptom: String) -> Cause {
    Cause { rule: "", file: FSTAB.to_owned(), line: Some(line), unit: None, symptom }
}
