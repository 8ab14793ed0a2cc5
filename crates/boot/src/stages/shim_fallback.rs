//! shim's fallback program (`fallback.c`, shim 15): boot entries from lists that lie beside the vendors' loaders.
//!
//! It goes through the directories of `/EFI` but `BOOT`, and takes `BOOTX64.CSV`, else `BOOT.CSV`: UTF-16LE with or without a
//! byte order mark (Debian's has none), a line for each entry, `program,label,arguments,comment`.

use filesystem::path::resolve;
use filesystem::{FileKind, FileSystem};

/// Bytes of a list; real ones have some hundreds.
const MAX_LIST: u64 = 64 << 10;
/// Directories below `/EFI`.
const MAX_FOLDERS: usize = 256;

/// An entry of a list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The list.
    pub(crate) list: String,
    /// Where list and program are.
    pub(crate) directory: String,
    pub(crate) program: String,
}

/// The entry that is started: the first of the first list.
pub(crate) fn first_entry(fs: &dyn FileSystem) -> Option<Entry> {
    let folders = fs.read_dir(resolve(fs, b"/EFI").ok()?).ok()?;
    for folder in folders.into_iter().take(MAX_FOLDERS) {
        let name = String::from_utf8_lossy(&folder.name).into_owned();
        if matches!(name.as_str(), "." | "..") || name.eq_ignore_ascii_case("BOOT") {
            continue;
        }
        let is_folder = fs.metadata(folder.inode).is_ok_and(|metadata| metadata.kind == FileKind::Directory);
        if !is_folder {
            continue;
        }
        let directory = format!("/EFI/{name}");
        for file in ["BOOTX64.CSV", "BOOT.CSV"] {
            let list = format!("{directory}/{file}");
            let Ok(inode) = resolve(fs, list.as_bytes()) else { continue };
            let bytes = filesystem::read_to_end(fs, inode, MAX_LIST).unwrap_or_default();
            if let Some(program) = first_program(&bytes) {
                return Some(Entry { list, directory, program });
            }
            break;
        }
    }
    None
}

/// The program of the first line that names one.
fn first_program(bytes: &[u8]) -> Option<String> {
    let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let text: String =
        char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
    let text = text.split('\0').next()?;
    let lines = text.strip_prefix('\u{feff}').unwrap_or(text).split(['\r', '\n']);
    lines.filter_map(|line| line.split_once(',')).find_map(|(program, rest)| {
        // A label has to follow.
        let is_entry = !program.is_empty() && !rest.is_empty() && !rest.starts_with(',');
        is_entry.then(|| program.replace('\\', "/"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let list = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
        assert_eq!(first_program(&list("\u{feff}shimx64.efi,Fedora,,x\n")).as_deref(), Some("shimx64.efi"));
        assert_eq!(first_program(&list("\u{feff}\n\nsub\\a.efi,A\n")).as_deref(), Some("sub/a.efi"));
        assert_eq!(first_program(&list("shimx64.efi,debian,,x\r\n")).as_deref(), Some("shimx64.efi"));
        assert_eq!(first_program(b"shimx64.efi,Fedora"), None);
        assert_eq!(first_program(&list("shimx64.efi\n,x\nshimx64.efi,,\n\0a,b")), None);
    }
}
