//! qcow2 header: versions, feature bits, and where every table lies.
//!
//! QEMU docs/interop/qcow2, "Header", "Additional fields" and "Header extensions". Big-endian; sizes and
//! offsets are bytes unless a field counts clusters or entries. The header, its extensions and the name of
//! the backing file lie in the first cluster.

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, Parsed, Result, be, read_bytes};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::geometry::{ClusterBits, length_of};

/// The first four bytes of every qcow2 file.
pub(crate) const MAGIC: [u8; 4] = *b"QFI\xfb";

const STRUCTURE: &str = "qcow2 header";
const EXTENSION: &str = "qcow2 header extension";

/// Bytes of a version 2 header; all that follows reads as zero there.
const V2_LENGTH: u32 = 72;
/// Fewest bytes of a version 3 header.
const V3_LENGTH: u32 = 104;

/// QEMU's bound on the bytes of an L1 table.
const MAX_L1_SIZE: u64 = 32 << 20;
/// QEMU's bound on the bytes of a refcount table.
pub(crate) const MAX_REFCOUNT_TABLE_SIZE: u64 = 8 << 20;
/// QEMU's bound on the number of snapshots.
const MAX_SNAPSHOTS: u32 = 65_536;
/// The specification's bound on the name of the backing file, in bytes.
pub(crate) const MAX_BACKING_NAME: u32 = 1023;

/// The header as stored, as far as any field is defined.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawHeader {
    /// 0x00 `QFI\xfb`.
    pub magic: [u8; 4],
    /// 0x04 2 or 3.
    pub version: be::U32,
    /// 0x08 where the backing file's name lies; 0 without one.
    pub backing_file_offset: be::U64,
    /// 0x10 bytes in that name, at most 1023.
    pub backing_file_size: be::U32,
    /// 0x14 log2 of the cluster size, 9..=21.
    pub cluster_bits: be::U32,
    /// 0x18 length of the disk in bytes.
    pub size: be::U64,
    /// 0x20 0 none, 1 AES, 2 LUKS.
    pub crypt_method: be::U32,
    /// 0x24 entries in the active L1 table.
    pub l1_size: be::U32,
    /// 0x28 cluster-aligned.
    pub l1_table_offset: be::U64,
    /// 0x30 cluster-aligned.
    pub refcount_table_offset: be::U64,
    /// 0x38 length of that table in clusters.
    pub refcount_table_clusters: be::U32,
    /// 0x3c entries in the snapshot table.
    pub nb_snapshots: be::U32,
    /// 0x40 cluster-aligned.
    pub snapshots_offset: be::U64,
    /// 0x48 bits that must be understood; from here on version 3 only.
    pub incompatible_features: be::U64,
    /// 0x50 bits that may be ignored.
    pub compatible_features: be::U64,
    /// 0x58 bits that a writer clears unless it understands them.
    pub autoclear_features: be::U64,
    /// 0x60 log2 of the width of a refcount in bits, 0..=6.
    pub refcount_order: be::U32,
    /// 0x64 bytes in the header, a multiple of 8, at least 104.
    pub header_length: be::U32,
    /// 0x68 0 deflate, 1 zstd.
    pub compression_type: u8,
    /// 0x69 zeros.
    pub padding: [u8; 7],
}
const _: () = assert!(size_of::<RawHeader>() == 112);

/// Feature bits of the header.
pub(crate) mod feature {
    /// Incompatible: refcounts may be wrong, data is not.
    pub(crate) const DIRTY: u64 = 1 << 0;
    /// Incompatible: any table may be wrong; only repair may write.
    pub(crate) const CORRUPT: u64 = 1 << 1;
    /// Incompatible: guest data lies in another file.
    pub(crate) const DATA_FILE: u64 = 1 << 2;
    /// Incompatible: compressed clusters are not deflate.
    pub(crate) const COMPRESSION: u64 = 1 << 3;
    /// Incompatible: L2 entries of 16 bytes, clusters in 32 parts.
    pub(crate) const EXTENDED_L2: u64 = 1 << 4;
    /// All incompatible bits that are understood here.
    pub(crate) const KNOWN_INCOMPATIBLE: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2;
    /// Compatible: refcounts may lag behind while the dirty bit is set.
    pub(crate) const LAZY_REFCOUNTS: u64 = 1 << 0;
    /// Autoclear: the bitmaps extension is consistent.
    pub(crate) const BITMAPS: u64 = 1 << 0;
    /// Autoclear: the data file is the disk, byte for byte.
    pub(crate) const RAW_DATA_FILE: u64 = 1 << 1;
}

