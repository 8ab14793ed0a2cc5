//! What is on the disks, as a tree.

use std::io::{self, Write};

use filesystem::FsInfo;
use guest::Settings;
use storage::{Content, FoundArray, Node, NodeId, NodeKind};
use volume::lvm2::VolumeGroup;
use volume::md::Role;

use super::{Facts, Style, plain, settings, size};
use crate::Examination;
use crate::cli::input::Disks;

/// Disks, what lies on them, the volume groups, and the installed systems with the settings of each.
pub(crate) fn print(
    out: &mut dyn Write,
    disks: &Disks,
    examination: &Examination,
    facts: &Facts,
    settings: &[Settings],
    problems: &[String],
    style: Style,
) -> io::Result<()> {
    let storage = &examination.storage;
    let drawing = Drawing { examination, facts, style };
    for (id, node) in storage.iter() {
        if let NodeKind::Disk(index) = node.kind {
            let format = disks.images.get(index).map_or("", |image| image.format());
            let title = format!("{} ({format}, {})", plain(&disks.name(index)), size(node.size));
            writeln!(out, "{} {}", style.bold(&title), content(node, style))?;
            drawing.branch(out, id, "")?;
        }
    }
    for found in &storage.arrays {
        drawing.array(out, found)?;
    }
    for group in storage.groups.iter().filter(|group| group.pvs.len() != 1) {
        drawing.group(out, group)?;
    }
    for (guest, settings) in examination.guests.iter().zip(settings) {
        let title = format!("system {}", plain(guest.name()));
        writeln!(out, "{} on {}", style.bold(&title), plain(&storage.node(guest.root).path))?;
        for (index, mount) in guest.mounts.iter().enumerate() {
            let mark = if index + 1 == guest.mounts.len() { "└─" } else { "├─" };
            let subvolume = mount.subvolume.as_ref();
            let subvolume = subvolume.map_or_else(String::new, |path| format!(" subvolume {}", plain(path)));
            let line = mount.line.map_or_else(String::new, |line| format!(" (fstab line {line})"));
            writeln!(
                out,
                "{mark} {:<12} {}{subvolume}{}",
                plain(&mount.target),
                plain(&storage.node(mount.node).path),
                style.dim(&line)
            )?;
        }
        settings::print(out, settings, style)?;
    }
    if examination.guests.is_empty() {
        writeln!(out, "no installed system found")?;
    }
    for problem in problems {
        writeln!(out, "{} {}", style.yellow("!"), plain(problem))?;
    }
    Ok(())
}

/// A node, and what is drawn below it. What lies on several devices is drawn by itself.
struct Drawing<'a> {
    examination: &'a Examination,
    facts: &'a Facts,
    style: Style,
}

