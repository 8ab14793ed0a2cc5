//! What systemd starts on the way to its default target: units, how they are found, and the jobs that it makes of them.
//!
//! systemd 252: systemd.unit(5), `src/shared/unit-file.c` (names and folders), `src/core/transaction.c` (which jobs are made),
//! `src/core/job.c` (what a failure pulls down). Nothing of it depends on the machine: the fates of devices and mounts are those
//! of the local file systems.

mod condition;
mod generators;
mod load;
mod plan;
mod program;
mod ssh;
mod unit;

pub(crate) use generators::{fstab_word, plan};
pub(crate) use plan::{Broken, Failures, Plan, Refusal};
pub(crate) use unit::Place;
