//! The JSON twins of what is known of containers.

use std::path::Path;

use image::{Error, Image, Layer, OwnContent, ParentLink, Problem, Report, Severity};
use serde::Serialize;

use crate::cli::render::container::{file_name, line};
use crate::container::candidates::{Candidate, Reason};
use crate::container::map;
use crate::container::mend::Mended;
use crate::container::rebase::Rebased;
use crate::container::victims::Victims;

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[derive(Debug, Serialize)]
pub(crate) struct LayerJson {
    file: Option<String>,
    format: &'static str,
    virtual_size: u64,
    file_size: u64,
    data_files: Vec<String>,
    features: Vec<String>,
    notes: Vec<String>,
    snapshots: Vec<SnapshotJson>,
    identity: Option<String>,
    parent: Option<ParentJson>,
}

#[derive(Debug, Serialize)]
struct SnapshotJson {
    id: String,
    name: String,
    taken: u64,
    virtual_size: u64,
    vm_state_size: u64,
}

#[derive(Debug, Serialize)]
struct ParentJson {
    names: Vec<String>,
    format: Option<String>,
    identity: Option<String>,
}

impl From<&ParentLink> for ParentJson {
    fn from(link: &ParentLink) -> Self {
        Self {
            names: link.names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect(),
            format: link.format.clone(),
            identity: link.identity.clone(),
        }
    }
}

