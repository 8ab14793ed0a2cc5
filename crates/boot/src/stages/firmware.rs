//! What the firmware starts: a boot sector, or a program on a FAT file system.
//!
//! SeaBIOS starts the first hard disk in its order, and no other (booted: `Boot failed: not a bootable disk`, then floppies). UEFI's memory of entries is taken to be
//! empty, so that only the path for removable media counts.

use std::sync::Arc;

use boot_files::grub_core::{BootCode, Core, block_list};
use filesystem::FileSystem;
use filesystem::path::resolve;
use storage::{Content, Firmware, Hardware, NodeId, NodeKind, Storage};

use super::{Step, cause, shim_fallback};
use crate::trace::{Cause, Outcome, StageName};

/// Bytes of an EFI program that are read.
const MAX_PROGRAM: u64 = 64 << 20;
/// Sectors of a core image.
const MAX_CORE_SECTORS: u64 = 8192;
/// The type of an EFI system partition in a GPT.
const ESP_TYPE: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
/// Shims that start one another: the one on the path for removable media, and the vendor's.
const MAX_SHIMS: usize = 2;
/// What UEFI starts when it remembers nothing.
const REMOVABLE: &str = "/EFI/BOOT/BOOTX64.EFI";

/// A loader whose own code is whole.
pub(crate) struct Loader {
    pub(crate) firmware: Firmware,
    /// The disk it was started from.
    pub(crate) disk: usize,
    pub(crate) core: Core,
    /// For EFI: the device and the directory of the program.
    pub(crate) program: Option<(NodeId, String)>,
}

/// What a machine of this kind would start, by what lies on the disks.
pub(crate) fn made_for(storage: &Storage, hardware: &Hardware) -> Firmware {
    let has_boot_code = disks(storage, hardware)
        .any(|(_, id)| matches!(boot_code(storage, id), Some(code) if code != BootCode::Empty));
    let has_program = fat(storage).any(|id| program(storage, id, REMOVABLE).is_some());
    if !has_boot_code && (has_program || fat(storage).any(|id| program(storage, id, "/EFI").is_some())) {
        Firmware::Uefi
    } else {
        Firmware::Bios
    }
}

/// Whether any file system holds files of a boot loader: without, the machine may be started from outside.
pub(crate) fn has_loader_files(storage: &Storage) -> bool {
    const FOLDERS: [&str; 10] = [
        "/boot/grub/grub.cfg",
        "/boot/grub/i386-pc",
        "/grub/i386-pc",
        "/boot/grub2/i386-pc",
        "/grub2/i386-pc",
        "/EFI",
        "/boot/extlinux",
        "/extlinux",
        "/boot/grub/menu.lst",
        "/syslinux",
    ];
    let has_any = |fs: &dyn FileSystem| FOLDERS.iter().any(|path| resolve(fs, path.as_bytes()).is_ok());
    storage.iter().any(|(_, node)| {
        let is_fs = matches!(node.content, Content::FileSystem { .. });
        is_fs && node.boot_loader_view().is_ok_and(|view| has_any(view.fs.as_ref()))
    })
}

/// Follows `hardware`'s firmware to a loader.
pub(crate) fn start(storage: &Storage, hardware: &Hardware, firmware: Firmware) -> Step<Loader> {
    match firmware {
        Firmware::Bios => bios(storage, hardware),
        Firmware::Uefi => uefi(storage, hardware),
    }
}

/// The disks that the firmware tries, in its order.
fn disks<'a>(storage: &'a Storage, hardware: &Hardware) -> impl Iterator<Item = (usize, NodeId)> + 'a {
    hardware.boot_order().into_iter().filter_map(|disk| Some((disk, disk_node(storage, disk)?)))
}

fn disk_node(storage: &Storage, disk: usize) -> Option<NodeId> {
    storage.iter().find(|(_, node)| node.kind == NodeKind::Disk(disk)).map(|(id, _)| id)
}

fn sector(storage: &Storage, disk: NodeId, number: u64, sectors: u64) -> Option<Vec<u8>> {
    let device = storage.node(disk).device.as_ref()?;
    let mut bytes = vec![0; usize::try_from(sectors.min(MAX_CORE_SECTORS)).ok()? * 512];
    device.read_exact_at(&mut bytes, number.checked_mul(512)?).ok()?;
    Some(bytes)
}

