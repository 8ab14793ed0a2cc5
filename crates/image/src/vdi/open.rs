//! From a file to a disk, with a description of the layer.

use std::sync::Arc;

use blockdev::Device;
use ondisk::{Error, Guid};

use super::check::check;
use super::create::create;
use super::header::{Header, ImageType, SIGNATURE, STRUCTURE};
use super::slots::Slots;
use crate::blocks::{Disk, Layout, Writer, survey};
use crate::open::{Opening, Source};
use crate::{Head, ImageFormat, Layer, LayerDisk, Mode, ParentLink, Result};

pub(crate) static FORMAT: ImageFormat = ImageFormat {
    name: "vdi",
    qemu_name: "vdi",
    probe,
    open,
    check,
    create: Some(create),
    stream: None,
    rename_parent: None,
};

fn probe(head: &Head) -> bool {
    head.start.get(64..68) == Some(SIGNATURE.to_le_bytes().as_slice())
}

fn open(source: &Source, opening: &mut Opening<'_>) -> Result<Arc<dyn LayerDisk>> {
    let failed = source.failed(FORMAT.name);
    let file = source.device.clone();
    let header = Header::read(&*file).map_err(&failed)?;
    let link = header.has_parent().then(|| ParentLink {
        names: Vec::new(),
        format: Some(FORMAT.name.to_owned()),
        identity: Some(format!("UUID {}", header.link())),
    });
    let number = opening.push(describe(source, &header, link.clone()));
    if let Some(name) = &source.snapshot {
        return Err(source.no_snapshot(name));
    }
    let layout = header.layout();
    let writer = match source.mode {
        Mode::ReadOnly => None,
        Mode::ReadWrite => Some(writer(source, &header, &layout)?),
    };
    let backing: Option<Device> = match &link {
        Some(link) if opening.options.below.is_some() && number == 0 => Some(opening.parent(source, link)?),
        Some(_) => {
            let feature = format!(
                "a differencing disk over the image with UUID {} (the format does not say which file that is)",
                header.link()
            );
            return Err(failed(Error::unsupported(STRUCTURE, feature)));
        }
        None => None,
    };
    let shared = opening.shared.clone();
    Ok(Arc::new(Disk { file, backing, layout, size: header.size, layer: number, shared, writer }))
}

/// Looks at every block before the first is written.
fn writer(source: &Source, header: &Header, layout: &Layout) -> Result<Writer> {
    if source.device.writable().is_none() {
        return Err(source.not_writable("it was opened read-only"));
    }
    if header.has_parent() {
        return Err(source.not_writable("writing to a differencing VDI is not supported"));
    }
    let failed = |source_error| {
        let length = u64::from(layout.entries).saturating_mul(4);
        source.failed(FORMAT.name)(Error::Io { offset: layout.table_offset, length, source: source_error })
    };
    let mut flawed = None;
    let survey =
        survey(&*source.device, layout, |block, _| flawed = flawed.or(Some(block))).map_err(failed)?;
    if let Some(block) = flawed.or(survey.stopped_at) {
        return Err(source.not_writable(format!("block {block} of its map is damaged")));
    }
    if let Some((first, second)) = survey.overlaps(layout).next() {
        let (first, second) = (first.block, second.block);
        return Err(source.not_writable(format!("its blocks {first} and {second} have the same place")));
    }
    let stored = header.raw.blocks_allocated.get();
    let highest = survey.used.last().map_or(0, |used| used.entry.saturating_add(1));
    if !(highest..=layout.entries).contains(&stored) {
        let reason = format!("its header counts {stored} blocks, expected {highest} to {}", layout.entries);
        return Err(source.not_writable(reason));
    }
    Ok(Writer::new(Box::new(Slots::new(layout, &survey, stored))))
}

fn describe(source: &Source, header: &Header, parent: Option<ParentLink>) -> Layer {
    let raw = &header.raw;
    let kind = match header.image_type {
        ImageType::Dynamic => "dynamic",
        ImageType::Static => "static",
        ImageType::Undo => "undo",
        ImageType::Differencing => "differencing",
    };
    let mut features = vec![
        "version 1.1".to_owned(),
        kind.to_owned(),
        format!("block size {}", header.block_size.bytes()),
        format!("{} of {} blocks allocated", raw.blocks_allocated, raw.blocks_in_image),
    ];
    if raw.block_extra.get() != 0 {
        features.push(format!("{} bytes before each block", raw.block_extra));
    }
    let mut notes = Vec::new();
    if raw.disk_size.get() != header.size {
        notes.push(format!(
            "{} bytes are not a whole number of 512-byte sectors; the disk is shown with {}",
            raw.disk_size, header.size
        ));
    }
    if header.has_parent() {
        let state = Guid::from_mixed_endian(raw.uuid_parent);
        notes.push(format!("made from its parent when the UUID of that one's last change was {state}"));
    }
    Layer {
        virtual_size: header.size,
        features,
        notes,
        identity: Some(header.identity()),
        parent,
        ..source.layer(FORMAT.name)
    }
}
