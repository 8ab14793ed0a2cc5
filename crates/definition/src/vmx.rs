//! VMware's VMX files: lines of `key = "value"`.
//!
//! There is no public specification; what is known comes from VMware's knowledge base (2011654 on boot orders) and from what
//! libvirt makes of such files.

use std::collections::BTreeMap;

use storage::{Bus, Firmware};

use crate::{Definition, Disk, Error, MAX_SIZE, Source};

/// Adapters of one kind, and disks on one adapter, that VMware knows.
const MAX_ADAPTERS: usize = 4;
const MAX_UNITS: usize = 64;

/// Reads a VMX file.
///
/// # Errors
/// When it is too large, encrypted, or has no line of VMX.
pub fn vmx(bytes: &[u8]) -> Result<Definition, Error> {
    if bytes.len() > MAX_SIZE {
        return Err(Error::TooLarge);
    }
    let values = lines(&String::from_utf8_lossy(bytes));
    if values.is_empty() {
        return Err(Error::NotVmx);
    }
    if values.contains_key("encryption.data") {
        return Err(Error::Encrypted);
    }
    let get = |key: &str| values.get(&key.to_ascii_lowercase()).map(String::as_str);
    let is_true = |key: &str| get(key).is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let mut notes = Vec::new();
    let mut disks = Vec::new();
    for kind in ["ide", "scsi", "sata", "nvme"] {
        for adapter in 0..MAX_ADAPTERS {
            if kind != "ide" && !is_true(&format!("{kind}{adapter}.present")) {
                continue;
            }
            let bus = match kind {
                "ide" => Bus::Ide,
                "sata" => Bus::Sata,
                "nvme" => Bus::Nvme,
                _ => scsi_bus(get(&format!("{kind}{adapter}.virtualDev"))),
            };
            for unit in 0..MAX_UNITS {
                let name = format!("{kind}{adapter}:{unit}");
                if !is_true(&format!("{name}.present")) {
                    continue;
                }
                let file = get(&format!("{name}.fileName")).unwrap_or_default();
                if !is_disk(get(&format!("{name}.deviceType")), file) {
                    continue;
                }
                let source = match file {
                    "" => Source::Elsewhere("in no file that the definition names".into()),
                    file => Source::File(file.into()),
                };
                disks.push(Disk { name, source, format: None, bus });
            }
        }
    }
    let usb = values.keys().filter(|key| key.starts_with("usb") && key.ends_with(".devicetype"));
    for key in usb.take(MAX_UNITS) {
        if values[key].eq_ignore_ascii_case("disk") {
            notes.push(format!("disk {} is left out: its bus is usb", key.trim_end_matches(".devicetype")));
        }
    }
    let firmware = match get("firmware") {
        Some(word) if word.eq_ignore_ascii_case("efi") => Firmware::Uefi,
        _ => Firmware::Bios,
    };
    let name = get("displayName").unwrap_or_default().to_owned();
    let boots = get("bios.hddOrder").filter(|_| firmware == Firmware::Bios).map(|order| {
        let named = order.split(',').map(str::trim);
        let known =
            named.filter_map(|name| disks.iter().position(|disk| disk.name.eq_ignore_ascii_case(name)));
        known.collect()
    });
    Ok(Definition { name, firmware, disks, boots, notes })
}

/// Keys in lower case, as VMware takes them in any.
fn lines(text: &str) -> BTreeMap<String, String> {
    let mut values = BTreeMap::new();
    for line in text.lines() {
        let line = line.trim_start_matches('\u{feff}').trim();
        let Some((key, value)) = line.split_once('=') else { continue };
        let Some(value) = value.trim().strip_prefix('"').and_then(|value| value.split('"').next()) else {
            continue;
        };
        if !key.starts_with('#') {
            values.insert(key.trim().to_ascii_lowercase(), unescape(value));
        }
    }
    values
}

/// `|22` is a quotation mark: the byte's two hexadecimal digits.
fn unescape(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'|').then(|| after.get(..2)).flatten();
        let byte = escaped
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Without a word it is LSI Logic's, as on ESX; old hosted products took BusLogic's.
fn scsi_bus(model: Option<&str>) -> Bus {
    match model.map(str::to_ascii_lowercase).as_deref() {
        Some("pvscsi") => Bus::Pvscsi,
        Some("lsisas1068") => Bus::LsiSas,
        Some("buslogic") => Bus::BusLogic,
        _ => Bus::Lsi,
    }
}

/// A hard disk by its type; where there is none, by the name of its file.
fn is_disk(kind: Option<&str>, file: &str) -> bool {
    match kind.map(str::to_ascii_lowercase).as_deref() {
        Some("disk" | "scsi-harddisk" | "ata-harddisk" | "harddisk" | "rawdisk" | "plaindisk") => true,
        Some("") | None => file.to_ascii_lowercase().ends_with(".vmdk"),
        Some(_) => false,
    }
}
