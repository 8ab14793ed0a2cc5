//! From a file to a [`Disk`], with a description of the layer.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use blockdev::{BlockDevice, Device, FileDevice};
use ondisk::{Corrupt, Parsed, read_bytes};

use super::encryption::DataCipher;
use super::entry::EntryFormat;
use super::header::{Compression, Encryption, MAGIC, extension, feature};
use super::reader::Disk;
use super::snapshot::{self, Entry, Table};
use super::writer::{Writer, refusal};
use super::{CreateOptions, Header, create};
use crate::decompress::{Codec, Decompressors};
use crate::open::{Opening, Source};
use crate::{Error, Head, ImageFormat, Layer, LayerDisk, Mode, NewImage, ParentLink, Result, Role, Snapshot};

pub(crate) static FORMAT: ImageFormat = ImageFormat {
    name: "qcow2",
    qemu_name: "qcow2",
    probe,
    open,
    check: super::check::check,
    create: Some(create_file),
    stream: None,
    rename_parent: Some(super::rename::rename_parent),
};

/// The magic and a version that exists.
fn probe(head: &Head) -> bool {
    head.start.starts_with(&MAGIC) && matches!(head.start.get(4..8), Some([0, 0, 0, 2 | 3]))
}

/// A new image at `path`.
fn create_file(path: &Path, new: &NewImage) -> Result<()> {
    let size = new.cluster_size.unwrap_or(1 << 16);
    let refused = |reason: String| Error::NotCreatable { format: FORMAT.name, reason };
    if !size.is_power_of_two() {
        return Err(refused(format!("a cluster size of {size} bytes")));
    }
    if let Some(subformat) = &new.subformat {
        return Err(refused(format!("there is no subformat {subformat}")));
    }
    let options = CreateOptions { cluster_bits: size.ilog2(), ..CreateOptions::new(new.size) };
    let file =
        FileDevice::create_new(path).map_err(|source| Error::Open { path: path.to_owned(), source })?;
    create(&file, &options).map_err(|error| refused(error.to_string()))
}

fn open(source: &Source, opening: &mut Opening<'_>) -> Result<Arc<dyn LayerDisk>> {
    let failed = source.failed(FORMAT.name);
    let file = source.device.clone();
    let Parsed { value: header, mut problems } = Header::read(&*file).map_err(&failed)?;
    let mut snapshots = snapshot::read_table(&*file, &header);
    problems.append(&mut snapshots.problems);
    let snapshots = snapshots.value;

    let chosen = match &source.snapshot {
        Some(name) => Some(find(&snapshots.entries, name).ok_or_else(|| source.no_snapshot(name))?),
        None => None,
    };
    let size = chosen.and_then(|entry| entry.virtual_size).unwrap_or(header.size);
    let link = header.backing.as_ref().map(|backing| ParentLink {
        names: vec![backing.name.clone()],
        format: backing.format.clone(),
        identity: None,
    });
    let described = describe(source, &header, &snapshots.entries);
    let layer = Layer { virtual_size: size, parent: link.clone(), ..described };
    let number = opening.push(layer);
    let l1_offset = chosen.map_or(header.l1_offset, |entry| entry.l1_offset);
    let l1_entries = chosen.map_or(header.l1_entries, |entry| entry.l1_entries);
    let l1 = read_l1(&*file, &header, size, l1_offset, l1_entries).map_err(&failed)?;
    let writer = match source.mode {
        Mode::ReadOnly => None,
        Mode::ReadWrite => Some(writer(source, &header, &l1, &snapshots, &problems)?),
    };
    for problem in problems {
        opening.report(problem);
    }
    let encryption = DataCipher::open(source, &header, opening.options.passphrase)?;
    let data = match header.has(feature::DATA_FILE) {
        true => Some(open_data_file(source, &header, number, opening)?),
        false => None,
    };
    let backing: Option<Device> = match &link {
        Some(link) => Some(opening.parent(source, link)?),
        None => None,
    };
    Ok(Arc::new(Disk {
        file,
        data,
        backing,
        entries: EntryFormat {
            cluster_bits: header.cluster_bits,
            version: header.version,
            is_extended: header.has(feature::EXTENDED_L2),
            has_data_file: header.has(feature::DATA_FILE),
        },
        l1: l1.into_iter().map(AtomicU64::new).collect(),
        l1_offset,
        size,
        layer: number,
        shared: opening.shared.clone(),
        encryption,
        decompressors: Decompressors::new(match header.compression {
            Compression::Deflate => Codec::Deflate,
            Compression::Zstd => Codec::Zstd,
        }),
        writer,
    }))
}

