//! From a file to a [`Disk`], with a description of the layer.

use std::sync::Arc;

use blockdev::Device;
use ondisk::{Corrupt, Error};

use super::check::{check, count};
use super::create::create_file;
use super::file_type::{self, SIGNATURE};
use super::parent_locator::{ParentLocator, identity};
use super::reader::Disk;
use super::replayed::Replayed;
use super::structures::Structures;
use super::writer::Writer;
use crate::open::{Opening, Source};
use crate::{Head, ImageFormat, Layer, LayerDisk, Mode, ParentLink, Result};

pub(crate) static FORMAT: ImageFormat = ImageFormat {
    name: "vhdx",
    qemu_name: "vhdx",
    probe,
    open,
    check,
    create: Some(create_file),
    stream: None,
    rename_parent: Some(super::rename::rename_parent),
};

fn probe(head: &Head) -> bool {
    head.start.starts_with(&SIGNATURE)
}

fn open(source: &Source, opening: &mut Opening<'_>) -> Result<Arc<dyn LayerDisk>> {
    let failed = source.failed(FORMAT.name);
    let file = source.device.clone();
    let mut structures = Structures::read(&file).map_err(&failed)?;
    let layer = describe(source, &structures).map_err(&failed)?;
    let number = opening.push(layer);
    if let Some(name) = &source.snapshot {
        return Err(source.no_snapshot(name));
    }
    let writer = match source.mode {
        Mode::ReadOnly => None,
        Mode::ReadWrite if file.writable().is_none() => {
            return Err(source.not_writable("it was opened read-only"));
        }
        Mode::ReadWrite => {
            let writer = Writer::new(&file, &structures).map_err(&failed)?;
            Some(writer.map_err(|reason| source.not_writable(reason))?)
        }
    };
    let problems = std::mem::take(&mut structures.problems);
    for problem in problems.into_iter().chain(std::mem::take(&mut structures.redundant)) {
        opening.report(problem);
    }
    let parent = match &structures.metadata.parent {
        Some(locator) => Some(open_parent(source, &structures, locator, opening)?),
        None => None,
    };
    let overlay = structures.replay.map(|replay| replay.overlay);
    Ok(Arc::new(Disk {
        file: Replayed::new(file, overlay),
        parent,
        geometry: structures.metadata.geometry,
        bat: structures.regions.bat.start,
        taken: structures.taken,
        layer: number,
        shared: opening.shared.clone(),
        writer,
    }))
}

/// How this file names the one below it, with the usual one of the identities that it may have.
fn link(locator: &ParentLocator) -> ParentLink {
    ParentLink {
        names: locator.names(),
        format: Some(FORMAT.name.to_owned()),
        identity: locator.identities().into_iter().next(),
    }
}

fn open_parent(
    source: &Source,
    structures: &Structures,
    locator: &ParentLocator,
    opening: &mut Opening<'_>,
) -> Result<Device> {
    let at = structures.regions.metadata.start;
    let identities = locator.identities();
    if identities.is_empty() {
        let structure = "VHDX parent locator";
        opening.report(Corrupt::new(structure, at, "parent_linkage", "the identity of the parent", "none"));
    }
    let number = opening.chain.len();
    let parent = match identities.as_slice() {
        [_, _, ..] => {
            let link = ParentLink { identity: None, ..link(locator) };
            let parent = opening.parent(source, &link)?;
            opening.check_identity(source, number, &identities)?;
            parent
        }
        _ => opening.parent(source, &link(locator))?,
    };
    let (own, below) = (structures.metadata.geometry.sector_size(), u64::from(parent.sector_size()));
    if own != below && opening.chain.len() > number {
        let structure = "VHDX metadata item";
        let expected = format!("{below}, as in the parent");
        opening.report(Corrupt::new(structure, at, "Logical Sector Size", expected, own));
    }
    Ok(parent)
}

fn describe(source: &Source, structures: &Structures) -> std::result::Result<Layer, Error> {
    let metadata = &structures.metadata;
    let kind = match (&metadata.parent, metadata.is_fixed) {
        (Some(_), _) => "differencing",
        (None, true) => "fixed",
        (None, false) => "dynamic",
    };
    let mut features = vec![
        kind.to_owned(),
        format!("block size {}", metadata.geometry.block_size()),
        format!("logical sector size {}", metadata.geometry.sector_size()),
    ];
    features.extend(metadata.physical_sector_size.map(|size| format!("physical sector size {size}")));
    let creator = file_type::creator(&*source.device)?;
    if !creator.is_empty() {
        features.push(format!("made by {creator}"));
    }
    let mut notes = Vec::new();
    if let Some(replay) = &structures.replay {
        let entries = u64::try_from(replay.entries).unwrap_or(u64::MAX);
        notes.push(format!(
            "was not closed cleanly: {} in {} of its log are replayed in memory",
            count(replay.writes, "change"),
            if entries == 1 { "1 entry".to_owned() } else { format!("{entries} entries") },
        ));
    }
    Ok(Layer {
        virtual_size: metadata.geometry.size(),
        features,
        notes,
        identity: Some(identity(&structures.header.data_write.to_string())),
        parent: metadata.parent.as_ref().map(link),
        ..source.layer(FORMAT.name)
    })
}
