//! The third and fourth pass: every directory hangs together with the root, and every inode has a name.

use std::collections::HashSet;

use super::directory_block::Reader;
use super::inode::{Scanned, mode};
use super::opening::Opened;
use super::state::{Check, Findings, Stop, Use};
use crate::features::{incompat, ro_compat};
use crate::inode::ROOT;
use crate::mapping;

/// Links that an inode can count.
const MAX_LINKS: u16 = 65_000;

/// The inode that `/lost+found` names, as far as the root can be read.
pub(super) fn find_lost_and_found(opened: &Opened) -> Option<u32> {
    let bytes = opened.inode_bytes(ROOT).ok()??;
    let root = Scanned::decode(opened, ROOT, bytes)?.to_inode(opened)?;
    let mut found = None;
    let end = opened.disk.superblock.block_size.blocks_for(root.size).min(1 << 16);
    let _ = mapping::runs(&opened.disk, &root, 0..end, &mut |run| {
        for index in 0..run.length {
            let bytes = opened.disk.block(run.physical.after(index))?;
            let mut reader = Reader::new(&bytes, bytes.len(), false);
            while let Ok(Some(entry)) = reader.next() {
                if entry.name == b"lost+found" && entry.inode != 0 {
                    found = found.or(Some(entry.inode));
                }
            }
        }
        Ok(())
    });
    found
}

/// The program looks up `/lost+found` before it checks the root. If the flag of the extent tree is lost, it takes
/// the tree for a block map, and what cannot be read stops it.
pub(super) fn judge_root_map(opened: &Opened, findings: &mut Findings) -> Result<(), Stop> {
    let bytes = opened.inode_bytes(ROOT)?;
    let Some(root) = bytes.and_then(|bytes| Scanned::decode(opened, ROOT, bytes)) else { return Ok(()) };
    let has_extents = opened.disk.superblock.features.has_incompat(incompat::EXTENTS);
    let is_lost = !root.has_extents && root.has_tree() && root.kind() == mode::DIRECTORY && has_extents;
    if !is_lost || root.raw.i_links_count.get() == 0 {
        return Ok(());
    }
    let available = opened.disk.superblock.block_size.split(opened.disk.device.size()).0;
    if u64::from(root.block(0)) < available {
        return Err(findings.unknown("the root has lost the flag of its extent tree"));
    }
    findings.by_hand("the root has lost the flag of its extent tree, and cannot be read")
}

/// The root is there, all directories lie below it, and know in which one.
pub(super) fn judge_directories(check: &Check<'_>, findings: &mut Findings) -> Result<(), Stop> {
    if check.state(ROOT).usage != Use::Directory {
        return findings.by_hand("there is no root directory");
    }
    let mut connected: HashSet<u32> = HashSet::from([ROOT]);
    for (number, directory) in &check.directories {
        let mut way = Vec::new();
        let mut at = *number;
        let mut seen = HashSet::new();
        while !connected.contains(&at) {
            if !seen.insert(at) {
                findings.by_hand(format!("directory inode {number} lies below itself"))?;
                break;
            }
            way.push(at);
            let parent = check.directories.get(&at).map_or(0, |directory| directory.parent);
            if parent == 0 {
                findings.by_hand(format!("directory inode {at} is in no directory"))?;
                break;
            }
            at = parent;
        }
        // Each is told once.
        connected.extend(way);
        if directory.parent != 0 && directory.dotdot != directory.parent {
            let (parent, dotdot) = (directory.parent, directory.dotdot);
            findings.by_hand(format!("'..' of directory inode {number} is {dotdot}, it lies in {parent}"))?;
        }
    }
    judge_lost_and_found(check, findings)
}

/// Made anew where there is room.
fn judge_lost_and_found(check: &Check<'_>, findings: &mut Findings) -> Result<(), Stop> {
    if let Some(number) = check.kept_lost_and_found {
        return if check.state(number).usage == Use::Directory {
            Ok(())
        } else {
            findings.by_hand("/lost+found is not a directory")
        };
    }
    let superblock = &check.opened.disk.superblock;
    let first = superblock.first_inode;
    let used = check.used().filter(|(number, _)| *number >= first).count();
    let all = superblock.inodes.saturating_sub(first).saturating_add(1);
    if u32::try_from(used).unwrap_or(u32::MAX) >= all || !check.found.has_free() {
        findings.by_hand("there is no room for /lost+found")?;
    }
    Ok(())
}

/// Inodes without a name are only kept by hand, unless there is nothing in them.
pub(super) fn judge_counts(check: &Check<'_>, findings: &mut Findings) -> Result<(), Stop> {
    let superblock = &check.opened.disk.superblock;
    let has_overflow = superblock.features.has_ro_compat(ro_compat::DIR_NLINK);
    let projects = check.opened.raw.s_prj_quota_inum.get();
    for (number, state) in check.used() {
        let is_reserved = number < superblock.first_inode && number != ROOT;
        if is_reserved || number == projects || superblock.orphan_inode == Some(number) {
            continue;
        }
        if state.names == 0 && !state.is_disposable {
            findings.by_hand(format!("inode {number} is in no directory"))?;
        }
        if state.usage == Use::Directory && state.names > MAX_LINKS && !has_overflow {
            findings.by_hand(format!("directory inode {number} holds too many others"))?;
        }
    }
    Ok(())
}