fn boot_code(storage: &Storage, disk: NodeId) -> Option<BootCode> {
    BootCode::recognise(&sector(storage, disk, 0, 1)?)
}

fn bios(storage: &Storage, hardware: &Hardware) -> Step<Loader> {
    let name = StageName::Firmware;
    let first = disks(storage, hardware).next();
    let Some((disk, id, code)) = first.and_then(|(disk, id)| Some((disk, id, boot_code(storage, id)?)))
    else {
        if !has_loader_files(storage) {
            return Step::unknown(
                name,
                "the disks hold no boot loader: the machine may be started from outside",
            );
        }
        let cause = cause("mbr.signature-missing", "Boot failed: not a bootable disk");
        let other = disks(storage, hardware).find(|(_, id)| boot_code(storage, *id).is_some());
        let summary = match (first, other) {
            (Some((_, first)), Some((_, other))) => format!(
                "{} comes first and has no mark of a boot sector; {}, which has one, is not tried",
                storage.node(first).path,
                storage.node(other).path
            ),
            _ => "no disk has the mark of a boot sector".to_owned(),
        };
        return Step::stops(name, Outcome::NoBootableDevice, cause, summary);
    };
    let path = &storage.node(id).path;
    match code {
        BootCode::Grub { core_sector, drive } => {
            let first = Step::goes(name, format!("the boot sector of {path} is GRUB's"), ());
            core(storage, hardware, disk, core_sector, drive).after(first.stages)
        }
        BootCode::Empty if fat(storage).any(|id| program(storage, id, REMOVABLE).is_some()) => {
            let cause = cause("fw.no-boot-path", "Booting from Hard Disk...");
            let summary = format!("{path} is made for UEFI: its boot sector holds no code");
            Step::stops(name, Outcome::Hang, cause, summary)
        }
        BootCode::Empty if has_loader_files(storage) => {
            let cause = cause("mbr.boot-code-unusable", "Booting from Hard Disk...");
            let summary =
                format!("the boot sector of {path} holds no code, and the machine runs through zeros");
            Step::stops(name, Outcome::Hang, cause, summary)
        }
        BootCode::Empty => {
            Step::unknown(name, "the disks hold no boot loader: the machine may be started from outside")
        }
        other => {
            Step::unknown(name, format!("the boot sector of {path} is not GRUB 2's: {}", in_words(&other)))
        }
    }
}

fn in_words(code: &BootCode) -> &'static str {
    match code {
        BootCode::Empty => "no code",
        BootCode::Grub { .. } => "GRUB 2",
        BootCode::GrubLegacy => "GRUB 0.97",
        BootCode::Lilo => "LILO",
        BootCode::Syslinux => "SYSLINUX",
        BootCode::Windows | BootCode::WindowsVolume => "Windows",
        BootCode::Unknown => "unknown code",
    }
}

