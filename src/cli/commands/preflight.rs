//! `preflight`: many images, each a machine of its own, on the hardware they may meet.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use anyhow::Context;
use luks::Keyring;
use storage::Bus;

use crate::cli::Status;
use crate::cli::args::{Common, Output, Preflight};
use crate::cli::input::{self, Disks};
use crate::cli::render::{Style, human, json, plain};
use crate::examine_images;
use crate::machine::{DiskOrder, Machine};

/// As it stands, with one disk more, and both on every bus that KVM hosts offer.
fn machines() -> Vec<Machine> {
    let mut machines = vec![Machine::as_is(), Machine::reordered()];
    for bus in [Bus::VirtioBlk, Bus::VirtioScsi, Bus::Sata, Bus::Nvme] {
        for count in [0, 1] {
            machines.push(Machine {
                bus: Some(bus),
                order: DiskOrder::ExtraFirst(count),
                ..Machine::default()
            });
        }
    }
    machines
}

pub(crate) fn run(common: &Common, args: &Preflight) -> anyhow::Result<Status> {
    let images = collect(&args.paths)?;
    // Once for all images: standard input can be read only once, and nobody wants to be asked for each.
    let keys = Arc::new(input::keys(common)?);
    let jobs =
        args.jobs.map_or_else(|| std::thread::available_parallelism().map_or(1, NonZero::get), NonZero::get);
    let mut worst = if images.is_empty() { Status::Failed } else { Status::Clean };
    let mut out = io::stdout().lock();
    let style = Style::stdout(common.color);
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| -> anyhow::Result<()> {
        for _ in 0..jobs.min(images.len()) {
            let (sender, next, images, keys) = (sender.clone(), &next, &images, &keys);
            scope.spawn(move || {
                while let Some(image) = images.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let index = images.iter().position(|other| other == image).unwrap_or(0);
                    // The receiver is gone only when printing failed; then nobody waits for the rest.
                    if sender.send((index, one(common, keys, image))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        // Verdicts are printed in the order of the arguments, as soon as all before them are known.
        let mut waiting = std::collections::BTreeMap::new();
        let mut printed = 0;
        for (index, verdict) in receiver {
            waiting.insert(index, verdict);
            while let Some(verdict) = waiting.remove(&printed) {
                worst = worst_of(worst, verdict.status);
                print(&mut out, common, &verdict, style)?;
                printed += 1;
            }
        }
        Ok(())
    })?;
    Ok(worst)
}

/// A failure to tell outweighs a finding.
fn worst_of(a: Status, b: Status) -> Status {
    let rank = |status| match status {
        Status::Clean => 0,
        Status::Findings => 1,
        Status::Failed => 2,
    };
    if rank(b) > rank(a) { b } else { a }
}

/// The images themselves, and every file with the suffix of an image in the folders, sorted.
fn collect(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    const SUFFIXES: [&str; 8] = ["qcow2", "raw", "img", "vmdk", "vhdx", "vhd", "vdi", "ova"];
    let mut images = Vec::new();
    for path in paths {
        if !path.is_dir() {
            images.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
        let mut found = BTreeSet::new();
        for entry in entries {
            let file = entry?.path();
            let suffix = file.extension().and_then(|suffix| suffix.to_str()).unwrap_or_default();
            if SUFFIXES.contains(&suffix) && file.is_file() {
                found.insert(file);
            }
        }
        images.extend(found);
    }
    let mut seen = BTreeSet::new();
    images.retain(|image| seen.insert(image.clone()));
    Ok(images)
}

struct Verdict {
    status: Status,
    line: String,
    body: json::Preflight,
}

fn one(common: &Common, keys: &Arc<Keyring>, path: &Path) -> Verdict {
    let image = path.to_string_lossy().into_owned();
    match examine_one(common, keys, path) {
        Ok((status, line, findings, scenarios)) => {
            let verdict = match status {
                Status::Clean => "ok",
                Status::Findings => "risky",
                Status::Failed => "unknown",
            };
            let error = (status == Status::Failed).then(|| line.clone());
            Verdict { status, line, body: json::Preflight { image, verdict, findings, scenarios, error } }
        }
        Err(error) => {
            let line = format!("{error:#}");
            let error = Some(line.clone());
            let body = json::Preflight {
                image,
                verdict: "unknown",
                findings: Vec::new(),
                scenarios: Vec::new(),
                error,
            };
            Verdict { status: Status::Failed, line, body }
        }
    }
}

type Judged = (Status, String, Vec<json::FindingJson>, Vec<json::Scenario>);

fn examine_one(common: &Common, keys: &Arc<Keyring>, path: &Path) -> anyhow::Result<Judged> {
    let disks = Disks::open_with(common, keys.clone(), &[path.to_owned()])?;
    let machines = machines();
    let examination = examine_images(&disks.images, &disks.keys, &machines);
    if examination.guests.is_empty() && examination.boots.is_empty() {
        return Ok((Status::Failed, "no installed system found".into(), Vec::new(), Vec::new()));
    }
    let failing =
        examination.boots.iter().zip(machines.iter().cycle()).find(|(boot, _)| !boot.outcome.is_up());
    let unknown = examination.boots.iter().any(|boot| {
        boot.stages.iter().any(|stage| {
            stage.verdict == boot::Verdict::Unknown && stage.name == boot::StageName::LocalFileSystems
        })
    });
    let (status, line) = match failing {
        Some((boot, machine)) => (
            Status::Findings,
            human::boot_line(boot, &machine.to_string(), Style::stdout(crate::cli::args::Color::Never)),
        ),
        None if !examination.findings.is_empty() => {
            (Status::Findings, human::summary(&disks.machine_name(), &examination.findings))
        }
        None if unknown => (Status::Failed, "a mount cannot be judged from this disk alone".into()),
        None => (Status::Clean, format!("boots on all {} machines, as far as examined", machines.len())),
    };
    let findings =
        examination.findings.iter().map(|f| json::FindingJson::new(f, &examination.storage)).collect();
    let scenarios = json::scenarios(&examination.boots, &machines, &examination.storage);
    Ok((status, line, findings, scenarios))
}

fn print(out: &mut dyn Write, common: &Common, verdict: &Verdict, style: Style) -> anyhow::Result<()> {
    if common.output != Output::Human {
        json::print(out, &json::document("preflight", &verdict.body), Output::Jsonl)?;
        return Ok(());
    }
    let word = match verdict.status {
        Status::Clean => style.green("ok     "),
        Status::Findings => style.red("risky  "),
        Status::Failed => style.yellow("unknown"),
    };
    writeln!(out, "{word} {}: {}", plain(&verdict.body.image), plain(&verdict.line))?;
    Ok(())
}
