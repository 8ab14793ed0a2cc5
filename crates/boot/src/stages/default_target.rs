//! The way from the local file systems to a login: what the default target pulls in, as far as files decide it.
//!
//! Programs are not run here. What is examined is whether they are there, whether their users are, and what a failure takes with
//! it. systemd's own words in `src/core/job.c`: a failed start pulls down what requires it, and starts `OnFailure=`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use guest::Guest;
use storage::NodeId;

use super::crypttab::Keys;
use super::grub::GuestPlace;
use super::kernel::Kernel;
use super::libraries::{self, Lost};
use super::stage;
use crate::systemd::{self, Broken, Failures, Plan};
use crate::trace::{BootTrace, Evidence, Outcome, Stage, StageName, Verdict};

const NAME: StageName = StageName::DefaultTarget;

/// Plans that were made, by system, command line and target: the same for every machine.
#[derive(Default)]
pub(crate) struct Plans {
    made: Mutex<BTreeMap<PlanKey, Option<Arc<Towards>>>>,
    /// By system and program, the library that keeps it from running.
    lost: Mutex<BTreeMap<(NodeId, String), Option<Lost>>>,
}

/// The root of a system, the words of its command line, the target.
type PlanKey = (NodeId, Vec<String>, String);

/// What systemd sets out to start, and what becomes of it.
pub(crate) struct Towards {
    pub(crate) plan: Plan,
    pub(super) keys: Keys,
    judged: OnceLock<Judgement>,
}

impl Plans {
    /// The library that keeps a program from running.
    pub(super) fn lost(&self, guest: &Guest, program: &str) -> Option<Lost> {
        let mut known = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let found = known.entry((guest.root, program.to_owned()));
        found.or_insert_with(|| libraries::lost(&guest.tree, program)).clone()
    }

    /// For `target`; `None` where the system has no units.
    pub(crate) fn towards(
        &self,
        guest: &Guest,
        arguments: &[(String, GuestPlace)],
        target: &str,
    ) -> Option<Arc<Towards>> {
        let words = arguments.iter().map(|(word, _)| word.clone()).collect();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let plan = made.entry((guest.root, words, target.to_owned())).or_insert_with(|| {
            let plan = systemd::plan(guest, arguments, target)?;
            Some(Arc::new(Towards { plan, keys: Keys::default(), judged: OnceLock::new() }))
        });
        plan.clone()
    }
}

/// Lines of evidence; a system with more broken units is told by these.
const MAX_EVIDENCE: usize = 20;

/// What keeps a person from logging in as usual, once the file systems are mounted.
pub(crate) fn run(guest: &Guest, kernel: Option<&Kernel>, towards: Option<&Towards>, trace: &mut BootTrace) {
    if !trace.outcome.is_up() {
        return;
    }
    let Some(towards) = towards else {
        trace.stages.push(stage(
            NAME,
            Verdict::Unknown,
            "it is not systemd that starts, or no units of it are there",
        ));
        return;
    };
    let found = towards.judged.get_or_init(|| {
        let words = kernel.map_or_else(Vec::new, |kernel| {
            kernel.loaded.arguments.iter().map(|(word, _)| word.clone()).collect()
        });
        let failures = towards.plan.failures(&guest.tree, &words, &|path| lies_elsewhere(guest, path));
        let mut found = judge(&towards.plan, &failures);
        let unsure = failures.unsure.iter().map(|broken| (broken, ", where the machine lets it start"));
        let own = failures.own.values().map(|broken| (broken, ""));
        for (broken, when) in own.chain(unsure).take(MAX_EVIDENCE) {
            found.stage.evidence.push(Evidence {
                file: broken.place.file.to_string(),
                line: (broken.place.line > 0).then_some(broken.place.line),
                text: format!("{}: {}{when}", broken.unit, broken.reason),
            });
        }
        found
    });
    if let Some((outcome, broken)) = &found.end
        && (trace.cause.is_none() || !outcome.is_up())
    {
        let symptom = format!("Failed to start {}", broken.unit);
        trace.outcome = *outcome;
        // A unit that is masked or not there is not started; what stands in a file of one fails.
        let is_started = towards.plan.unit(&broken.unit).is_some();
        let rule = if is_started { "systemd.unit-broken" } else { "systemd.default-target-broken" };
        trace.cause = Some(broken.place.cause(rule, &broken.unit, symptom));
    }
    trace.stages.push(found.stage.clone());
}

