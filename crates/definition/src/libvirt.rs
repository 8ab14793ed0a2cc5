//! libvirt's domain XML (<https://libvirt.org/formatdomain.html>).

use std::collections::BTreeMap;

use roxmltree::{Document, Node, ParsingOptions};
use storage::{Bus, Firmware};

use crate::{Definition, Disk, Error, MAX_SIZE, Source};

/// Elements and texts of a definition; one with a thousand disks has a twentieth of it.
const MAX_NODES: u32 = 1 << 18;

/// Disks of a definition; QEMU takes some hundreds.
const MAX_DISKS: usize = 1024;

/// A disk with what decides its place.
struct Found {
    disk: Disk,
    /// libvirt's number of the target's name: 0 for `vda`.
    index: usize,
    /// The address, if there is one: by number from the outermost part.
    address: Option<[u64; 4]>,
    boot_order: Option<u64>,
}

/// Reads a domain, also where it is wrapped as snapshots and states are.
///
/// # Errors
/// When it is too large, not XML, or holds no domain.
pub fn libvirt(text: &str) -> Result<Definition, Error> {
    if text.len() > MAX_SIZE {
        return Err(Error::TooLarge);
    }
    let options = ParsingOptions { nodes_limit: MAX_NODES, ..ParsingOptions::default() };
    let document =
        Document::parse_with_options(text, options).map_err(|error| Error::Xml(error.to_string()))?;
    let domain = document.descendants().find(|node| node.has_tag_name("domain")).ok_or(Error::NoDomain)?;
    let kind = domain.attribute("type").unwrap_or_default();
    let name = child(domain, "name").and_then(|name| name.text()).unwrap_or_default().trim().to_owned();
    let os = child(domain, "os");
    let devices = child(domain, "devices");
    let mut notes = notes_on_start(os);

    let models = scsi_models(devices);
    let mut found: Vec<Found> = Vec::new();
    for node in devices.into_iter().flat_map(|devices| children(devices, "disk")) {
        match disk(node, kind, &models) {
            Ok(Some(disk)) if found.len() < MAX_DISKS => insert(&mut found, disk),
            Ok(Some(_)) => return Err(Error::TooManyDisks),
            Ok(None) => {}
            Err(note) => notes.push(note),
        }
    }
    let boots = boots(os, devices, &found).filter(|order| {
        let starts_disk = !order.is_empty();
        if !starts_disk {
            notes.push(
                "the firmware is told to start from no disk; what is told is what comes if it does".into(),
            );
        }
        starts_disk
    });
    // The firmware's first disk is the first as libvirt lists them; the kernel goes by the addresses.
    let mut places: Vec<usize> = (0..found.len()).collect();
    sort_by_address(&mut places, &found);
    let boots = boots
        .map(|order| order.iter().filter_map(|disk| places.iter().position(|place| place == disk)).collect());
    let mut found: Vec<Option<Disk>> = found.into_iter().map(|found| Some(found.disk)).collect();
    let disks = places.iter().filter_map(|place| found.get_mut(*place)?.take()).collect();
    Ok(Definition { name, firmware: firmware(os), disks, boots, notes })
}

fn children<'a, 'input>(
    node: Node<'a, 'input>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(move |child| child.has_tag_name(name))
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &'static str) -> Option<Node<'a, 'input>> {
    children(node, name).next()
}

