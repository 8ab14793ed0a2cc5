//! `fix`: plan, show, apply to an overlay, examine again, and only then keep.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use filesystem::Timestamp;
use image::Options;
use repair::Applicability;

use super::check;
use crate::cli::Status;
use crate::cli::args::{Common, Fix, Output};
use crate::cli::input::{self, Disks, gate};
use crate::cli::render::{Style, diff, human, json, plain};
use crate::machine::Machine;
use crate::{Mended, Wanted, delivery, mend};

pub(crate) fn run(common: &Common, args: &Fix) -> anyhow::Result<Status> {
    if let Some(id) = &args.rule
        && rules::find(id).is_none()
    {
        bail!("no rule {id:?}; `guestmend explain` lists them");
    }
    if let Some(snapshot) = &common.snapshot {
        bail!("only the present state of an image can be mended, not its snapshot {snapshot:?}");
    }
    let disks = Disks::of_machine(common, &args.images)?;
    let machines = disks.defined(check::machines());
    let least = if args.suggested { Applicability::Suggested } else { Applicability::Safe };
    let wanted = Wanted { rule: args.rule.clone(), least };
    let mended = mend(&disks.devices(), &disks.keys, &machines, &wanted, now())?;
    let mut out = io::stdout().lock();
    let style = Style::stdout(common.color);
    let is_human = common.output == Output::Human;
    if is_human {
        show(&mut out, &mended, &machines, style)?;
    }
    let (result, overlays) = deliver(common, args, &disks, &mended)?;
    if is_human {
        conclude(&mut out, &disks, &mended, result, &overlays)?;
    } else {
        let storage = &mended.before.storage;
        let body = json::Fix {
            images: json::paths(&disks),
            result,
            overlays: overlays.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
            cured: mended.cured.clone(),
            changes: mended.changes.iter().map(|change| json::Change::new(change, storage)).collect(),
            before: json::scenarios(&mended.before.boots, &machines, storage),
            after: json::scenarios(&mended.after.boots, &machines, &mended.after.storage),
            remaining: mended
                .after
                .findings
                .iter()
                .map(|finding| json::FindingJson::new(finding, &mended.after.storage))
                .collect(),
        };
        json::print(&mut out, &json::document("fix", body), common.output)?;
    }
    Ok(check::status(&mended.after))
}

/// The time that changed files get. `SOURCE_DATE_EPOCH` makes results reproducible.
fn now() -> Timestamp {
    let fixed = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    match fixed {
        Some(seconds) => Timestamp { seconds, nanoseconds: 0 },
        None => Timestamp {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: since.subsec_nanos(),
        },
    }
}

fn show(out: &mut dyn Write, mended: &Mended, machines: &[Machine], style: Style) -> io::Result<()> {
    for change in &mended.changes {
        let volume = &mended.before.storage.node(change.node).path;
        write!(out, "{}", diff::unified(change, volume, style))?;
    }
    if mended.changes.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{}", style.bold("before"))?;
    human::boots(out, &mended.before, machines, style)?;
    writeln!(out, "{}", style.bold("after"))?;
    human::boots(out, &mended.after, machines, style)?;
    writeln!(out)
}

/// Keeps what was asked for; returns the word for it and the overlays that were written.
fn deliver(
    common: &Common,
    args: &Fix,
    disks: &Disks,
    mended: &Mended,
) -> anyhow::Result<(&'static str, Vec<PathBuf>)> {
    if mended.changes.is_empty() {
        return Ok(("nothing-to-fix", Vec::new()));
    }
    if args.dry_run {
        return Ok(("dry-run", Vec::new()));
    }
    let changed: Vec<usize> =
        (0..mended.overlays.len()).filter(|index| !mended.overlays[*index].changed().is_empty()).collect();
    if args.overlay.is_some() && changed.len() > 1 {
        bail!("{} images change; --overlay names only one file", changed.len());
    }
    let gate = gate(common);
    let mut overlays = Vec::new();
    for index in changed {
        let (overlay, path) = (&mended.overlays[index], &disks.paths[index]);
        let format = disks.images[index].format();
        if format == "ova" {
            bail!(
                "{} is an archive; take the disk out with `guestmend image convert --member`, and mend that",
                path.display()
            );
        }
        if args.in_place {
            let options = input::options(common, disks.passphrase(index));
            delivery::commit_in_place(overlay, path, &Options { format: Some(format), ..options }, &gate)?;
        } else if disks.images[index].chain.iter().any(|layer| layer.is_encrypted) {
            bail!(
                "{} is encrypted; an overlay would hold its data in the open: use --in-place",
                path.display()
            );
        } else {
            let target = args.overlay.clone().unwrap_or_else(|| delivery::default_overlay(path));
            let format = image::format_named(format)?.qemu_name;
            delivery::write_overlay(overlay, path, format, &target)
                .with_context(|| format!("cannot write {}", target.display()))?;
            overlays.push(target);
        }
    }
    Ok((if args.in_place { "in-place" } else { "overlay" }, overlays))
}

fn conclude(
    out: &mut dyn Write,
    disks: &Disks,
    mended: &Mended,
    result: &str,
    overlays: &[PathBuf],
) -> io::Result<()> {
    let name = plain(&disks.machine_name());
    let cured = mended.cured.len();
    let fixed = if cured == 1 { "1 finding is cured".into() } else { format!("{cured} findings are cured") };
    match result {
        "nothing-to-fix" => writeln!(out, "{name}: nothing to fix")?,
        "dry-run" => writeln!(out, "{name}: {fixed} on paper; nothing was written")?,
        "in-place" => {
            writeln!(out, "{name}: {fixed}, written in place and verified; `guestmend undo` takes it back")?;
        }
        _ => {
            for overlay in overlays {
                writeln!(out, "{name}: {fixed}, verified in {}", overlay.display())?;
                writeln!(
                    out,
                    "  the image itself was not changed; boot the overlay, then `commit` or `discard` it"
                )?;
            }
        }
    }
    if !mended.after.findings.is_empty() {
        writeln!(out, "{}", human::summary(&name, &mended.after.findings))?;
    }
    Ok(())
}
