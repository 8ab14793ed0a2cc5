//! guestmend: offline guest-disk repair.
//!
//! The product's two flows. [`examine`] says how far a guest would boot and what is wrong; it never fails and
//! never writes. [`mend`] plans fixes, applies them to copy-on-write overlays, and examines the result again.

pub mod cli;
pub mod container;
pub mod delivery;
pub mod machine;

use std::sync::Arc;

use blockdev::{Device, Overlay};
use boot::{BootTrace, Outcome, Simulator};
use filesystem::Timestamp;
use guest::Guest;
use luks::Keyring;
use repair::{Applicability, FileChange, Plan, PlanError};
use rules::Finding;
use storage::Storage;

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
    let storage = storage::discover(disks, keys);
    let guests = guest::inspect(&storage);
    let simulator = Simulator::new(&storage);
    let boots: Vec<BootTrace> = guests
        .iter()
        .flat_map(|guest| machines.iter().map(move |machine| (guest, machine)))
        .map(|(guest, machine)| simulator.run(Some(guest), &machine.hardware(Some(guest), disks.len())))
        .collect();
    let boots = if guests.is_empty() { without_a_system(&simulator, machines, disks.len()) } else { boots };
    let findings = rules::judge(&storage, &guests, &boots);
    Examination { storage, guests, boots, findings }
}

/// Boots of disks on which no system was found, if a boot loader says where they end.
fn without_a_system(simulator: &Simulator<'_>, machines: &[Machine], disks: usize) -> Vec<BootTrace> {
    let boots: Vec<BootTrace> =
        machines.iter().map(|machine| simulator.run(None, &machine.hardware(None, disks))).collect();
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
    #[error("{rule} is still found at {file}:{line} after its fix; nothing was kept")]
    NotCured {
        /// The rule.
        rule: &'static str,
        /// Path in the guest.
        file: String,
        /// From 1.
        line: usize,
    },
    /// A fix made a fault that was not there.
    #[error("the fix causes {rule} at {file}:{line}; nothing was kept")]
    NewFinding {
        /// The rule.
        rule: &'static str,
        /// Path in the guest.
        file: String,
        /// From 1.
        line: usize,
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
    let after = examine(&devices, keys, machines);
    verify(&before, &after, &taken)?;
    let cured = taken.iter().map(|finding| finding.rule.id).collect();
    Ok(Mended { before, after, changes, cured, overlays })
}

/// Every taken finding is gone or milder, none is new, no boot ends worse.
fn verify(before: &Examination, after: &Examination, taken: &[&Finding]) -> Result<(), MendError> {
    let is_same = |a: &Finding, b: &Finding| {
        a.rule.id == b.rule.id
            && a.place.file == b.place.file
            && a.place.node == b.place.node
            && a.place.line == b.place.line
    };
    for finding in &after.findings {
        let (rule, file, line) = (finding.rule.id, finding.place.file.clone(), finding.place.line);
        // A mount that got `nofail` is still missing its device, and no longer stops the boot: that is the cure.
        if taken.iter().any(|old| is_same(old, finding) && finding.severity >= old.severity) {
            return Err(MendError::NotCured { rule, file, line });
        }
        if !before.findings.iter().any(|old| is_same(old, finding)) {
            return Err(MendError::NewFinding { rule, file, line });
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