/// Loads GRUB's core image as its boot sector does.
fn core(storage: &Storage, hardware: &Hardware, disk: usize, at: u64, drive: u8) -> Step<Loader> {
    let name = StageName::Loader;
    // 0xff is the drive that the firmware started; 0x80 counts drives from there, which comes first.
    let drives: Vec<(usize, NodeId)> = {
        let mut drives: Vec<_> = hardware.drives().into_iter().flatten().collect();
        drives.sort_by_key(|found| *found != disk);
        drives.into_iter().filter_map(|disk| Some((disk, disk_node(storage, disk)?))).collect()
    };
    let index = if drive == 0xff { 0 } else { usize::from(drive & 0x7f) };
    let Some((_, id)) = drives.get(index) else {
        let cause = cause("grub.boot-to-core", "GRUB Read Error");
        return Step::stops(
            name,
            Outcome::Hang,
            cause,
            format!("the core image is on drive {drive:#x}, which is not there"),
        );
    };
    let path = &storage.node(*id).path;
    let hang = |rule, summary: String| Step::stops(name, Outcome::Hang, cause(rule, "GRUB"), summary);
    let Some(first) = sector(storage, *id, at, 1) else {
        let cause = cause("grub.boot-to-core", "GRUB Read Error");
        return Step::stops(
            name,
            Outcome::Hang,
            cause,
            format!("the core image at sector {at} lies behind the end of {path}"),
        );
    };
    let Some(blocks) = block_list(&first) else {
        // Where a core image belongs it is the image that is gone; anywhere else the boot sector points astray.
        let is_its_place = at == 1
            || storage.children(*id).any(|(_, node)| {
                matches!(&node.kind, NodeKind::Partition(found) if found.start == at.saturating_mul(512))
            });
        let rule = if is_its_place { "grub.core-damaged" } else { "grub.boot-to-core" };
        return hang(rule, format!("sector {at} of {path} is not the start of a core image"));
    };
    let mut bytes = Vec::new();
    for blocks in &blocks {
        if bytes.len() as u64 / 512 > MAX_CORE_SECTORS {
            break;
        }
        match sector(storage, *id, blocks.start, u64::from(blocks.sectors)) {
            Some(part) => bytes.extend(part),
            None => {
                return hang(
                    "grub.core-damaged",
                    format!("a part of the core image lies behind the end of {path}"),
                );
            }
        }
    }
    match Core::decode(&bytes) {
        Ok(core) => {
            let summary = format!("the core image at sector {at} of {path} is whole");
            Step::goes(name, summary, Loader { firmware: Firmware::Bios, disk, core, program: None })
        }
        Err(error) => hang("grub.core-damaged", format!("at sector {at} of {path}: {error}")),
    }
}

/// A protective MBR without the GPT that it protects.
fn has_lost_table(storage: &Storage) -> bool {
    storage.iter().any(|(_, node)| {
        let has_partitions =
            matches!(&node.content, Content::Partitions(table) if !table.partitions.is_empty());
        matches!(node.kind, NodeKind::Disk(_)) && !has_partitions && is_protective(node)
    })
}

fn is_protective(node: &storage::Node) -> bool {
    let mut sector = [0; 512];
    let is_read = node.device.as_ref().is_some_and(|device| device.read_exact_at(&mut sector, 0).is_ok());
    is_read && sector[510..] == [0x55, 0xaa] && sector[446 + 4] == 0xee
}

/// Whether a PE program is whole: its sections lie in the file.
fn judge_program(bytes: &[u8]) -> Result<(), &'static str> {
    const NONE: &str = "is not an EFI program";
    let half = |at: usize| Some(usize::from(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?)));
    let word = |at: usize| usize::try_from(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)).ok();
    let header = || -> Option<(usize, usize)> {
        let at = word(0x3c)?;
        let is_pe = bytes.starts_with(b"MZ") && bytes.get(at..at.checked_add(4)?)? == b"PE\0\0";
        is_pe.then_some(())?;
        Some((at + 24 + half(at + 20)?, half(at + 6)?))
    };
    let (table, count) = header().ok_or(NONE)?;
    for index in 0..count.min(96) {
        let at = table + index * 40;
        let (Some(size), Some(offset)) = (word(at + 16), word(at + 20)) else { return Err("is cut off") };
        if offset.checked_add(size).is_none_or(|end| end > bytes.len()) {
            return Err("is cut off");
        }
    }
    Ok(())
}

/// File systems that UEFI reads.
fn fat(storage: &Storage) -> impl Iterator<Item = NodeId> + '_ {
    storage.iter().filter(|(_, node)| node.content_type() == Some("vfat")).map(|(id, _)| id)
}

fn program(storage: &Storage, id: NodeId, path: &str) -> Option<Arc<dyn FileSystem>> {
    let view = storage.node(id).boot_loader_view().ok()?;
    resolve(view.fs.as_ref(), path.as_bytes()).ok()?;
    Some(view.fs)
}