/// Types of header extensions.
pub(crate) mod extension {
    pub(crate) const END: u32 = 0;
    pub(crate) const BACKING_FORMAT: u32 = 0xe279_2aca;
    pub(crate) const FEATURE_NAMES: u32 = 0x6803_f857;
    pub(crate) const DATA_FILE: u32 = 0x4441_5441;
    pub(crate) const BITMAPS: u32 = 0x2385_2875;
    pub(crate) const ENCRYPTION: u32 = 0x0537_be77;
}

/// A header extension that is kept as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// The type; unknown ones are legal and ignored.
    pub kind: u32,
    /// The content, without padding.
    pub data: Vec<u8>,
}

/// The file below this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backing {
    /// The name as stored: any bytes, relative to the folder of the image.
    pub name: Vec<u8>,
    /// The name of its format, if stated.
    pub format: Option<String>,
}

/// How compressed clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// RFC 1951, without a zlib header.
    Deflate,
    /// RFC 8878.
    Zstd,
}

/// How guest data is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encryption {
    /// AES-128-CBC with the passphrase itself as the key: QEMU's first method, long obsolete.
    Aes,
    /// As LUKS version 1 does it, with the LUKS header in clusters of its own.
    Luks,
}

/// What the checks of single fields return.
type Checked = std::result::Result<(), Corrupt>;

/// Where the refcount table says it is; checked by those who write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RefcountTable {
    pub(crate) offset: u64,
    pub(crate) clusters: u32,
    /// log2 of the width of one refcount in bits, 0..=6.
    pub(crate) order: u32,
}

/// A header with which the disk can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    pub(crate) cluster_bits: ClusterBits,
    /// Length of the disk in bytes.
    pub size: u64,
    /// The file below, if any.
    pub backing: Option<Backing>,
    /// Of compressed clusters.
    pub compression: Compression,
    /// Of guest data, if any.
    pub encryption: Option<Encryption>,
    /// The bits as stored; none that is unknown.
    pub incompatible_features: u64,
    /// The bits as stored.
    pub compatible_features: u64,
    /// The bits as stored.
    pub autoclear_features: u64,
    /// In stored order, known ones included.
    pub extensions: Vec<Extension>,
    pub(crate) l1_offset: u64,
    /// Entries, at least as many as `size` needs.
    pub(crate) l1_entries: u32,
    pub(crate) refcount_table: RefcountTable,
    pub(crate) snapshots_offset: u64,
    pub(crate) snapshots: u32,
}

impl Header {
    /// Reads and judges the header of `device`. Problems are those that do not prevent reading the disk.
    ///
    /// # Errors
    /// Damage that makes the disk unreadable; [`Error::Unsupported`] for unknown versions and features.
    pub fn read(device: &dyn BlockDevice) -> Result<Parsed<Self>> {
        let start = read_start(device, u64::from(V2_LENGTH).max(512))?;
        let raw = decode_raw(&start)?;
        let cluster_bits = decode_cluster_bits(&raw)?;
        let cluster = read_start(device, cluster_bits.size())?;
        Self::decode(&raw, cluster_bits, &cluster, device.size())
    }

    /// Bytes in a cluster.
    pub fn cluster_size(&self) -> u64 {
        self.cluster_bits.size()
    }

    /// The content of the first extension of this type.
    pub fn extension(&self, kind: u32) -> Option<&[u8]> {
        self.extensions.iter().find(|found| found.kind == kind).map(|found| found.data.as_slice())
    }

    pub(crate) fn has(&self, incompatible: u64) -> bool {
        self.incompatible_features & incompatible != 0
    }

    /// Bytes of the disk that one L2 table maps.
    pub(crate) fn l2_span(&self) -> u64 {
        let entries =
            if self.has(feature::EXTENDED_L2) { self.cluster_size() / 16 } else { self.cluster_size() / 8 };
        // At most 2^21 * 2^18.
        self.cluster_size().saturating_mul(entries)
    }

