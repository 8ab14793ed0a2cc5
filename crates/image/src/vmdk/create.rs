//! New, empty images: the files of each subformat, named as QEMU and VMware name them.
//!
//! Extents are made first and what names them last, and within a file the header: a cut before that leaves no image.

use std::collections::hash_map::RandomState;
use std::fmt::Write;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};

use blockdev::{BlockDeviceMut, FileDevice};
use zerocopy::IntoBytes;

use super::header::{NewHeader, SECTOR, flag};
use super::open::FORMAT;
use crate::arithmetic::{length_of, round_up};
use crate::{Error, NewImage, Result};

/// The usual grain in sectors: 64 KiB.
pub(super) const GRAIN: u64 = 128;

/// Sectors of an embedded descriptor, as everybody makes them.
pub(super) const DESCRIPTOR_SECTORS: u64 = 20;

/// Sectors of a grain table of 512 entries.
pub(super) const TABLE_SECTORS: u64 = 4;

/// Sectors of each but the last extent of a split disk: VMware's 2047 MiB, which stay below 2 GiB with their tables.
const SPLIT: u64 = 4_192_256;

/// Sectors that the words of a table can tell apart.
const MAX_SECTORS: u64 = 1 << 32;

/// Makes the image at `path` and its extents beside it; none of the files may exist.
pub(super) fn create_files(path: &Path, new: &NewImage) -> Result<()> {
    let mut made = Vec::new();
    let outcome = Creation::new(path, new).and_then(|creation| creation.run(&mut made));
    if outcome.is_err() {
        // Only what this call made: it did not exist before.
        for file in &made {
            let _ = std::fs::remove_file(file);
        }
    }
    outcome
}

fn refused(reason: impl Into<String>) -> Error {
    Error::NotCreatable { format: FORMAT.name, reason: reason.into() }
}

/// An image on its way.
#[derive(Debug)]
struct Creation<'a> {
    path: &'a Path,
    /// Length of the disk in sectors.
    sectors: u64,
    /// Sectors in a grain.
    grain: u64,
    subformat: &'a str,
}

impl<'a> Creation<'a> {
    fn new(path: &'a Path, new: &'a NewImage) -> Result<Self> {
        let subformat = new.subformat.as_deref().unwrap_or("monolithicSparse");
        let is_flat = match subformat {
            "monolithicSparse" | "twoGbMaxExtentSparse" => false,
            "monolithicFlat" | "twoGbMaxExtentFlat" => true,
            "streamOptimized" => {
                return Err(refused(
                    "a streamOptimized image is written as a whole, from the disk it is to hold",
                ));
            }
            other => return Err(refused(format!("there is no subformat {other}"))),
        };
        if new.sector_size.is_some_and(|size| u64::from(size) != SECTOR) {
            return Err(refused("its sectors have 512 bytes"));
        }
        let sectors = new.size.div_ceil(SECTOR);
        if sectors == 0 || sectors >= 1 << 53 {
            return Err(refused(format!("a disk of {} bytes", new.size)));
        }
        let grain = match new.cluster_size {
            None => GRAIN,
            Some(size) if !is_flat && size.is_power_of_two() && (4096..=1 << 20).contains(&size) => {
                size / SECTOR
            }
            Some(size) => return Err(refused(format!("a grain size of {size} bytes"))),
        };
        Ok(Self { path, sectors, grain, subformat })
    }

    fn run(&self, made: &mut Vec<PathBuf>) -> Result<()> {
        let mut lines = String::new();
        match self.subformat {
            "monolithicSparse" => {
                let name = self.name(None)?;
                line(&mut lines, self.sectors, "SPARSE", &name, None);
                self.sparse(self.path, self.sectors, Some(&self.text(&lines)), made)
            }
            "monolithicFlat" => {
                let name = self.name(Some("flat"))?;
                line(&mut lines, self.sectors, "FLAT", &name, Some(0));
                self.flat(&self.path.with_file_name(&name), self.sectors, made)?;
                self.descriptor(&lines, made)
            }
            split => {
                let is_flat = split == "twoGbMaxExtentFlat";
                let mut left = self.sectors;
                for number in 1.. {
                    let sectors = left.min(SPLIT);
                    let letter = if is_flat { 'f' } else { 's' };
                    let name = self.name(Some(&format!("{letter}{number:03}")))?;
                    let path = self.path.with_file_name(&name);
                    if is_flat {
                        line(&mut lines, sectors, "FLAT", &name, Some(0));
                        self.flat(&path, sectors, made)?;
                    } else {
                        line(&mut lines, sectors, "SPARSE", &name, None);
                        self.sparse(&path, sectors, None, made)?;
                    }
                    left = left.saturating_sub(sectors);
                    if left == 0 {
                        break;
                    }
                }
                self.descriptor(&lines, made)
            }
        }
    }