fn uefi(storage: &Storage, hardware: &Hardware) -> Step<Loader> {
    let name = StageName::Firmware;
    let order = hardware.boot_order();
    let mut candidates: Vec<(usize, NodeId)> = fat(storage)
        .filter_map(|id| Some((*storage.disks_below(id).first()?, id)))
        .filter(|(disk, _)| order.contains(disk))
        .collect();
    candidates.sort_by_key(|(disk, _)| order.iter().position(|found| found == disk));
    let found =
        candidates.iter().find_map(|(disk, id)| Some((*disk, *id, program(storage, *id, REMOVABLE)?)));
    let Some((disk, id, fs)) = found else {
        let has_boot_code = disks(storage, hardware)
            .any(|(_, id)| matches!(boot_code(storage, id), Some(code) if code != BootCode::Empty));
        if candidates.is_empty() && !has_boot_code && !has_loader_files(storage) && !has_lost_table(storage) {
            return Step::unknown(
                name,
                "the disks hold no boot loader: the machine may be started from outside",
            );
        }
        let has_system_partition = storage.iter().any(|(_, node)| {
            matches!(&node.kind, NodeKind::Partition(found) if found.type_id.eq_ignore_ascii_case(ESP_TYPE))
        });
        let rule = if !candidates.is_empty() {
            "esp.no-fallback-loader"
        } else if has_system_partition {
            "esp.fs-damaged-or-full"
        } else if has_lost_table(storage) {
            "gpt.primary-invalid"
        } else {
            "fw.no-boot-path"
        };
        let symptom = "BdsDxe: failed to load Boot0001: Not Found";
        let summary = format!("no FAT file system holds {REMOVABLE}");
        return Step::stops(name, Outcome::NoBootableDevice, cause(rule, symptom), summary);
    };
    let found = Step::goes(name, format!("{} holds {REMOVABLE}", storage.node(id).path), ());
    efi_program(storage, fs.as_ref(), (disk, id), REMOVABLE, 0).after(found.stages)
}

/// Looks into an EFI program: GRUB, or shim that loads it.
fn efi_program(
    storage: &Storage,
    fs: &dyn FileSystem,
    place: (usize, NodeId),
    path: &str,
    depth: usize,
) -> Step<Loader> {
    let name = StageName::Loader;
    let (disk, id) = place;
    let not_found = |summary: String| {
        let symptom = "BdsDxe: failed to load Boot0001: Not Found";
        Step::stops(name, Outcome::NoBootableDevice, cause("esp.loader-pair-broken", symptom), summary)
    };
    let size = resolve(fs, path.as_bytes()).ok().and_then(|inode| Some(fs.metadata(inode).ok()?.size));
    if size.is_some_and(|size| size > MAX_PROGRAM) {
        return Step::unknown(name, format!("{path} is larger than any loader that is known here"));
    }
    let bytes = resolve(fs, path.as_bytes())
        .map_err(|error| error.to_string())
        .and_then(|inode| filesystem::read_to_end(fs, inode, MAX_PROGRAM).map_err(|error| error.to_string()));
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(reason) => return not_found(format!("{path}: {reason}")),
    };
    if let Err(reason) = judge_program(&bytes) {
        return not_found(format!("{path} {reason}"));
    }
    let directory = path.rsplit_once('/').map_or("/", |(directory, _)| directory);
    if let Ok(core) = Core::from_efi(&bytes) {
        let summary = format!("{path} of {} is GRUB", storage.node(id).path);
        let program = Some((id, directory.to_owned()));
        return Step::goes(name, summary, Loader { firmware: Firmware::Uefi, disk, core, program });
    }
    let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
    // One that follows another would load itself; a fallback program starts another shim.
    if depth < MAX_SHIMS && (has(b"s\0h\0i\0m\0") || has(b"shim,")) {
        let fallback = format!("{directory}/fbx64.efi");
        let is_removable = path.eq_ignore_ascii_case(REMOVABLE);
        if is_removable && resolve(fs, fallback.as_bytes()).is_ok() {
            return by_fallback(storage, fs, place, depth);
        }
        return efi_program(storage, fs, place, &format!("{directory}/grubx64.efi"), MAX_SHIMS);
    }
    let what = if has(b"#### LoaderInfo: systemd-boot") {
        "systemd-boot"
    } else if has(b".linux\0\0") {
        "a unified kernel image"
    } else {
        "not a loader that is known here"
    };
    Step::unknown(name, format!("{path} is {what}, which is not followed yet"))
}