struct Judgement {
    stage: Stage,
    /// Another outcome than a login, and why.
    end: Option<(Outcome, Broken)>,
}

fn judge(plan: &Plan, failures: &Failures) -> Judgement {
    let fails = |outcome: Outcome, broken: &Broken, summary: String| Judgement {
        stage: stage(NAME, Verdict::Fail, summary),
        end: Some((outcome, broken.clone())),
    };
    // What a failure starts in its turn.
    for (unit, broken) in &failures.all {
        let Some(unit) = plan.unit(unit) else { continue };
        if plan.ends_in_emergency(&unit.name) {
            let summary = format!("{} fails: {}: {}", unit.name, broken.unit, broken.reason);
            return fails(Outcome::Emergency, broken, summary);
        }
        let restarts = |(action, _): (String, _)| action.starts_with("reboot");
        if failures.own.contains_key(&unit.name) && unit.last("Unit", "FailureAction").is_some_and(restarts) {
            let summary = format!("{} fails, and then the machine is to start again", unit.name);
            return fails(Outcome::RebootLoop, broken, summary);
        }
    }
    let mut prompts = plan.units().filter(|unit| is_prompt(&unit.name)).peekable();
    if prompts.peek().is_none() {
        return Judgement {
            stage: stage(
                NAME,
                Verdict::Unknown,
                format!("{} starts nothing that is known to ask for a login", plan.target),
            ),
            end: None,
        };
    }
    let lost = prompts.try_fold(None, |_, unit| failures.all.get(&unit.name).map(Some));
    if let Some(Some(broken)) = lost {
        let summary = format!("nothing asks for a login: {}: {}", broken.unit, broken.reason);
        // A prompt that fails by itself does so after everything else has come up.
        let outcome = if is_prompt(&broken.unit) { Outcome::Degraded } else { Outcome::Hang };
        return fails(outcome, broken, summary);
    }
    if let Some(broken) = failures.own.values().next() {
        let summary = format!("{} fails: {}", broken.unit, broken.reason);
        return fails(Outcome::Degraded, broken, summary);
    }
    if let Some(cycle) = plan.cycle() {
        let summary = format!("{} wait for each other; systemd starts without one of them", cycle.join(", "));
        return Judgement { stage: stage(NAME, Verdict::Unknown, summary), end: None };
    }
    let count = plan.units().filter(|unit| unit.kind() == "service").count();
    let summary = format!("{}: the programs of {count} services are there", plan.target);
    Judgement { stage: stage(NAME, Verdict::Pass, summary), end: None }
}

/// Units that ask for a login.
fn is_prompt(name: &str) -> bool {
    let stem = name.strip_suffix(".service").unwrap_or_default();
    ["getty@", "serial-getty@", "console-getty", "container-getty@"]
        .iter()
        .any(|start| stem.starts_with(start))
        || ["gdm", "gdm3", "sddm", "lightdm", "lxdm", "xdm", "display-manager"].contains(&stem)
}

/// Whether a path lies on a file system of fstab that is not among those that are here.
fn lies_elsewhere(guest: &Guest, path: &str) -> bool {
    let Some(fstab) = &guest.fstab else { return false };
    fstab.document.entries().iter().any(|entry| {
        let target = entry.target.text();
        let is_below =
            target.len() > 1 && path.strip_prefix(&*target).is_some_and(|rest| rest.starts_with('/'));
        is_below && !guest.mounts.iter().any(|mount| mount.target == target)
    })
}
