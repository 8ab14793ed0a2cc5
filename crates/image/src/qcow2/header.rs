//! The header, its extensions, and the backing file name.

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, Result, be, read_bytes};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// "QFI\xfb".
pub(crate) const MAGIC: [u8; 4] = *b"QFI\xfb";
/// The header extension that names the format of the backing file.
pub(crate) const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
/// The largest L1 table that QEMU opens, in bytes.
const MAX_L1: u64 = 32 << 20;
/// The largest refcount table that QEMU opens, in bytes.
const MAX_REFCOUNT_TABLE: u64 = 8 << 20;
/// The longest backing file name, in bytes.
const MAX_BACKING_NAME: u32 = 1023;

/// The header as stored. Version 2 ends before `incompatible_features`.
#[derive(Debug, Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawHeader {
    /// 0x00 "QFI\xfb".
    pub magic: [u8; 4],
    /// 0x04 2 or 3.
    pub version: be::U32,
    /// 0x08 byte of the backing file name; 0 is none.
    pub backing_file_offset: be::U64,
    /// 0x10 bytes of the name, at most 1023.
    pub backing_file_size: be::U32,
    /// 0x14 log₂ of the cluster size, 9..=21.
    pub cluster_bits: be::U32,
    /// 0x18 size of the disk in bytes.
    pub size: be::U64,
    /// 0x20 0 none, 1 AES, 2 LUKS.
    pub crypt_method: be::U32,
    /// 0x24 entries of the active L1 table.
    pub l1_size: be::U32,
    /// 0x28 byte of the active L1 table.
    pub l1_table_offset: be::U64,
    /// 0x30 byte of the refcount table.
    pub refcount_table_offset: be::U64,
    /// 0x38 clusters of the refcount table.
    pub refcount_table_clusters: be::U32,
    /// 0x3c internal snapshots.
    pub nb_snapshots: be::U32,
    /// 0x40 byte of the snapshot table.
    pub snapshots_offset: be::U64,
    /// 0x48 bit 0 dirty, 1 corrupt, 2 external data file, 3 compression type, 4 extended L2.
    pub incompatible_features: be::U64,
    /// 0x50 bit 0 lazy refcounts.
    pub compatible_features: be::U64,
    /// 0x58 bit 0 bitmaps, 1 raw external data; a writer clears what it does not maintain.
    pub autoclear_features: be::U64,
    /// 0x60 log₂ of the bits of a refcount, 0..=6.
    pub refcount_order: be::U32,
    /// 0x64 bytes of the header, a multiple of 8.
    pub header_length: be::U32,
    /// 0x68 0 deflate, 1 zstd.
    pub compression_type: u8,
    /// 0x69 zero.
    pub padding: [u8; 7],
}
const _: () = assert!(size_of::<RawHeader>() == 112);

/// A header extension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// Its type; 0xe2792aca is the backing file's format.
    pub kind: u32,
    /// Its bytes, without padding.
    pub data: Vec<u8>,
}

/// A header whose fields agree with one another and with the file.
#[derive(Debug, Clone)]
pub struct Header {
    /// As stored, with the fields that version 2 lacks filled in.
    pub raw: RawHeader,
    /// In the order of the file.
    pub extensions: Vec<Extension>,
    /// As stored; relative to the image's folder.
    pub backing_name: Option<Vec<u8>>,
}

/// `incompatible_features`, by name.
const INCOMPATIBLE: [&str; 5] =
    ["dirty", "corrupt", "external data file", "compression type", "extended L2 entries"];
pub(crate) const DIRTY: u64 = 1;
pub(crate) const CORRUPT: u64 = 2;
const COMPRESSION_TYPE: u64 = 8;
/// What a reader must understand and this one does.
const READABLE: u64 = DIRTY | CORRUPT | COMPRESSION_TYPE;

impl Header {
    /// Reads and judges the header of `file`.
    pub(crate) fn read(file: &dyn BlockDevice) -> Result<Self> {
        let bytes = read_bytes(file, 0, 112)?;
        let mut raw =
            RawHeader::read_from_bytes(&bytes).map_err(|_| corrupt("length", "112 bytes", bytes.len()))?;
        if raw.magic != MAGIC {
            return Err(corrupt("magic", "\"QFI\\xfb\"", format!("{:02x?}", raw.magic)));
        }
        complete(&mut raw)?;
        judge(&raw, file.size())?;
        let (extensions, backing_name) = read_extensions(file, &raw)?;
        Ok(Self { raw, extensions, backing_name })
    }

    /// Bytes of a cluster.
    pub fn cluster_size(&self) -> u64 {
        1_u64.checked_shl(self.raw.cluster_bits.get()).unwrap_or(1 << 16)
    }

    /// The data of the first extension of this type.
    pub fn extension(&self, kind: u32) -> Option<&[u8]> {
        self.extensions.iter().find(|extension| extension.kind == kind).map(|found| found.data.as_slice())
    }
}

fn corrupt(field: &'static str, expected: impl std::fmt::Display, found: impl std::fmt::Display) -> Error {
    Corrupt::new("qcow2 header", 0, field, expected, found).into()
}