/// Starts what shim's fallback program would: the first entry of the lists beside the vendors' loaders. It makes boot
/// entries of them, and resets the machine when it finds none.
fn by_fallback(storage: &Storage, fs: &dyn FileSystem, place: (usize, NodeId), depth: usize) -> Step<Loader> {
    let name = StageName::Loader;
    let fails = |outcome, symptom: &str, file: String, summary: String| {
        let cause = Cause { file, ..cause("esp.fallback-csv-broken", symptom) };
        Step::stops(name, outcome, cause, summary)
    };
    match shim_fallback::first_entry(fs) {
        Some(entry) => {
            let path = format!("{}/{}", entry.directory, entry.program);
            if resolve(fs, path.as_bytes()).is_err() {
                let summary = format!("{} names {path}, which is not there", entry.list);
                // It shows where it looked for 500 seconds before it resets.
                return fails(Outcome::Hang, "LoadImage failed: Not Found", entry.list, summary);
            }
            let found = Step::goes(name, format!("shim's fallback program starts {path}"), ());
            efi_program(storage, fs, place, &path, depth + 1).after(found.stages)
        }
        None => fails(
            Outcome::RebootLoop,
            "Reset System",
            String::new(),
            "shim starts its fallback program, which finds no list BOOTX64.CSV with an entry".into(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use filesystem::MemoryFs;

    use super::super::Next;
    use super::*;

    /// A PE program without sections that holds `text`.
    fn program_with(text: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 0x80];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = 0x40;
        bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
        bytes.extend(text);
        bytes
    }

    #[test]
    fn a_shim_that_loads_itself_ends() {
        let fs = MemoryFs::new()
            .file("/EFI/BOOT/BOOTX64.EFI", program_with(b"shim,4"))
            .file("/EFI/BOOT/grubx64.efi", program_with(b"shim,4"));
        let step = efi_program(&Storage::default(), &fs, (0, NodeId(0)), REMOVABLE, 0);
        assert!(matches!(step.next, Next::Unknown), "{:?}", step.stages);
    }

    #[test]
    fn shims_with_a_fallback_program() {
        let list = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
        let shim = || program_with(b"shim,4");
        let base = || MemoryFs::new().file(REMOVABLE, shim()).file("/EFI/BOOT/fbx64.efi", program_with(b""));
        let run = |fs: &MemoryFs| efi_program(&Storage::default(), fs, (0, NodeId(0)), REMOVABLE, 0);
        let rule = |step: &Step<Loader>| match &step.next {
            Next::Stops(stop) => stop.cause.as_ref().map(|cause| (cause.rule, cause.file.clone())),
            _ => None,
        };
        let broken = |file: &str| Some(("esp.fallback-csv-broken", file.to_owned()));
        assert_eq!(rule(&run(&base())), broken(""));
        let csv = "/EFI/centos/BOOTX64.CSV";
        let text = list("\u{feff}shimx64.efi,CentOS,,This is the boot entry for CentOS\n");
        assert_eq!(rule(&run(&base().file(csv, text.clone()))), broken(csv));
        // The vendor's shim has no GRUB beside it; one in /EFI/BOOT does not help.
        let vendor = |fs: MemoryFs| fs.file(csv, text.clone()).file("/EFI/centos/shimx64.efi", shim());
        let step = run(&vendor(base()).file("/EFI/BOOT/grubx64.efi", program_with(b"")));
        assert_eq!(rule(&step).map(|(rule, _)| rule), Some("esp.loader-pair-broken"));
        // A list that leads back to itself.
        let step = run(&base().file(csv, list("\u{feff}../BOOT/BOOTX64.EFI,x,,\n")));
        assert!(!matches!(step.next, Next::Goes(_)));
    }

    #[test]
    fn programs_that_are_cut() {
        let mut bytes = program_with(b"");
        assert_eq!(judge_program(&bytes), Ok(()));
        // One section of 255 bytes, which the file does not have.
        (bytes[0x46], bytes[0x58 + 16]) = (1, 0xff);
        assert_eq!(judge_program(&bytes), Err("is cut off"));
        bytes[0x3c] = 0xff;
        assert_eq!(judge_program(&bytes), Err("is not an EFI program"));
        assert_eq!(judge_program(b"MZ"), Err("is not an EFI program"));
    }
}
