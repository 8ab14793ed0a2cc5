//! Units that systemd's generators write at every boot, and the plan for a system with them.
//!
//! systemd.generator(7): of fstab, crypttab, the consoles on the command line, `systemd.mask=` and `systemd.wants=`, and
//! `/etc/rc.local`.

use filesystem::FileKind;
use filesystem::FileSystem;
use filesystem::path::resolve;
use guest::Guest;
use guest_files::crypttab;

use super::load::Units;
use super::plan::Plan;
use super::unit::{Place, Pull, Unit};
use crate::fstab::{self, Link};
use crate::stages::grub::GuestPlace;
use crate::unit_name::unit_name;

/// What systemd starts for `target`; `None` where the tree has no folder of units.
pub(crate) fn plan(guest: &Guest, arguments: &[(String, GuestPlace)], target: &str) -> Option<Plan> {
    let fs: &dyn FileSystem = &guest.tree;
    let mut units = Units::new(fs);
    if units.is_empty() {
        return None;
    }
    if fstab_word(arguments).is_none() {
        of_fstab(guest, &mut units);
    }
    of_crypttab(guest, &mut units);
    let of_word = |place: &GuestPlace| Place { file: place.file.as_str().into(), line: place.line };
    for (word, place) in arguments {
        let Some((key, value)) = word.split_once('=') else { continue };
        match key {
            "console" => {
                let device = value.split(',').next().unwrap_or_default();
                let is_virtual = device
                    .strip_prefix("tty")
                    .is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
                if !is_virtual && !device.is_empty() {
                    let name = format!("serial-getty@{device}.service");
                    units.generate_link("getty.target", Pull::Wants, &name, of_word(place));
                }
            }
            "systemd.mask" => units.mask(value, of_word(place)),
            "systemd.wants" => units.generate_link(target, Pull::Wants, value, of_word(place)),
            _ => {}
        }
    }
    let rc_local = resolve(fs, b"/etc/rc.local").and_then(|inode| {
        fs.metadata(inode).map_err(|cause| filesystem::path::PathError::Fs { path: String::new(), cause })
    });
    if rc_local.is_ok_and(|found| found.kind == FileKind::Regular && found.permissions & 0o111 != 0) {
        units.generate_link(
            "multi-user.target",
            Pull::Wants,
            "rc-local.service",
            Place::whole("/etc/rc.local"),
        );
    }
    Some(Plan::new(&units, fs, target))
}

/// The word that has fstab passed over; the last one of its kind counts.
pub(crate) fn fstab_word(arguments: &[(String, GuestPlace)]) -> Option<&GuestPlace> {
    let (value, place) =
        arguments.iter().rev().find_map(|(word, place)| Some((word.strip_prefix("fstab=")?, place)))?;
    matches!(value, "0" | "no" | "n" | "false" | "f" | "off").then_some(place)
}

fn of_fstab(guest: &Guest, units: &mut Units<'_>) {
    let Some(file) = &guest.fstab else { return };
    let (made, _) = fstab::generate(&file.document);
    for unit in made {
        let place = Place { file: file.path.as_str().into(), line: unit.line };
        let mut generated = Unit::new(&unit.name, place.clone(), true);
        let entry = file.document.entries().iter().find(|entry| entry.line == unit.line);
        for option in entry.into_iter().flat_map(guest_files::fstab::Entry::options) {
            if let Some(other) = String::from_utf8_lossy(option).strip_prefix("x-systemd.requires=")
                && !other.starts_with('/')
            {
                generated.link(Pull::Requires, other.to_owned(), place.clone());
            }
        }
        units.generate(generated);
        for link in &unit.links {
            let (pull, target) = match link {
                Link::RequiredBy(target) => (Pull::Requires, target),
                Link::WantedBy(target) => (Pull::Wants, target),
            };
            units.generate_link(target, pull, &unit.name, place.clone());
        }
        if unit.target == "/" {
            units.generate_link("local-fs.target", Pull::Wants, "systemd-remount-fs.service", place);
        }
    }
}

fn of_crypttab(guest: &Guest, units: &mut Units<'_>) {
    const PATH: &str = "/etc/crypttab";
    let Ok(text) = guest.read(PATH, 1 << 20) else { return };
    for entry in crypttab::parse(&text) {
        let place = Place { file: PATH.into(), line: entry.line };
        let name = format!("systemd-cryptsetup@{}", unit_name(&entry.name, "service"));
        units.generate(Unit::new(&name, place.clone(), true));
        if entry.has_option("noauto") {
            continue;
        }
        let pull = if entry.has_option("nofail") { Pull::Wants } else { Pull::Requires };
        let target =
            if entry.has_option("_netdev") { "remote-cryptsetup.target" } else { "cryptsetup.target" };
        units.generate_link(target, pull, &name, place);
    }
}
