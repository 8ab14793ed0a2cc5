//! Scripts that run, and where their words come from.

use std::ops::Range;
use std::sync::Arc;

use guest_files::grub_cfg::{GrubCfg, Unit};

/// A place in a file of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file, as GRUB names it: `(hd0,msdos1)/boot/grub/grub.cfg`.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: usize,
    /// In bytes.
    pub span: Range<usize>,
}

/// Text that GRUB parses: a file, or something made of files.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) file: Arc<str>,
    pub(super) cfg: GrubCfg,
    /// For text that GRUB made: which ranges stand where.
    pub(super) pieces: Vec<(Range<usize>, Origin)>,
    /// For text that GRUB made: the place that stands for all the rest.
    pub(super) parent: Option<Origin>,
}

impl Script {
    pub(super) fn file(file: Arc<str>, bytes: Vec<u8>) -> Self {
        Self { file, cfg: GrubCfg::parse(bytes), pieces: Vec::new(), parent: None }
    }

    pub(super) fn made(bytes: Vec<u8>, pieces: Vec<(Range<usize>, Origin)>, parent: Origin) -> Self {
        Self { file: parent.file.clone(), cfg: GrubCfg::parse(bytes), pieces, parent: Some(parent) }
    }

    pub(super) fn origin(&self, span: &Range<usize>, line: usize) -> Origin {
        let holds = |piece: &Range<usize>| piece.start <= span.start && span.end <= piece.end;
        if let Some((piece, origin)) = self.pieces.iter().find(|(piece, _)| holds(piece)) {
            // A piece that stands for a variable is shorter or longer than what it became.
            if piece.len() != origin.span.len() {
                return origin.clone();
            }
            let start = origin.span.start + (span.start - piece.start);
            return Origin { span: start..start + span.len(), ..origin.clone() };
        }
        match &self.parent {
            Some(parent) => parent.clone(),
            None => Origin { file: self.file.clone(), line, span: span.clone() },
        }
    }
}

/// Units to run, and the script they belong to.
#[derive(Debug, Clone)]
pub(super) struct Body {
    pub(super) script: Arc<Script>,
    pub(super) units: Arc<Vec<Unit>>,
    /// Whether an empty line stands at the end.
    pub(super) ends_empty: bool,
}

impl Body {
    /// A script as a whole; as the text of a command it may end in an empty line.
    pub(super) fn whole(script: Script) -> Self {
        let ends_empty = script.cfg.to_bytes().ends_with(b"\n");
        let units = Arc::new(script.cfg.units().to_vec());
        Self { script: Arc::new(script), units, ends_empty }
    }
}