    fn decode(
        raw: &RawHeader,
        cluster_bits: ClusterBits,
        cluster: &[u8],
        file_size: u64,
    ) -> Result<Parsed<Self>> {
        let mut problems = Vec::new();
        let header_length = header_length(raw, cluster_bits)?;
        let extensions = decode_extensions(raw, header_length, cluster, &mut problems);
        check_incompatible(raw, &extensions)?;
        let backing = decode_backing(raw, cluster, &extensions)?;
        let mut header = Self {
            version: raw.version.get(),
            cluster_bits,
            size: raw.size.get(),
            backing,
            compression: compression(raw)?,
            encryption: encryption(raw)?,
            incompatible_features: raw.incompatible_features.get(),
            compatible_features: raw.compatible_features.get(),
            autoclear_features: raw.autoclear_features.get(),
            extensions,
            l1_offset: raw.l1_table_offset.get(),
            l1_entries: raw.l1_size.get(),
            refcount_table: RefcountTable {
                offset: raw.refcount_table_offset.get(),
                clusters: raw.refcount_table_clusters.get(),
                order: raw.refcount_order.get(),
            },
            snapshots_offset: raw.snapshots_offset.get(),
            snapshots: raw.nb_snapshots.get(),
        };
        check_extended_l2(&header)?;
        check_l1(&header, file_size)?;
        if let Err(problem) = check_refcount_table(&header, file_size) {
            problems.push(problem.into());
        }
        if let Err(problem) = check_snapshots(&header, file_size) {
            problems.push(problem.into());
            header.snapshots = 0;
        }
        if let Err(problem) = check_raw_data_file(&header) {
            problems.push(problem.into());
        }
        Ok(Parsed { value: header, problems })
    }
}

/// The first `length` bytes of `device`, or all there are.
fn read_start(device: &dyn BlockDevice, length: u64) -> Result<Vec<u8>> {
    let length = device.size().min(length);
    read_bytes(device, 0, usize::try_from(length).unwrap_or(0))
}

/// The fields that this version has; the others read as zero, as the specification wants.
fn decode_raw(start: &[u8]) -> Result<RawHeader> {
    let mut padded = [0; size_of::<RawHeader>()];
    for (to, from) in padded.iter_mut().zip(start) {
        *to = *from;
    }
    let whole: RawHeader = zerocopy::transmute!(padded);
    if whole.magic != MAGIC {
        return Err(corrupt("magic", "`QFI\\xfb`", format_args!("{:02x?}", whole.magic)).into());
    }
    let length = match whole.version.get() {
        2 => V2_LENGTH,
        3 if whole.header_length.get() < V3_LENGTH => {
            return Err(corrupt("header_length", "at least 104", whole.header_length).into());
        }
        3 => whole.header_length.get(),
        version => return Err(Error::unsupported(STRUCTURE, format!("version {version}"))),
    };
    if length_of(start) < u64::from(length.min(112)) {
        return Err(corrupt("header", format_args!("{length} bytes"), length_of(start)).into());
    }
    let fields = usize::try_from(length).unwrap_or(usize::MAX);
    padded.iter_mut().skip(fields).for_each(|byte| *byte = 0);
    let mut raw: RawHeader = zerocopy::transmute!(padded);
    if raw.version.get() == 2 {
        raw.refcount_order = 4.into();
        raw.header_length = V2_LENGTH.into();
    }
    Ok(raw)
}

fn corrupt(field: &'static str, expected: impl std::fmt::Display, found: impl std::fmt::Display) -> Corrupt {
    Corrupt::new(STRUCTURE, 0, field, expected, found)
}

fn decode_cluster_bits(raw: &RawHeader) -> Result<ClusterBits> {
    let bits = raw.cluster_bits.get();
    match ClusterBits::new(bits) {
        Some(bits) => Ok(bits),
        None if bits > 21 && bits < 64 => {
            Err(Error::unsupported(STRUCTURE, format!("a cluster size of 2^{bits} bytes")))
        }
        None => Err(corrupt("cluster_bits", "9..=21", bits).into()),
    }
}

fn header_length(raw: &RawHeader, cluster_bits: ClusterBits) -> Result<u32> {
    let length = raw.header_length.get();
    if !length.is_multiple_of(8) || u64::from(length) > cluster_bits.size() {
        let expected = format_args!("a multiple of 8 up to {}", cluster_bits.size()).to_string();
        return Err(corrupt("header_length", expected, length).into());
    }
    Ok(length)
}

