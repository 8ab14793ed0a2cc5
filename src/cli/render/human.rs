//! Findings and boots for people.

use std::io::{self, Write};

use boot::BootTrace;
use repair::Applicability;
use rules::{Finding, Severity};
use storage::Storage;

use super::{Style, count, plain};
use crate::machine::Machine;

/// One finding, in the frame that compilers use.
pub(crate) fn finding(
    out: &mut dyn Write,
    finding: &Finding,
    image: &str,
    storage: &Storage,
    style: Style,
) -> io::Result<()> {
    let place = &finding.place;
    let head = format!("{}[{}]", finding.severity.as_str(), finding.rule.id);
    let head = match finding.severity {
        Severity::Error => style.red(&head),
        Severity::Warning => style.yellow(&head),
        Severity::Info => style.blue(&head),
    };
    writeln!(out, "{head}: {}", style.bold(finding.rule.summary))?;
    let (first, last) = (place.columns.start + 1, place.columns.end.max(place.columns.start + 1));
    writeln!(
        out,
        " {} {} : {} : {}:{}:{first}-{last}",
        style.blue("-->"),
        plain(image),
        plain(&storage.node(place.node).path),
        plain(&place.file),
        place.line
    )?;
    let number = place.line.to_string();
    let margin = " ".repeat(number.len());
    let bar = style.blue("|");
    writeln!(out, "{} {bar} {}", style.blue(&number), plain(&place.text))?;
    let (indent, length) = under(&place.text, &place.columns);
    writeln!(out, "{margin} {bar} {indent}{} {}", style.red(&"^".repeat(length)), plain(&finding.label))?;
    for note in &finding.notes {
        writeln!(out, "{margin} {} {}", style.blue("="), plain(note))?;
    }
    if let Some(fix) = &finding.fix {
        writeln!(out, "{} ({}): {}", style.green("fix"), fix.applicability.as_str(), fix.title)?;
        for edit in &fix.edits {
            let (old, new) = edited_line(&place.text, place.columns.start, &edit.edit);
            writeln!(out, "  {}", style.red(&format!("- {}", plain(&old))))?;
            writeln!(out, "  {}", style.green(&format!("+ {}", plain(&new))))?;
        }
    }
    writeln!(out)
}

/// The blanks and the carets that stand under a span; tabs stay tabs, so that both lines align.
fn under(text: &str, columns: &std::ops::Range<usize>) -> (String, usize) {
    let before = text.get(..columns.start).unwrap_or_default();
    let indent = plain(before).chars().map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    let span = text.get(columns.clone()).unwrap_or_default();
    (indent, plain(span).chars().count().max(1))
}

/// The line before and after an edit whose span may start before or behind the quoted field.
fn edited_line(line: &str, field_start: usize, edit: &guest_files::Edit) -> (String, String) {
    let old = String::from_utf8_lossy(&edit.old);
    let new = String::from_utf8_lossy(&edit.new);
    let at =
        line.get(field_start..).and_then(|rest| rest.find(old.as_ref())).map(|found| found + field_start);
    let after = match at {
        Some(at) if !old.is_empty() => format!("{}{new}{}", &line[..at], &line[at + old.len()..]),
        _ => format!("{line}{new}"),
    };
    (line.to_owned(), after)
}

/// `as it stands: login, if …` for each machine.
pub(crate) fn boots(
    out: &mut dyn Write,
    boots: &[BootTrace],
    machines: &[Machine],
    style: Style,
) -> io::Result<()> {
    for (boot, machine) in boots.iter().zip(machines.iter().cycle()) {
        writeln!(out, "{}", boot_line(boot, &machine.to_string(), style))?;
    }
    Ok(())
}

/// One line: the machine, the outcome, what it rests on or why it fails.
pub(crate) fn boot_line(boot: &BootTrace, machine: &str, style: Style) -> String {
    let outcome = boot.outcome.as_str();
    let word = if boot.outcome.is_up() { style.green(outcome) } else { style.red(outcome) };
    match &boot.cause {
        Some(cause) => {
            let place = match cause.line {
                Some(line) => format!(" ({}:{line}, {})", cause.file, cause.rule),
                None => format!(" ({})", cause.rule),
            };
            format!("boot {machine}: {word}: {}{place}", plain(&cause.symptom))
        }
        None => match boot.assumption() {
            Some(assumption) => format!("boot {machine}: {word}, {assumption}"),
            None => format!("boot {machine}: {word}"),
        },
    }
}

/// `web01.qcow2: 1 error, 1 fixable with `fix`; details: …`
pub(crate) fn summary(name: &str, findings: &[Finding]) -> String {
    if findings.is_empty() {
        return format!("{}: nothing found", plain(name));
    }
    let number = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let mut parts: Vec<String> = [Severity::Error, Severity::Warning, Severity::Info]
        .into_iter()
        .filter(|severity| number(*severity) > 0)
        .map(|severity| count(number(severity), severity.as_str()))
        .collect();
    let fixable = |least| {
        let is_fixable =
            |finding: &&Finding| finding.fix.as_ref().is_some_and(|fix| fix.applicability == least);
        findings.iter().filter(is_fixable).count()
    };
    for (least, command) in [(Applicability::Safe, "fix"), (Applicability::Suggested, "fix --suggested")] {
        if fixable(least) > 0 {
            parts.push(format!("{} fixable with `{command}`", fixable(least)));
        }
    }
    let mut rules: Vec<&str> = findings.iter().map(|finding| finding.rule.id).collect();
    rules.sort_unstable();
    rules.dedup();
    let details: Vec<String> = rules.iter().map(|rule| format!("`explain {rule}`")).collect();
    format!("{}: {}; details: {}", plain(name), parts.join(", "), details.join(", "))
}
