//! From members to arrays: which of them are fresh, and what they make together.
//!
//! The rules are those of mdadm's `Assemble.c` without `--force`, and of `super_1_validate` in `drivers/md/md.c`.

use std::collections::BTreeMap;
use std::sync::Arc;

use blockdev::{BlockDevice, Device};
use ondisk::{Corrupt, Error, Guid, Parsed};

use super::array::{Array, ArrayMember, State};
use super::build::{self, ReadOnly};
use super::member::Member;
use super::superblock::{Features, Role, Superblock};
use super::{journal, level};
use crate::raid::MAX_MEMBERS;

/// Puts `members` together, one array for each identity, in the order of their first members.
///
/// A member is used when its event count is at most one below the highest, and the freshest member agrees that it
/// is part of the array. Damage, and what keeps a member out, is among the problems.
pub fn assemble(members: &[Member]) -> Vec<Parsed<Array>> {
    let mut order: Vec<Guid> = Vec::new();
    let mut groups: BTreeMap<Guid, Vec<usize>> = BTreeMap::new();
    for (index, member) in members.iter().enumerate() {
        let uuid = member.superblock.array_uuid;
        groups.entry(uuid).or_insert_with(|| {
            order.push(uuid);
            Vec::new()
        });
        groups.entry(uuid).or_default().push(index);
    }
    order
        .into_iter()
        .filter_map(|uuid| groups.remove(&uuid))
        .filter_map(|group| Group { members, group, problems: Vec::new() }.assemble())
        .collect()
}

/// The members of one array.
struct Group<'a> {
    members: &'a [Member],
    /// Indexes of the members.
    group: Vec<usize>,
    problems: Vec<Error>,
}