/// Walks the extensions to their end mark. A broken one ends the walk and is a problem: what was found before
/// it stays.
fn decode_extensions(
    raw: &RawHeader,
    header_length: u32,
    cluster: &[u8],
    problems: &mut Vec<Error>,
) -> Vec<Extension> {
    let area_end = match raw.backing_file_offset.get() {
        0 => length_of(cluster),
        name => name.min(length_of(cluster)),
    };
    let mut extensions = Vec::new();
    let mut at = u64::from(header_length);
    // Fewer than eight bytes leave no room for another, and need no end mark.
    while at.saturating_add(8) <= area_end {
        let word = |offset: u64| {
            let start = usize::try_from(offset).ok()?;
            cluster.get(start..)?.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes))
        };
        let (Some(kind), Some(length)) = (word(at), word(at.saturating_add(4))) else { break };
        if kind == extension::END {
            break;
        }
        let start = at.saturating_add(8);
        let end = start.saturating_add(u64::from(length));
        if end > area_end {
            let expected = format!("at most {} bytes", area_end.saturating_sub(start));
            problems.push(Corrupt::new(EXTENSION, at, "length", expected, length).into());
            break;
        }
        let range = usize::try_from(start).unwrap_or(usize::MAX)..usize::try_from(end).unwrap_or(usize::MAX);
        extensions.push(Extension { kind, data: cluster.get(range).unwrap_or_default().to_vec() });
        at = end.next_multiple_of(8);
    }
    extensions
}

/// Refuses unknown bits, by the name that the image itself gives them where it does.
fn check_incompatible(raw: &RawHeader, extensions: &[Extension]) -> Result<()> {
    let unknown = raw.incompatible_features.get() & !feature::KNOWN_INCOMPATIBLE;
    if unknown == 0 {
        return Ok(());
    }
    let names: Vec<String> = (0..64_u8)
        .filter(|bit| unknown.checked_shr(u32::from(*bit)).is_some_and(|rest| rest & 1 == 1))
        .map(|bit| feature_name(extensions, bit).unwrap_or_else(|| format!("bit {bit}")))
        .collect();
    Err(Error::unsupported(STRUCTURE, format!("the incompatible feature {}", names.join(", "))))
}

/// What the image's own table of names calls incompatible feature `bit`.
fn feature_name(extensions: &[Extension], bit: u8) -> Option<String> {
    let table = extensions.iter().find(|found| found.kind == extension::FEATURE_NAMES)?;
    let entry = table.data.chunks_exact(48).find(|entry| entry.starts_with(&[0, bit]))?;
    let name = entry.get(2..)?.split(|byte| *byte == 0).next()?;
    let name: String = String::from_utf8_lossy(name).chars().filter(|c| !c.is_control()).collect();
    (!name.is_empty()).then(|| format!("`{name}`"))
}

fn encryption(raw: &RawHeader) -> Result<Option<Encryption>> {
    match raw.crypt_method.get() {
        0 => Ok(None),
        1 => Ok(Some(Encryption::Aes)),
        2 => Ok(Some(Encryption::Luks)),
        other => Err(corrupt("crypt_method", "0, 1 or 2", other).into()),
    }
}

fn compression(raw: &RawHeader) -> Result<Compression> {
    let is_announced = raw.incompatible_features.get() & feature::COMPRESSION != 0;
    match (raw.compression_type, is_announced) {
        (0, false) => Ok(Compression::Deflate),
        (1, true) => Ok(Compression::Zstd),
        (0 | 1, _) => {
            let expected =
                if is_announced { "1, as incompatible bit 3 says" } else { "0 without incompatible bit 3" };
            Err(corrupt("compression_type", expected, raw.compression_type).into())
        }
        (other, _) => Err(Error::unsupported(STRUCTURE, format!("compression type {other}"))),
    }
}

fn decode_backing(raw: &RawHeader, cluster: &[u8], extensions: &[Extension]) -> Result<Option<Backing>> {
    let offset = raw.backing_file_offset.get();
    let length = raw.backing_file_size.get();
    if offset == 0 || length == 0 {
        return Ok(None);
    }
    if length > MAX_BACKING_NAME {
        return Err(corrupt("backing_file_size", "at most 1023", length).into());
    }
    let name = offset
        .checked_add(u64::from(length))
        .and_then(|end| Some(usize::try_from(offset).ok()?..usize::try_from(end).ok()?))
        .and_then(|range| cluster.get(range))
        .ok_or_else(|| corrupt("backing_file_offset", "a name within the first cluster", offset))?;
    let format = extensions
        .iter()
        .find(|found| found.kind == extension::BACKING_FORMAT)
        .map(|found| String::from_utf8_lossy(&found.data).into_owned())
        .filter(|format| !format.is_empty());
    Ok(Some(Backing { name: name.to_vec(), format }))
}

