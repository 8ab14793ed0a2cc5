//! What the passes know: findings, groups, and a few bytes for each inode.

use std::collections::{BTreeMap, BTreeSet};

use ondisk::Error;

use super::blocks::Blocks;
use super::opening::Opened;
use crate::units::to_usize;

/// How many reasons are told.
const MAX_REASONS: usize = 8;

/// Why the check is not followed further.
#[derive(Debug)]
pub(super) enum Stop {
    /// It stops for a person; the reasons are in the findings.
    ByHand,
    /// The program ends by itself.
    Refused(String),
    /// What follows is not known.
    Unknown(String),
    /// Reading failed.
    Failed(Error),
}

impl Stop {
    pub(super) fn unknown(why: impl Into<String>) -> Self {
        Self::Unknown(why.into())
    }

    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What stops the automatic repair.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) reasons: Vec<String>,
}

impl Findings {
    /// Notes a problem that is not repaired without asking; enough of them end the search.
    pub(super) fn by_hand(&mut self, reason: impl Into<String>) -> Result<(), Stop> {
        self.reasons.push(reason.into());
        if self.reasons.len() < MAX_REASONS { Ok(()) } else { Err(Stop::ByHand) }
    }

    /// Damage with an outcome that is not known: behind a problem that stops the check it does not matter.
    pub(super) fn unknown(&self, why: impl Into<String>) -> Stop {
        if self.reasons.is_empty() { Stop::unknown(why) } else { Stop::ByHand }
    }

    /// Ends the search if the check has stopped.
    pub(super) fn settle(&self) -> Result<(), Stop> {
        if self.reasons.is_empty() { Ok(()) } else { Err(Stop::ByHand) }
    }
}

/// What an inode is used for, as the first pass sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Use {
    /// Not at all.
    #[default]
    Free,
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// Anything else, and the reserved inodes.
    Other,
}

/// What is known of an inode.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct State {
    pub(super) usage: Use,
    /// `file_type` of entries for it.
    pub(super) file_type: u8,
    /// Without a name it is deleted, not kept.
    pub(super) is_disposable: bool,
    /// Entries that name it.
    pub(super) names: u16,
}

/// What is known of a directory.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Directory {
    /// The directory with an entry for it, 0 for none.
    pub(super) parent: u32,
    /// What its `..` says.
    pub(super) dotdot: u32,
    /// It has a hash index.
    pub(super) is_indexed: bool,
    /// Its entries are written anew, which finds names that occur twice.
    pub(super) is_rebuilt: bool,
    /// Its map is an extent tree, whatever its flags say.
    pub(super) has_extents: bool,
}

/// A block of attributes that inodes share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shared {
    /// Users that it says it has.
    pub(super) stated: u32,
    /// Users that were found.
    pub(super) found: u32,
}

/// The check as far as it has come.
#[derive(Debug)]
pub(super) struct Check<'a> {
    pub(super) opened: &'a Opened,
    /// The states of the inodes that are scanned, by group.
    inodes: Vec<Vec<State>>,
    pub(super) directories: BTreeMap<u32, Directory>,
    pub(super) shared: BTreeMap<u64, Shared>,
    /// Blocks in use.
    pub(super) found: Blocks,
    /// Groups in which the entries of directories name inodes that were not scanned.
    pub(super) uncovered: BTreeSet<u32>,
    /// `/lost+found`, as it is named before anything is checked.
    pub(super) lost_and_found: Option<u32>,
    /// The same, after all entries were checked.
    pub(super) kept_lost_and_found: Option<u32>,
}

impl<'a> Check<'a> {
    pub(super) fn new(opened: &'a Opened) -> Self {
        Self {
            opened,
            inodes: vec![Vec::new(); opened.groups.len()],
            directories: BTreeMap::new(),
            shared: BTreeMap::new(),
            found: Blocks::new(opened.disk.superblock.blocks),
            uncovered: BTreeSet::new(),
            lost_and_found: None,
            kept_lost_and_found: None,
        }
    }

    /// Makes room for the states of the first `count` inodes of a group.
    pub(super) fn cover(&mut self, group: u32, count: u32) {
        if let Some(states) = self.inodes.get_mut(to_usize(group)) {
            *states = vec![State::default(); to_usize(count)];
        }
    }

    /// The state of an inode; that of one that was not scanned is "free".
    pub(super) fn state(&self, number: u32) -> State {
        self.opened
            .place(number)
            .and_then(|(group, index)| self.inodes.get(to_usize(group))?.get(to_usize(index)))
            .copied()
            .unwrap_or_default()
    }

    /// The same, to be changed.
    pub(super) fn state_mut(&mut self, number: u32) -> Option<&mut State> {
        let (group, index) = self.opened.place(number)?;
        self.inodes.get_mut(to_usize(group))?.get_mut(to_usize(index))
    }

    /// All inodes in use, ascending.
    pub(super) fn used(&self) -> impl Iterator<Item = (u32, State)> {
        let per_group = self.opened.disk.superblock.inodes_per_group.get();
        (0_u32..).zip(&self.inodes).flat_map(move |(group, states)| {
            let first = group.saturating_mul(per_group).saturating_add(1);
            (first..).zip(states.iter().copied()).filter(|(_, state)| state.usage != Use::Free)
        })
    }
}
