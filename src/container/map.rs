//! Which file of a chain holds which part of the disk.

use std::io;

use image::{Image, Layer, OwnContent};

/// A part of the disk that one layer decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// First byte on the disk.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// The layer that decides: its index in the chain. One past the last where no layer holds anything.
    pub depth: usize,
    /// What it says.
    pub content: OwnContent,
}

/// Calls `tell` with every part of the disk, in order; neighbours of one kind come together.
///
/// # Errors
/// Any error of the tables, or of `tell`.
pub fn map(image: &Image, tell: &mut dyn FnMut(Part) -> io::Result<()>) -> io::Result<()> {
    let size = image.device.size();
    let mut pending: Option<Part> = None;
    let mut at = 0;
    while at < size {
        let part = part_at(&image.chain, at, size - at)?;
        at += part.length;
        match &mut pending {
            Some(last) if joins(last, &part) => last.length += part.length,
            _ => {
                if let Some(last) = pending.replace(part) {
                    tell(last)?;
                }
            }
        }
    }
    pending.map_or(Ok(()), tell)
}

fn part_at(chain: &[Layer], start: u64, limit: u64) -> io::Result<Part> {
    let mut length = limit;
    for (depth, disk) in chain.iter().map(|layer| layer.disk.as_ref()).enumerate() {
        let Some(disk) = disk else { break };
        if start >= disk.size() {
            break;
        }
        let run = disk.own_run_at(start)?;
        length = length.min(run.length).min(disk.size() - start);
        if run.content != OwnContent::Absent {
            return Ok(Part { start, length, depth, content: run.content });
        }
    }
    Ok(Part { start, length, depth: chain.len(), content: OwnContent::Absent })
}

fn joins(last: &Part, next: &Part) -> bool {
    let follows = match (last.content, next.content) {
        (OwnContent::Stored { file: a, offset: at }, OwnContent::Stored { file: b, offset }) => {
            a == b && at.checked_add(last.length) == Some(offset)
        }
        (a, b) => a == b,
    };
    last.depth == next.depth && follows
}