/// Fills in what the version or the header's length leaves out.
fn complete(raw: &mut RawHeader) -> Result<()> {
    match raw.version.get() {
        2 => {
            raw.incompatible_features = 0.into();
            raw.compatible_features = 0.into();
            raw.autoclear_features = 0.into();
            raw.refcount_order = 4.into();
            raw.header_length = 72.into();
            raw.compression_type = 0;
        }
        3 => {
            let length = raw.header_length.get();
            if length < 104 || !length.is_multiple_of(8) {
                return Err(corrupt("header_length", "a multiple of 8 from 104 on", length));
            }
            if length < 112 {
                raw.compression_type = 0;
            }
        }
        other => return Err(Error::unsupported("qcow2 header", format!("version {other}"))),
    }
    Ok(())
}

fn judge(raw: &RawHeader, file_size: u64) -> Result<()> {
    let bits = raw.cluster_bits.get();
    if !(9..=21).contains(&bits) {
        return Err(corrupt("cluster_bits", "9..=21", bits));
    }
    let features = raw.incompatible_features.get();
    let unknown = features & !READABLE;
    if unknown != 0 {
        let names: Vec<String> = (0..64_usize)
            .filter(|bit| unknown >> bit & 1 == 1)
            .map(|bit| INCOMPATIBLE.get(bit).map_or_else(|| format!("bit {bit}"), |name| (*name).to_owned()))
            .collect();
        return Err(Error::unsupported("qcow2 image", format!("incompatible feature {}", names.join(", "))));
    }
    match raw.crypt_method.get() {
        0 => {}
        1 => return Err(Error::unsupported("qcow2 image", "AES encryption")),
        2 => return Err(Error::unsupported("qcow2 image", "LUKS encryption")),
        other => return Err(corrupt("crypt_method", "0..=2", other)),
    }
    if raw.compression_type > 1 || (raw.compression_type != 0) != (features & COMPRESSION_TYPE != 0) {
        return Err(corrupt("compression_type", "one that the feature bit announces", raw.compression_type));
    }
    if raw.refcount_order.get() > 6 {
        return Err(corrupt("refcount_order", "0..=6", raw.refcount_order));
    }
    let cluster = 1_u64 << bits;
    let is_aligned = |offset: u64| offset.is_multiple_of(cluster);
    let l1_bytes = u64::from(raw.l1_size.get()).saturating_mul(8);
    let l1 = raw.l1_table_offset.get();
    if l1_bytes > MAX_L1 || !is_aligned(l1) || l1.saturating_add(l1_bytes) > file_size {
        return Err(corrupt(
            "l1_table_offset",
            "a table within the file",
            format_args!("{l1_bytes} bytes at {l1}"),
        ));
    }
    // Each L2 table holds cluster/8 entries of one cluster each.
    let needed = raw.size.get().div_ceil(cluster.saturating_mul(cluster / 8));
    if needed > u64::from(raw.l1_size.get()) {
        return Err(corrupt("l1_size", format_args!("at least {needed}"), raw.l1_size));
    }
    let table_bytes = u64::from(raw.refcount_table_clusters.get()).saturating_mul(cluster);
    if table_bytes > MAX_REFCOUNT_TABLE || !is_aligned(raw.refcount_table_offset.get()) {
        return Err(corrupt(
            "refcount_table_clusters",
            "a table of at most 8 MiB",
            raw.refcount_table_clusters,
        ));
    }
    Ok(())
}

/// The extensions up to the end mark, and the backing file name behind them.
fn read_extensions(file: &dyn BlockDevice, raw: &RawHeader) -> Result<(Vec<Extension>, Option<Vec<u8>>)> {
    let cluster = 1_u64 << raw.cluster_bits.get();
    let first = usize::try_from(cluster.min(file.size())).unwrap_or(512);
    let bytes = read_bytes(file, 0, first)?;
    let to_index = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
    let mut backing_name = None;
    let name_at = raw.backing_file_offset.get();
    if name_at != 0 {
        let length = raw.backing_file_size.get();
        let end = name_at.saturating_add(u64::from(length));
        let name = bytes.get(to_index(name_at)..to_index(end));
        match name {
            Some(name) if length <= MAX_BACKING_NAME && !name.is_empty() => {
                backing_name = Some(name.to_vec());
            }
            _ => {
                let found = format!("{length} bytes at {name_at}");
                return Err(corrupt(
                    "backing_file_offset",
                    "a name of 1..=1023 bytes in the first cluster",
                    found,
                ));
            }
        }
    }
    let mut extensions = Vec::new();
    let mut rest = bytes.get(to_index(u64::from(raw.header_length.get()))..).unwrap_or_default();
    while let Ok((head, behind)) = <[be::U32; 2]>::read_from_prefix(rest) {
        let [kind, length] = head.map(be::U32::get);
        if kind == 0 {
            break;
        }
        let length = to_index(u64::from(length));
        let Some(data) = behind.get(..length) else {
            return Err(corrupt(
                "header extension",
                "within the first cluster",
                format_args!("{length} bytes"),
            ));
        };
        extensions.push(Extension { kind, data: data.to_vec() });
        rest = behind.get(length.next_multiple_of(8)..).unwrap_or_default();
    }
    Ok((extensions, backing_name))
}