    /// The name of the image with `-suffix` before its extension, fit for a descriptor.
    fn name(&self, suffix: Option<&str>) -> Result<String> {
        let part = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_str().map(str::to_owned));
        let stem = part(self.path.file_stem()).flatten();
        let stem = stem.filter(|stem| !stem.chars().any(|c| c == '"' || c.is_control()));
        let mut name = stem.ok_or_else(|| refused("its descriptor cannot hold this file name"))?;
        if let Some(suffix) = suffix {
            name.push('-');
            name.push_str(suffix);
        }
        if let Some(extension) = part(self.path.extension()) {
            let extension = extension.filter(|text| !text.chars().any(|c| c == '"' || c.is_control()));
            name.push('.');
            name.push_str(&extension.ok_or_else(|| refused("its descriptor cannot hold this file name"))?);
        }
        Ok(name)
    }

    fn text(&self, lines: &str) -> String {
        descriptor(self.sectors, self.subformat, lines)
    }

    /// The file with the descriptor alone.
    fn descriptor(&self, lines: &str, made: &mut Vec<PathBuf>) -> Result<()> {
        let text = self.text(lines);
        let file = new_file(self.path, made)?;
        put(&file, self.path, text.as_bytes(), 0)?;
        file.flush().map_err(failed(self.path))
    }

    fn flat(&self, path: &Path, sectors: u64, made: &mut Vec<PathBuf>) -> Result<()> {
        let file = new_file(path, made)?;
        file.grow(sectors.saturating_mul(SECTOR)).and_then(|()| file.flush()).map_err(failed(path))
    }

    /// A sparse extent, with its descriptor if it is the whole image.
    fn sparse(&self, path: &Path, sectors: u64, text: Option<&str>, made: &mut Vec<PathBuf>) -> Result<()> {
        let layout = Layout::new(sectors, self.grain, text.is_some());
        if layout.header.overhead.saturating_add(round_up(sectors, self.grain)) > MAX_SECTORS {
            return Err(refused("a sparse extent cannot hold 2 TiB: choose a split or a flat subformat"));
        }
        let file = new_file(path, made)?;
        file.grow(layout.header.overhead.saturating_mul(SECTOR)).map_err(failed(path))?;
        for start in [layout.header.redundant, layout.header.directory] {
            put(&file, path, &layout.directory(start), start)?;
        }
        if let Some(text) = text {
            let bound = DESCRIPTOR_SECTORS.saturating_mul(SECTOR);
            if length_of(text.as_bytes()) >= bound {
                return Err(refused("its descriptor cannot hold this file name"));
            }
            put(&file, path, text.as_bytes(), 1)?;
        }
        file.flush().map_err(failed(path))?;
        put(&file, path, layout.header.encode().as_bytes(), 0)?;
        file.flush().map_err(failed(path))
    }
}

/// Where everything in a new sparse extent is, in sectors: header, descriptor, then each directory with its tables
/// behind it, the redundant one first, then grains.
#[derive(Debug)]
struct Layout {
    header: NewHeader,
    tables: u64,
}

impl Layout {
    fn new(sectors: u64, grain: u64, has_descriptor: bool) -> Self {
        let tables = sectors.div_ceil(grain.saturating_mul(512).max(1));
        let copy = directory_sectors(tables).saturating_add(tables.saturating_mul(TABLE_SECTORS));
        let descriptor = if has_descriptor { (1, DESCRIPTOR_SECTORS) } else { (0, 0) };
        let redundant = descriptor.1.saturating_add(1);
        let directory = redundant.saturating_add(copy);
        let header = NewHeader {
            version: 1,
            flags: flag::LINE_END_TEST | flag::REDUNDANT,
            capacity: sectors,
            grain,
            descriptor,
            redundant,
            directory,
            overhead: round_up(directory.saturating_add(copy), grain),
        };
        Self { header, tables }
    }

    /// The words of the directory at sector `start`.
    fn directory(&self, start: u64) -> Vec<u8> {
        let first = start.saturating_add(directory_sectors(self.tables));
        (0..self.tables)
            .map(|number| first.saturating_add(number.saturating_mul(TABLE_SECTORS)))
            .flat_map(|sector| u32::try_from(sector).unwrap_or(u32::MAX).to_le_bytes())
            .collect()
    }
}

pub(super) fn directory_sectors(tables: u64) -> u64 {
    tables.saturating_mul(4).div_ceil(SECTOR)
}

fn line(lines: &mut String, sectors: u64, kind: &str, name: &str, offset: Option<u64>) {
    let offset = offset.map(|offset| format!(" {offset}")).unwrap_or_default();
    let _ = writeln!(lines, "RW {sectors} {kind} \"{name}\"{offset}");
}

/// The text that describes a disk of `sectors` sectors with these extent lines.
pub(super) fn descriptor(sectors: u64, create_type: &str, lines: &str) -> String {
    // What VMware computes for SCSI disks.
    let cylinders = (sectors / (255 * 63)).min(65_535);
    let cid = new_cid(create_type, sectors);
    format!(
        "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID={cid:08x}\nparentCID=ffffffff\n\
         createType=\"{create_type}\"\n\n# Extent description\n{lines}\n# The Disk Data Base\n#DDB\n\n\
         ddb.virtualHWVersion = \"4\"\nddb.geometry.cylinders = \"{cylinders}\"\nddb.geometry.heads = \"255\"\n\
         ddb.geometry.sectors = \"63\"\nddb.adapterType = \"lsilogic\"\n"
    )
}

/// A number that no other disk has, and that is none of those with a meaning.
fn new_cid(create_type: &str, sectors: u64) -> u32 {
    let random = RandomState::new().hash_one((create_type, sectors));
    u32::try_from(random & 0x7fff_ffff).unwrap_or(1).max(1)
}

fn new_file(path: &Path, made: &mut Vec<PathBuf>) -> Result<FileDevice> {
    let file = FileDevice::create_new(path).map_err(failed(path))?;
    made.push(path.to_owned());
    Ok(file)
}

/// Writes `bytes` from sector `sector` on.
fn put(file: &FileDevice, path: &Path, bytes: &[u8], sector: u64) -> Result<()> {
    let at = sector.saturating_mul(SECTOR);
    file.grow(at.saturating_add(length_of(bytes)))
        .and_then(|()| file.write_all_at(bytes, at))
        .map_err(failed(path))
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Open { path: path.clone(), source }
}
