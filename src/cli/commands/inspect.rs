//! `inspect`: what is on the disks, what was, and what its makers knew of it.

use std::io::{self, IsTerminal, Write};

use filesystem::FileKind;
use filesystem::path::resolve;
use guest::Settings;
use storage::{Content, lost};
use volume::lvm2::{self, HistoryEntry};

use crate::cli::Status;
use crate::cli::args::{Common, Inspect, Output};
use crate::cli::input::Disks;
use crate::cli::render::{Facts, Style, found, json, tree};
use crate::{Examination, examine};

/// Where LVM2 keeps the texts that it wrote, on the guest.
const BACKUPS: [&str; 2] = ["/etc/lvm/backup", "/etc/lvm/archive"];
/// Bytes of a backup; those of large groups have some hundreds of KiB.
const MAX_BACKUP: u64 = 16 << 20;
/// Backups that are read; lvm2 keeps at least ten of each group, for thirty days.
const MAX_BACKUPS: usize = 1000;

pub(crate) fn run(common: &Common, args: &Inspect) -> anyhow::Result<Status> {
    let disks = Disks::of_machine(common, &args.images)?;
    let mut out = io::stdout().lock();
    if args.lost_partitions {
        return lost_partitions(common, &disks, &mut out);
    }
    let examination = examine(&disks.devices(), &disks.keys, &[]);
    if args.metadata_history {
        return metadata_history(common, &disks, &examination, &mut out);
    }
    let mut problems = json::problems(&disks, &examination);
    let facts = facts(&examination, &mut problems);
    let settings: Vec<Settings> = examination.guests.iter().map(guest::settings).collect();
    problems.extend(settings.iter().flat_map(|settings| settings.problems.iter().cloned()));
    if common.output == Output::Human {
        let style = Style::stdout(common.color);
        tree::print(&mut out, &disks, &examination, &facts, &settings, &problems, style)?;
    } else {
        let storage = &examination.storage;
        let devices = storage.iter();
        let body = json::Inspect {
            images: json::paths(&disks),
            devices: devices
                .map(|(id, node)| json::DeviceJson::new(id, node, &examination, facts.get(&id)))
                .collect(),
            volume_groups: storage.groups.iter().map(json::GroupJson::new).collect(),
            arrays: storage.arrays.iter().map(|found| json::ArrayJson::new(found, storage)).collect(),
            systems: json::systems(&examination, &settings),
            problems,
        };
        json::print(&mut out, &json::document("inspect", body), common.output)?;
    }
    Ok(Status::Clean)
}

/// What every file system says of itself, as a boot loader sees it. What is wrong with one is added to `problems`, unless
/// it stands there already.
fn facts(examination: &Examination, problems: &mut Vec<String>) -> Facts {
    let mut facts = Facts::new();
    for (id, node) in examination.storage.iter() {
        if !matches!(node.content, Content::FileSystem { .. }) {
            continue;
        }
        let said: Vec<String> = match node.boot_loader_view() {
            Ok(opened) => {
                facts.insert(id, opened.fs.info().clone());
                opened.problems.iter().map(|problem| format!("{}: {problem}", node.path)).collect()
            }
            Err(error) => vec![format!("{}: {error}", node.path)],
        };
        for problem in said {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
    }
    facts
}

/// Searches every disk; a bar of percent on standard error, where that is a terminal.
fn lost_partitions(common: &Common, disks: &Disks, out: &mut dyn Write) -> anyhow::Result<Status> {
    let is_terminal = io::stderr().is_terminal();
    let mut searches = Vec::new();
    for (index, disk) in disks.devices().iter().enumerate() {
        let name = disks.name(index);
        let mut shown = None;
        let candidates = lost::search(disk.as_ref(), &mut |progress| {
            let percent = progress.done * 100 / progress.total.max(1);
            if is_terminal && shown.replace(percent) != Some(percent) {
                drop(write!(io::stderr(), "\rsearching {name}: {percent} %\x1b[K"));
            }
        });
        if is_terminal {
            drop(write!(io::stderr(), "\r\x1b[K"));
        }
        let proposal = lost::propose(&candidates.value, disk.size(), u64::from(disk.sector_size()));
        searches.push(found::Search {
            disk: name,
            size: disk.size(),
            proposal,
            candidates: candidates.value,
            problems: candidates.problems.iter().map(ToString::to_string).collect(),
        });
    }
    if common.output == Output::Human {
        found::print_lost(out, &searches, Style::stdout(common.color))?;
    } else {
        let body: Vec<_> = searches.iter().map(json::LostJson::new).collect();
        json::print(
            out,
            &json::document("inspect-lost-partitions", json::LostPartitions { disks: body }),
            common.output,
        )?;
    }
    Ok(Status::Clean)
}

/// The rings of all physical volumes, and the backups of all systems.
fn metadata_history(
    common: &Common,
    disks: &Disks,
    examination: &Examination,
    out: &mut dyn Write,
) -> anyhow::Result<Status> {
    let mut versions = Vec::new();
    let mut problems = json::problems(disks, examination);
    for (id, pv) in &examination.storage.pvs {
        let path = &examination.storage.node(*id).path;
        match lvm2::history(pv) {
            Ok(entries) => {
                versions
                    .extend(entries.into_iter().map(|entry| found::Version { source: path.clone(), entry }));
            }
            Err(error) => problems.push(format!("{path}: {error}")),
        }
    }
    for guest in &examination.guests {
        versions.extend(backups(guest, &mut problems));
    }
    versions.sort_by(|a, b| {
        let key = |version: &found::Version| {
            (version.entry.group.clone(), std::cmp::Reverse(version.entry.sequence))
        };
        key(a).cmp(&key(b))
    });
    if common.output == Output::Human {
        found::print_history(out, &versions, &problems, Style::stdout(common.color))?;
    } else {
        let body = json::MetadataHistory {
            versions: versions.iter().map(json::VersionJson::new).collect(),
            problems,
        };
        json::print(out, &json::document("inspect-metadata-history", body), common.output)?;
    }
    Ok(Status::Clean)
}

fn backups(guest: &guest::Guest, problems: &mut Vec<String>) -> Vec<found::Version> {
    let mut versions = Vec::new();
    for folder in BACKUPS {
        let Ok(inode) = resolve(&guest.tree, folder.as_bytes()) else { continue };
        let entries = filesystem::FileSystem::read_dir(&guest.tree, inode).unwrap_or_default();
        for entry in entries.into_iter().take(MAX_BACKUPS) {
            let path = format!("{folder}/{}", String::from_utf8_lossy(&entry.name));
            let is_file = filesystem::FileSystem::metadata(&guest.tree, entry.inode)
                .is_ok_and(|metadata| metadata.kind == FileKind::Regular);
            if !is_file {
                continue;
            }
            let read: Result<HistoryEntry, String> = guest
                .read(&path, MAX_BACKUP)
                .map_err(|error| error.to_string())
                .and_then(|bytes| lvm2::parse_backup(&bytes).map_err(|error| error.to_string()));
            match read {
                Ok(entry) => versions.push(found::Version { source: path, entry }),
                Err(reason) => problems.push(format!("{path}: {reason}")),
            }
        }
    }
    versions
}
