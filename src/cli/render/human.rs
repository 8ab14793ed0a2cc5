//! Findings and boots for people.

use std::io::{self, Write};

use boot::BootTrace;
use repair::{Applicability, Fix, Plan};
use rules::{Finding, Line, Severity, Spot};
use similar::{ChangeTag, TextDiff};
use storage::Storage;

use super::{Style, count, plain};
use crate::Examination;
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
    let device = plain(&storage.node(place.node).path);
    let (at, quoted) = match &place.spot {
        Spot::Device => (device, None),
        Spot::Sector(sector) => (format!("{device}, sector {sector}"), None),
        Spot::File(file) => (format!("{device} : {}", plain(file)), None),
        Spot::Line(line) => {
            let (first, last) = columns(line);
            (format!("{device} : {}:{}:{first}-{last}", plain(&line.file), line.number), Some(line))
        }
    };
    writeln!(out, " {} {} : {at}", style.blue("-->"), plain(image))?;
    let margin = " ".repeat(quoted.map_or(1, |line| line.number.to_string().len()));
    let bar = style.blue("|");
    match quoted {
        Some(line) => {
            writeln!(out, "{} {bar} {}", style.blue(&line.number.to_string()), plain(&line.text))?;
            let (indent, length) = under(&line.text, &line.columns);
            let carets = style.red(&"^".repeat(length));
            writeln!(out, "{margin} {bar} {indent}{carets} {}", plain(&finding.label))?;
        }
        None => writeln!(out, "{margin} {bar} {}", plain(&finding.label))?,
    }
    for note in &finding.notes {
        writeln!(out, "{margin} {} {}", style.blue("="), plain(note))?;
    }
    if let Some(fix) = &finding.fix {
        writeln!(out, "{} ({}): {}", style.green("fix"), fix.applicability.as_str(), fix.title)?;
        for line in edited_lines(fix, place.file(), storage) {
            let text = plain(&line.text);
            match line.sign {
                Some('-') => writeln!(out, "  {}", style.red(&format!("- {text}")))?,
                Some(sign) => writeln!(out, "  {}", style.green(&format!("{sign} {text}")))?,
                None => writeln!(out, "  {}", style.blue(&text))?,
            }
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

/// The first and the last column of a span, from 1.
pub(crate) fn columns(line: &Line) -> (usize, usize) {
    (line.columns.start + 1, line.columns.end.max(line.columns.start + 1))
}

/// A line of a change: taken out, put in, or the name of the file that follows.
struct Changed {
    sign: Option<char>,
    text: String,
}

/// The lines that a fix changes; files other than `file` are named.
fn edited_lines(fix: &Fix, file: Option<&str>, storage: &Storage) -> Vec<Changed> {
    let mut lines = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let Ok(changes) = Plan::new([fix]).preview(storage) else {
        for edit in &fix.edits {
            lines.push(Changed { sign: None, text: edit.path.clone() });
            lines.push(Changed { sign: Some('-'), text: text(&edit.edit.old) });
            lines.push(Changed { sign: Some('+'), text: text(&edit.edit.new) });
        }
        return lines;
    };
    for change in changes {
        if file != Some(change.path.as_str()) {
            lines.push(Changed { sign: None, text: change.path.clone() });
        }
        let (old, new) = (text(&change.old), text(&change.new));
        for line in TextDiff::from_lines(old.as_str(), new.as_str()).iter_all_changes() {
            let sign = match line.tag() {
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
                ChangeTag::Equal => continue,
            };
            let text = line.value().trim_end_matches(['\n', '\r']).to_owned();
            lines.push(Changed { sign: Some(sign), text });
        }
    }
    lines
}

/// `as it stands: login, if …` for each machine.
pub(crate) fn boots(
    out: &mut dyn Write,
    examination: &Examination,
    machines: &[Machine],
    style: Style,
) -> io::Result<()> {
    for (boot, machine) in examination.boots.iter().zip(machines.iter().cycle()) {
        writeln!(out, "{}", boot_line(boot, &subject(examination, boot, machine), style))?;
    }
    Ok(())
}

/// The machine of a boot; of several systems on it, which one: `of disk1/p2 as it stands`.
pub(crate) fn subject(examination: &Examination, boot: &BootTrace, machine: &Machine) -> String {
    match boot.guest.filter(|_| examination.guests.len() > 1) {
        Some(root) => format!("of {} {machine}", plain(&examination.storage.node(root).path)),
        None => machine.to_string(),
    }
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
