//! What systemd opens by `/etc/crypttab` once the root file system is mounted, and what it asks for.
//!
//! crypttab(5), `src/cryptsetup/cryptsetup.c` of systemd 252: without a key, or where the file with it is not there, a passphrase
//! is asked for, and nothing ends that wait.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use blockdev::{Device, MemoryDevice};
use filesystem::path::resolve;
use filesystem::{FileKind, FileSystem};
use guest::Guest;
use guest_files::crypttab::{self, Entry};
use luks::Limits;
use storage::{Content, Storage, udev_node};

use super::default_target::Towards;
use super::devices::{Devices, Found};
use crate::trace::{Cause, Evidence, Outcome};
use crate::unit_name::unit_name;

const PATH: &str = "/etc/crypttab";
/// Bytes of a key; cryptsetup takes as many.
const MAX_KEY: u64 = 8 << 20;
/// Bytes of a container that is a file.
const MAX_CONTAINER: u64 = 64 << 20;
/// Bytes of a header of version 1, and those before the data of version 2: what cryptsetup sets aside, and as much again.
const HEADER_1: usize = 4096;
const FRONT_2: usize = 32 << 20;
/// Iterations of PBKDF2 over all slots, and KiB that Argon2 fills: some five seconds.
const MAX_ITERATIONS: u64 = 10_000_000;
const MAX_FILLED: u64 = 8 << 20;
/// Keys that are tried on one system.
const MAX_TRIES: usize = 4;

/// What crypttab comes to.
#[derive(Default)]
pub(super) struct Opened {
    /// A passphrase is asked for, and everything waits.
    pub(super) asks: Option<(Outcome, Cause, String)>,
    pub(super) evidence: Vec<Evidence>,
    /// Why it cannot be said whether something is opened.
    pub(super) unknown: Option<String>,
}

/// Keys that were tried, by the line of crypttab: the same for every machine, and slow by design.
#[derive(Default)]
pub(crate) struct Keys {
    fits: Mutex<BTreeMap<usize, Option<bool>>>,
}

/// Opens what crypttab names. What a key opens is not looked at; whether it fits is tried.
pub(super) fn open(
    storage: &Storage,
    guest: &Guest,
    devices: &mut Devices<'_>,
    towards: Option<&Towards>,
) -> Opened {
    let plan = towards.map(|towards| &towards.plan);
    let mut opened = Opened::default();
    let Ok(text) = guest.read(PATH, 1 << 20) else { return opened };
    for entry in crypttab::parse(&text) {
        let unit = format!("systemd-cryptsetup@{}", unit_name(&entry.name, "service"));
        let is_started = plan.map_or(!entry.has_option("noauto"), |plan| plan.starts(&unit));
        let name = format!("/dev/mapper/{}", entry.name);
        if !is_started || !is_locked(storage, guest, devices, &entry) {
            continue;
        }
        let wait = match &entry.key {
            None => format!("{name} asks for a passphrase"),
            // A new key at every boot: what is on it is made anew as well.
            Some(key) if matches!(key.as_str(), "/dev/urandom" | "/dev/random" | "/dev/hw_random") => {
                devices.seal(name, "is made anew at every boot".to_owned());
                continue;
            }
            Some(key) if resolve(&guest.tree, key.as_bytes()).is_ok() => {
                let try_it = || fits(storage, guest, devices, &entry, key);
                let is_fitting = match towards {
                    Some(towards) => {
                        let mut known = towards.keys.fits.lock().unwrap_or_else(PoisonError::into_inner);
                        if known.len() < MAX_TRIES || known.contains_key(&entry.line) {
                            *known.entry(entry.line).or_insert_with(try_it)
                        } else {
                            None
                        }
                    }
                    None => None,
                };
                match is_fitting {
                    Some(false) => format!(
                        "the key {key} does not open {}, and {name} asks for a passphrase",
                        entry.source
                    ),
                    fits => {
                        let reason = format!("is opened by {key}, and what is in it is not looked at");
                        if fits.is_none() {
                            opened.unknown.get_or_insert_with(|| {
                                format!("{PATH}:{}: whether {key} opens {name} cannot be tried", entry.line)
                            });
                        }
                        devices.seal(name, reason);
                        continue;
                    }
                }
            }
            Some(key) if !key.starts_with('/') || key.contains(':') => {
                devices.seal(name, format!("is opened by {key}, which is not here"));
                opened
                    .unknown
                    .get_or_insert_with(|| format!("{PATH}:{}: the key {key} is not here", entry.line));
                continue;
            }
            Some(key) => format!("there is no key {key}, and {name} asks for a passphrase"),
        };
        devices.seal(name, "is opened with a passphrase that was not given".to_owned());
        opened.evidence.push(Evidence { file: PATH.into(), line: Some(entry.line), text: wait.clone() });
        let is_waited_for =
            plan.map_or(!entry.has_option("nofail"), |plan| plan.is_required("cryptsetup.target", &unit));
        let gives_up = entry.option_value("timeout").is_some_and(|value| value != "0");
        if gives_up || entry.has_option("headless") || entry.has_option("headless=true") {
            opened
                .unknown
                .get_or_insert_with(|| format!("{PATH}:{}: {wait}, and gives up in time", entry.line));
        } else if is_waited_for && opened.asks.is_none() {
            let cause = Cause {
                rule: "luks.header-or-key",
                file: PATH.into(),
                line: Some(entry.line),
                unit: Some(unit),
                symptom: format!("Please enter passphrase for disk {}", entry.name),
            };
            opened.asks = Some((Outcome::LuksPrompt, cause, wait));
        }
    }
    opened
}