impl From<&Layer> for LayerJson {
    fn from(layer: &Layer) -> Self {
        let snapshots = layer.snapshots.iter().map(|snapshot| SnapshotJson {
            id: snapshot.id.clone(),
            name: snapshot.name.clone(),
            taken: snapshot.taken,
            virtual_size: snapshot.virtual_size,
            vm_state_size: snapshot.vm_state_size,
        });
        Self {
            file: layer.path.as_deref().map(text),
            format: layer.format,
            virtual_size: layer.virtual_size,
            file_size: layer.file_size,
            data_files: layer.data_files.iter().map(|path| text(path)).collect(),
            features: layer.features.clone(),
            notes: layer.notes.clone(),
            snapshots: snapshots.collect(),
            identity: layer.identity.clone(),
            parent: layer.parent.as_ref().map(ParentJson::from),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Info {
    #[serde(flatten)]
    layer: LayerJson,
    in_use: bool,
    error: Option<String>,
}

impl Info {
    pub(crate) fn new(layer: &Layer, in_use: bool, error: Option<&Error>) -> Self {
        Self { layer: layer.into(), in_use, error: error.map(line) }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Chain {
    layers: Vec<LayerJson>,
    error: Option<String>,
    candidates: Vec<CandidateJson>,
}

#[derive(Debug, Serialize)]
struct CandidateJson {
    file: String,
    format: &'static str,
    /// `identity`, `content`, `size`.
    by: &'static str,
    identity: Option<String>,
    same_pages: Option<usize>,
    compared_pages: Option<usize>,
}

impl Chain {
    pub(crate) fn new(layers: &[Layer], error: Option<&Error>, found: &[Candidate]) -> Self {
        let candidates = found.iter().map(|candidate| {
            let (by, identity, pages) = match &candidate.reason {
                Reason::Identity(identity) => ("identity", Some(identity.clone()), None),
                Reason::Content { same, compared } => ("content", None, Some((*same, *compared))),
                Reason::Size => ("size", None, None),
            };
            CandidateJson {
                file: text(&candidate.path),
                format: candidate.format,
                by,
                identity,
                same_pages: pages.map(|(same, _)| same),
                compared_pages: pages.map(|(_, compared)| compared),
            }
        });
        Self {
            layers: layers.iter().map(LayerJson::from).collect(),
            error: error.map(line),
            candidates: candidates.collect(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct ProblemJson {
    /// `error`, `leak`, `note`.
    severity: &'static str,
    file: Option<String>,
    structure: &'static str,
    offset: u64,
    summary: String,
    effect: String,
    /// Ranges of the guest's disk: first byte, length.
    guest: Vec<(u64, u64)>,
    repair: Option<RepairJson>,
}

#[derive(Debug, Serialize)]
struct RepairJson {
    title: String,
    ranges: usize,
    bytes: usize,
}

impl ProblemJson {
    fn new(problem: &Problem, report: &Report) -> Self {
        Self {
            severity: match problem.severity {
                Severity::Error => "error",
                Severity::Leak => "leak",
                Severity::Note => "note",
            },
            file: report.files.get(problem.file).map(|path| text(path)),
            structure: problem.structure,
            offset: problem.offset,
            summary: problem.summary.clone(),
            effect: problem.effect.clone(),
            guest: problem.guest.iter().map(|range| (range.start, range.end - range.start)).collect(),
            repair: problem.repair.as_ref().map(|repair| RepairJson {
                title: repair.title.clone(),
                ranges: repair.patches.len(),
                bytes: repair.patches.iter().map(|patch| patch.bytes.len()).sum(),
            }),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Check {
    files: Vec<String>,
    format: &'static str,
    /// `sound`, `leaks`, `damaged`.
    verdict: &'static str,
    errors: u64,
    leaks: u64,
    allocated: u64,
    compressed: u64,
    end: u64,
    problems: Vec<ProblemJson>,
    damaged_files: Vec<VictimJson>,
    damaged_files_cut_short: bool,
}

#[derive(Debug, Serialize)]
struct VictimJson {
    volume: String,
    file: String,
}

fn verdict(report: &Report) -> &'static str {
    match (report.count(Severity::Error), report.count(Severity::Leak)) {
        (0, 0) => "sound",
        (0, _) => "leaks",
        _ => "damaged",
    }
}

impl Check {
    pub(crate) fn new(report: &Report, victims: &Victims) -> Self {
        let errors = report.count(Severity::Error);
        Self {
            files: report.files.iter().map(|path| text(path)).collect(),
            format: report.format,
            verdict: verdict(report),
            errors,
            leaks: report.count(Severity::Leak) - errors,
            allocated: report.allocated,
            compressed: report.compressed,
            end: report.end,
            problems: report.problems.iter().map(|problem| ProblemJson::new(problem, report)).collect(),
            damaged_files: victims
                .files
                .iter()
                .map(|victim| VictimJson {
                    volume: victim.volume.clone(),
                    file: String::from_utf8_lossy(&victim.path).into_owned(),
                })
                .collect(),
            damaged_files_cut_short: victims.is_cut_short,
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Repair {
    /// `nothing-to-repair`, `dry-run`, `repaired`.
    result: &'static str,
    repaired: Vec<ProblemJson>,
    verdict: &'static str,
    problems: Vec<ProblemJson>,
}

impl Repair {
    pub(crate) fn new(mended: &Mended, result: &'static str) -> Self {
        let json = |problem| ProblemJson::new(problem, &mended.after);
        Self {
            result,
            repaired: mended.repaired.iter().map(json).collect(),
            verdict: verdict(&mended.after),
            problems: mended.after.problems.iter().map(json).collect(),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Part {
    start: u64,
    length: u64,
    /// The layer that decides, 0 for the image; null where none holds anything.
    depth: Option<usize>,
    /// `data`, `zero`, `encoded`.
    kind: &'static str,
    file: Option<String>,
    offset: Option<u64>,
}

impl Part {
    pub(crate) fn new(part: &map::Part, image: &Image) -> Self {
        let (kind, place) = match part.content {
            OwnContent::Absent | OwnContent::Zero => ("zero", None),
            OwnContent::Encoded => ("encoded", None),
            OwnContent::Stored { file, offset } => ("data", Some((file, offset))),
        };
        Self {
            start: part.start,
            length: part.length,
            depth: (part.depth < image.chain.len()).then_some(part.depth),
            kind,
            file: place.map(|(file, _)| file_name(image, part.depth, file)),
            offset: place.map(|(_, offset)| offset),
        }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Convert {
    image: String,
    out: String,
    format: &'static str,
    virtual_size: u64,
    problems: Vec<String>,
}

impl Convert {
    pub(crate) fn new(
        image: &Path,
        out: &Path,
        format: &'static str,
        virtual_size: u64,
        problems: Vec<String>,
    ) -> Self {
        Self { image: text(image), out: text(out), format, virtual_size, problems }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Rebase {
    image: String,
    result: &'static str,
    old: Option<ParentJson>,
    new: Option<ParentJson>,
}

impl Rebase {
    pub(crate) fn new(rebased: &Rebased, image: &Path, result: &'static str) -> Self {
        Self {
            image: text(image),
            result,
            old: rebased.old.as_ref().map(ParentJson::from),
            new: rebased.new.as_ref().map(ParentJson::from),
        }
    }
}