impl<'a> Group<'a> {
    fn get(&self, index: usize) -> Option<&'a Superblock> {
        self.members.get(index).map(|member| &member.superblock)
    }

    /// The superblock that speaks for the array: of an active member with the highest event count.
    fn freshest(&self) -> Option<&'a Superblock> {
        let rank = |superblock: &Superblock| {
            let is_active = matches!(superblock.role, Role::Active(_))
                && !superblock.features.has(Features::REPLACEMENT)
                && superblock.recovery_offset.is_none();
            (superblock.refusal.is_none(), is_active, superblock.events)
        };
        let mut best: Option<&Superblock> = None;
        for superblock in self.group.iter().filter_map(|index| self.get(*index)) {
            if best.is_none_or(|best| rank(superblock) > rank(best)) {
                best = Some(superblock);
            }
        }
        best
    }

    fn problem(&mut self, superblock: &Superblock, field: &'static str, expected: String, found: String) {
        self.problems.push(Corrupt::new("md superblock", superblock.offset, field, expected, found).into());
    }

    fn assemble(mut self) -> Option<Parsed<Array>> {
        let freshest = self.freshest()?;
        let mut states: Vec<ArrayMember> = Vec::new();
        for index in self.group.clone() {
            let Some(superblock) = self.get(index) else { continue };
            let state = self.state(superblock, freshest);
            states.push(ArrayMember { member: Some(index), role: superblock.role, state });
        }
        self.drop_duplicates(&mut states);
        let roles = usize::try_from(freshest.raid_disks).unwrap_or(usize::MAX).min(MAX_MEMBERS);
        let mut filled: Vec<Option<&Member>> = vec![None; roles];
        for (index, role) in
            states.iter().filter(|m| m.state == State::InUse).filter_map(|m| Some((m.member?, m.role)))
        {
            if let Role::Active(number) = role
                && let Some(place) = usize::try_from(number).ok().and_then(|number| filled.get_mut(number))
            {
                *place = self.members.get(index);
            }
        }
        for (number, place) in (0_u32..).zip(&filled) {
            let role = Role::Active(number);
            if place.is_none() && !states.iter().any(|member| member.role == role) {
                states.push(ArrayMember { member: None, role, state: State::Missing });
            }
        }
        let is_degraded = filled.iter().any(Option::is_none);
        let has_redundancy = level::layout(freshest.level, freshest.layout).is_some();
        let is_dirty = has_redundancy && !freshest.is_clean;
        let mut read_only = read_only(freshest, &filled, &states);
        let device = match refusal(freshest, &filled, is_dirty) {
            Some(reason) => Err(reason),
            None => self.device(freshest, &states, &filled, &mut read_only),
        };
        if let Err(reason) = &device {
            self.problems.push(Error::unavailable("array", reason.clone()));
        } else if is_dirty {
            let found = "active: copies or parity may disagree".into();
            self.problem(freshest, "state", "clean".into(), found);
        }
        let size =
            device.as_ref().map_or_else(|_| build::size(freshest).unwrap_or(0), |device| device.size());
        let array = Array {
            uuid: freshest.array_uuid,
            name: freshest.name.clone(),
            version: freshest.version,
            level: level::name(freshest.level).map_or_else(|| freshest.level.to_string(), Into::into),
            layout: level::layout_name(freshest.level, freshest.layout),
            chunk: freshest.chunk,
            size,
            raid_disks: freshest.raid_disks,
            members: states,
            is_degraded,
            is_dirty,
            read_only,
            device,
        };
        Some(Parsed { value: array, problems: self.problems })
    }

    /// How one member is used, before its role is compared with the others'.
    fn state(&mut self, superblock: &Superblock, freshest: &Superblock) -> State {
        if let Some(reason) = &superblock.refusal {
            return State::Damaged(reason.clone());
        }
        let number = match superblock.role {
            Role::Spare => return State::Spare,
            Role::Faulty => return State::Faulty,
            Role::Journal if superblock.events.saturating_add(1) >= freshest.events => return State::Journal,
            Role::Journal => {
                return State::Stale { behind: freshest.events.saturating_sub(superblock.events) };
            }
            Role::Active(number) => number,
        };
        let shape = |s: &Superblock| (s.level, s.layout, s.chunk, s.raid_disks, s.used_size);
        if superblock.events > freshest.events {
            let text = format!("event count {} above {}", superblock.events, freshest.events);
            self.problem(
                superblock,
                "events",
                format!("at most {}", freshest.events),
                superblock.events.to_string(),
            );
            return State::Foreign(text);
        }
        let behind = freshest.events.saturating_sub(superblock.events);
        let freshest_is_known = match freshest.role {
            Role::Active(role) => superblock.knows_active(role),
            _ => true,
        };
        if behind > 1 || freshest.role_of(superblock.device_number) != superblock.role || !freshest_is_known {
            let found = if freshest_is_known {
                format!("{} for role {number}", superblock.events)
            } else {
                format!("{} for role {number}, which calls the freshest member failed", superblock.events)
            };
            self.problem(superblock, "events", freshest.events.to_string(), found);
            return State::Stale { behind };
        }
        if shape(superblock) != shape(freshest) {
            let text = format!(
                "{} members, level {}, layout {:#x}, chunk {}, {} bytes each",
                superblock.raid_disks,
                superblock.level,
                superblock.layout,
                superblock.chunk,
                superblock.used_size
            );
            let expected = format!(
                "{} members, level {}, layout {:#x}, chunk {}, {} bytes each",
                freshest.raid_disks, freshest.level, freshest.layout, freshest.chunk, freshest.used_size
            );
            self.problem(superblock, "level", expected, text.clone());
            return State::Foreign(text);
        }
        if number >= freshest.raid_disks {
            let text = format!("role {number} of {}", freshest.raid_disks);
            self.problem(superblock, "role", format!("below {}", freshest.raid_disks), number.to_string());
            return State::Foreign(text);
        }
        if superblock.features.has(Features::REPLACEMENT) {
            return State::Replacement;
        }
        match superblock.recovery_offset {
            Some(offset) => State::Recovering { offset },
            None if superblock.features.has(Features::RECOVERY_BITMAP) => State::Recovering { offset: 0 },
            None => State::InUse,
        }
    }

    /// Leaves one member in each role: the one with most events, else the first.
    fn drop_duplicates(&mut self, states: &mut [ArrayMember]) {
        let mut best: BTreeMap<u32, (u64, usize)> = BTreeMap::new();
        let in_use = |state: &ArrayMember| match (&state.state, state.role) {
            (State::InUse, Role::Active(role)) => Some(role),
            _ => None,
        };
        for (place, state) in states.iter().enumerate() {
            let Some(superblock) = state.member.and_then(|index| self.get(index)) else { continue };
            let Some(role) = in_use(state) else { continue };
            let entry = best.entry(role).or_insert((superblock.events, place));
            if superblock.events > entry.0 {
                *entry = (superblock.events, place);
            }
        }
        for (place, state) in states.iter_mut().enumerate() {
            let Some(role) = in_use(state) else { continue };
            if best.get(&role).is_some_and(|(_, best)| *best != place) {
                state.state = State::Duplicate;
                if let Some(superblock) = state.member.and_then(|index| self.get(index)) {
                    let expected = format!("one member for role {role}");
                    self.problem(superblock, "role", expected, "another one".into());
                }
            }
        }
    }

    /// Makes the device, once nothing speaks against it.
    fn device(
        &self,
        freshest: &Superblock,
        states: &[ArrayMember],
        filled: &[Option<&Member>],
        read_only: &mut Option<String>,
    ) -> Result<Device, String> {
        let device = build::build(freshest, filled)?;
        if freshest.features.has(Features::JOURNAL) {
            let is_whole =
                filled.iter().all(|member| member.is_some_and(|m| m.superblock.bad_blocks.is_empty()));
            if self.check_journal(states, &*device, is_whole)? {
                read_only.get_or_insert("the journal would be written over it".into());
            }
        }
        Ok(if read_only.is_some() { Arc::new(ReadOnly(device)) } else { device })
    }

    /// Whether the journal has anything to replay, all of which `array` has already.
    fn check_journal(
        &self,
        states: &[ArrayMember],
        array: &dyn BlockDevice,
        is_whole: bool,
    ) -> Result<bool, String> {
        let journal = states.iter().find(|member| member.state == State::Journal);
        let Some(member) = journal.and_then(|journal| self.members.get(journal.member?)) else {
            return Err("the write journal is missing or stale".into());
        };
        let Superblock { data_offset, data_size, journal_tail, .. } = &member.superblock;
        let blocks =
            journal_tail.and_then(|tail| journal::pending(&*member.device, *data_offset, *data_size, tail));
        let blocks = blocks.ok_or("the write journal cannot be followed")?;
        // Parity that is not written yet matters only where it is needed.
        let is_written = || is_whole && journal::are_written(&*member.device, &blocks, array);
        if !blocks.is_empty() && !is_written() {
            return Err("the write journal holds writes that the members lack".into());
        }
        Ok(!blocks.is_empty())
    }
}

