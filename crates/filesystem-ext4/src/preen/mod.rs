//! What the check at boot, `e2fsck -a` of e2fsprogs 1.47, comes to: a boot goes on, or it waits for a person.
//!
//! `e2fsck(8)`, "-p" and "EXIT CODE". The program has one list of problems, and each either has a repair that is
//! made without asking, or stops the check; what decides is whether one of the second kind is there. So its
//! passes are followed here as far as they can tell: nothing is repaired, a repair only changes what later
//! passes see. Damage whose outcome is not known makes the answer [`Preen::Unknown`], never a guess.

use std::sync::Arc;

use blockdev::Device;
use ondisk::{Error, Result};

mod attributes;
mod blocks;
mod connectivity;
mod directories;
mod directory_block;
mod fields;
mod hash;
mod index;
mod inode;
mod inodes;
mod inspection;
mod journal;
mod limited;
mod maps;
mod opening;
mod orphans;
mod special;
mod state;

use limited::Limited;
use opening::Opened;
use state::{Check, Findings, Stop};

/// What e2fsck's automatic repair comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Preen {
    /// Not looked at beyond the superblock and the journal: it is marked clean.
    Skipped,
    /// Checked, with nothing that it would not repair by itself: exit status 0 or 1.
    Passes,
    /// Errors are left for a person: an exit status with bit 4. The first reasons.
    ByHand(Vec<String>),
    /// The program refuses the file system: exit status 8 without bit 4.
    Refused(String),
    /// Nothing here says; why.
    Unknown(String),
}

/// How the program is called, and when.
#[derive(Debug, Clone, Default)]
pub struct PreenOptions {
    /// `-f`: also when the file system is marked clean.
    pub is_forced: bool,
    /// Seconds since 1970; `None` when the time of the check is not known. Some file systems are to be checked
    /// when some months have passed.
    pub now: Option<i64>,
}

/// Bytes that are read at most, inodes and directories of a disk of some terabytes; an image can show one cluster at many places, so
/// that its length is no bound.
const MAX_READ: u64 = 4 << 30;

/// How often finding inodes where none were thought to be may start the check again.
const MAX_ROUNDS: usize = 16;

/// Follows `e2fsck -a` over the device; nothing is written.
///
/// # Errors
/// `Io`.
pub fn preen(device: Device, options: &PreenOptions) -> Result<Preen> {
    let mut findings = Findings::default();
    let limited = Arc::new(Limited::new(device, MAX_READ));
    match follow(limited.clone(), options, &mut findings) {
        Ok(preen) => Ok(preen),
        Err(Stop::ByHand) => Ok(Preen::ByHand(findings.reasons)),
        Err(Stop::Refused(why)) => Ok(Preen::Refused(why)),
        Err(Stop::Unknown(why)) => Ok(Preen::Unknown(why)),
        Err(Stop::Failed(_)) if limited.is_spent() => {
            Ok(Preen::Unknown("the file system is too large to be looked at".to_owned()))
        }
        Err(Stop::Failed(error @ Error::Io { .. })) => Err(error),
        Err(Stop::Failed(error)) => Ok(Preen::Unknown(format!("{error:#}"))),
    }
}

fn follow(device: Device, options: &PreenOptions, findings: &mut Findings) -> Result<Preen, Stop> {
    let opened = opening::open(device, options, findings)?;
    if !opened.is_checked && !opened.is_time_unknown {
        return Ok(Preen::Skipped);
    }
    let is_sure = opened.is_checked;
    match check(opened, findings) {
        Err(Stop::ByHand) if !is_sure => {
            let reason = findings.reasons.first().map_or("", String::as_str);
            Err(Stop::Unknown(format!("whether a check is due is not known; it would stop: {reason}")))
        }
        outcome => outcome.map(|()| Preen::Passes),
    }
}

/// The five passes, again where they found that some inodes had not been looked at.
fn check(mut opened: Opened, findings: &mut Findings) -> Result<(), Stop> {
    special::judge_support(&opened)?;
    for _ in 0..MAX_ROUNDS {
        special::judge_resize_inode(&opened, findings)?;
        special::judge_bad_blocks(&opened, findings)?;
        findings.settle()?;
        let mut check = Check::new(&opened);
        inodes::scan(&mut check, findings)?;
        findings.settle()?;
        directories::scan(&mut check, findings)?;
        findings.settle()?;
        let uncovered = std::mem::take(&mut check.uncovered);
        if uncovered.is_empty() {
            connectivity::judge_directories(&check, findings)?;
            findings.settle()?;
            connectivity::judge_counts(&check, findings)?;
            return findings.settle();
        }
        for group in uncovered {
            opened.uncover(group);
        }
    }
    Err(Stop::unknown("inodes beyond the used part of their tables come up again and again"))
}
