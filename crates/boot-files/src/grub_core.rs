//! GRUB 2 before it reads anything: the boot sector, the core image behind it, and what was built into it.
//!
//! GRUB 2.06 `grub-core/boot/i386/pc/{boot,diskboot,startup_raw}.S`, `include/grub/kernel.h`. Little-endian; sectors of 512 bytes.
//! For BIOS the image is compressed by LZMA and holds a block list of where the rest of it lies; for EFI it is a PE program in
//! which the same records lie plain.

use std::io::Read;

/// Bytes of the uncompressed image that are believed; real ones have 50 to 500 KiB.
const MAX_IMAGE: u32 = 4 << 20;
/// Bytes of code before the compressed data, at most; Debian's have 0xb20.
const MAX_CODE: usize = 16 << 10;
/// Bytes of a record's text.
const MAX_TEXT: usize = 64 << 10;
const MODULE_INFO: &[u8; 4] = b"mimg";

/// What the first sector of a disk or partition does when a BIOS starts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootCode {
    /// Nothing: zeros, which a processor runs through without end.
    Empty,
    /// GRUB 2, which loads this sector next.
    Grub {
        /// The sector of the core image's first part.
        core_sector: u64,
        /// The BIOS drive it is on; 0xff is the drive it was started from.
        drive: u8,
    },
    /// GRUB 0.97.
    GrubLegacy,
    /// LILO.
    Lilo,
    /// A member of the SYSLINUX family.
    Syslinux,
    /// The code of Windows or DOS that starts the active partition.
    Windows,
    /// The boot sector of a FAT or NTFS partition with code of Windows.
    WindowsVolume,
    /// Code that is not known here.
    Unknown,
}

impl BootCode {
    /// By the code before the partition table, as its own messages tell it; `None` without the mark 0x55 0xaa at the end.
    pub fn recognise(sector: &[u8]) -> Option<Self> {
        if sector.get(510..512)? != [0x55, 0xaa] {
            return None;
        }
        let code = sector.get(..440)?;
        let has = |text: &[u8]| code.windows(text.len()).any(|window| window == text);
        Some(if code.iter().all(|byte| *byte == 0) {
            Self::Empty
        } else if has(b"GRUB ") && has(b"Geom\0") {
            // 2 has its signature's place free for a block list of 64 bits; 0.97 has a version of its own at 0x3e.
            if sector.get(0x3e..0x40) == Some(&[3, 2])
                && sector.get(0x40) != Some(&0x90)
                && !has(b"Read\0 Error\r\n\0")
            {
                Self::GrubLegacy
            } else {
                let core_sector = u64::from_le_bytes(sector.get(0x5c..0x64)?.try_into().ok()?);
                Self::Grub { core_sector, drive: *sector.get(0x64)? }
            }
        } else if has(b"LILO") {
            Self::Lilo
        } else if has(b"SYSLINUX")
            || has(b"EXTLINUX")
            || has(b"Missing operating system.\r\n") && has(b"Boot error")
        {
            Self::Syslinux
        } else if has(b"BOOTMGR") || has(b"NTLDR") {
            Self::WindowsVolume
        } else if has(b"Invalid partition table") || has(b"TCPA") {
            Self::Windows
        } else {
            Self::Unknown
        })
    }
}

/// Where a part of the core image lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// First sector on the drive.
    pub start: u64,
    /// How many.
    pub sectors: u16,
}

/// The block list in the core image's first sector, in the order of loading; `None` when that is no such sector.
pub fn block_list(sector: &[u8]) -> Option<Vec<Blocks>> {
    if sector.len() < 512 || !sector[..440].windows(7).any(|window| window == b"loading") {
        return None;
    }
    let mut blocks = Vec::new();
    // Twelve bytes each, from 0x1f4 downward, to one without sectors.
    for index in 0..32 {
        let at = 0x1f4_usize.checked_sub(12 * index)?;
        let entry = sector.get(at..at + 12)?;
        let start = u64::from_le_bytes(entry[..8].try_into().ok()?);
        let sectors = u16::from_le_bytes(entry[8..10].try_into().ok()?);
        if sectors == 0 {
            return (!blocks.is_empty()).then_some(blocks);
        }
        blocks.push(Blocks { start, sectors });
    }
    None
}

