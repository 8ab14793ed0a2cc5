//! LVM's devices file (lvmdevices(8), lvm2 2.03.12 and later): where it is used, only what it lists are physical volumes.

use storage::Bus;

/// Entries that are looked at; machines with a thousand disks are rare.
const MAX_ENTRIES: usize = 4096;

/// `/etc/lvm/devices/system.devices`.
#[derive(Debug)]
pub(crate) struct DevicesFile {
    entries: Vec<Entry>,
    /// lvm2 2.03.23 and later write what machine the file is of, and on another one look for the devices anew.
    is_refreshed: bool,
}

#[derive(Debug)]
struct Entry {
    /// How the device is known: `sys_wwid`, `devname`, …
    kind: String,
    /// The number or name itself.
    name: String,
    /// The physical volume on it, without dashes.
    pv: String,
}

impl DevicesFile {
    pub(crate) fn parse(text: &str) -> Self {
        let lines = || text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let value = |line: &str, key: &str| {
            line.split_whitespace()
                .find_map(|word| Some(word.strip_prefix(key)?.strip_prefix('=')?.to_owned()))
        };
        let entries = lines().filter_map(|line| {
            let name = value(line, "IDNAME").unwrap_or_default();
            Some(Entry { kind: value(line, "IDTYPE")?, name, pv: value(line, "PVID")? })
        });
        let is_refreshed =
            lines().any(|line| line.starts_with("PRODUCT_UUID=") || line.starts_with("HOSTNAME="));
        Self { entries: entries.take(MAX_ENTRIES).collect(), is_refreshed }
    }

    /// Why the physical volume with this identifier, on disks of these buses, is passed over; `None` when it is not.
    pub(crate) fn excludes(&self, pv: &str, is_clone: bool, buses: &[Bus]) -> Option<String> {
        let id: String = pv.chars().filter(char::is_ascii_alphanumeric).collect();
        let listed: Vec<&Entry> = self.entries.iter().filter(|entry| entry.pv == id).collect();
        let Some(first) = listed.first() else {
            return Some(format!("it does not list the physical volume {pv}"));
        };
        // A device known by its name is searched for by its volume; one known by a number that the disk has is not.
        let is_found = |entry: &&Entry| {
            entry.kind == "devname" || !is_clone && buses.iter().any(|bus| entry.is_of(*bus))
        };
        if self.is_refreshed || listed.iter().any(is_found) {
            return None;
        }
        let (kind, name) = (&first.kind, &first.name);
        Some(format!(
            "it knows the disk of {pv} by its {kind} {name}, which this machine's disk does not have"
        ))
    }
}

impl Entry {
    /// Whether a disk on this bus can have such a number; what the disk has, only the machine knows.
    fn is_of(&self, bus: Bus) -> bool {
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| self.name.starts_with(prefix));
        match (self.kind.as_str(), bus) {
            // virtio-blk and Xen give no worldwide name.
            ("sys_wwid", Bus::VirtioBlk | Bus::Xen) => false,
            ("sys_wwid", Bus::Sata | Bus::Ide) => begins(&["t10.ATA", "naa."]),
            ("sys_wwid", Bus::Nvme) => begins(&["nvme.", "eui.", "uuid."]),
            ("sys_wwid", _) => begins(&["naa.", "t10.", "eui."]) && !begins(&["t10.ATA"]),
            _ => true,
        }
    }
}

/// Whether lvm2 goes by a devices file: as lvm.conf says, else as the distribution built it.
pub(crate) fn is_used(lvm_conf: Option<&str>, is_default: bool) -> bool {
    let mut said = lvm_conf.into_iter().flat_map(str::lines).filter_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let (key, value) = line.split_once('=')?;
        let key = key.trim();
        (key == "use_devicesfile" || key == "devices/use_devicesfile").then(|| value.trim() == "1")
    });
    said.next_back().unwrap_or(is_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PV: &str = "AbCdEf-0123-4567-89ab-cdef-ghij-klmnop";

    #[test]
    fn entries() {
        let entry = "IDTYPE=sys_wwid IDNAME=naa.6001 DEVNAME=/dev/sda2 PVID=AbCdEf0123456789abcdefghijklmnop PART=2\n";
        let file =
            DevicesFile::parse(&format!("# LVM uses devices listed in this file.\nVERSION=1.1.2\n{entry}"));
        let scsi = [Bus::VirtioScsi];
        assert_eq!(file.excludes(PV, false, &scsi), None);
        assert!(file.excludes(PV, true, &scsi).unwrap().contains("sys_wwid naa.6001"));
        assert!(file.excludes(PV, false, &[Bus::VirtioBlk]).is_some(), "no such number there");
        assert!(file.excludes("AbCdEf-0123-4567-89ab-cdef-ghij-klmnoq", false, &scsi).is_some());
        assert_eq!(DevicesFile::parse(&entry.replace("sys_wwid", "devname")).excludes(PV, true, &scsi), None);
        assert_eq!(DevicesFile::parse(&format!("PRODUCT_UUID=x\n{entry}")).excludes(PV, true, &scsi), None);
        assert!(DevicesFile::parse("").excludes(PV, false, &scsi).is_some(), "an empty file lists nothing");
    }

    #[test]
    fn use_of_the_file() {
        assert!(is_used(None, true) && !is_used(None, false));
        assert!(!is_used(Some("\t# use_devicesfile = 1\n"), false));
        assert!(is_used(Some("devices {\n\tuse_devicesfile = 1\n}"), false));
        assert!(!is_used(Some("devices/use_devicesfile=0"), true));
    }
}
