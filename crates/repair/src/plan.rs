//! Fixes, and the plan that joins them file by file.

use std::collections::BTreeMap;

use filesystem::{Inode, Timestamp};
use guest_files::{Edit, EditError, apply};
use storage::{NodeId, Storage};

/// How sure a fix is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Applicability {
    /// Advice only; nothing is edited.
    Manual,
    /// Needs a yes.
    Suggested,
    /// Restores the one state that can be meant.
    Safe,
}

impl Applicability {
    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Suggested => "suggested",
            Self::Safe => "safe",
        }
    }
}

/// One way to cure a finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// How sure it is.
    pub applicability: Applicability,
    /// What it does, as an order: "name the file system by its UUID".
    pub title: String,
    /// What it changes.
    pub edits: Vec<FileEdit>,
}

/// One edit of one guest file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEdit {
    /// The node whose file system holds the file.
    pub node: NodeId,
    /// The file there.
    pub inode: Inode,
    /// Its path as the guest sees it, for people.
    pub path: String,
    /// The change.
    pub edit: Edit,
}

/// Every edit of several fixes, by file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    files: BTreeMap<(NodeId, Inode), (String, Vec<Edit>)>,
}

/// One file before and after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// The node whose file system holds the file.
    pub node: NodeId,
    /// The file there.
    pub inode: Inode,
    /// Its path as the guest sees it.
    pub path: String,
    /// Its content as it is.
    pub old: Vec<u8>,
    /// Its content as it will be.
    pub new: Vec<u8>,
}

/// Why a plan cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The file cannot be read or written.
    #[error("{path}")]
    File {
        /// Path in the guest.
        path: String,
        /// What is in the way.
        source: filesystem::Error,
    },
    /// The file is not as it was examined, or two edits disagree.
    #[error("{path}")]
    Edit {
        /// Path in the guest.
        path: String,
        /// The disagreement.
        source: EditError,
    },
    /// The file system cannot be written at all.
    #[error("{path}: {kind} file systems cannot be written")]
    ReadOnly {
        /// Path in the guest.
        path: String,
        /// The file system type.
        kind: &'static str,
    },
}

/// Larger than any file that is edited as text.
const FILE_LIMIT: u64 = 16 << 20;

impl Plan {
    /// The edits of all fixes; equal edits count once.
    pub fn new<'a>(fixes: impl IntoIterator<Item = &'a Fix>) -> Self {
        let mut plan = Self::default();
        for edit in fixes.into_iter().flat_map(|fix| &fix.edits) {
            let (_, edits) =
                plan.files.entry((edit.node, edit.inode)).or_insert_with(|| (edit.path.clone(), Vec::new()));
            if !edits.contains(&edit.edit) {
                edits.push(edit.edit.clone());
            }
        }
        plan
    }

    /// Whether nothing would change.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Every file before and after; nothing is written.
    ///
    /// # Errors
    /// [`PlanError`] for the first file that cannot be read or edited.
    pub fn preview(&self, storage: &Storage) -> Result<Vec<FileChange>, PlanError> {
        self.files
            .iter()
            .map(|((node, inode), (path, edits))| {
                let failed = |source| PlanError::File { path: path.clone(), source };
                let fs = storage.node(*node).open().map_err(failed)?.value;
                let old = filesystem::read_to_end(fs.as_ref(), *inode, FILE_LIMIT).map_err(failed)?;
                let new =
                    apply(&old, edits).map_err(|source| PlanError::Edit { path: path.clone(), source })?;
                Ok(FileChange { node: *node, inode: *inode, path: path.clone(), old, new })
            })
            .collect()
    }

    /// Writes every change to the devices of `storage`, which must be overlays; returns what was changed.
    ///
    /// # Errors
    /// [`PlanError`]; the overlays are then to be dropped.
    pub fn apply(&self, storage: &Storage, now: Timestamp) -> Result<Vec<FileChange>, PlanError> {
        let changes = self.preview(storage)?;
        for change in &changes {
            let failed = |source| PlanError::File { path: change.path.clone(), source };
            // The bare device: an edit must be visible to a boot loader, which replays no journal.
            let fs = storage.node(change.node).open_bare().map_err(failed)?.value;
            let kind = fs.info().kind;
            let writer =
                fs.writable().ok_or_else(|| PlanError::ReadOnly { path: change.path.clone(), kind })?;
            writer.replace(change.inode, &change.new, now).map_err(failed)?;
        }
        Ok(changes)
    }
}
