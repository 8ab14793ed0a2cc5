//! guestmend: offline guest-disk repair.
//!
//! The product's two flows. [`examine`] says how far a guest would boot and what is wrong; it never fails and
//! never writes. [`mend`] plans fixes, applies them to copy-on-write overlays, and examines the result again.

pub mod cli;
pub mod container;
pub mod delivery;
mod images;
pub mod machine;

use std::sync::Arc;

use blockdev::{Device, Overlay};
use boot::{BootTrace, Outcome, Simulator};
use filesystem::Timestamp;
use guest::Guest;
use image::Image;
use luks::Keyring;
use repair::{Applicability, FileChange, Plan, PlanError};
use rules::{Finding, Place, Spot};
use storage::{Bus, Storage};

use crate::machine::Machine;

/// Everything that was found out about the disks of one machine.
#[derive(Debug)]
pub struct Examination {
    /// What is on the disks.
    pub storage: Storage,
    /// The installed systems.
    pub guests: Vec<Guest>,
    /// For each system, in order, the boot on each machine that was asked for.
    pub boots: Vec<BootTrace>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// Reads the disks of one machine, opened with `keys` where they are encrypted, follows the boot of every system on
/// `machines`, and judges.
pub fn examine(disks: &[Device], keys: &Keyring, machines: &[Machine]) -> Examination {
    examined(disks, keys, machines, &|_| {})
}

/// The same for disks that are these images: each boot begins with whether the machine can be started with them.
pub fn examine_images(images: &[Image], keys: &Keyring, machines: &[Machine]) -> Examination {
    let disks: Vec<Device> = images.iter().map(|image| image.device.clone()).collect();
    examined(&disks, keys, machines, &|boot| images::judge(images, boot))
}

fn examined(
    disks: &[Device],
    keys: &Keyring,
    machines: &[Machine],
    begin: &dyn Fn(&mut BootTrace),
) -> Examination {
    let storage = storage::discover(disks, keys);
    let guests = guest::inspect(&storage);
    let simulator = Simulator::new(&storage);
    let boots: Vec<BootTrace> = guests
        .iter()
        .flat_map(|guest| machines.iter().map(move |machine| (guest, machine)))
        .map(|(guest, machine)| simulator.run(Some(guest), &machine.hardware(Some(guest), disks.len())))
        .collect();
    let mut boots =
        if guests.is_empty() { without_a_system(&simulator, machines, disks.len(), begin) } else { boots };
    boots.iter_mut().filter(|boot| boot.guest.is_some()).for_each(begin);
    let findings = rules::judge(&storage, &guests, &boots);
    Examination { storage, guests, boots, findings }
}

/// Boots of disks on which no system was found, if a boot loader says where they end.
fn without_a_system(
    simulator: &Simulator<'_>,
    machines: &[Machine],
    disks: usize,
    begin: &dyn Fn(&mut BootTrace),
) -> Vec<BootTrace> {
    let mut boots: Vec<BootTrace> =
        machines.iter().map(|machine| simulator.run(None, &machine.hardware(None, disks))).collect();
    boots.iter_mut().for_each(begin);
    if boots.iter().any(|boot| boot.cause.is_some()) { boots } else { Vec::new() }
}

/// Which fixes are wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Only those of this rule.
    pub rule: Option<String>,
    /// The least sure that is still taken.
    pub least: Applicability,
}

impl Wanted {
    fn takes(&self, finding: &Finding) -> bool {
        let is_named = self.rule.as_deref().is_none_or(|id| id == finding.rule.id);
        is_named
            && finding
                .fix
                .as_ref()
                .is_some_and(|fix| fix.applicability >= self.least && !fix.edits.is_empty())
    }
}

/// What mending came to.
#[derive(Debug)]
pub struct Mended {
    /// The machine before.
    pub before: Examination,
    /// The machine after; equal to `before` when nothing was changed.
    pub after: Examination,
    /// Every file that was changed.
    pub changes: Vec<FileChange>,
    /// Ids of the rules whose findings were cured, one for each finding.
    pub cured: Vec<&'static str>,
    /// One for each disk; the disks themselves were not written.
    pub overlays: Vec<Arc<Overlay>>,
}

