//! Updates that were put off to the next boot: systemd.offline-updates(7).
//!
//! `systemd-system-update-generator` looks for `/system-update` and makes `system-update.target` the default of this one boot, unless
//! the command line asks for another. What that target wants makes the update; `system-update-cleanup.service` takes the link away
//! and starts the machine again.

use std::sync::Arc;

use filesystem::path::{resolve, resolve_no_follow};
use guest::Guest;

use super::cause;
use super::default_target::{Plans, Towards};
use super::kernel::Kernel;
use crate::trace::{Cause, Outcome};

const LINK: &str = "/system-update";
const TARGET: &str = "system-update.target";
const CLEANUP: &str = "system-update-cleanup.service";
const GENERATOR: &str = "systemd/system-generators/systemd-system-update-generator";

/// How a boot with such an update ends.
pub(super) enum Update {
    /// It is made, the machine starts again, and what comes then counts.
    Once,
    Ends(Outcome, Cause, String),
}

/// What becomes of an update that waits; `None` where none does.
pub(super) fn pending(guest: &Guest, kernel: &Kernel, plans: &Plans) -> Option<Update> {
    resolve_no_follow(&guest.tree, LINK.as_bytes()).ok()?;
    let has_generator = ["/usr/lib", "/lib"]
        .iter()
        .any(|folder| resolve(&guest.tree, format!("{folder}/{GENERATOR}").as_bytes()).is_ok());
    if !has_generator {
        return None;
    }
    let towards: Arc<Towards> = plans.towards(guest, &kernel.loaded.arguments, TARGET)?;
    let plan = &towards.plan;
    let ends = |outcome, symptom: String, summary: String| {
        let rule = "systemd.offline-update-loop";
        Some(Update::Ends(outcome, Cause { file: LINK.into(), ..cause(rule, symptom) }, summary))
    };
    if plan.refusal.is_some() {
        // As for any default target that cannot be started.
        let summary = format!("{LINK} asks for {TARGET}, which cannot be started");
        return ends(
            Outcome::Rescue,
            "Failed to load default target, falling back to rescue.target".into(),
            summary,
        );
    }
    let words: Vec<String> = kernel.loaded.arguments.iter().map(|(word, _)| word.clone()).collect();
    let failures = plan.failures(&guest.tree, &words, &|_| false);
    for (name, broken) in &failures.own {
        let restarts = plan
            .unit(name)
            .and_then(|unit| unit.last("Unit", "FailureAction"))
            .is_some_and(|(action, _)| action.starts_with("reboot"));
        if restarts {
            let summary = format!(
                "{LINK} has the machine update; {name} fails ({}), and starts it again with the link still there",
                broken.reason
            );
            return ends(Outcome::RebootLoop, format!("Failed to start {name}"), summary);
        }
    }
    if !plan.starts(CLEANUP) || failures.all.contains_key(CLEANUP) {
        let summary = format!("{LINK} has the machine update; {CLEANUP}, which ends that, is not started");
        return ends(Outcome::Hang, format!("Reached target {TARGET} - Offline System Update."), summary);
    }
    Some(Update::Once)
}
