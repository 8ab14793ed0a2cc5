//! One fault, one file, one name.
//!
//! `src/fstab/unstable_device.rs` is `fstab.unstable-device` on screen, in JSON and in `explain`. A rule reads
//! what was found and reports; it never writes. What it proposes is data: [`repair::Fix`].

mod case;
mod finding;
pub mod fstab;

pub use case::Case;
pub use finding::{Finding, Place, Severity};

use boot::BootTrace;
use guest::Guest;
use storage::Storage;

/// One fault that is looked for.
#[derive(Debug)]
pub struct Rule {
    /// `group.name`; names the fault, not the remedy.
    pub id: &'static str,
    /// One line: what is wrong.
    pub summary: &'static str,
    /// The manual page, in Markdown, with the headings "What happens", "Why", "Fix", "References".
    pub manual: &'static str,
    /// Looks for the fault in one system.
    pub check: fn(&Case<'_>, &mut Vec<Finding>),
}

/// Every rule, sorted by id.
pub static RULES: &[&Rule] = &[&fstab::unresolved_source::RULE, &fstab::unstable_device::RULE];

/// The rule with this id.
pub fn find(id: &str) -> Option<&'static Rule> {
    RULES.iter().copied().find(|rule| rule.id == id)
}

/// Runs every rule over every system. `boots` holds the simulated boots of all systems, in any order.
pub fn judge(storage: &Storage, guests: &[Guest], boots: &[BootTrace]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for guest in guests {
        let case = Case::new(storage, guest, boots);
        for rule in RULES {
            (rule.check)(&case, &mut findings);
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_every_manual_is_whole() {
        assert!(RULES.windows(2).all(|pair| pair[0].id < pair[1].id));
        for rule in RULES {
            let (group, name) = rule.id.split_once('.').unwrap();
            let file = format!("{}/src/{group}/{}.rs", env!("CARGO_MANIFEST_DIR"), name.replace('-', "_"));
            assert!(std::path::Path::new(&file).exists(), "{file}");
            for heading in ["## What happens", "## Why", "## Fix", "## References"] {
                assert!(rule.manual.contains(heading), "{}: {heading}", rule.id);
            }
            assert!(!rule.summary.ends_with('.'));
            assert!(std::ptr::eq(find(rule.id).unwrap(), *rule));
        }
    }

    #[test]
    fn every_rule_file_is_in_the_list() {
        let folder = format!("{}/src/fstab", env!("CARGO_MANIFEST_DIR"));
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let count = files.filter(|name| name != "mod.rs").count();
        assert_eq!(count, RULES.iter().filter(|rule| rule.id.starts_with("fstab.")).count());
    }
}
