//! The container around a disk, for people.

use std::io::{self, Write};
use std::path::Path;

use image::{Error, Image, Layer, OwnContent, ParentLink, Problem, Report, Severity};

use super::{Style, plain, size};
use crate::cli::input::display_name;
use crate::container::candidates::{Candidate, Reason};
use crate::container::map::Part;
use crate::container::rebase::Rebased;
use crate::container::victims::Victims;

/// Bytes of a patch that are shown.
const SHOWN: usize = 16;

/// Everything that is known of one file.
pub(crate) fn info(
    out: &mut dyn Write,
    layer: &Layer,
    in_use: bool,
    error: Option<&Error>,
    style: Style,
) -> io::Result<()> {
    writeln!(out, "{}", style.bold(&name_of(layer)))?;
    let mut row = |name: &str, text: &str| writeln!(out, "  {name:<14} {}", plain(text));
    row("format", layer.format)?;
    row("disk", &format!("{} ({} bytes)", size(layer.virtual_size), layer.virtual_size))?;
    row("file", &format!("{} ({} bytes)", size(layer.file_size), layer.file_size))?;
    for feature in &layer.features {
        row("", feature)?;
    }
    if let Some(identity) = &layer.identity {
        row("identity", identity)?;
    }
    for file in &layer.data_files {
        row("data file", &file.display().to_string())?;
    }
    if let Some(parent) = &layer.parent {
        row("stands on", &link(parent))?;
    }
    for snapshot in &layer.snapshots {
        let state = match snapshot.vm_state_size {
            0 => String::new(),
            bytes => format!(", {} of machine state", size(bytes)),
        };
        row(
            "snapshot",
            &format!("{} `{}`, {}{state}", snapshot.id, snapshot.name, size(snapshot.virtual_size)),
        )?;
    }
    for note in &layer.notes {
        writeln!(out, "  {} {}", style.yellow("note:"), plain(note))?;
    }
    if in_use {
        writeln!(out, "  {} open for writing by another program", style.yellow("note:"))?;
    }
    error.map_or(Ok(()), |error| writeln!(out, "  {} {}", style.red("error:"), plain(&line(error))))
}

/// A chain as a tree, the image first.
pub(crate) fn chain(
    out: &mut dyn Write,
    layers: &[Layer],
    error: Option<&Error>,
    found: &[Candidate],
    image: &Path,
    style: Style,
) -> io::Result<()> {
    for (depth, layer) in layers.iter().enumerate() {
        let mark = if depth == 0 { String::new() } else { format!("{}└─ ", "   ".repeat(depth - 1)) };
        let identity = layer.identity.as_ref().map_or_else(String::new, |identity| format!(", {identity}"));
        let facts = format!("({}, {}{identity})", layer.format, size(layer.virtual_size));
        writeln!(out, "{mark}{} {}", style.bold(&name_of(layer)), style.dim(&plain(&facts)))?;
        let indent = "   ".repeat(depth);
        for file in &layer.data_files {
            writeln!(out, "{indent}   + {}", plain(&file.display().to_string()))?;
        }
        for note in &layer.notes {
            writeln!(out, "{indent}   {} {}", style.yellow("!"), plain(note))?;
        }
    }
    let Some(error) = error else { return Ok(()) };
    let indent = "   ".repeat(layers.len().saturating_sub(1));
    if let Some(parent) = layers.last().and_then(|layer| layer.parent.as_ref()) {
        writeln!(out, "{indent}└─ {} {}", style.red("missing:"), plain(&link(parent)))?;
    }
    writeln!(out, "{} {}", style.red("error:"), plain(&line(error)))?;
    for candidate in found {
        let why = match &candidate.reason {
            Reason::Identity(identity) => format!("has {identity}"),
            Reason::Content { same, compared } => format!("{same} of {compared} compared pages are the same"),
            Reason::Size => "has the same length; nothing else to compare".to_owned(),
        };
        let name = candidate.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        writeln!(
            out,
            "{} {} ({}): {}",
            style.green("candidate:"),
            plain(&name),
            candidate.format,
            plain(&why)
        )?;
    }
    let broken = layers.last().and_then(|layer| layer.path.as_deref()).unwrap_or(image);
    if let Some(best) = found.first() {
        writeln!(
            out,
            "to name it: guestmend image rebase --unsafe-metadata-only --parent {} {}",
            plain(&best.path.file_name().unwrap_or_default().to_string_lossy()),
            plain(&broken.display().to_string())
        )?;
    }
    Ok(())
}

/// A whole report.
pub(crate) fn report(
    out: &mut dyn Write,
    report: &Report,
    victims: &Victims,
    path: &Path,
    style: Style,
) -> io::Result<()> {
    for found in &report.problems {
        problem(out, found, report, &[], style)?;
    }
    for victim in &victims.files {
        let path = String::from_utf8_lossy(&victim.path);
        writeln!(out, "{} {} : {}", style.red("damaged file:"), plain(&victim.volume), plain(&path))?;
    }
    if victims.is_cut_short {
        writeln!(out, "the search for damaged files was cut short; there may be more")?;
    }
    summary(out, report, path, style)
}

