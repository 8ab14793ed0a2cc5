//! From the file of a sparse extent, of whichever kind, to its tables.

use std::ops::Range;

use blockdev::BlockDevice;
use ondisk::{Corrupt, Error, Parsed, Result, read_value};

use super::header::{self, Header, RawHeader, SECTOR, flag};
use super::stream::{End, find_end};
use super::tables::{Hosted, Scheme};
use super::{cowd, sesparse};

const STRUCTURE: &str = "VMDK sparse extent header";

/// What the headers of a sparse extent say. Bytes.
#[derive(Debug)]
pub(super) struct Sparse {
    pub(super) scheme: Scheme,
    /// Bytes in a grain.
    pub(super) grain: u64,
    /// Length of the guest data.
    pub(super) capacity: u64,
    /// Entries in a grain table.
    pub(super) table_entries: u64,
    /// How many tables there are.
    pub(super) tables: u64,
    /// The header that counts, for hosted extents.
    pub(super) header: Option<Header>,
    /// Why the extent cannot be written in place, if so.
    pub(super) refusal: Option<&'static str>,
}

/// Whether a file starts as a sparse extent of any kind.
pub(super) fn is_sparse(start: &[u8]) -> bool {
    start.starts_with(&header::MAGIC)
        || start.starts_with(&cowd::MAGIC)
        || start.starts_with(&sesparse::MAGIC)
}

/// Reads the headers of `file`.
///
/// # Errors
/// [`Corrupt`] where nothing can be read without the field; [`Error::Unsupported`]; [`Error::Io`].
pub(super) fn read(file: &dyn BlockDevice) -> Result<Parsed<Sparse>> {
    let magic: [u8; 8] = read_value(file, 0)?;
    if magic.starts_with(&cowd::MAGIC) {
        return read_cowd(file).map(Parsed::clean);
    }
    if magic == sesparse::MAGIC {
        return read_sesparse(file).map(Parsed::clean);
    }
    read_hosted(file)
}

fn read_cowd(file: &dyn BlockDevice) -> Result<Sparse> {
    let header = cowd::Header::decode(&read_value(file, 0)?)?;
    let sparse = Sparse {
        scheme: Scheme::Cowd { directory: header.directory, free: header.free },
        grain: header.grain,
        capacity: header.capacity,
        table_entries: cowd::TABLE_ENTRIES,
        tables: header.tables(),
        header: None,
        refusal: Some("COWD extents (vmfsSparse) are only read"),
    };
    let directory = header.directory..header.directory.saturating_add(sparse.tables.saturating_mul(4));
    check_in_file(file, "VMDK COWD header", "gdOffset", &directory)?;
    Ok(sparse)
}

fn read_sesparse(file: &dyn BlockDevice) -> Result<Sparse> {
    let header = sesparse::Header::read(file)?;
    let tables = header.table_count();
    let directory = header.directory..header.directory.saturating_add(tables.saturating_mul(8));
    check_in_file(file, "VMDK seSparse header", "grain directory offset", &directory)?;
    Ok(Sparse {
        grain: sesparse::GRAIN,
        capacity: header.capacity,
        table_entries: sesparse::TABLE_ENTRIES,
        tables,
        header: None,
        refusal: Some("seSparse extents are only read: their journal and maps are not published"),
        scheme: Scheme::SeSparse(header),
    })
}

fn check_in_file(
    file: &dyn BlockDevice,
    structure: &'static str,
    field: &'static str,
    range: &Range<u64>,
) -> std::result::Result<(), Corrupt> {
    let size = file.size();
    if range.start >= SECTOR && range.end <= size {
        return Ok(());
    }
    let expected = format!("a directory within bytes {SECTOR}..{size}");
    Err(Corrupt::new(structure, 0, field, expected, format_args!("byte {}", range.start)))
}

fn read_hosted(file: &dyn BlockDevice) -> Result<Parsed<Sparse>> {
    let raw: RawHeader = read_value(file, 0)?;
    let Parsed { value: mut header, mut problems } = Header::decode(&raw, 0)?;
    let mut found = None;
    if header.directory.is_none() {
        match find_end(file, &header)? {
            End::Footer(footer, at) => {
                let mut footer = Header::decode(&footer, at)?;
                problems.append(&mut footer.problems);
                problems.extend(contradiction(&header, &footer.value, at).map(Error::from));
                header = footer.value;
            }
            End::Scanned(grains, corrupt) => {
                if !header.is_compressed || !header.has(flag::MARKERS) {
                    return Err(corrupt.into());
                }
                problems.push(corrupt.into());
                found = Some(grains);
            }
        }
    }
    if header.overhead > file.size() {
        let expected = format!("at most {}, the sectors of the file", file.size() / SECTOR);
        let found = header.overhead / SECTOR;
        problems.push(Corrupt::new(STRUCTURE, 0, "overHead", expected, found).into());
        header.overhead = SECTOR;
    }
    let scheme = match found {
        Some(found) => Scheme::Scanned(found),
        None => hosted(file, &header, &mut problems)?,
    };
    let refusal = if header.is_compressed {
        Some("streamOptimized extents are compressed, and are written only as a whole")
    } else if header.version == 3 {
        Some("version 3 of its header tracks changes, which would be wrong after a write")
    } else {
        None
    };
    let sparse = Sparse {
        scheme,
        grain: header.grain,
        capacity: header.capacity,
        table_entries: header.table_entries,
        tables: header.tables(),
        header: Some(header),
        refusal,
    };
    Ok(Parsed { value: sparse, problems })
}

/// What header and footer must agree on.
fn contradiction(header: &Header, footer: &Header, at: u64) -> Option<Corrupt> {
    let fields = |header: &Header| (header.capacity / SECTOR, header.grain / SECTOR, header.table_entries);
    let (ours, theirs) = (fields(header), fields(footer));
    (ours != theirs).then(|| {
        let text = |(capacity, grain, entries)| format!("{capacity} / {grain} / {entries}");
        Corrupt::new("VMDK footer", at, "capacity / grainSize / numGTEsPerGT", text(ours), text(theirs))
    })
}

/// Finds the directories; one of them is enough.
fn hosted(file: &dyn BlockDevice, header: &Header, problems: &mut Vec<Error>) -> Result<Scheme> {
    let length = header.tables().saturating_mul(4);
    let check = |field, start: u64| {
        check_in_file(file, STRUCTURE, field, &(start..start.saturating_add(length))).map(|()| start)
    };
    let first = check("gdOffset", header.directory.unwrap_or(0));
    let second = header.redundant.map(|start| check("rgdOffset", start));
    let (directory, redundant) = match (first, second) {
        (Ok(first), Some(Ok(second))) => (first, Some(second)),
        (Ok(first), None) => (first, None),
        (Ok(first), Some(Err(corrupt))) => {
            problems.push(corrupt.into());
            (first, None)
        }
        (Err(corrupt), Some(Ok(second))) => {
            problems.push(corrupt.into());
            (second, None)
        }
        (Err(corrupt), _) => return Err(corrupt.into()),
    };
    Ok(Scheme::Hosted(Hosted {
        directory,
        redundant,
        has_zero_grains: header.has(flag::ZERO_GRAINS),
        is_packed: header.is_compressed,
        has_markers: header.has(flag::MARKERS),
        overhead: header.overhead,
    }))
}
