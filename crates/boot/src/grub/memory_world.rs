//! A world in memory, for tests and for thought.

use std::collections::{BTreeMap, BTreeSet};

use super::error::{ErrorCode, GrubError};
use super::world::{Answer, Lookup, Place, ProbeWhat, SearchBy, SearchRequest, World};

/// Devices with files. Every module is there, unless it was taken away.
#[derive(Debug, Clone, Default)]
pub struct MemoryWorld {
    devices: Vec<(String, Device)>,
    missing_modules: BTreeSet<String>,
    has_any_file: bool,
}

#[derive(Debug, Clone, Default)]
struct Device {
    uuid: Option<String>,
    label: Option<String>,
    broken: Option<GrubError>,
    files: BTreeMap<Vec<u8>, File>,
}

#[derive(Debug, Clone)]
enum File {
    Bytes(Vec<u8>),
    Damaged(u64, GrubError),
    Unknown(String),
}

impl MemoryWorld {
    /// No devices.
    pub fn new() -> Self {
        Self::default()
    }

    /// A world in which every search finds its device and every file that is not given exists, but for more
    /// configuration (`*.cfg`): to see where a configuration leads when nothing is missing.
    pub fn with_any_file() -> Self {
        Self { has_any_file: true, ..Self::default() }
    }

    /// Adds a device, or changes the one there is; `search` finds devices in this order.
    fn device_mut(&mut self, name: &str) -> &mut Device {
        let at = match self.devices.iter().position(|(known, _)| known == name) {
            Some(at) => at,
            None => {
                self.devices.push((name.to_owned(), Device::default()));
                self.devices.len() - 1
            }
        };
        &mut self.devices[at].1
    }

    /// A device with a file system that has this UUID.
    pub fn uuid(mut self, device: &str, uuid: &str) -> Self {
        self.device_mut(device).uuid = Some(uuid.to_owned());
        self
    }

    /// A device with a file system that has this label.
    pub fn label(mut self, device: &str, label: &str) -> Self {
        self.device_mut(device).label = Some(label.to_owned());
        self
    }

    /// A file.
    pub fn file(mut self, device: &str, path: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.device_mut(device).files.insert(path.as_bytes().to_vec(), File::Bytes(bytes.into()));
        self
    }

    /// A file that GRUB cannot read to its end.
    pub fn damaged(mut self, device: &str, path: &str, size: u64, error: GrubError) -> Self {
        self.device_mut(device).files.insert(path.as_bytes().to_vec(), File::Damaged(size, error));
        self
    }

    /// A file of which nothing is known.
    pub fn unknown(mut self, device: &str, path: &str, reason: &str) -> Self {
        self.device_mut(device).files.insert(path.as_bytes().to_vec(), File::Unknown(reason.to_owned()));
        self
    }

    /// A device that cannot be read, or holds nothing that GRUB knows.
    pub fn broken(mut self, device: &str, error: GrubError) -> Self {
        self.device_mut(device).broken = Some(error);
        self
    }

    /// Takes a module away.
    pub fn without_module(mut self, name: &str) -> Self {
        self.missing_modules.insert(name.to_owned());
        self
    }

    fn find(&self, name: &str) -> Result<&Device, GrubError> {
        match self.devices.iter().find(|(known, _)| known == name) {
            Some((_, device)) => device.broken.clone().map_or(Ok(device), Err),
            None => {
                let disk = |name: &str| name.split(',').next().unwrap_or_default().to_owned();
                let has_disk = self.devices.iter().any(|(known, _)| disk(known) == disk(name));
                let is_partition = name.contains(',');
                Err(if has_disk && is_partition {
                    GrubError::no_such_partition()
                } else if has_disk {
                    GrubError::unknown_filesystem()
                } else {
                    GrubError::disk_not_found(name)
                })
            }
        }
    }

    fn normalized(path: &[u8]) -> Vec<u8> {
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
        [b"/".as_slice(), &parts.join(&b'/')].concat()
    }
}

impl World for MemoryWorld {
    fn device(&self, device: &str) -> Answer<Result<(), GrubError>> {
        if self.has_any_file {
            return Answer::Known(Ok(()));
        }
        let found = self.find(device).map(drop);
        // A disk whose partition or file system is unreadable can still be opened.
        Answer::Known(found.or_else(|error| match error.code {
            ErrorCode::UnknownFs | ErrorCode::BadFs => Ok(()),
            _ => Err(error),
        }))
    }

