//! The second pass: all directories, whether or not they hang together.

use std::collections::HashSet;

use super::directory_block::{self as block, Reader};
use super::index::Index;
use super::inode::Scanned;
use super::inspection::file_type;
use super::state::{Check, Directory, Findings, Stop, Use};
use crate::features::incompat;
use crate::inode::{Inode, ROOT};
use crate::mapping;
use crate::units::{FsBlock, to_usize};

/// Directories with more blocks are not looked at: 4 GiB.
const MAX_BLOCKS: u64 = 1 << 20;

/// Entries of directories that are looked at for names that occur twice.
const MAX_NAMES: usize = 1 << 22;

/// Goes through all directories.
pub(super) fn scan(check: &mut Check<'_>, findings: &mut Findings) -> Result<(), Stop> {
    if let Some(root) = check.directories.get_mut(&ROOT) {
        root.parent = ROOT;
    }
    let numbers: Vec<u32> = check.directories.keys().copied().collect();
    let mut ambiguous = None;
    for number in numbers {
        let Some(directory) = check.directories.get(&number).copied() else { continue };
        scan_directory(check, findings, number, directory, &mut ambiguous)?;
    }
    match ambiguous {
        // Whether it was cleared before the program found that it must start again depends on the order.
        Some(what) if !check.uncovered.is_empty() => Err(findings.unknown(what)),
        _ => Ok(()),
    }
}

/// A directory under inspection.
pub(super) struct Inspected {
    pub(super) number: u32,
    pub(super) inode: Inode,
    pub(super) index: Option<Index>,
    pub(super) is_rebuilt: bool,
}

fn scan_directory(
    check: &mut Check<'_>,
    findings: &mut Findings,
    number: u32,
    directory: Directory,
    ambiguous: &mut Option<String>,
) -> Result<(), Stop> {
    let opened = check.opened;
    let strange = || Stop::unknown(format!("directory inode {number} cannot be read"));
    let bytes = opened.inode_bytes(number)?.ok_or_else(|| findings.unknown("an inode that is gone"))?;
    let mut scanned = Scanned::decode(opened, number, bytes).ok_or_else(strange)?;
    scanned.has_extents = directory.has_extents;
    let inode = scanned.to_inode(opened).ok_or_else(strange)?;
    let blocks = blocks_of(check, &inode).map_err(|stop| match stop {
        Stop::Failed(error) => findings.unknown(format!("directory inode {number}: {error:#}")),
        other => other,
    })?;
    let index = directory.is_indexed.then(|| Index::new(opened, blocks.len()));
    let mut inspected = Inspected { number, inode, index, is_rebuilt: directory.is_rebuilt };
    for (logical, place) in &blocks {
        let bytes = opened.disk.block(*place)?;
        scan_block(check, findings, &mut inspected, (*logical, &bytes), ambiguous)?;
    }
    if let Some(index) = &mut inspected.index
        && !inspected.is_rebuilt
        && let Some(what) = index.judge()
    {
        findings.by_hand(format!("directory inode {number}: {what}"))?;
    }
    if inspected.is_rebuilt {
        judge_names(check, findings, &inspected, &blocks)?;
    }
    Ok(())
}

/// The blocks in the order of the program: the first, then by place.
fn blocks_of(check: &Check<'_>, inode: &Inode) -> Result<Vec<(u64, FsBlock)>, Stop> {
    let mut blocks = Vec::new();
    let mut count: u64 = 0;
    mapping::runs(&check.opened.disk, inode, 0..1 << 32, &mut |run| {
        count = count.saturating_add(run.length);
        if count <= MAX_BLOCKS {
            blocks.extend(
                (0..run.length).map(|index| (run.logical.saturating_add(index), run.physical.after(index))),
            );
        }
        Ok(())
    })?;
    if count > MAX_BLOCKS {
        return Err(Stop::unknown("a directory that is too long"));
    }
    blocks.sort_unstable_by_key(|(logical, place)| (*logical != 0, *place));
    Ok(blocks)
}

fn scan_block(
    check: &mut Check<'_>,
    findings: &mut Findings,
    inspected: &mut Inspected,
    (logical, bytes): (u64, &[u8]),
    ambiguous: &mut Option<String>,
) -> Result<(), Stop> {
    let mut has_failed = !block::has_good_checksum(bytes, &inspected.inode);
    let has_checksums = inspected.inode.seed.is_some();
    let mut tail = if has_checksums { 12 } else { 0 };
    let mut is_leaf = true;
    let mut is_node = false;
    if let Some(index) = &mut inspected.index {
        match index.enter(logical, bytes, has_checksums) {
            Some(is_inner) => is_node = is_inner,
            None => {
                inspected.index = None;
                inspected.is_rebuilt = true;
            }
        }
        is_leaf = inspected.index.is_some() && !is_node;
    }
    if is_leaf && has_failed && block::lacks_tail(bytes) {
        inspected.is_rebuilt = true;
        has_failed = false;
        tail = 0;
    } else if !is_leaf {
        tail = 0;
    }
    let number = inspected.number;
    let end = bytes.len().saturating_sub(tail);
    let mut seen = HashSet::new();
    let mut reader = Reader::new(bytes, end, logical == 0);
    loop {
        let entry = match reader.next() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(what) => {
                findings.by_hand(format!("directory inode {number}, block {logical}: {what}"))?;
                return Ok(());
            }
        };
        if let Some(what) = block::judge(check.opened, number, &entry) {
            let name = entry.name.escape_ascii();
            findings.by_hand(format!("directory inode {number}: entry '{name}': {what}"))?;
            continue;
        }
        if entry.inode == 0 {
            continue;
        }
        if entry.position == 1
            && let Some(directory) = check.directories.get_mut(&number)
        {
            directory.dotdot = entry.inode;
        }
        if !name_inode(check, findings, number, &entry, ambiguous)? {
            continue;
        }
        if let Some(index) = &mut inspected.index {
            index.add(logical, entry.name);
        }
        if !inspected.is_rebuilt && !seen.insert(entry.name) {
            let name = entry.name.escape_ascii();
            findings.by_hand(format!("directory inode {number}: the name '{name}' occurs twice"))?;
        }
    }
    if is_node
        && let Some(index) = &mut inspected.index
        && let Err(what) = index.add_node(logical, bytes, has_failed, has_checksums)
    {
        match what {
            Some(what) => findings.by_hand(format!("directory inode {number}: {what}"))?,
            None => {
                if has_checksums && index.depth() > 1 {
                    let what = format!("directory inode {number}: a damaged index of several levels");
                    return Err(findings.unknown(what));
                }
                inspected.index = None;
                inspected.is_rebuilt = true;
            }
        }
    }
    Ok(())
}

