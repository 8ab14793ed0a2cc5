//! A new, empty qcow2 image: version 3, 16-bit refcounts.
//!
//! In this order, each in whole clusters: header, refcount table, refcount blocks, L1 table. The header is
//! written last: a cut before that leaves a file that is no image.

use blockdev::BlockDeviceMut;
use ondisk::{Error, Result};
use zerocopy::IntoBytes;

use super::geometry::{ClusterBits, length_of};
use super::header::{MAGIC, MAX_BACKING_NAME, RawHeader, encode_extensions, extension};
use super::{Backing, Extension};

const STRUCTURE: &str = "qcow2 image";

/// log2 of the width of refcounts in bits.
const REFCOUNT_ORDER: u32 = 4;

/// QEMU's bound on the bytes of an L1 table.
const MAX_L1_SIZE: u64 = 32 << 20;

/// What a new image is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateOptions {
    /// Length of the disk in bytes; rounded up to whole sectors of 512, for QEMU does not see the rest.
    pub size: u64,
    /// log2 of the cluster size in bytes, 9..=21.
    pub cluster_bits: u32,
    /// The file below; its format should be stated, for what is not stated cannot be trusted.
    pub backing: Option<Backing>,
    /// Kept in the header for whoever knows them. The extension with the backing format is made here.
    pub extensions: Vec<Extension>,
}

impl CreateOptions {
    /// A disk of `size` bytes with clusters of 64 KiB.
    pub fn new(size: u64) -> Self {
        Self { size, cluster_bits: 16, backing: None, extensions: Vec::new() }
    }
}

/// Writes an empty image to `device`, which must be empty and able to grow.
///
/// # Errors
/// [`Error::Unsupported`] for options that no image can have, or a device that is not empty, before anything
/// is written; [`Error::Write`].
pub fn create(device: &dyn BlockDeviceMut, options: &CreateOptions) -> Result<()> {
    if device.size() != 0 {
        return Err(unsupported("creation over existing content"));
    }
    let layout = Layout::new(options)?;
    let header = encode_header(options, &layout)?;
    let put = |bytes: &[u8], cluster: u64| {
        let offset = cluster.saturating_mul(layout.cluster_bits.size());
        let failed = |source| Error::Write { offset, length: length_of(bytes), source };
        device.write_all_at(bytes, offset).map_err(failed)
    };
    let settled = |source| Error::Write { offset: 0, length: layout.file_size(), source };
    device.grow(layout.file_size()).map_err(settled)?;
    put(&layout.refcount_table(), 1)?;
    put(&layout.refcount_blocks(), layout.first_block())?;
    // What grew reads as zeros, which is what an empty L1 table is.
    device.flush().map_err(settled)?;
    put(&header, 0)?;
    device.flush().map_err(settled)
}

/// How long the disk is, and how many clusters each structure takes.
#[derive(Debug)]
struct Layout {
    /// Length of the disk in bytes.
    size: u64,
    cluster_bits: ClusterBits,
    table: u64,
    blocks: u64,
    l1: u64,
    l1_entries: u32,
}

impl Layout {
    fn new(options: &CreateOptions) -> Result<Self> {
        let cluster_bits = ClusterBits::new(options.cluster_bits)
            .ok_or_else(|| unsupported(format!("a cluster size of 2^{} bytes", options.cluster_bits)))?;
        let span = cluster_bits.size().saturating_mul(cluster_bits.size() / 8);
        let size = options.size.checked_next_multiple_of(512);
        let size = size.ok_or_else(|| unsupported(format!("a disk of {} bytes", options.size)))?;
        let l1_entries = size.div_ceil(span).max(1);
        if l1_entries > MAX_L1_SIZE / 8 {
            return Err(unsupported(format!(
                "a disk of {} bytes in clusters of {}",
                options.size,
                cluster_bits.size()
            )));
        }
        let l1 = cluster_bits.count(l1_entries.saturating_mul(8));
        let block_entries = cluster_bits.size() / 2;
        let (mut table, mut blocks) = (1_u64, 1_u64);
        // The blocks count themselves and the table that points to them; both only grow.
        loop {
            let total = 1_u64.saturating_add(table).saturating_add(blocks).saturating_add(l1);
            let needed_blocks = total.div_ceil(block_entries);
            let needed_table = cluster_bits.count(needed_blocks.saturating_mul(8));
            if needed_blocks <= blocks && needed_table <= table {
                break;
            }
            blocks = needed_blocks.max(blocks);
            table = needed_table.max(table);
        }
        let l1_entries = u32::try_from(l1_entries).map_err(|_| unsupported("an L1 table of this size"))?;
        Ok(Self { size, cluster_bits, table, blocks, l1, l1_entries })
    }