/// Whether a key opens its container; `None` where that cannot be tried in time.
fn fits(storage: &Storage, guest: &Guest, devices: &Devices<'_>, entry: &Entry, key: &str) -> Option<bool> {
    let number = |name: &str| entry.option_value(name).map_or(Some(0), |value| value.parse::<usize>().ok());
    let (offset, length) = (number("keyfile-offset")?, number("keyfile-size")?);
    let key = guest.read(key, MAX_KEY).ok()?;
    let key = key.get(offset..)?;
    let key = if length > 0 { key.get(..length)? } else { key };
    let device: Device = match udev_node(entry.source.as_bytes()).filter(|path| path.starts_with("/dev/")) {
        Some(path) => match devices.find(&path) {
            Found::Node(id) => storage.node(id).device.clone()?,
            _ => return None,
        },
        None => front_of(guest, &entry.source)?,
    };
    let container = luks::read(&device).ok()??.value;
    let (iterations, filled) = container.work();
    if container.obstacle.is_some() || iterations > MAX_ITERATIONS || filled > MAX_FILLED {
        return None;
    }
    Some(container.unlock(&device, key, Limits::default()).is_ok())
}

/// A container that is a file: its header and the key material of its slots, and zeros in the place of all else.
fn front_of(guest: &Guest, path: &str) -> Option<Device> {
    let inode = resolve(&guest.tree, path.as_bytes()).ok()?;
    let size = guest.tree.metadata(inode).ok().filter(|file| file.kind == FileKind::Regular)?.size;
    let mut bytes = vec![0; usize::try_from(size).ok().filter(|_| size <= MAX_CONTAINER)?];
    let fill = |bytes: &mut Vec<u8>, part: Range<usize>| -> Option<()> {
        let (mut at, end) = (part.start, part.end.min(bytes.len()));
        while at < end {
            match guest.tree.read_at(inode, bytes.get_mut(at..end)?, at as u64).ok()? {
                0 => break,
                count => at += count,
            }
        }
        Some(())
    };
    fill(&mut bytes, 0..HEADER_1)?;
    // The version, big-endian, behind the magic.
    if bytes.get(6..8)? == [0, 2] {
        fill(&mut bytes, 0..FRONT_2)?;
        return Some(Arc::new(MemoryDevice::new(bytes)));
    }
    let header: Device = Arc::new(MemoryDevice::new(bytes.clone()));
    for slot in luks::read(&header).ok()??.value.key_slots {
        let area = slot.area();
        fill(&mut bytes, usize::try_from(area.start).ok()?..usize::try_from(area.end).ok()?)?;
    }
    Some(Arc::new(MemoryDevice::new(bytes)))
}

/// Whether the source is there and was not opened: neither here nor by the initramfs.
fn is_locked(storage: &Storage, guest: &Guest, devices: &Devices<'_>, entry: &Entry) -> bool {
    match udev_node(entry.source.as_bytes()) {
        Some(device) if device.starts_with("/dev/") => match devices.find(&device) {
            Found::Node(id) => {
                matches!(&storage.node(id).content, Content::Encrypted(container) if container.locked.is_some())
            }
            _ => false,
        },
        // A file is set up as a loop device.
        _ => resolve(&guest.tree, entry.source.as_bytes()).is_ok(),
    }
}