fn check_extended_l2(header: &Header) -> Result<()> {
    let bits = header.cluster_bits.bits();
    if header.has(feature::EXTENDED_L2) && bits < 14 {
        return Err(corrupt("cluster_bits", "at least 14 with extended L2 entries", bits).into());
    }
    Ok(())
}

/// The L1 table must cover the disk and lie in the file.
fn check_l1(header: &Header, file_size: u64) -> Result<()> {
    let entries = u64::from(header.l1_entries);
    let needed = header.size.div_ceil(header.l2_span());
    if needed > MAX_L1_SIZE / 8 {
        return Err(Error::unsupported(STRUCTURE, format!("a disk of {} bytes", header.size)));
    }
    if entries < needed {
        return Err(corrupt("l1_size", format_args!("at least {needed}"), entries).into());
    }
    // Entries past the disk hold the state of a virtual machine; they are never read.
    check_table(header, "l1_table_offset", header.l1_offset, needed.saturating_mul(8), file_size)?;
    Ok(())
}

fn check_refcount_table(header: &Header, file_size: u64) -> Checked {
    let RefcountTable { offset, clusters, order } = header.refcount_table;
    if order > 6 {
        return Err(corrupt("refcount_order", "0..=6", order));
    }
    let length = u64::from(clusters).saturating_mul(header.cluster_size());
    if clusters == 0 || length > MAX_REFCOUNT_TABLE_SIZE {
        let expected = format!("1..={}", MAX_REFCOUNT_TABLE_SIZE.div_ceil(header.cluster_size()));
        return Err(corrupt("refcount_table_clusters", expected, clusters));
    }
    check_table(header, "refcount_table_offset", offset, length, file_size)
}

fn check_snapshots(header: &Header, file_size: u64) -> Checked {
    if header.snapshots > MAX_SNAPSHOTS {
        return Err(corrupt("nb_snapshots", format_args!("at most {MAX_SNAPSHOTS}"), header.snapshots));
    }
    // The shortest entry has 40 bytes.
    let length = u64::from(header.snapshots).saturating_mul(40);
    check_table(header, "snapshots_offset", header.snapshots_offset, length, file_size)
}

/// A table must start at a cluster, after the header's own, and end within the file.
fn check_table(header: &Header, field: &'static str, offset: u64, length: u64, file_size: u64) -> Checked {
    if length == 0 {
        return Ok(());
    }
    let ends_in_file = offset.checked_add(length).is_some_and(|end| end <= file_size);
    if offset == 0 || !header.cluster_bits.is_aligned(offset) || !ends_in_file {
        let expected =
            format!("a multiple of {} with {length} bytes before {file_size}", header.cluster_size());
        return Err(corrupt(field, expected, offset));
    }
    Ok(())
}

fn check_raw_data_file(header: &Header) -> Checked {
    if header.autoclear_features & feature::RAW_DATA_FILE == 0 {
        return Ok(());
    }
    let found = format!("{:#x}", header.autoclear_features);
    if !header.has(feature::DATA_FILE) {
        return Err(corrupt("autoclear_features", "no raw data file without a data file", found));
    }
    if header.backing.is_some() {
        return Err(corrupt("autoclear_features", "no raw data file together with a backing file", found));
    }
    Ok(())
}