/// Everything that can forbid writing is looked at before the image counts as open.
fn writer(
    source: &Source,
    header: &Header,
    l1: &[u64],
    snapshots: &Table,
    problems: &[ondisk::Error],
) -> Result<Writer> {
    if source.device.writable().is_none() {
        return Err(source.not_writable("it was opened read-only"));
    }
    if let Some(reason) = refusal(header) {
        return Err(source.not_writable(reason));
    }
    if let Some(problem) = problems.first() {
        return Err(source.not_writable(problem.to_string()));
    }
    Writer::new(&source.device, header, l1, snapshots).map_err(source.failed(FORMAT.name))
}

/// The L1 table as far as a disk of `size` bytes needs it. The header was checked for the active one; the
/// table of a snapshot is checked here.
fn read_l1(
    file: &dyn BlockDevice,
    header: &Header,
    size: u64,
    offset: u64,
    entries: u32,
) -> ondisk::Result<Vec<u64>> {
    let needed = size.div_ceil(header.l2_span());
    if u64::from(entries) < needed {
        let expected = format!("at least {needed}");
        return Err(Corrupt::new("qcow2 snapshot", offset, "l1_size", expected, entries).into());
    }
    let length = usize::try_from(needed.saturating_mul(8)).unwrap_or(usize::MAX);
    let bytes = read_bytes(file, offset, length)?;
    Ok(bytes.as_chunks::<8>().0.iter().map(|entry| u64::from_be_bytes(*entry)).collect())
}

fn open_data_file(
    source: &Source,
    header: &Header,
    number: usize,
    opening: &mut Opening<'_>,
) -> Result<Device> {
    let name = header.extension(extension::DATA_FILE).filter(|name| !name.is_empty());
    let missing = || Corrupt::new("qcow2 header", 0, "data file name", "an extension that names it", "none");
    let name = name.ok_or_else(|| source.failed(FORMAT.name)(missing().into()))?;
    opening.data_file(source, number, Role::DataFile, name)
}

/// By identifier first, as `qemu-img` does, then by name.
fn find<'a>(snapshots: &'a [Entry], wanted: &str) -> Option<&'a Entry> {
    let by_id = snapshots.iter().find(|entry| entry.id == wanted);
    by_id.or_else(|| snapshots.iter().find(|entry| entry.name == wanted))
}

fn describe(source: &Source, header: &Header, snapshots: &[Entry]) -> Layer {
    let mut features =
        vec![format!("version {}", header.version), format!("cluster size {}", header.cluster_size())];
    if header.compression == Compression::Zstd {
        features.push("compression zstd".to_owned());
    }
    if let Some(encryption) = header.encryption {
        features.push(format!("encrypted, {}", if encryption == Encryption::Aes { "AES" } else { "LUKS" }));
    }
    if header.has(feature::EXTENDED_L2) {
        features.push("extended L2 entries".to_owned());
    }
    if header.has(feature::DATA_FILE) {
        features.push("external data file".to_owned());
    }
    if header.compatible_features & feature::LAZY_REFCOUNTS != 0 {
        features.push("lazy refcounts".to_owned());
    }
    if header.refcount_table.order != 4 {
        // At most 6, or the header has a problem.
        let width = 1_u64.wrapping_shl(header.refcount_table.order);
        features.push(format!("refcounts of {width} bits"));
    }
    let mut notes = Vec::new();
    if header.has(feature::DIRTY) {
        notes.push("marked dirty: it was not closed cleanly, and its refcounts may be wrong".to_owned());
    }
    if header.has(feature::CORRUPT) {
        notes.push("marked corrupt: any of its tables may be wrong".to_owned());
    }
    if header.autoclear_features & feature::BITMAPS != 0 {
        notes.push("has persistent bitmaps, which any write makes invalid".to_owned());
    }
    let snapshots = snapshots
        .iter()
        .map(|entry| Snapshot {
            id: entry.id.clone(),
            name: entry.name.clone(),
            taken: entry.taken,
            virtual_size: entry.virtual_size.unwrap_or(header.size),
            vm_state_size: entry.vm_state_size,
        })
        .collect();
    let is_encrypted = header.encryption.is_some();
    let is_marked_corrupt = header.has(feature::CORRUPT);
    Layer {
        virtual_size: header.size,
        features,
        notes,
        is_marked_corrupt,
        is_encrypted,
        snapshots,
        ..source.layer(FORMAT.name)
    }
}
