//! An open archive: its members, and which of them are disks.

use std::path::PathBuf;
use std::sync::Arc;

use blockdev::{BlockDevice, Device, Slice};
use ondisk::{Corrupt, Error, Parsed, Result, read_bytes};

use super::ovf::{self, Description};
use super::tar::{self, Entry, normal};

/// A member of an archive, as what an image is opened from.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(super) archive: Arc<Archive>,
    pub(super) name: String,
}

impl Member {
    /// How messages call it.
    pub(crate) fn title(&self) -> String {
        format!("{} in {}", self.name, self.archive.title)
    }

    /// Another member of the same archive, by the name that this one gives it.
    pub(crate) fn sibling(&self, name: &[u8]) -> Option<(Device, PathBuf)> {
        let name = normal(name);
        let folder = self.name.rsplit_once('/').map_or("", |(folder, _)| folder);
        let entry = self
            .archive
            .entry_beside(folder, &name)
            .filter(|entry| entry.name != self.name && !entry.is_sparse)?;
        let device = self.archive.device(entry).ok()?;
        Some((device, PathBuf::from(&entry.name)))
    }
}

/// The members and the disks of an archive.
#[derive(Debug)]
pub(super) struct Archive {
    pub(super) file: Device,
    /// How messages call the archive.
    pub(super) title: String,
    pub(super) entries: Vec<Entry>,
    /// In the order of the description.
    pub(super) disks: Vec<Disk>,
}

/// A disk of the appliance.
#[derive(Debug, Clone)]
pub(super) struct Disk {
    /// The name of the member, or what the description calls it if there is no such member.
    pub(super) name: String,
    /// What the description states of its length in bytes.
    pub(super) size: Option<u64>,
    /// Why it cannot be opened.
    pub(super) refusal: Option<String>,
}

impl Archive {
    /// Reads the headers and the description.
    ///
    /// # Errors
    /// [`Corrupt`] without a description; [`Error::Unsupported`]; [`Error::Io`].
    pub(super) fn read(file: &Device, title: String) -> Result<Parsed<Self>> {
        let Parsed { value: entries, mut problems } = tar::read(&**file)?;
        let has_extension = |entry: &&Entry| {
            let extension = entry.name.rsplit_once('.').map(|(_, extension)| extension);
            extension.is_some_and(|extension| extension.eq_ignore_ascii_case("ovf"))
        };
        let found = entries.iter().find(has_extension);
        let missing = || Corrupt::new("OVA", 0, "description", "a member named *.ovf", "none");
        let entry = found.ok_or_else(missing)?;
        let description = read_description(&**file, entry)?;
        for problem in &description.problems {
            problems.push(
                Corrupt::new("OVF description", entry.offset, "text", "disks and files", problem).into(),
            );
        }
        let folder = entry.name.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
        let mut archive = Self { file: file.clone(), title, entries, disks: Vec::new() };
        archive.disks = description.disks.into_iter().map(|disk| archive.disk(disk, &folder)).collect();
        Ok(Parsed { value: archive, problems })
    }

    fn disk(&self, described: ovf::Disk, folder: &str) -> Disk {
        let ovf::Disk { href, size, refusal } = described;
        let plain = normal(href.as_bytes());
        let unescaped = normal(ovf::unescaped(&href).as_bytes());
        match self.entry_beside(folder, &plain).or_else(|| self.entry_beside(folder, &unescaped)) {
            Some(entry) => {
                let sparse = entry.is_sparse.then(|| "a sparse member of tar".to_owned());
                let packed = self.is_gzip(entry).then(|| "the compression gzip of a whole disk".to_owned());
                Disk { name: entry.name.clone(), size, refusal: refusal.or(sparse).or(packed) }
            }
            None => {
                Disk { name: plain, size, refusal: refusal.or_else(|| Some("a missing member".to_owned())) }
            }
        }
    }

    fn is_gzip(&self, entry: &Entry) -> bool {
        let mut start = [0; 2];
        entry.length >= 2
            && self.file.read_exact_at(&mut start, entry.offset).is_ok()
            && start == [0x1f, 0x8b]
    }

    /// The member of this name; the last one, as tar extracts it.
    pub(super) fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.name == name)
    }

    /// The member that a file in `folder` names, from there or from the top.
    pub(super) fn entry_beside(&self, folder: &str, name: &str) -> Option<&Entry> {
        let below = Some(folder).filter(|folder| !folder.is_empty()).map(|folder| format!("{folder}/{name}"));
        below.and_then(|name| self.entry(&name)).or_else(|| self.entry(name))
    }

    pub(super) fn device(&self, entry: &Entry) -> std::io::Result<Device> {
        Ok(Arc::new(Slice::new(self.file.clone(), entry.offset, entry.length)?))
    }

    /// The names of all disks, in order.
    pub(super) fn names(&self) -> Vec<String> {
        self.disks.iter().map(|disk| disk.name.clone()).collect()
    }
}

fn read_description(file: &dyn BlockDevice, entry: &Entry) -> Result<Description> {
    if entry.length > ovf::MAX_SIZE {
        return Err(Error::unsupported("OVF description", format!("a text of {} bytes", entry.length)));
    }
    let bytes = read_bytes(file, entry.offset, usize::try_from(entry.length).unwrap_or(0))?;
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(Error::unsupported("OVF description", "UTF-16"));
    }
    Ok(Description::parse(&String::from_utf8_lossy(&bytes)))
}