/// Why nothing was delivered; the overlays were dropped.
#[derive(Debug, thiserror::Error)]
pub enum MendError {
    /// A file could not be edited.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A finding is still there after its fix, no milder than before.
    #[error("{rule} is still found at {place} after its fix; nothing was kept")]
    NotCured {
        /// The rule.
        rule: &'static str,
        /// The file and the line, or the device.
        place: String,
    },
    /// A fix made a fault that was not there.
    #[error("the fix causes {rule} at {place}; nothing was kept")]
    NewFinding {
        /// The rule.
        rule: &'static str,
        /// The file and the line, or the device.
        place: String,
    },
    /// A boot would end worse than before.
    #[error("on {hardware} the boot would end in {after} instead of {before}; nothing was kept")]
    Worse {
        /// The machine.
        hardware: String,
        /// How it ended before.
        before: Outcome,
        /// How it would end after.
        after: Outcome,
    },
}

/// Cures what is wanted, on overlays, and examines the result again.
///
/// # Errors
/// [`MendError`] when a fix cannot be applied, does not cure, or makes anything worse.
pub fn mend(
    disks: &[Device],
    keys: &Keyring,
    machines: &[Machine],
    wanted: &Wanted,
    now: Timestamp,
) -> Result<Mended, MendError> {
    let overlays: Vec<Arc<Overlay>> = disks.iter().map(|disk| Arc::new(Overlay::new(disk.clone()))).collect();
    let devices: Vec<Device> = overlays.iter().map(|overlay| overlay.clone() as Device).collect();
    let before = examine(&devices, keys, machines);
    let taken: Vec<&Finding> = before.findings.iter().filter(|finding| wanted.takes(finding)).collect();
    let plan = Plan::new(taken.iter().filter_map(|finding| finding.fix.as_ref()));
    let changes = plan.apply(&before.storage, now)?;
    let after = examine(&devices, keys, &same_bus(machines, &before.guests));
    verify(&before, &after, &taken)?;
    let cured = taken.iter().map(|finding| finding.rule.id).collect();
    Ok(Mended { before, after, changes, cured, overlays })
}

/// The machines with the bus that the guests speak of before they are mended: one whose fstab no longer names `sda` stays on
/// the bus that it was on.
fn same_bus(machines: &[Machine], guests: &[Guest]) -> Vec<Machine> {
    let mut buses = guests.iter().map(|guest| guest.bus.unwrap_or(Bus::VirtioBlk));
    let bus = buses.next().filter(|first| buses.all(|other| other == *first));
    let kept = |machine: &Machine| if machine.defined.is_some() { machine.bus } else { machine.bus.or(bus) };
    machines.iter().map(|machine| Machine { bus: kept(machine), ..machine.clone() }).collect()
}

/// `/etc/fstab:4`, or `disk0, sector 0`.
pub(crate) fn place_in_words(place: &Place, storage: &Storage) -> String {
    let device = &storage.node(place.node).path;
    match &place.spot {
        Spot::Device => device.clone(),
        Spot::Sector(sector) => format!("{device}, sector {sector}"),
        Spot::File(file) => file.clone(),
        Spot::Line(line) => format!("{}:{}", line.file, line.number),
    }
}

/// Every taken finding is gone or milder, no boot ends worse, and none is new but what ends a boot that ended before
/// it came so far.
fn verify(before: &Examination, after: &Examination, taken: &[&Finding]) -> Result<(), MendError> {
    let is_same = |a: &Finding, b: &Finding| a.rule.id == b.rule.id && a.place.is_at(&b.place);
    let was_up = before.boots.iter().all(|boot| boot.cause.is_none());
    for finding in &after.findings {
        let rule = finding.rule.id;
        let place = || place_in_words(&finding.place, &after.storage);
        // A mount that got `nofail` is still missing its device, and no longer stops the boot: that is the cure.
        if taken.iter().any(|old| is_same(old, finding) && finding.severity >= old.severity) {
            return Err(MendError::NotCured { rule, place: place() });
        }
        let is_cause = |boot: &BootTrace| boot.cause.as_ref().is_some_and(|cause| cause.rule == rule);
        let is_uncovered = !was_up && after.boots.iter().any(is_cause);
        if !is_uncovered && !before.findings.iter().any(|old| is_same(old, finding)) {
            return Err(MendError::NewFinding { rule, place: place() });
        }
    }
    // A machine that disappeared counts as the worst end.
    for (index, old) in before.boots.iter().enumerate() {
        let new = after.boots.get(index).filter(|new| new.hardware == old.hardware);
        let outcome = new.map_or(Outcome::Unknown, |boot| boot.outcome);
        if outcome > old.outcome {
            let hardware = old.hardware.to_string();
            return Err(MendError::Worse { hardware, before: old.outcome, after: outcome });
        }
    }
    Ok(())
}
