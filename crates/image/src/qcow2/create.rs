//! A new, empty image.

use blockdev::BlockDeviceMut;
use ondisk::{Error, Result, be};
use zerocopy::IntoBytes;

use super::header::{EXTENSION_BACKING_FORMAT, Extension, MAGIC, RawHeader};

/// What a new image shall be.
#[derive(Debug, Clone)]
pub struct Options {
    /// Size of the disk in bytes.
    pub size: u64,
    /// What it stands on.
    pub backing: Option<Backing>,
    /// Further header extensions; QEMU keeps those it does not know.
    pub extensions: Vec<Extension>,
}

/// The backing file of a new image.
#[derive(Debug, Clone)]
pub struct Backing {
    /// As it shall stand in the header: relative to the image's folder, or absolute.
    pub name: Vec<u8>,
    /// `raw`, `qcow2`.
    pub format: String,
}

/// 64 KiB, as QEMU's default.
const CLUSTER_BITS: u32 = 16;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
/// Refcounts of 16 bits.
const REFCOUNT_ORDER: u32 = 4;
const HEADER_LENGTH: u32 = 112;

/// Writes an empty version 3 image into `file`, which must be empty.
///
/// Layout: header, refcount table, one refcount block, L1 table.
///
/// # Errors
/// [`Error::Unsupported`] for a disk or name that does not fit; any error of the file.
pub fn create(file: &dyn BlockDeviceMut, options: &Options) -> Result<()> {
    let l1_entries = options.size.div_ceil(CLUSTER.saturating_mul(CLUSTER / 8)).max(1);
    let l1_clusters = l1_entries.saturating_mul(8).div_ceil(CLUSTER);
    let clusters = l1_clusters.saturating_add(3);
    // One refcount block counts 32768 clusters, the file's first 2 GiB: far more than the largest L1 table.
    if l1_entries.saturating_mul(8) > 32 << 20 {
        return Err(Error::unsupported("qcow2 image", format!("a disk of {} bytes", options.size)));
    }
    let first_cluster = header_cluster(options, u32::try_from(l1_entries).unwrap_or(u32::MAX))?;
    let failed = |source| Error::Write { offset: 0, length: clusters.saturating_mul(CLUSTER), source };
    file.grow(clusters.saturating_mul(CLUSTER)).map_err(failed)?;
    let ones: Vec<u8> = (0..clusters).flat_map(|_| [0, 1]).collect();
    for (offset, bytes) in
        [(CLUSTER, be::U64::new(2 * CLUSTER).as_bytes()), (2 * CLUSTER, ones.as_slice()), (0, &first_cluster)]
    {
        file.write_all_at(bytes, offset).map_err(failed)?;
    }
    Ok(())
}

/// The header with its extensions and the backing file name.
fn header_cluster(options: &Options, l1_size: u32) -> Result<Vec<u8>> {
    let mut extensions = Vec::new();
    if let Some(backing) = &options.backing {
        let data = backing.format.as_bytes().to_vec();
        extensions.push(Extension { kind: EXTENSION_BACKING_FORMAT, data });
    }
    extensions.extend(options.extensions.iter().cloned());
    let mut tail = Vec::new();
    for extension in &extensions {
        let length = u32::try_from(extension.data.len()).unwrap_or(u32::MAX);
        tail.extend_from_slice(be::U32::new(extension.kind).as_bytes());
        tail.extend_from_slice(be::U32::new(length).as_bytes());
        tail.extend_from_slice(&extension.data);
        tail.resize(tail.len().next_multiple_of(8), 0);
    }
    tail.extend_from_slice(&[0; 8]);
    let name = options.backing.as_ref().map(|backing| backing.name.as_slice()).unwrap_or_default();
    let name_at = tail.len().saturating_add(usize::try_from(HEADER_LENGTH).unwrap_or(0));
    let end = name_at.saturating_add(name.len());
    if name.len() > 1023 || end > usize::try_from(CLUSTER).unwrap_or(0) {
        return Err(Error::unsupported(
            "qcow2 image",
            format!("a backing file name of {} bytes", name.len()),
        ));
    }
    let raw = RawHeader {
        magic: MAGIC,
        version: 3.into(),
        backing_file_offset: if name.is_empty() { 0 } else { u64::try_from(name_at).unwrap_or(0) }.into(),
        backing_file_size: u32::try_from(name.len()).unwrap_or(0).into(),
        cluster_bits: CLUSTER_BITS.into(),
        size: options.size.into(),
        crypt_method: 0.into(),
        l1_size: l1_size.into(),
        l1_table_offset: (3 * CLUSTER).into(),
        refcount_table_offset: CLUSTER.into(),
        refcount_table_clusters: 1.into(),
        nb_snapshots: 0.into(),
        snapshots_offset: 0.into(),
        incompatible_features: 0.into(),
        compatible_features: 0.into(),
        autoclear_features: 0.into(),
        refcount_order: REFCOUNT_ORDER.into(),
        header_length: HEADER_LENGTH.into(),
        compression_type: 0,
        padding: [0; 7],
    };
    let mut cluster = raw.as_bytes().to_vec();
    cluster.extend_from_slice(&tail);
    cluster.extend_from_slice(name);
    Ok(cluster)
}