/// One problem in the frame that findings have.
pub(crate) fn problem(
    out: &mut dyn Write,
    problem: &Problem,
    report: &Report,
    notes: &[String],
    style: Style,
) -> io::Result<()> {
    let head = match problem.severity {
        Severity::Error => style.red("error[image]"),
        Severity::Leak => style.yellow("leak[image]"),
        Severity::Note => style.blue("note[image]"),
    };
    writeln!(out, "{head}: {}", style.bold(&plain(&problem.summary)))?;
    let file = report.files.get(problem.file).map_or_else(String::new, |path| display_name(path));
    writeln!(
        out,
        " {} {} : {} at byte {:#x}",
        style.blue("-->"),
        plain(&file),
        problem.structure,
        problem.offset
    )?;
    if !problem.effect.is_empty() {
        writeln!(out, "   {} {}", style.blue("="), plain(&problem.effect))?;
    }
    if let Some(first) = problem.guest.first() {
        let more = problem.guest.len() - 1;
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        writeln!(out, "   {} bytes {:#x}..{:#x} of the disk{more}", style.blue("="), first.start, first.end)?;
    }
    for note in notes {
        writeln!(out, "   {} {}", style.blue("="), plain(note))?;
    }
    if let Some(repair) = &problem.repair {
        writeln!(out, "{} {}", style.green("repair:"), plain(&repair.title))?;
        for patch in repair.patches.iter().take(3) {
            let hex: Vec<String> = patch.bytes.iter().take(SHOWN).map(|byte| format!("{byte:02x}")).collect();
            let more = if patch.bytes.len() > SHOWN {
                format!(" … ({} bytes)", patch.bytes.len())
            } else {
                String::new()
            };
            writeln!(out, "  {} {:#x}: {}{more}", style.green("+"), patch.offset, hex.join(" "))?;
        }
        if repair.patches.len() > 3 {
            writeln!(out, "  {} {} more ranges", style.green("+"), repair.patches.len() - 3)?;
        }
    }
    writeln!(out)
}

/// The last line of a report.
pub(crate) fn summary(out: &mut dyn Write, report: &Report, path: &Path, style: Style) -> io::Result<()> {
    let errors = report.count(Severity::Error);
    let leaks = report.count(Severity::Leak) - errors;
    let name = plain(&display_name(path));
    let repairable = report.problems.iter().filter(|problem| problem.repair.is_some()).count();
    let used = format!("{} of data in the file", size(report.allocated));
    let verdict = match (errors, leaks) {
        (0, 0) => style.green("sound"),
        _ => {
            format!("{errors} errors, {leaks} leaks, {repairable} repairable with `image check --repair all`")
        }
    };
    writeln!(out, "{name}: {verdict}; {used}")
}

/// The head of the map.
pub(crate) fn map_head(out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{:>16} {:>16}  {:<10} file", "start", "length", "kind")
}

/// One part of the map.
pub(crate) fn map_row(out: &mut dyn Write, part: &Part, image: &Image) -> io::Result<()> {
    let (kind, place) = match part.content {
        OwnContent::Absent => ("zero", String::new()),
        OwnContent::Zero => ("zero", layer_name(image, part.depth)),
        OwnContent::Encoded => ("encoded", layer_name(image, part.depth)),
        OwnContent::Stored { file, offset } => {
            ("data", format!("{} {offset:#x}", file_name(image, part.depth, file)))
        }
    };
    writeln!(out, "{:>#16x} {:>#16x}  {kind:<10} {}", part.start, part.length, plain(&place))
}

/// The name of a file of a layer: 0 is the image itself.
pub(crate) fn file_name(image: &Image, depth: usize, file: usize) -> String {
    let Some(layer) = image.chain.get(depth) else { return String::new() };
    match file.checked_sub(1).and_then(|index| layer.data_files.get(index)) {
        Some(path) => display_name(path),
        None => layer_name(image, depth),
    }
}

/// What a rebase changes.
pub(crate) fn rebased(out: &mut dyn Write, rebased: &Rebased, path: &Path, style: Style) -> io::Result<()> {
    let text = |parent: &Option<ParentLink>| parent.as_ref().map_or_else(|| "nothing".to_owned(), link);
    writeln!(out, "--- {} : parent", plain(&path.display().to_string()))?;
    writeln!(out, "{}", style.red(&format!("-{}", plain(&text(&rebased.old)))))?;
    writeln!(out, "{}", style.green(&format!("+{}", plain(&text(&rebased.new)))))
}

fn layer_name(image: &Image, depth: usize) -> String {
    image.chain.get(depth).map_or_else(String::new, name_of)
}

fn name_of(layer: &Layer) -> String {
    layer.path.as_ref().map_or_else(|| "image".to_owned(), |path| plain(&display_name(path)))
}

fn link(parent: &ParentLink) -> String {
    let names: Vec<String> =
        parent.names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    let format = parent.format.as_ref().map_or_else(String::new, |format| format!(" ({format})"));
    let identity =
        parent.identity.as_ref().map_or_else(String::new, |identity| format!(", which had {identity}"));
    format!("{}{format}{identity}", names.join(" or "))
}

/// An error with everything below it.
pub(crate) fn line(error: &Error) -> String {
    let mut line = error.to_string();
    let mut below = std::error::Error::source(error);
    while let Some(error) = below {
        line.push_str(": ");
        line.push_str(&error.to_string());
        below = error.source();
    }
    line
}