/// What was built into a core image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Core {
    /// Where its own files are: `(,gpt2)/boot/grub`; without a device, on the one it was started from.
    pub prefix: Option<String>,
    /// The script that it runs before anything else.
    pub config: Option<Vec<u8>>,
    /// The names of the modules in it.
    pub modules: Vec<String>,
}

/// Why a core image cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CoreError {
    /// Sizes that cannot be, or nothing but zeros.
    #[error("the core image is not there")]
    NotACore,
    /// The sizes may be right and the data do not fit them.
    #[error("the core image is damaged")]
    Damaged,
    /// It has no records.
    #[error("the core image holds no modules")]
    NoRecords,
}

impl Core {
    /// From the sectors that the block list names, in its order.
    ///
    /// # Errors
    /// [`CoreError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CoreError> {
        let word =
            |at: usize| -> Option<u32> { Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)) };
        let (Some(packed), Some(size), Some(plain_length)) = (word(8), word(12), word(20)) else {
            return Err(CoreError::NotACore);
        };
        let plain_length = (plain_length & 0xffff) as usize;
        let is_sane = (1..=MAX_IMAGE).contains(&size)
            && (1..=MAX_IMAGE).contains(&packed)
            && (packed as usize) < bytes.len()
            && plain_length != 0xffff;
        if !is_sane {
            return Err(CoreError::NotACore);
        }
        // The length of the code before the data is known to the builder only. The data's first byte is 0, and no other place
        // decodes to the length that the header tells.
        let last = (bytes.len() - packed as usize).min(plain_length + MAX_CODE);
        let image = (plain_length..=last)
            .filter(|at| bytes.get(*at) == Some(&0))
            .find_map(|at| unpack(&bytes[at..at + packed as usize], size))
            .ok_or(CoreError::Damaged)?;
        Self::records(&image).ok_or(CoreError::NoRecords)
    }

    /// From a PE program for EFI, whose records lie plain in it.
    ///
    /// # Errors
    /// [`CoreError::NoRecords`] when this is no program of GRUB's.
    pub fn from_efi(program: &[u8]) -> Result<Self, CoreError> {
        Self::records(program).ok_or(CoreError::NoRecords)
    }

    fn records(image: &[u8]) -> Option<Self> {
        let places = image.windows(4).enumerate().filter(|(_, window)| window == MODULE_INFO);
        places.map(|(at, _)| at).find_map(|at| Self::records_at(&image[at..]))
    }

    /// A header of 32 or 64 bits, then records of a type, a length and content.
    fn records_at(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| -> Option<usize> {
            let word = u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
            usize::try_from(word).ok()
        };
        // The same four bytes stand in code, too; there no offset follows them.
        let (start, end) = match (word(4)?, word(8)?, word(12), word(16)) {
            (12, end, _, _) => (12, end),
            (_, 24, Some(0), Some(end)) => (24, end),
            _ => return None,
        };
        if end < start || end > bytes.len() {
            return None;
        }
        let mut core = Self::default();
        let mut at = start;
        while at + 8 <= end {
            let (kind, length) = (word(at)?, word(at + 4)?);
            if length < 8 || at.checked_add(length)? > end {
                break;
            }
            let content = &bytes[at + 8..at + length];
            let text = &content[..content.len().min(MAX_TEXT)];
            let text = &text[..text.iter().position(|byte| *byte == 0).unwrap_or(text.len())];
            match kind {
                0 => core.modules.extend(module_name(content)),
                2 => core.config = Some(text.to_vec()),
                3 => core.prefix = Some(String::from_utf8_lossy(text).into_owned()),
                _ => {}
            }
            at += length;
        }
        (core.prefix.is_some() || !core.modules.is_empty()).then_some(core)
    }
}

/// A raw LZMA stream of the parameters that grub-mkimage uses, if it comes to `size` bytes.
fn unpack(packed: &[u8], size: u32) -> Option<Vec<u8>> {
    let reader = lzma_rust2::LzmaReader::new(packed, u64::from(size), 3, 0, 2, 1 << 16, None);
    let mut image = Vec::new();
    reader.ok()?.take(u64::from(size)).read_to_end(&mut image).ok()?;
    (image.len() == size as usize && image.windows(4).any(|window| window == MODULE_INFO)).then_some(image)
}

