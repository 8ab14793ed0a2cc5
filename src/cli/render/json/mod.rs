//! The JSON twins of what was found: `docs/json.md` describes them.
//!
//! Field names and meanings change only with [`SCHEMA`]; adding a field does not change it.

pub(crate) mod container;
mod devices;
mod files;
mod found;
mod settings;

use std::io::{self, Write};

use boot::{BootTrace, Verdict};
use guest::Settings;
use repair::FileChange;
use rules::{Finding, Spot};
use serde::Serialize;
use storage::{Content, Node, NodeId, Storage};

pub(crate) use devices::{ArrayJson, DeviceJson, GroupJson};
pub(crate) use files::{Copied, FoundFile, FoundFiles, StatJson, XattrJson};
pub(crate) use found::{LostJson, LostPartitions, MetadataHistory, VersionJson};

use self::settings::SettingsJson;
use crate::Examination;
use crate::cli::args::Output;
use crate::cli::input::Disks;
use crate::cli::render::human;
use crate::machine::Machine;

/// The version of every document here.
pub(crate) const SCHEMA: &str = "guestmend/1";

/// Prints a document: indented for `json`, on one line for `jsonl`.
pub(crate) fn print(out: &mut dyn Write, document: &impl Serialize, output: Output) -> io::Result<()> {
    let text = match output {
        Output::Jsonl => serde_json::to_string(document),
        Output::Json | Output::Human => serde_json::to_string_pretty(document),
    };
    writeln!(out, "{}", text.map_err(io::Error::other)?)
}

/// What every document starts with.
#[derive(Debug, Serialize)]
pub(crate) struct Document<T: Serialize> {
    schema: &'static str,
    command: &'static str,
    #[serde(flatten)]
    body: T,
}

pub(crate) fn document<T: Serialize>(command: &'static str, body: T) -> Document<T> {
    Document { schema: SCHEMA, command, body }
}

#[derive(Debug, Serialize)]
pub(crate) struct Check {
    pub(crate) images: Vec<String>,
    /// `clean`, `findings`.
    pub(crate) status: &'static str,
    pub(crate) findings: Vec<FindingJson>,
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) systems: Vec<System>,
    /// What was damaged or could not be read, in words.
    pub(crate) problems: Vec<String>,
}

impl Check {
    pub(crate) fn new(disks: &Disks, examination: &Examination, machines: &[Machine]) -> Self {
        let is_up = examination.findings.is_empty();
        Self {
            images: paths(disks),
            status: if is_up { "clean" } else { "findings" },
            findings: examination
                .findings
                .iter()
                .map(|f| FindingJson::new(f, &examination.storage))
                .collect(),
            scenarios: scenarios(&examination.boots, machines, &examination.storage),
            systems: systems(examination, &[]),
            problems: problems(disks, examination),
        }
    }
}

pub(crate) fn paths(disks: &Disks) -> Vec<String> {
    disks.paths.iter().map(|path| path.to_string_lossy().into_owned()).collect()
}

#[derive(Debug, Serialize)]
pub(crate) struct FindingJson {
    rule: &'static str,
    severity: &'static str,
    summary: &'static str,
    volume: String,
    /// Of a fault outside of files, if it is in one sector.
    sector: Option<u64>,
    file: Option<String>,
    line: Option<usize>,
    /// From 1, in bytes.
    column: Option<usize>,
    /// The last column of the span.
    end_column: Option<usize>,
    text: Option<String>,
    label: String,
    notes: Vec<String>,
    fix: Option<FixJson>,
}

#[derive(Debug, Serialize)]
struct FixJson {
    applicability: &'static str,
    title: String,
    edits: Vec<EditJson>,
}

#[derive(Debug, Serialize)]
struct EditJson {
    file: String,
    /// First byte of the span in the file.
    offset: usize,
    old: String,
    new: String,
}