impl Drawing<'_> {
    fn children(&self, parent: NodeId) -> Vec<(NodeId, &Node)> {
        let groups = &self.examination.storage.groups;
        let is_single = |name: &str| groups.iter().any(|group| group.name == name && group.pvs.len() == 1);
        self.examination
            .storage
            .children(parent)
            .filter(|(_, node)| match &node.kind {
                NodeKind::Partition(_) | NodeKind::Decrypted { .. } => true,
                NodeKind::LogicalVolume { group, .. } => is_single(group),
                NodeKind::Disk(_) | NodeKind::Array { .. } => false,
            })
            .collect()
    }

    /// The members of an array and what lies on it.
    fn array(&self, out: &mut dyn Write, found: &FoundArray) -> io::Result<()> {
        let node = self.examination.storage.node(found.node);
        let array = &found.array;
        let mut facts = vec![array.level.clone()];
        if array.chunk > 0 {
            facts.push(format!("{} chunks", size(array.chunk)));
        }
        facts.push(size(array.size));
        if array.is_degraded {
            facts.push("degraded".into());
        }
        let title = format!("array {} ({})", plain(&node.path), facts.join(", "));
        writeln!(out, "{} {}", self.style.bold(&title), content(node, self.style))?;
        let children = self.children(found.node);
        for (index, member) in array.members.iter().enumerate() {
            let mark =
                if index + 1 == array.members.len() && children.is_empty() { "└─" } else { "├─" };
            let id = member.member.and_then(|index| found.members.get(index));
            let name = id.map_or("–", |id| self.examination.storage.node(*id).path.as_str());
            let state = member.state.to_string();
            let state = if state == "in use" { state } else { self.style.red(&plain(&state)) };
            let role = match member.role {
                Role::Active(number) => format!("role {number}, "),
                Role::Spare | Role::Faulty | Role::Journal => String::new(),
            };
            writeln!(out, "{mark} member {:<10} {role}{state}", plain(name))?;
        }
        self.rows(out, &children, "")
    }

    /// A group over several physical volumes.
    fn group(&self, out: &mut dyn Write, group: &VolumeGroup) -> io::Result<()> {
        let title = format!("volume group {} ({})", plain(&group.name), group_facts(group));
        writeln!(out, "{}", self.style.bold(&title))?;
        for pv in group.pvs.iter().filter(|pv| pv.device.is_none()) {
            let hint =
                pv.device_hint.as_deref().map_or_else(String::new, |hint| format!(", once {}", plain(hint)));
            let mark = self.style.red("!");
            writeln!(out, "{mark} missing physical volume {}{hint}", pv.uuid)?;
        }
        let volumes: Vec<(NodeId, &Node)> = self
            .examination
            .storage
            .iter()
            .filter(|(_, node)| matches!(&node.kind, NodeKind::LogicalVolume { group: g, .. } if *g == group.name))
            .collect();
        self.rows(out, &volumes, "")
    }

    fn branch(&self, out: &mut dyn Write, parent: NodeId, indent: &str) -> io::Result<()> {
        self.rows(out, &self.children(parent), indent)
    }

    fn rows(&self, out: &mut dyn Write, nodes: &[(NodeId, &Node)], indent: &str) -> io::Result<()> {
        for (index, (id, node)) in nodes.iter().enumerate() {
            let is_last = index + 1 == nodes.len();
            let mark = if is_last { "└─" } else { "├─" };
            let name = match &node.kind {
                NodeKind::Decrypted { slot, .. } => format!("opened by key slot {slot}"),
                _ => node.path.rsplit('/').next().unwrap_or(&node.path).to_owned(),
            };
            let used: Vec<String> = self
                .examination
                .guests
                .iter()
                .flat_map(|guest| &guest.mounts)
                .filter(|mount| mount.node == *id)
                .map(|mount| plain(&mount.target))
                .collect();
            let used = match used.is_empty() {
                true => String::new(),
                false => format!(" → {}", self.style.green(&used.join(", "))),
            };
            let (name, length, content) = (plain(&name), size(node.size), self.content(node));
            let facts = self.facts.get(id).map_or_else(String::new, |info| self.facts_of(info));
            writeln!(out, "{indent}{mark} {name:<8} {length:>8}  {content}{facts}{used}")?;
            let deeper = if is_last { "   " } else { "│  " };
            self.branch(out, *id, &format!("{indent}{deeper}"))?;
        }
        Ok(())
    }

    /// How much is free, and whether the kernel would recover something first.
    fn facts_of(&self, info: &FsInfo) -> String {
        let free = info.free.map_or_else(String::new, |free| format!("  {} free", size(free)));
        let recovery =
            if info.needs_recovery { self.style.yellow("  needs recovery") } else { String::new() };
        format!("{}{recovery}", self.style.dim(&free))
    }

    /// The content of a node; a physical volume that is a whole group tells of the group too.
    fn content(&self, node: &Node) -> String {
        if let Content::PhysicalVolume { group: Some(name), .. } = &node.content
            && let Some(group) = self.examination.storage.groups.iter().find(|group| group.name == *name)
            && group.pvs.len() == 1
        {
            return format!("volume group {} ({})", plain(name), group_facts(group));
        }
        content(node, self.style)
    }
}

fn group_facts(group: &VolumeGroup) -> String {
    format!("LVM2, {} extents", size(group.extent_size))
}

fn content(node: &Node, style: Style) -> String {
    let mut parts = Vec::new();
    match (&node.content, &node.kind) {
        (Content::PhysicalVolume { group, .. }, _) => {
            let group =
                group.as_deref().map_or_else(|| "of no group".into(), |name| format!("of {}", plain(name)));
            parts.push(format!("LVM2 physical volume {group}"));
        }
        (Content::Partitions(table), _) => parts.push(format!("{} {}", table.kind.name(), table.id)),
        (Content::Unknown, NodeKind::Partition(partition)) if partition.type_name.is_some() => {
            parts.push(style.dim(&format!("({})", partition.type_name.unwrap_or_default())));
        }
        (Content::Unknown, NodeKind::LogicalVolume { kinds, .. }) if node.device.is_none() => {
            parts.push(style.red(&format!("{} volume, cannot be read", kinds.join("+"))));
        }
        (Content::Unknown, NodeKind::Array { .. }) if node.device.is_none() => {
            parts.push(style.red("cannot be read"));
        }
        (Content::Unknown, _) => parts.push(style.dim("nothing known")),
        (Content::RaidMember { array, state, .. }, _) => {
            let array =
                array.as_deref().map_or_else(|| "of no array".into(), |path| format!("of {}", plain(path)));
            parts.push(format!("md member {array}"));
            if let Some(state) = state.as_deref().filter(|state| *state != "in use") {
                parts.push(style.red(&plain(state)));
            }
        }
        (Content::Encrypted(encrypted), _) => {
            let container = &encrypted.container;
            parts.push(format!("LUKS{} {}", container.version, plain(&container.encryption)));
            if let Some(reason) = &encrypted.locked {
                parts.push(style.yellow(&format!("locked: {}", plain(reason))));
            }
        }
        (Content::Noise, _) => parts.push(style.dim("no signature, random bytes: encrypted or wiped")),
        (Content::FileSystem { .. } | Content::Recognised(_), _) => {
            parts.push(node.content_type().unwrap_or_default().to_owned());
        }
    }
    if let Some(label) = node.label().filter(|_| !matches!(node.content, Content::RaidMember { .. })) {
        parts.push(format!("\"{}\"", plain(&String::from_utf8_lossy(label))));
    }
    let has_own_uuid =
        matches!(node.content, Content::FileSystem { .. } | Content::Recognised(_) | Content::Encrypted(_));
    if let Some(uuid) = node.uuid().filter(|_| has_own_uuid) {
        parts.push(style.dim(&plain(uuid)));
    }
    parts.join("  ")
}