/// The text of the ELF section `.modname`.
fn module_name(elf: &[u8]) -> Option<String> {
    let is_64 = match elf.get(..5)? {
        [0x7f, b'E', b'L', b'F', 1] => false,
        [0x7f, b'E', b'L', b'F', 2] => true,
        _ => return None,
    };
    let half = |at: usize| -> Option<usize> {
        Some(usize::from(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?)))
    };
    let word = |at: usize| -> Option<usize> {
        usize::try_from(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?)).ok()
    };
    // Offsets of 64 bits are read as 32: a module is small.
    let (table, each, count, names) = if is_64 {
        (word(0x28)?, half(0x3a)?, half(0x3c)?, half(0x3e)?)
    } else {
        (word(0x20)?, half(0x2e)?, half(0x30)?, half(0x32)?)
    };
    let (offset_at, size_at) = if is_64 { (0x18, 0x20) } else { (0x10, 0x14) };
    let section = |index: usize| table.checked_add(each.checked_mul(index)?);
    let content = |at: usize| -> Option<&[u8]> {
        let (offset, size) = (word(at + offset_at)?, word(at + size_at)?);
        elf.get(offset..offset.checked_add(size)?)
    };
    let names = content(section(names)?)?;
    (0..count.min(1000)).find_map(|index| {
        let at = section(index)?;
        let name = names.get(word(at)?..)?;
        if !name.starts_with(b".modname\0") {
            return None;
        }
        let text = content(at)?;
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        Some(String::from_utf8_lossy(&text[..end.min(64)]).into_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const CONFIG: &str = "search.fs_uuid 1234-ABCD root\nset prefix=($root)/grub\n";

    /// A core image as grub-mkimage makes it; `None` when it is not installed.
    fn made(platform: &str, modules: &[&str]) -> Option<Vec<u8>> {
        let folder = tempfile::tempdir().unwrap();
        let [config, image] = ["config", "image"].map(|name| folder.path().join(name));
        std::fs::write(&config, CONFIG).unwrap();
        let run = Command::new("grub-mkimage")
            .args(["-O", platform, "-p", "(,msdos1)/boot/grub", "-c"])
            .arg(&config)
            .arg("-o")
            .arg(&image)
            .args(modules)
            .output();
        let is_made = run.is_ok_and(|run| run.status.success());
        if !is_made {
            println!("skipped: grub-mkimage for {platform} is not installed");
            return None;
        }
        Some(std::fs::read(image).unwrap())
    }

    #[test]
    fn what_grub_mkimage_makes_comes_back() {
        let modules = ["biosdisk", "ext2", "part_msdos", "search_fs_uuid", "lvm"];
        let Some(image) = made("i386-pc", &modules) else { return };
        let blocks = block_list(&image).unwrap();
        assert_eq!(blocks.len(), 1);
        let core = Core::decode(&image[512..]).unwrap();
        assert_eq!(core.prefix.as_deref(), Some("(,msdos1)/boot/grub"));
        assert_eq!(core.config.as_deref(), Some(CONFIG.as_bytes()));
        for module in modules {
            assert!(core.modules.iter().any(|found| found == module), "{module}");
        }
        assert!(core.modules.iter().any(|found| found == "diskfilter"), "what lvm needs");
        let mut cut = image[512..].to_vec();
        cut.truncate(cut.len() - 512);
        assert!(Core::decode(&cut).is_err());
        assert_eq!(Core::decode(&vec![0; 40_000]), Err(CoreError::NotACore));
    }

    #[test]
    fn efi_programs() {
        let Some(image) = made("x86_64-efi", &["ext2", "part_gpt"]) else { return };
        let core = Core::from_efi(&image).unwrap();
        assert_eq!(core.prefix.as_deref(), Some("(,msdos1)/boot/grub"));
        assert!(core.modules.iter().any(|found| found == "part_gpt"));
        assert_eq!(Core::from_efi(b"MZ mimg \x0c\0\0\0"), Err(CoreError::NoRecords));
    }

    #[test]
    fn boot_sectors() {
        let sector = |text: &[u8]| {
            let mut sector = vec![0; 512];
            sector[0x150..0x150 + text.len()].copy_from_slice(text);
            sector[510..].copy_from_slice(&[0x55, 0xaa]);
            sector
        };
        let known = |text: &[u8]| BootCode::recognise(&sector(text)).unwrap();
        assert_eq!(known(b""), BootCode::Empty);
        assert_eq!(known(b"LILO"), BootCode::Lilo);
        assert_eq!(known(b"Invalid partition table"), BootCode::Windows);
        assert_eq!(known(b"something"), BootCode::Unknown);
        assert_eq!(BootCode::recognise(&[0; 512]), None);
        let mut grub = sector(b"GRUB \0Geom\0Hard Disk\0Read\0 Error\r\n\0");
        grub[0x5d] = 8;
        grub[0x64] = 0xff;
        assert_eq!(BootCode::recognise(&grub), Some(BootCode::Grub { core_sector: 2048, drive: 255 }));
        if let Ok(boot) = std::fs::read("/usr/lib/grub/i386-pc/boot.img") {
            assert_eq!(BootCode::recognise(&boot), Some(BootCode::Grub { core_sector: 1, drive: 255 }));
        }
    }

    #[test]
    fn block_lists() {
        let mut sector = vec![0; 512];
        sector[..7].copy_from_slice(b"loading");
        assert_eq!(block_list(&sector), None);
        sector[0x1f4] = 2;
        sector[0x1fc] = 7;
        assert_eq!(block_list(&sector), Some(vec![Blocks { start: 2, sectors: 7 }]));
        sector[0x1e8] = 100;
        sector[0x1f0] = 1;
        assert_eq!(block_list(&sector).unwrap().len(), 2);
        // One that never ends.
        (0..40).for_each(|index| {
            if let Some(at) = 0x1fc_usize.checked_sub(12 * index) {
                sector[at] = 1;
            }
        });
        assert_eq!(block_list(&sector), None);
        assert_eq!(block_list(b"loading"), None);
    }

    /// The same records with the smallest of the modules only.
    fn small(info: &[u8]) -> Vec<u8> {
        let word = |at: usize| u32::from_le_bytes(info[at..at + 4].try_into().unwrap()) as usize;
        let (mut at, mut records) = (24, Vec::new());
        while at < word(16) {
            records.push(&info[at..at + word(at + 4)]);
            at += word(at + 4);
        }
        let smallest = records.iter().filter(|record| record[0] == 0).map(|record| record.len()).min();
        records.retain(|record| record[0] != 0 || Some(record.len()) == smallest);
        let records = records.concat();
        let mut small = info[..24].to_vec();
        small[16..20].copy_from_slice(&(24 + records.len() as u32).to_le_bytes());
        small.extend(records);
        small
    }

    #[test]
    fn mutations() {
        let (Some(bios), Some(efi)) = (made("i386-pc", &["ext2"]), made("x86_64-efi", &["ext2"])) else {
            return;
        };
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        let start = efi.windows(8).position(|window| window == b"mimg\0\0\0\0").unwrap();
        let info = small(&efi[start..]);
        assert_eq!(Core::from_efi(&info).unwrap().modules.len(), 1);
        let mut damaged = 0;
        for round in 0..20_000 {
            // What the code before the data holds does not matter; the sizes do, and the records of the plain form.
            let mut bytes = if round % 200 == 0 { bios[512..].to_vec() } else { info.clone() };
            let reach = if round % 200 == 0 { 24 } else { bytes.len() };
            for _ in 0..=random(3) {
                let at = random(reach.min(bytes.len()));
                match random(3) {
                    0 => bytes[at] ^= 1 << random(8),
                    1 => bytes[at] = [0, 1, 0x7f, 0xff][random(4)],
                    _ => bytes.truncate(at.max(1)),
                }
            }
            let found = if round % 200 == 0 { Core::decode(&bytes) } else { Core::from_efi(&bytes) };
            damaged += usize::from(found.is_err());
        }
        assert!(damaged > 1_000, "{damaged}");
    }
}