    fn search(&self, request: &SearchRequest<'_>) -> Answer<Option<String>> {
        let key = String::from_utf8_lossy(request.key);
        let mut found =
            self.devices.iter().filter(|(_, device)| device.broken.is_none()).filter(|(_, device)| {
                match request.by {
                    SearchBy::FsUuid => {
                        device.uuid.as_ref().is_some_and(|uuid| uuid.eq_ignore_ascii_case(&key))
                    }
                    SearchBy::Label => device.label.as_deref() == Some(&*key),
                    SearchBy::File => device.files.contains_key(&Self::normalized(request.key)),
                }
            });
        let found = found.next().map(|(name, _)| name.clone());
        let any = self.has_any_file.then(|| "hd0,msdos1".to_owned());
        Answer::Known(found.or(any))
    }

    fn lookup(&self, place: Place<'_>, path: &[u8]) -> Answer<Lookup> {
        let path = Self::normalized(path);
        let exists = self.has_any_file && !path.ends_with(b".cfg");
        let any = || if exists { Lookup::File { size: 1, damage: None } } else { Lookup::Missing };
        let device = match self.find(place.device) {
            Ok(device) => device,
            Err(_) if self.has_any_file => return Answer::Known(any()),
            Err(error) => return Answer::Known(Lookup::Failed(error)),
        };
        let folder = if path == b"/" { path.clone() } else { [path.as_slice(), b"/"].concat() };
        Answer::Known(match device.files.get(&path) {
            Some(File::Bytes(bytes)) => Lookup::File { size: bytes.len() as u64, damage: None },
            Some(File::Damaged(size, error)) => Lookup::File { size: *size, damage: Some(error.clone()) },
            Some(File::Unknown(reason)) => return Answer::Unknown(reason.clone()),
            None if path == b"/" || device.files.keys().any(|file| file.starts_with(&folder)) => {
                Lookup::Directory
            }
            None => any(),
        })
    }

    fn read(&self, place: Place<'_>, path: &[u8], limit: usize) -> Answer<Result<Vec<u8>, GrubError>> {
        let path = Self::normalized(path);
        let device = match self.find(place.device) {
            Ok(device) => device,
            Err(error) => return Answer::Known(Err(error)),
        };
        match device.files.get(&path) {
            Some(File::Bytes(bytes)) if bytes.len() <= limit => Answer::Known(Ok(bytes.clone())),
            Some(File::Bytes(_)) => Answer::Unknown("a file that is too long".to_owned()),
            Some(File::Damaged(_, error)) => Answer::Known(Err(error.clone())),
            Some(File::Unknown(reason)) => Answer::Unknown(reason.clone()),
            None if self.has_any_file => {
                Answer::Unknown(format!("what {} says", String::from_utf8_lossy(&path)))
            }
            None => Answer::Known(Err(GrubError::file_not_found(&path))),
        }
    }

    fn list(&self, place: Place<'_>, path: &[u8]) -> Answer<Result<Vec<Vec<u8>>, GrubError>> {
        let device = match self.find(place.device) {
            Ok(device) => device,
            Err(error) => return Answer::Known(Err(error)),
        };
        let folder = Self::normalized(path);
        let prefix = if folder == b"/" { folder.clone() } else { [folder.as_slice(), b"/"].concat() };
        let names: BTreeSet<Vec<u8>> = device
            .files
            .keys()
            .filter_map(|file| file.strip_prefix(prefix.as_slice()))
            .filter_map(|rest| rest.split(|byte| *byte == b'/').next().map(<[u8]>::to_vec))
            .collect();
        if names.is_empty() && folder != b"/" {
            return Answer::Known(Err(GrubError::file_not_found(&folder)));
        }
        Answer::Known(Ok(names.into_iter().collect()))
    }

    fn probe(&self, device: &str, what: ProbeWhat) -> Answer<Result<Option<Vec<u8>>, GrubError>> {
        let device = match self.find(device) {
            Ok(device) => device,
            Err(error) => return Answer::Known(Err(error)),
        };
        let text = |text: &Option<String>| Answer::Known(Ok(text.clone().map(String::into_bytes)));
        match what {
            ProbeWhat::FsUuid => text(&device.uuid),
            ProbeWhat::FsLabel => text(&device.label),
            _ => Answer::Unknown("what a device in memory is made of".to_owned()),
        }
    }

    fn module(&self, name: &str) -> Answer<Result<(), GrubError>> {
        let is_missing = self.missing_modules.contains(name);
        let path = format!("/boot/grub/i386-pc/{name}.mod");
        Answer::Known(if is_missing { Err(GrubError::file_not_found(path.as_bytes())) } else { Ok(()) })
    }
}