impl FindingJson {
    pub(crate) fn new(finding: &Finding, storage: &Storage) -> Self {
        let place = &finding.place;
        let line = place.line();
        let fix = finding.fix.as_ref().map(|fix| FixJson {
            applicability: fix.applicability.as_str(),
            title: fix.title.clone(),
            edits: fix
                .edits
                .iter()
                .map(|edit| EditJson {
                    file: edit.path.clone(),
                    offset: edit.edit.at,
                    old: String::from_utf8_lossy(&edit.edit.old).into_owned(),
                    new: String::from_utf8_lossy(&edit.edit.new).into_owned(),
                })
                .collect(),
        });
        Self {
            rule: finding.rule.id,
            severity: finding.severity.as_str(),
            summary: finding.rule.summary,
            volume: storage.node(place.node).path.clone(),
            sector: if let Spot::Sector(sector) = place.spot { Some(sector) } else { None },
            file: place.file().map(str::to_owned),
            line: line.map(|line| line.number),
            column: line.map(|line| human::columns(line).0),
            end_column: line.map(|line| human::columns(line).1),
            text: line.map(|line| line.text.clone()),
            label: finding.label.clone(),
            notes: finding.notes.clone(),
            fix,
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Scenario {
    scenario: String,
    hardware: String,
    /// The root file system; `null` when no system was found.
    system: Option<String>,
    firmware: &'static str,
    outcome: &'static str,
    assumptions: Vec<&'static str>,
    /// The stage that fails.
    stage: Option<&'static str>,
    cause: Option<CauseJson>,
    /// Seconds that systemd waits in vain; `null` is for ever.
    delay_seconds: Option<u64>,
    stages: Vec<StageJson>,
}

#[derive(Debug, Serialize)]
struct CauseJson {
    rule: &'static str,
    file: String,
    line: Option<usize>,
    unit: Option<String>,
    symptom: String,
}

#[derive(Debug, Serialize)]
struct StageJson {
    stage: &'static str,
    verdict: &'static str,
    summary: String,
    evidence: Vec<EvidenceJson>,
}

#[derive(Debug, Serialize)]
struct EvidenceJson {
    file: String,
    line: Option<usize>,
    text: String,
}

pub(crate) fn scenarios(boots: &[BootTrace], machines: &[Machine], storage: &Storage) -> Vec<Scenario> {
    boots
        .iter()
        .zip(machines.iter().cycle())
        .map(|(boot, machine)| Scenario {
            scenario: machine.to_string(),
            hardware: boot.hardware.to_string(),
            system: boot.guest.map(|guest| storage.node(guest).path.clone()),
            firmware: boot.firmware.name(),
            outcome: boot.outcome.as_str(),
            assumptions: boot.unknown_stages().map(|stage| stage.name.as_str()).collect(),
            stage: boot.stages.iter().find(|s| s.verdict == Verdict::Fail).map(|s| s.name.as_str()),
            cause: boot.cause.as_ref().map(|cause| CauseJson {
                rule: cause.rule,
                file: cause.file.clone(),
                line: cause.line,
                unit: cause.unit.clone(),
                symptom: cause.symptom.clone(),
            }),
            delay_seconds: (boot.delay != std::time::Duration::MAX).then_some(boot.delay.as_secs()),
            stages: boot
                .stages
                .iter()
                .map(|stage| StageJson {
                    stage: stage.name.as_str(),
                    verdict: match stage.verdict {
                        Verdict::Pass => "pass",
                        Verdict::Fail => "fail",
                        Verdict::Unknown => "unknown",
                    },
                    summary: stage.summary.clone(),
                    evidence: stage
                        .evidence
                        .iter()
                        .map(|e| EvidenceJson { file: e.file.clone(), line: e.line, text: e.text.clone() })
                        .collect(),
                })
                .collect(),
        })
        .collect()
}

#[derive(Debug, Serialize)]
pub(crate) struct System {
    root: String,
    name: String,
    id: Option<String>,
    version: Option<String>,
    mounts: Vec<MountJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settings: Option<SettingsJson>,
}

#[derive(Debug, Serialize)]
struct MountJson {
    target: String,
    volume: String,
    /// The fstab line that says so.
    line: Option<usize>,
    /// The subvolume, where it is not the default one.
    subvolume: Option<String>,
}

/// The installed systems, with the settings of each where they were read.
pub(crate) fn systems(examination: &Examination, settings: &[Settings]) -> Vec<System> {
    let path = |id: NodeId| examination.storage.node(id).path.clone();
    examination
        .guests
        .iter()
        .enumerate()
        .map(|(index, guest)| System {
            root: path(guest.root),
            name: guest.name().to_owned(),
            id: guest.os_release.id().map(str::to_owned),
            version: guest.os_release.get("VERSION_ID").map(str::to_owned),
            mounts: guest
                .mounts
                .iter()
                .map(|mount| MountJson {
                    target: mount.target.clone(),
                    volume: path(mount.node),
                    line: mount.line,
                    subvolume: mount.subvolume.clone(),
                })
                .collect(),
            settings: settings.get(index).map(SettingsJson::new),
        })
        .collect()
}

/// Damage and refusals, from the container to the system, in words.
pub(crate) fn problems(disks: &Disks, examination: &Examination) -> Vec<String> {
    let images = disks.images.iter().enumerate().flat_map(|(index, image)| {
        crate::cli::input::problems_of(image)
            .into_iter()
            .map(move |problem| format!("{}: {problem}", disks.name(index)))
    });
    let storage = &examination.storage;
    let nodes = storage
        .nodes
        .iter()
        .flat_map(|node| node.problems.iter().map(|problem| format!("{}: {problem}", node.path)));
    let judged = storage.nodes.iter().flat_map(|node| rejections(node).into_iter());
    let groups = storage.problems.iter().map(ToString::to_string);
    let notes = storage.groups.iter().flat_map(|group| {
        let volumes = group.lvs.iter();
        volumes.flat_map(move |lv| {
            lv.notes.iter().map(move |note| format!("{}/{}: {note}", group.name, lv.name))
        })
    });
    let guests = examination.guests.iter().flat_map(|guest| guest.problems.iter().cloned());
    let defined = disks.notes.iter().cloned();
    defined.chain(images).chain(nodes).chain(judged).chain(groups).chain(notes).chain(guests).collect()
}

/// Who would not take the partition table of a disk, where some would.
fn rejections(node: &Node) -> Vec<String> {
    let Content::Partitions(table) = &node.content else { return Vec::new() };
    let judges = [("Linux", &table.judges.linux), ("GRUB", &table.judges.grub), ("OVMF", &table.judges.ovmf)];
    judges
        .into_iter()
        .filter(|(_, judgement)| !judgement.is_accepted())
        .map(|(name, judgement)| format!("{}: {name} sees no partition table: {judgement}", node.path))
        .collect()
}

#[derive(Debug, Serialize)]
pub(crate) struct Inspect {
    pub(crate) images: Vec<String>,
    pub(crate) devices: Vec<DeviceJson>,
    pub(crate) volume_groups: Vec<GroupJson>,
    pub(crate) arrays: Vec<ArrayJson>,
    pub(crate) systems: Vec<System>,
    pub(crate) problems: Vec<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Fix {
    pub(crate) images: Vec<String>,
    /// `nothing-to-fix`, `dry-run`, `overlay`, `in-place`.
    pub(crate) result: &'static str,
    /// The overlays that were written, one for each image that changed.
    pub(crate) overlays: Vec<String>,
    pub(crate) cured: Vec<&'static str>,
    pub(crate) changes: Vec<Change>,
    pub(crate) before: Vec<Scenario>,
    pub(crate) after: Vec<Scenario>,
    pub(crate) remaining: Vec<FindingJson>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Change {
    volume: String,
    file: String,
    old: String,
    new: String,
}

impl Change {
    pub(crate) fn new(change: &FileChange, storage: &Storage) -> Self {
        Self {
            volume: storage.node(change.node).path.clone(),
            file: change.path.clone(),
            old: String::from_utf8_lossy(&change.old).into_owned(),
            new: String::from_utf8_lossy(&change.new).into_owned(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Preflight {
    pub(crate) image: String,
    /// `ok`, `risky`, `unknown`.
    pub(crate) verdict: &'static str,
    pub(crate) findings: Vec<FindingJson>,
    pub(crate) scenarios: Vec<Scenario>,
    /// Why nothing could be said.
    pub(crate) error: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Listing {
    pub(crate) image: String,
    pub(crate) path: String,
    pub(crate) entries: Vec<ListingEntry>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ListingEntry {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    /// Octal, four digits.
    pub(crate) mode: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bytes.
    pub(crate) size: u64,
    /// Seconds since 1970-01-01 00:00 UTC.
    pub(crate) modified: i64,
    pub(crate) target: Option<String>,
    pub(crate) selinux: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Delivery {
    pub(crate) image: String,
    /// What was done: `committed`, `discarded`, `undone`, `recovered`, `nothing-to-do`.
    pub(crate) result: &'static str,
}
