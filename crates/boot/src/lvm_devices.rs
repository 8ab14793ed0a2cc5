//! LVM's devices file (lvmdevices(8), lvm2 2.03.12 and later): where it is used, only what it lists are physical volumes.

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
        let entries =
            lines().filter_map(|line| Some(Entry { kind: value(line, "IDTYPE")?, pv: value(line, "PVID")? }));
        let is_refreshed =
            lines().any(|line| line.starts_with("PRODUCT_UUID=") || line.starts_with("HOSTNAME="));
        Self { entries: entries.take(MAX_ENTRIES).collect(), is_refreshed }
    }

    /// Why the physical volume with this identifier is passed over; `None` when it is not.
    pub(crate) fn excludes(&self, pv: &str, is_clone: bool) -> Option<String> {
        let id: String = pv.chars().filter(char::is_ascii_alphanumeric).collect();
        let mut listed = self.entries.iter().filter(|entry| entry.pv == id).peekable();
        let Some(first) = listed.peek().map(|entry| entry.kind.clone()) else {
            return Some(format!("it does not list the physical volume {pv}"));
        };
        // A device known by its name is searched for by its volume; one known by a number that the disk has is not.
        let is_found = !is_clone || self.is_refreshed || listed.any(|entry| entry.kind == "devname");
        (!is_found).then(|| format!("it knows the disk of {pv} by its {first}, which a copy does not have"))
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
        assert_eq!(file.excludes(PV, false), None);
        assert!(file.excludes(PV, true).unwrap().contains("sys_wwid"));
        assert!(file.excludes("AbCdEf-0123-4567-89ab-cdef-ghij-klmnoq", false).is_some());
        assert_eq!(DevicesFile::parse(&entry.replace("sys_wwid", "devname")).excludes(PV, true), None);
        assert_eq!(DevicesFile::parse(&format!("PRODUCT_UUID=x\n{entry}")).excludes(PV, true), None);
        assert!(DevicesFile::parse("").excludes(PV, false).is_some(), "an empty file lists nothing");
    }

    #[test]
    fn use_of_the_file() {
        assert!(is_used(None, true) && !is_used(None, false));
        assert!(!is_used(Some("\t# use_devicesfile = 1\n"), false));
        assert!(is_used(Some("devices {\n\tuse_devicesfile = 1\n}"), false));
        assert!(!is_used(Some("devices/use_devicesfile=0"), true));
    }
}
