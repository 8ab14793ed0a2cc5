//! The stages of a boot, each on what the one before found.

mod blacklist;
mod checks;
pub(crate) mod crypttab;
pub(crate) mod default_target;
pub(crate) mod devices;
pub(crate) mod drivers;
mod fate;
mod features;
pub(crate) mod firmware;
mod gpt_auto;
pub(crate) mod grub;
pub(crate) mod init;
pub(crate) mod initramfs;
mod initrd_mounts;
pub(crate) mod kernel;
mod libraries;
pub(crate) mod local_fs;
pub(crate) mod lvm;
mod mount_options;
mod offline_update;
pub(crate) mod selinux;
mod shim_fallback;
mod unsearched;

use crate::trace::{Cause, Evidence, Outcome, Stage, StageName, Verdict};

/// Where a boot ends before its login prompt.
#[derive(Debug)]
pub(crate) struct Stop {
    pub(crate) outcome: Outcome,
    pub(crate) cause: Option<Cause>,
}

/// What came of a stage: its record, and what the next one starts from.
pub(crate) struct Step<T> {
    pub(crate) stages: Vec<Stage>,
    pub(crate) next: Next<T>,
}

/// How it goes on.
pub(crate) enum Next<T> {
    /// With this.
    Goes(T),
    /// Not at all.
    Stops(Stop),
    /// Cannot be said; the stage's summary says why.
    Unknown,
}

impl<T> Step<T> {
    pub(crate) fn goes(name: StageName, summary: impl Into<String>, next: T) -> Self {
        Self { stages: vec![stage(name, Verdict::Pass, summary)], next: Next::Goes(next) }
    }

    pub(crate) fn unknown(name: StageName, summary: impl Into<String>) -> Self {
        Self { stages: vec![stage(name, Verdict::Unknown, summary)], next: Next::Unknown }
    }

    /// Ends here for what `rule` describes; `symptom` is what the person sees.
    pub(crate) fn stops(name: StageName, outcome: Outcome, cause: Cause, summary: impl Into<String>) -> Self {
        let mut failed = stage(name, Verdict::Fail, summary);
        if !cause.file.is_empty() {
            failed.evidence.push(Evidence {
                file: cause.file.clone(),
                line: cause.line,
                text: failed.summary.clone(),
            });
        }
        Self { stages: vec![failed], next: Next::Stops(Stop { outcome, cause: Some(cause) }) }
    }

    /// What the next stage makes of it, if it goes on.
    pub(crate) fn then<U>(self, next: impl FnOnce(T) -> Step<U>) -> Step<U> {
        match self.next {
            Next::Goes(value) => next(value).after(self.stages),
            Next::Stops(stop) => Step { stages: self.stages, next: Next::Stops(stop) },
            Next::Unknown => Step { stages: self.stages, next: Next::Unknown },
        }
    }

    /// With the records of earlier stages in front.
    pub(crate) fn after(mut self, mut earlier: Vec<Stage>) -> Self {
        earlier.append(&mut self.stages);
        Self { stages: earlier, next: self.next }
    }
}

pub(crate) fn stage(name: StageName, verdict: Verdict, summary: impl Into<String>) -> Stage {
    Stage { name, verdict, summary: summary.into(), evidence: Vec::new() }
}

/// A cause without a place in a file.
pub(crate) fn cause(rule: &'static str, symptom: impl Into<String>) -> Cause {
    Cause { rule, file: String::new(), line: None, unit: None, symptom: symptom.into() }
}
