//! `image check`: every structure of the container, and the repairs that are certain.

use std::io::{self, Write};

use image::{Severity, Staging};

use crate::cli::Status;
use crate::cli::args::{Common, ImageCheck, Output};
use crate::cli::input;
use crate::cli::render::{Style, container, json};
use crate::container::mend::{self, Mended, Wanted};
use crate::container::victims;
use crate::delivery;

pub(crate) fn run(common: &Common, args: &ImageCheck) -> anyhow::Result<Status> {
    let path = &args.image.image;
    let keys = input::keys(common)?;
    let options = input::options(common, keys.passphrases().next());
    let gate = input::gate(common);
    let Some(wanted) = args.repair.map(Wanted::from) else {
        let report = image::check(path, &options, &gate)?;
        let victims = victims::of(&report, path, &options, &gate);
        let mut out = io::stdout().lock();
        if common.output == Output::Human {
            container::report(&mut out, &report, &victims, path, Style::stdout(common.color))?;
        } else {
            let body = json::container::Check::new(&report, &victims);
            json::print(&mut out, &json::document("image check", body), common.output)?;
        }
        return Ok(status(&report));
    };
    let staging = if args.dry_run { Staging::preview() } else { Staging::for_commit() };
    let mended = mend::mend(path, &options, &staging, wanted, &gate)?;
    let result = match (mended.repaired.is_empty(), args.dry_run) {
        (true, _) => "nothing-to-repair",
        (false, true) => "dry-run",
        (false, false) => {
            delivery::commit_staged(&staging, path)?;
            "repaired"
        }
    };
    let mut out = io::stdout().lock();
    if common.output == Output::Human {
        show(&mut out, common, args, &mended, result)?;
    } else {
        let body = json::container::Repair::new(&mended, result);
        json::print(&mut out, &json::document("image check", body), common.output)?;
    }
    Ok(status(&mended.after))
}

fn show(
    out: &mut dyn Write,
    common: &Common,
    args: &ImageCheck,
    mended: &Mended,
    result: &str,
) -> io::Result<()> {
    let style = Style::stdout(common.color);
    let path = &args.image.image;
    for problem in &mended.repaired {
        container::problem(out, problem, &mended.before, &[], style)?;
    }
    for problem in &mended.after.problems {
        container::problem(out, problem, &mended.after, &[], style)?;
    }
    let name = input::display_name(path);
    let repaired = mended.repaired.len();
    match result {
        "nothing-to-repair" => writeln!(out, "{name}: nothing to repair")?,
        "dry-run" => writeln!(out, "{name}: {repaired} repaired on paper; nothing was written")?,
        _ => writeln!(out, "{name}: {repaired} repaired and verified; `guestmend undo` takes it back")?,
    }
    container::summary(out, &mended.after, path, style)
}

/// Leaks and errors are findings, notes are not.
fn status(report: &image::Report) -> Status {
    if report.count(Severity::Leak) > 0 { Status::Findings } else { Status::Clean }
}