/// Counts an entry for the inode that it names; returns whether it stays.
fn name_inode(
    check: &mut Check<'_>,
    findings: &mut Findings,
    number: u32,
    entry: &block::Entry<'_>,
    ambiguous: &mut Option<String>,
) -> Result<bool, Stop> {
    let opened = check.opened;
    let Some((group, index)) = opened.place(entry.inode) else { return Ok(false) };
    let superblock = &opened.disk.superblock;
    let Some(holder) = opened.groups.get(to_usize(group)) else { return Ok(false) };
    let first_unused = superblock.inodes_per_group.get().saturating_sub(holder.unused);
    let is_beyond = holder.is_uninit || index >= first_unused;
    let state = check.state(entry.inode);
    if is_beyond {
        check.uncovered.insert(group);
    } else if state.usage == Use::Free {
        if has_type(check, entry) && stored_type(check, findings, entry.inode)? != entry.file_type {
            let name = entry.name.escape_ascii();
            *ambiguous = Some(format!(
                "directory inode {number}: '{name}' has no inode, and others were not looked at"
            ));
        }
        return Ok(false);
    }
    if has_type(check, entry) {
        let expected = if state.usage == Use::Free {
            stored_type(check, findings, entry.inode)?
        } else {
            state.file_type
        };
        // None is filled in, a wrong one only by hand.
        if entry.file_type != 0 && entry.file_type != expected {
            let (name, found) = (entry.name.escape_ascii(), entry.file_type);
            findings.by_hand(format!(
                "directory inode {number}: entry '{name}' has the type {found}, not {expected}"
            ))?;
        }
    }
    if entry.name.iter().any(|byte| matches!(byte, b'/' | 0)) {
        let name = entry.name.escape_ascii();
        findings.by_hand(format!("directory inode {number}: '{name}' cannot be a name"))?;
    }
    if entry.position > 1 && state.usage == Use::Directory {
        if number == ROOT && entry.name == b"lost+found" {
            check.kept_lost_and_found = Some(entry.inode);
        }
        if let Some(directory) = check.directories.get_mut(&entry.inode) {
            if directory.parent != 0 {
                let name = entry.name.escape_ascii();
                findings.by_hand(format!(
                    "directory inode {number}: '{name}' is a directory that has another name"
                ))?;
            } else {
                directory.parent = number;
            }
        }
    } else if entry.position > 1 && number == ROOT && entry.name == b"lost+found" {
        check.kept_lost_and_found = Some(entry.inode);
    }
    if let Some(state) = check.state_mut(entry.inode) {
        state.names = state.names.saturating_add(1);
    }
    Ok(true)
}

fn has_type(check: &Check<'_>, _: &block::Entry<'_>) -> bool {
    check.opened.disk.superblock.features.has_incompat(incompat::FILETYPE)
}

/// The type that the inode itself has; one that cannot be read ends the program.
fn stored_type(check: &Check<'_>, findings: &Findings, number: u32) -> Result<u8, Stop> {
    let bytes = check.opened.inode_bytes(number)?;
    let inode = bytes.and_then(|bytes| Scanned::decode(check.opened, number, bytes));
    match inode {
        Some(inode) if inode.is_checksum_good => Ok(file_type(inode.raw.i_mode.get())),
        _ => {
            Err(findings
                .unknown(format!("inode {number}, which an entry names, was never used, and is damaged")))
        }
    }
}

/// Names that occur twice in a directory that is written anew.
fn judge_names(
    check: &Check<'_>,
    findings: &mut Findings,
    inspected: &Inspected,
    blocks: &[(u64, FsBlock)],
) -> Result<(), Stop> {
    let number = inspected.number;
    let mut seen: HashSet<Vec<u8>> = HashSet::new();
    for (logical, place) in blocks {
        let bytes = check.opened.disk.block(*place)?;
        let mut reader = Reader::new(&bytes, bytes.len(), *logical == 0);
        while let Ok(Some(entry)) = reader.next() {
            if entry.inode == 0 || check.state(entry.inode).usage == Use::Free {
                continue;
            }
            if seen.len() >= MAX_NAMES {
                return Err(findings.unknown(format!("directory inode {number} is too long")));
            }
            if !seen.insert(entry.name.to_vec()) {
                let name = entry.name.escape_ascii();
                findings.by_hand(format!("directory inode {number}: the name '{name}' occurs twice"))?;
                return Ok(());
            }
        }
    }
    Ok(())
}
