//! Findings about boots that end before a login prompt or come up in part, from the traces that name a rule as the cause.

use std::ops::Range;

use boot::{BootTrace, Cause, Verdict};
use repair::Fix;
use storage::{NodeId, NodeKind, Storage};

use crate::finding::{Line, Place, Spot};
use crate::{Case, Finding, Rule, Severity};

/// Finds the cure of what stops a boot, if there is one that is certain enough to be proposed.
pub type Cure = fn(&Case<'_>, &Cause) -> Option<Fix>;

/// Bytes of a line that is quoted.
const MAX_QUOTE: usize = 2000;

/// One finding for each place at which `rule` stops a boot.
pub(crate) fn report(rule: &'static Rule, cure: Option<Cure>, case: &Case<'_>, findings: &mut Vec<Finding>) {
    let mut places: Vec<(&Cause, Vec<&BootTrace>)> = Vec::new();
    for boot in &case.boots {
        let Some(cause) = boot.cause.as_ref().filter(|cause| cause.rule == rule.id) else { continue };
        match places.iter_mut().find(|(known, _)| known.file == cause.file && known.line == cause.line) {
            Some((_, struck)) => struck.push(boot),
            None => places.push((cause, vec![boot])),
        }
    }
    for (cause, struck) in places {
        findings.push(finding(rule, cure, case, cause, &struck));
    }
}

/// The same for a rule that looks for itself: what stops a boot, and what it did not see. The findings of this system start at
/// `from`.
pub(crate) fn report_unseen(rule: &'static Rule, case: &Case<'_>, findings: &mut Vec<Finding>, from: usize) {
    let mut unseen = Vec::new();
    report(rule, None, case, &mut unseen);
    let seen = findings.get(from..).unwrap_or_default();
    unseen.retain(|new| !seen.iter().any(|old| old.place.is_at(&new.place)));
    findings.append(&mut unseen);
}

/// The same for boots of disks on which no system was found: where they end is all that there is to say.
pub(crate) fn report_without_system(
    rules: &[&'static Rule],
    storage: &Storage,
    boots: &[BootTrace],
    findings: &mut Vec<Finding>,
) {
    for (number, boot) in boots.iter().enumerate().filter(|(_, boot)| boot.guest.is_none()) {
        let Some(cause) = &boot.cause else { continue };
        let Some(rule) = rules.iter().find(|rule| rule.id == cause.rule) else { continue };
        let label = label(boot, cause);
        let place = Place { node: node_named(storage, cause, &label, boot), spot: spot(rule.id) };
        let is_now = number == 0;
        let machine = if is_now { "as it stands".to_owned() } else { format!("on {}", boot.hardware) };
        let note = format!("boot: {machine}: {}, \"{}\"", boot.outcome, cause.symptom);
        if let Some(known) =
            findings.iter_mut().find(|known| known.rule.id == rule.id && known.place.is_at(&place))
        {
            known.notes.push(note);
            continue;
        }
        let severity = if is_now && !boot.outcome.is_up() { Severity::Error } else { Severity::Warning };
        findings.push(Finding { rule, severity, place, label, notes: vec![note], fix: None });
    }
}

/// The node that a boot without a system ends at: the one whose file is to blame, the one of which the stage speaks, else a disk.
fn node_named(storage: &Storage, cause: &Cause, label: &str, boot: &BootTrace) -> NodeId {
    let volume = cause.file.split_once(":/").map_or("", |(volume, _)| volume);
    let word = label.split([' ', ',', ':']).next().unwrap_or_default();
    let named =
        storage.iter().find(|(_, node)| !node.path.is_empty() && (node.path == volume || node.path == word));
    let disk = boot.hardware.slots.iter().find_map(|slot| slot.disk);
    let is_disk = |kind: &NodeKind| matches!(kind, NodeKind::Disk(index) if Some(*index) == disk);
    let first = storage.iter().find(|(_, node)| is_disk(&node.kind));
    named.or(first).map_or(NodeId(0), |(id, _)| id)
}

/// What the stage that failed says.
fn label(boot: &BootTrace, cause: &Cause) -> String {
    let failed = boot.stages.iter().rfind(|stage| stage.verdict == Verdict::Fail);
    failed.map_or_else(|| cause.symptom.clone(), |stage| stage.summary.clone())
}

/// The finding of one place; `struck` are the boots that end there.
fn finding(
    rule: &'static Rule,
    cure: Option<Cure>,
    case: &Case<'_>,
    cause: &Cause,
    struck: &[&BootTrace],
) -> Finding {
    let is_now = |boot: &BootTrace| case.boots.first().is_some_and(|first| std::ptr::eq(*first, boot));
    let stops_now = struck.iter().any(|boot| is_now(boot) && !boot.outcome.is_up());
    let severity = if stops_now { Severity::Error } else { Severity::Warning };
    let label = struck.first().map_or_else(|| cause.symptom.clone(), |boot| label(boot, cause));
    let place = place(case, rule.id, cause, &label, struck);
    let mut notes: Vec<(String, String)> = Vec::new();
    for boot in struck {
        let machine = if is_now(boot) { "as it stands".to_owned() } else { format!("on {}", boot.hardware) };
        let symptom = boot.cause.as_ref().map_or("", |cause| cause.symptom.as_str());
        let end = format!("{}, \"{symptom}\"", boot.outcome);
        match notes.iter_mut().find(|(_, known)| *known == end) {
            Some((machines, _)) => *machines = format!("{machines}, and {machine}"),
            None => notes.push((machine, end)),
        }
    }
    let notes = notes.into_iter().map(|(machines, end)| format!("boot: {machines}: {end}")).collect();
    Finding { rule, severity, place, label, notes, fix: cure.and_then(|cure| cure(case, cause)) }
}

fn place(case: &Case<'_>, rule: &str, cause: &Cause, label: &str, struck: &[&BootTrace]) -> Place {
    if cause.file.is_empty() {
        return device(case, rule, struck);
    }
    let Some(file) = case.file(&cause.file) else {
        let (node, path) = case.owner(&cause.file);
        return Place { node, spot: Spot::File(path) };
    };
    let quote = cause.line.and_then(|number| {
        let text = file.text()?.split(|byte| *byte == b'\n').nth(number.checked_sub(1)?)?;
        let text = String::from_utf8_lossy(text).trim_end_matches('\r').to_owned();
        (!text.contains('\0') && text.len() <= MAX_QUOTE).then_some((number, text))
    });
    let spot = match quote {
        Some((number, text)) => {
            let columns = blamed(&text, &[label, &cause.symptom]);
            Spot::Line(Line { file: file.path, number, columns, text })
        }
        None => Spot::File(file.path),
    };
    Place { node: file.node, spot }
}

/// The place of a fault outside of files: on the first disk, or the volume that the boot was to find there.
fn device(case: &Case<'_>, rule: &str, struck: &[&BootTrace]) -> Place {
    let disk = struck.first().and_then(|boot| boot.hardware.slots.iter().find_map(|slot| slot.disk));
    let is_it = |kind: &NodeKind| matches!(kind, NodeKind::Disk(index) if Some(*index) == disk);
    let first = case.storage.iter().find(|(_, node)| is_it(&node.kind)).map(|(id, _)| id);
    let spot = spot(rule);
    let group = rule.split('.').next().unwrap_or_default();
    let is_about_disk = matches!(group, "mbr" | "gpt" | "fw" | "esp" | "grub" | "img");
    let node: NodeId = first.filter(|_| is_about_disk).unwrap_or(case.guest.root);
    Place { node, spot }
}

/// Where on its device a fault outside of files lies.
fn spot(rule: &str) -> Spot {
    match (rule.split('.').next().unwrap_or_default(), rule) {
        // The boot sector also says where the core image is.
        ("mbr", _) | (_, "grub.boot-to-core") => Spot::Sector(0),
        ("gpt", _) => Spot::Sector(1),
        _ => Spot::Device,
    }
}

/// The word of a line that the first of `reasons` speaks of, as it stands or behind its `=`, else the next; else the whole line.
fn blamed(line: &str, reasons: &[&str]) -> Range<usize> {
    let weight = |word: &str, reason: &str| {
        let bare = word.trim_matches(['"', '\'']);
        let value = bare.split_once('=').map_or(bare, |(_, value)| value);
        let deep = value.rsplit('=').next().unwrap_or(value);
        let is_named = |text: &&str| text.len() > 3 && reason.contains(*text);
        [bare, value, deep].into_iter().filter(is_named).map(str::len).max()
    };
    let longest = reasons.iter().find_map(|reason| {
        let named = words(line).filter_map(|(start, word)| Some((weight(word, reason)?, start, word.len())));
        named.max_by_key(|(weight, start, _)| (*weight, std::cmp::Reverse(*start)))
    });
    match longest {
        Some((_, start, length)) => start..start.saturating_add(length),
        None => line.len().saturating_sub(line.trim_start().len())..line.trim_end().len(),
    }
}

/// The words of a line, each with its first byte.
fn words(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let start = move |word: &str| (word.as_ptr() as usize).saturating_sub(line.as_ptr() as usize);
    line.split_whitespace().map(move |word| (start(word), word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_that_is_to_blame() {
        for (line, reason, expected) in [
            (
                "\tlinux /vmlinuz root=UUID=0dead ro",
                "nothing is UUID=0dead on this machine",
                "root=UUID=0dead",
            ),
            ("\tlinux /vmlinuz-1 'root=/dev/x y' ro", "error: file `/vmlinuz-1' not found.", "/vmlinuz-1"),
            ("  search --fs-uuid --set=root \"0dead\"", "error: no such device: 0dead.", "\"0dead\""),
            ("linux /k rd.lvm.lv=vg/swap rd.lvm.lv=vg/root", "nothing is /dev/vg/swap", "rd.lvm.lv=vg/swap"),
            (
                "linux /k root=UUID=0dead rootflags=subvol=@root",
                "has no subvolume @root",
                "rootflags=subvol=@root",
            ),
            ("  one two  ", "something else", "one two"),
            ("", "x", ""),
        ] {
            assert_eq!(&line[blamed(line, &["", reason])], expected);
        }
    }
}
