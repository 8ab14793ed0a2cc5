//! Changing what was examined: edits as data, a plan of them, and the journal that undoes a commit.
//!
//! An edit carries the old bytes and the new, so it is its own precondition, its own diff and its own undo.
//! Edits are applied to an overlay; the image itself is written only by [`journal::commit`].

pub mod journal;
mod plan;

pub use plan::{Applicability, FileChange, FileEdit, Fix, Plan, PlanError};