/// Decimal, or hexadecimal with `0x`.
fn number(text: Option<&str>) -> Option<u64> {
    let text = text?.trim();
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// `efi` in `<os firmware>`, or a loader in flash memory; all else on a PC is a BIOS.
fn firmware(os: Option<Node<'_, '_>>) -> Firmware {
    let Some(os) = os else { return Firmware::Bios };
    let is_flash = child(os, "loader").is_some_and(|loader| loader.attribute("type") == Some("pflash"));
    match os.attribute("firmware") {
        Some("efi") => Firmware::Uefi,
        Some(_) => Firmware::Bios,
        None if is_flash => Firmware::Uefi,
        None => Firmware::Bios,
    }
}

fn notes_on_start(os: Option<Node<'_, '_>>) -> Vec<String> {
    let Some(os) = os else { return Vec::new() };
    let mut notes = Vec::new();
    if let Some(kernel) = child(os, "kernel").and_then(|kernel| kernel.text()) {
        let kernel = kernel.trim();
        notes.push(format!(
            "the machine starts the kernel {kernel} of its host: the boot loader on its disks does not run"
        ));
    }
    let machine = child(os, "type");
    let arch = machine.and_then(|machine| machine.attribute("arch")).unwrap_or("x86_64");
    if !["x86_64", "i686"].contains(&arch) {
        notes.push(format!("the machine is {arch}; what its firmware starts is known for PCs only"));
    }
    notes
}

/// The model of each SCSI controller.
fn scsi_models(devices: Option<Node<'_, '_>>) -> BTreeMap<u64, String> {
    let controllers = devices.into_iter().flat_map(|devices| children(devices, "controller"));
    controllers
        .filter(|node| node.attribute("type") == Some("scsi"))
        .filter_map(|node| Some((number(node.attribute("index"))?, node.attribute("model")?.to_owned())))
        .collect()
}

/// One disk; `None` for what is not a hard disk, an error for what is left out.
fn disk(node: Node<'_, '_>, domain: &str, models: &BTreeMap<u64, String>) -> Result<Option<Found>, String> {
    if !matches!(node.attribute("device").unwrap_or("disk"), "disk" | "lun") {
        return Ok(None);
    }
    let target = child(node, "target");
    let name = target.and_then(|target| target.attribute("dev")).unwrap_or_default().to_owned();
    let prefix =
        ["xvd", "vd", "sd", "hd"].into_iter().find(|known| name.starts_with(known)).unwrap_or_default();
    let bus_word = target.and_then(|target| target.attribute("bus")).unwrap_or(match prefix {
        "hd" => "ide",
        "sd" => "scsi",
        "xvd" => "xen",
        _ => "virtio",
    });
    let address = child(node, "address");
    let part = |key: &str| number(address.and_then(|address| address.attribute(key)));
    let bus = match bus_word {
        "virtio" => Bus::VirtioBlk,
        "scsi" => scsi_bus(domain, models.get(&part("controller").unwrap_or(0)).map(String::as_str))
            .map_err(|model| format!("disk {name} is left out: its SCSI controller is {model}"))?,
        "sata" => Bus::Sata,
        "ide" => Bus::Ide,
        "nvme" => Bus::Nvme,
        "xen" => Bus::Xen,
        other => return Err(format!("disk {name} is left out: its bus is {other}")),
    };
    let address = match address.and_then(|address| address.attribute("type")) {
        Some("pci") => Some(["domain", "bus", "slot", "function"]),
        Some("drive") => Some(["controller", "bus", "target", "unit"]),
        _ => None,
    };
    let address = address.map(|keys| keys.map(|key| part(key).unwrap_or(0)));
    let format = child(node, "driver").and_then(|driver| driver.attribute("type")).map(str::to_owned);
    let boot_order = child(node, "boot").and_then(|boot| number(boot.attribute("order")));
    let index = letters(name.strip_prefix(prefix).unwrap_or_default());
    let disk = Disk { source: source(node), format, bus, name };
    Ok(Some(Found { disk, index, address, boot_order }))
}

/// 0 for `a`, 26 for `aa`; 0 for what is no such name.
fn letters(text: &str) -> usize {
    let digits = text.bytes().take_while(u8::is_ascii_lowercase).take(4);
    digits.fold(0, |sum, byte| sum * 26 + usize::from(byte - b'a') + 1).saturating_sub(1)
}

/// The same word is another device under VMware and under QEMU.
fn scsi_bus(domain: &str, model: Option<&str>) -> Result<Bus, String> {
    let is_vmware = domain == "vmware";
    Ok(match model {
        Some("virtio-scsi" | "virtio-transitional" | "virtio-non-transitional") => Bus::VirtioScsi,
        Some("vmpvscsi") => Bus::Pvscsi,
        Some("lsisas1068") => Bus::LsiSas,
        Some("lsisas1078") => Bus::Megasas,
        Some("buslogic") => Bus::BusLogic,
        Some("lsilogic") | None | Some("auto") if is_vmware => Bus::Lsi,
        Some("lsilogic") | None | Some("auto") => Bus::Lsi53c895a,
        Some(other) => return Err(other.to_owned()),
    })
}

fn source(node: Node<'_, '_>) -> Source {
    let source = child(node, "source");
    let attribute = |key: &str| source.and_then(|source| source.attribute(key)).unwrap_or_default();
    match node.attribute("type").unwrap_or("file") {
        "file" if !attribute("file").is_empty() => Source::File(attribute("file").into()),
        "block" if !attribute("dev").is_empty() => Source::File(attribute("dev").into()),
        "network" => {
            Source::Elsewhere(format!("on the network, {}:{}", attribute("protocol"), attribute("name")))
        }
        "volume" => {
            Source::Elsewhere(format!("the volume {} of the pool {}", attribute("volume"), attribute("pool")))
        }
        other => Source::Elsewhere(format!("of type {other}")),
    }
}

/// Where libvirt lists a disk among those before: by name among those of its bus.
fn insert(found: &mut Vec<Found>, new: Found) {
    let mut place = None;
    for (at, other) in found.iter().enumerate().rev().filter(|(_, other)| other.disk.bus == new.disk.bus) {
        if other.index > new.index {
            place = Some(at);
        } else if place.is_none() {
            place = Some(at + 1);
        }
    }
    let place = place.unwrap_or(found.len());
    found.insert(place, new);
}

/// The disks that the firmware may try: QEMU is told to try no others (`-boot strict=on`).
fn boots(os: Option<Node<'_, '_>>, devices: Option<Node<'_, '_>>, found: &[Found]) -> Option<Vec<usize>> {
    let has_order =
        |node: &Node<'_, '_>| child(*node, "boot").is_some_and(|boot| boot.has_attribute("order"));
    let any_device = devices.is_some_and(|devices| devices.children().any(|node| has_order(&node)));
    if any_device {
        let mut order: Vec<(u64, usize)> =
            found.iter().enumerate().filter_map(|(index, found)| Some((found.boot_order?, index))).collect();
        order.sort_unstable();
        return Some(order.into_iter().map(|(_, index)| index).collect());
    }
    let words: Vec<&str> =
        os.into_iter().flat_map(|os| children(os, "boot")).filter_map(|boot| boot.attribute("dev")).collect();
    // `hd` is the first disk alone; without any word it is meant.
    let starts_disk = words.is_empty() || words.contains(&"hd");
    Some(if starts_disk && !found.is_empty() { vec![0] } else { Vec::new() })
}

/// The order within each bus: by address where all of them have one.
fn sort_by_address(places: &mut [usize], found: &[Found]) {
    for bus in Bus::ALL {
        let of_bus = |place: &usize| found[*place].disk.bus == bus;
        let at: Vec<usize> = (0..places.len()).filter(|at| of_bus(&places[*at])).collect();
        let mut sorted: Vec<usize> = at.iter().map(|at| places[*at]).collect();
        if sorted.iter().any(|place| found[*place].address.is_none()) {
            continue;
        }
        sorted.sort_by_key(|place| found[*place].address);
        for (at, place) in at.into_iter().zip(sorted) {
            places[at] = place;
        }
    }
}