/// The bytes of an extension area, with its end mark.
pub(crate) fn encode_extensions(extensions: &[Extension]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Extension { kind, data } in extensions {
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes.extend_from_slice(&[0; 8]);
    bytes
}

#[cfg(test)]
mod tests {
    use blockdev::MemoryDevice;

    use super::super::{CreateOptions, create};
    use super::*;

    /// A new image over a raw backing file.
    fn good() -> Vec<u8> {
        let device = MemoryDevice::new([]);
        let backing = Backing { name: b"base.raw".to_vec(), format: Some("raw".to_owned()) };
        create(&device, &CreateOptions { backing: Some(backing), ..CreateOptions::new(1 << 30) }).unwrap();
        device.to_vec()
    }

    /// What is said of the good image with `bytes` at `at`.
    fn read(at: usize, bytes: &[u8]) -> std::result::Result<Parsed<Header>, String> {
        let mut image = good();
        image[at..at + bytes.len()].copy_from_slice(bytes);
        Header::read(&MemoryDevice::new(image)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_good_header() {
        let Parsed { value: header, problems } = read(0, b"Q").unwrap();
        assert!(problems.is_empty());
        assert_eq!((header.version, header.size, header.cluster_size()), (3, 1 << 30, 65_536));
        let expected = Backing { name: b"base.raw".to_vec(), format: Some("raw".to_owned()) };
        assert_eq!(header.backing, Some(expected));
        assert_eq!((header.l1_offset, header.l1_entries), (0x30000, 2));
    }

    #[test]
    fn one_wrong_field_each_is_fatal() {
        let fatal: [(usize, &[u8], &str); 19] = [
            (0, b"q", "magic is"),
            (7, &[4], "version 4 is not supported"),
            (7, &[1], "version 1 is not supported"),
            (8, &[0xff], "backing_file_offset"),
            (18, &[4], "backing_file_size is 1032, expected at most 1023"),
            (23, &[8], "cluster_bits is 8, expected 9..=21"),
            (23, &[22], "a cluster size of 2^22 bytes is not supported"),
            (20, &[0xff], "cluster_bits is 4278190096"),
            (24, &[0xff], "a disk of 18374686480745365504 bytes is not supported"),
            (28, &[0xff], "l1_size is 2, expected at least 8"),
            (35, &[3], "crypt_method is 3"),
            (39, &[1], "l1_size is 1, expected at least 2"),
            (46, &[1], "l1_table_offset is 196864"),
            (40, &[1], "l1_table_offset"),
            (79, &[0x20], "the incompatible feature bit 5 is not supported"),
            (79, &[8], "compression_type is 0, expected 1, as incompatible bit 3 says"),
            (103, &[96], "header_length is 96, expected at least 104"),
            (103, &[113], "header_length is 113, expected a multiple of 8"),
            (104, &[2], "compression type 2 is not supported"),
        ];
        for (at, bytes, expected) in fatal {
            let said = read(at, bytes).unwrap_err();
            assert!(said.contains(expected), "byte {at}: {said}");
        }
        let small = [&[0, 0, 0, 12][..], &(1_u64 << 20).to_be_bytes()].concat();
        let mut image = good();
        image[20..32].copy_from_slice(&small);
        image[79] = 0x10;
        let said = Header::read(&MemoryDevice::new(image)).unwrap_err().to_string();
        assert!(said.contains("cluster_bits is 12, expected at least 14"), "{said}");
    }

    #[test]
    fn what_reading_does_not_need_is_a_problem() {
        let problems: [(usize, &[u8], &str); 8] = [
            (54, &[1], "refcount_table_offset"),
            (48, &[1], "refcount_table_offset"),
            (59, &[0], "refcount_table_clusters is 0, expected 1..=128"),
            (56, &[1], "refcount_table_clusters"),
            (60, &[1], "nb_snapshots"),
            (63, &[1], "snapshots_offset is 0"),
            (95, &[2], "no raw data file without a data file"),
            (99, &[7], "refcount_order is 7"),
        ];
        for (at, bytes, expected) in problems {
            let parsed = read(at, bytes).unwrap();
            let said: Vec<String> = parsed.problems.iter().map(ToString::to_string).collect();
            assert!(said.len() == 1 && said[0].contains(expected), "byte {at}: {said:?}");
            assert_eq!(parsed.value.snapshots, 0);
        }
        // The length of the first extension.
        let parsed = read(116, &[0, 1]).unwrap();
        assert_eq!(
            parsed.problems[0].to_string(),
            "qcow2 header extension at byte 112: length is 65539, expected at most 16 bytes"
        );
    }

    #[test]
    fn version_2_ends_early() {
        let mut image = good();
        image[7] = 2;
        image[8..16].fill(0);
        image[72..112].fill(0xff);
        image[72..80].fill(0);
        let header = Header::read(&MemoryDevice::new(image)).unwrap();
        assert!(header.problems.is_empty() && header.value.extensions.is_empty());
        assert_eq!((header.value.incompatible_features, header.value.refcount_table.order), (0, 4));
    }

    #[test]
    fn any_length_of_file_is_an_answer() {
        let image = good();
        for length in (0..200).chain([511, 512, 0x10000, 0x30000, 0x3000f, 0x30010]) {
            let read = Header::read(&MemoryDevice::new(&image[..length]));
            assert_eq!(read.is_ok(), length >= 0x30010, "{length}");
        }
    }
}