/// Why the array's bytes cannot be known, apart from too few members.
fn refusal(freshest: &Superblock, filled: &[Option<&Member>], is_dirty: bool) -> Option<String> {
    if let Some(reason) = &freshest.refusal {
        return Some(format!("no member has a superblock that can be trusted: {reason}"));
    }
    if usize::try_from(freshest.raid_disks).is_ok_and(|disks| disks > MAX_MEMBERS) {
        return Some(format!("raid_disks is {}, expected 1 to {MAX_MEMBERS}", freshest.raid_disks));
    }
    if filled.iter().all(Option::is_none) {
        return Some("no active member".into());
    }
    let features = freshest.features;
    if features.unknown() != 0 {
        return Some(format!("feature bits {:#x} are not known", features.unknown()));
    }
    if let Some(position) = freshest.reshape_position {
        return Some(format!("a reshape was interrupted at byte {position}"));
    }
    if features.has(Features::NEW_OFFSET) || features.has(Features::RESHAPE_BACKWARDS) {
        return Some("a reshape is prepared".into());
    }
    let is_degraded = filled.iter().any(Option::is_none);
    if is_dirty && build::has_parity(freshest) {
        if is_degraded && features.has(Features(Features::PPL.0 | Features::MULTIPLE_PPLS.0)) {
            return Some("dirty degraded array, whose partial parity log was not replayed".into());
        }
        if is_degraded {
            return Some("dirty degraded array: parity may not fit the data".into());
        }
    }
    None
}

/// Why writing to the members that are there would later lose what was written, or undo it.
fn read_only(freshest: &Superblock, filled: &[Option<&Member>], states: &[ArrayMember]) -> Option<String> {
    if states.iter().any(|member| matches!(member.state, State::Recovering { .. } | State::Replacement)) {
        return Some("a member was being rebuilt, and would miss what is written".into());
    }
    if freshest.features.has(Features::CLUSTERED) {
        return Some("other hosts may be using the array".into());
    }
    for (role, _) in (0_u32..).zip(filled).filter(|(_, member)| member.is_none()) {
        if freshest.knows_active(role) {
            return Some(format!("the member for role {role} was not given, and would miss what is written"));
        }
        if freshest.features.has(Features::BITMAP) {
            return Some(format!("role {role} may come back by the bitmap, and would miss what is written"));
        }
    }
    None
}
