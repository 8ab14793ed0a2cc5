//! What is on the disks, as a tree.

use std::io::{self, Write};

use storage::{Content, Node, NodeId, NodeKind};

use super::{Style, plain, size};
use crate::Examination;
use crate::cli::input::Disks;

/// Disks, what lies on them, the volume groups, and the installed systems.
pub(crate) fn print(
    out: &mut dyn Write,
    disks: &Disks,
    examination: &Examination,
    problems: &[String],
    style: Style,
) -> io::Result<()> {
    let storage = &examination.storage;
    for (id, node) in storage.iter() {
        if let NodeKind::Disk(index) = node.kind {
            let format = disks.images.get(index).map_or("", |image| image.format());
            let title = format!("{} ({format}, {})", plain(&disks.name(index)), size(node.size));
            writeln!(out, "{} {}", style.bold(&title), content(node, style))?;
            branch(out, examination, id, "", style)?;
        }
    }
    for group in &storage.groups {
        let title =
            format!("volume group {} (LVM2, {} extents)", plain(&group.name), size(group.extent_size));
        writeln!(out, "{}", style.bold(&title))?;
        for pv in group.pvs.iter().filter(|pv| pv.device.is_none()) {
            writeln!(out, "{} missing physical volume {}", style.red("!"), pv.uuid)?;
        }
        let volumes: Vec<(NodeId, &Node)> = storage
            .iter()
            .filter(|(_, node)| matches!(&node.kind, NodeKind::LogicalVolume { group: g, .. } if *g == group.name))
            .collect();
        rows(out, examination, &volumes, "", style)?;
    }
    for guest in &examination.guests {
        let title = format!("system {}", plain(guest.name()));
        writeln!(out, "{} on {}", style.bold(&title), plain(&storage.node(guest.root).path))?;
        for (index, mount) in guest.mounts.iter().enumerate() {
            let mark = if index + 1 == guest.mounts.len() { "└─" } else { "├─" };
            let line = mount.line.map_or_else(String::new, |line| format!(" (fstab line {line})"));
            writeln!(
                out,
                "{mark} {:<12} {}{}",
                plain(&mount.target),
                plain(&storage.node(mount.node).path),
                style.dim(&line)
            )?;
        }
    }
    if examination.guests.is_empty() {
        writeln!(out, "no installed system found")?;
    }
    for problem in problems {
        writeln!(out, "{} {}", style.yellow("!"), plain(problem))?;
    }
    Ok(())
}

fn branch(
    out: &mut dyn Write,
    examination: &Examination,
    parent: NodeId,
    indent: &str,
    style: Style,
) -> io::Result<()> {
    let children: Vec<(NodeId, &Node)> = examination
        .storage
        .children(parent)
        .filter(|(_, node)| matches!(node.kind, NodeKind::Partition(_)))
        .collect();
    rows(out, examination, &children, indent, style)
}

fn rows(
    out: &mut dyn Write,
    examination: &Examination,
    nodes: &[(NodeId, &Node)],
    indent: &str,
    style: Style,
) -> io::Result<()> {
    for (index, (id, node)) in nodes.iter().enumerate() {
        let mark = if index + 1 == nodes.len() { "└─" } else { "├─" };
        let name = node.path.rsplit('/').next().unwrap_or(&node.path);
        let used: Vec<String> = examination
            .guests
            .iter()
            .flat_map(|guest| &guest.mounts)
            .filter(|mount| mount.node == *id)
            .map(|mount| plain(&mount.target))
            .collect();
        let used =
            if used.is_empty() { String::new() } else { format!(" → {}", style.green(&used.join(", "))) };
        writeln!(
            out,
            "{indent}{mark} {:<8} {:>8}  {}{used}",
            plain(name),
            size(node.size),
            content(node, style)
        )?;
    }
    Ok(())
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
        (Content::Unknown, _) => parts.push(style.dim("nothing known")),
        (Content::FileSystem { .. } | Content::Recognised(_), _) => {
            parts.push(node.content_type().unwrap_or_default().to_owned());
        }
    }
    if let Some(label) = node.label() {
        parts.push(format!("\"{}\"", plain(&String::from_utf8_lossy(label))));
    }
    if let (Content::FileSystem { .. } | Content::Recognised(_), Some(uuid)) = (&node.content, node.uuid()) {
        parts.push(style.dim(&plain(uuid)));
    }
    parts.join("  ")
}