    fn first_block(&self) -> u64 {
        self.table.saturating_add(1)
    }

    fn first_l1(&self) -> u64 {
        self.first_block().saturating_add(self.blocks)
    }

    fn clusters(&self) -> u64 {
        self.first_l1().saturating_add(self.l1)
    }

    fn offset(&self, cluster: u64) -> u64 {
        cluster.saturating_mul(self.cluster_bits.size())
    }

    fn file_size(&self) -> u64 {
        self.offset(self.clusters())
    }

    fn refcount_table(&self) -> Vec<u8> {
        (self.first_block()..self.first_l1()).flat_map(|block| self.offset(block).to_be_bytes()).collect()
    }

    fn refcount_blocks(&self) -> Vec<u8> {
        (0..self.clusters()).flat_map(|_| 1_u16.to_be_bytes()).collect()
    }
}

/// The first cluster as far as it is not zero: header, extensions, name of the backing file.
fn encode_header(options: &CreateOptions, layout: &Layout) -> Result<Vec<u8>> {
    let mut extensions = Vec::new();
    let backing = options.backing.as_ref();
    if let Some(format) = backing.and_then(|backing| backing.format.as_ref()) {
        extensions.push(Extension { kind: extension::BACKING_FORMAT, data: format.clone().into_bytes() });
    }
    extensions.extend(options.extensions.iter().cloned());
    if extensions.iter().any(|found| found.kind == extension::END) {
        return Err(unsupported("a header extension of type 0"));
    }
    let area = encode_extensions(&extensions);
    let name = backing.map(|backing| backing.name.as_slice()).unwrap_or_default();
    let name_offset = length_of(&area).saturating_add(u64::try_from(size_of::<RawHeader>()).unwrap_or(112));
    let end = name_offset.saturating_add(length_of(name));
    if end > layout.cluster_bits.size() || length_of(name) > u64::from(MAX_BACKING_NAME) {
        return Err(unsupported(format!("a header of {end} bytes with a name of {}", name.len())));
    }
    let raw = RawHeader {
        magic: MAGIC,
        version: 3.into(),
        backing_file_offset: if name.is_empty() { 0.into() } else { name_offset.into() },
        backing_file_size: u32::try_from(name.len()).unwrap_or(0).into(),
        cluster_bits: options.cluster_bits.into(),
        size: layout.size.into(),
        crypt_method: 0.into(),
        l1_size: layout.l1_entries.into(),
        l1_table_offset: layout.offset(layout.first_l1()).into(),
        refcount_table_offset: layout.offset(1).into(),
        refcount_table_clusters: u32::try_from(layout.table).unwrap_or(u32::MAX).into(),
        nb_snapshots: 0.into(),
        snapshots_offset: 0.into(),
        incompatible_features: 0.into(),
        compatible_features: 0.into(),
        autoclear_features: 0.into(),
        refcount_order: REFCOUNT_ORDER.into(),
        header_length: u32::try_from(size_of::<RawHeader>()).unwrap_or(112).into(),
        compression_type: 0,
        padding: [0; 7],
    };
    let mut bytes = raw.as_bytes().to_vec();
    bytes.extend_from_slice(&area);
    bytes.extend_from_slice(name);
    Ok(bytes)
}

fn unsupported(feature: impl Into<String>) -> Error {
    Error::unsupported(STRUCTURE, feature)
}
