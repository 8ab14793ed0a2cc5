//! What a program or library needs before it runs: its loader and its libraries.
//!
//! System V ABI, chapters 4 and 5 ("Program Header", "Dynamic Section"). 64 bits, little-endian: what is older or other is not
//! read. Every offset is in bytes.

/// The file header.
const HEADER: usize = 64;
/// A program header.
const PROGRAM_HEADER: usize = 56;
/// Program headers that are looked at; real programs have about a dozen.
const MAX_HEADERS: usize = 64;
/// Bytes of the dynamic section; 16 for each library and some dozens besides.
const MAX_DYNAMIC: u64 = 64 << 10;
/// Bytes of one name.
const MAX_NAME: usize = 4096;
/// Libraries of one file.
const MAX_NEEDED: usize = 256;

/// What a file asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// The loader, `PT_INTERP`; libraries have none.
    pub interpreter: Option<String>,
    /// Names of libraries, `DT_NEEDED`.
    pub libraries: Vec<String>,
    /// Folders that are searched first, `DT_RUNPATH` or else `DT_RPATH`; `$ORIGIN` stands for the file's own.
    pub search: Vec<String>,
}

/// Reads what a file needs; `read(offset, length)` gives at most `length` bytes of it. `None` when it is no such file, or cut.
pub fn needs(read: &dyn Fn(u64, usize) -> Option<Vec<u8>>) -> Option<Needs> {
    let header = read(0, HEADER)?;
    // Magic, 64 bits, little-endian.
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = number(&header, 0x20, 8)?;
    let (each, count) = (number(&header, 0x36, 2)?, usize::try_from(number(&header, 0x38, 2)?).ok()?);
    let mut needs = Needs::default();
    let mut loads = Vec::new();
    let mut dynamic = None;
    for index in 0..count.min(MAX_HEADERS) {
        let at = table.checked_add(each.checked_mul(u64::try_from(index).ok()?)?)?;
        let entry = read(at, PROGRAM_HEADER)?;
        let (kind, offset) = (number(&entry, 0, 4)?, number(&entry, 8, 8)?);
        let (address, size) = (number(&entry, 0x10, 8)?, number(&entry, 0x20, 8)?);
        match kind {
            1 => loads.push((address, offset, size)),
            2 => dynamic = Some((offset, size)),
            3 => needs.interpreter = text(&read(offset, MAX_NAME.min(usize::try_from(size).ok()?))?),
            _ => {}
        }
    }
    let Some((offset, size)) = dynamic else { return Some(needs) };
    let section = read(offset, usize::try_from(size.min(MAX_DYNAMIC)).ok()?)?;
    let (mut names, mut runpath, mut rpath, mut strings) = (Vec::new(), None, None, None);
    for entry in section.chunks_exact(16) {
        let value = number(entry, 8, 8)?;
        match number(entry, 0, 8)? {
            0 => break,
            1 => names.push(value),
            5 => strings = Some(value),
            15 => rpath = Some(value),
            29 => runpath = Some(value),
            _ => {}
        }
    }
    let strings = strings?;
    let (address, offset, _) = loads
        .iter()
        .copied()
        .find(|(address, _, size)| strings.checked_sub(*address).is_some_and(|distance| distance < *size))?;
    let base = strings.checked_sub(address)?.checked_add(offset)?;
    let string = |at: u64| text(&read(base.checked_add(at)?, MAX_NAME)?);
    needs.libraries = names.iter().take(MAX_NEEDED).map(|at| string(*at)).collect::<Option<_>>()?;
    if let Some(at) = runpath.or(rpath) {
        needs.search =
            string(at)?.split(':').filter(|folder| !folder.is_empty()).map(str::to_owned).collect();
    }
    Some(needs)
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(length)?)?;
    Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

/// The text up to its zero.
fn text(bytes: &[u8]) -> Option<String> {
    let text = bytes.split(|byte| *byte == 0).next()?;
    String::from_utf8(text.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(file: &[u8]) -> Option<Needs> {
        needs(&|offset, length| {
            let start = usize::try_from(offset).ok().filter(|start| *start <= file.len())?;
            Some(file[start..file.len().min(start.saturating_add(length))].to_vec())
        })
    }

    /// The test itself is such a program; `readelf` is the judge where it is installed.
    #[test]
    fn as_readelf_reads_it() {
        let path = std::env::current_exe().unwrap();
        let found = of(&std::fs::read(&path).unwrap()).unwrap();
        assert!(found.interpreter.as_deref().is_some_and(|loader| loader.contains("ld-linux")), "{found:?}");
        assert!(found.libraries.iter().any(|name| name == "libc.so.6"), "{found:?}");
        let Ok(shown) = std::process::Command::new("readelf").arg("-d").arg(&path).output() else {
            println!("skipped: no readelf");
            return;
        };
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        let names = shown.lines().filter(|line| line.contains("(NEEDED)"));
        let names: Vec<&str> = names.filter_map(|line| line.split_once('[')?.1.strip_suffix(']')).collect();
        assert_eq!(found.libraries, names);
    }

    #[test]
    fn hostile_files() {
        assert_eq!(of(b""), None);
        assert_eq!(of(b"#!/bin/sh\n"), None);
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let head = &file[..4096.min(file.len())];
        for at in 0..0x400.min(head.len()) {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = head.to_vec();
                damaged[at] = value;
                drop(of(&damaged));
            }
        }
        for length in 0..head.len() {
            drop(of(&head[..length]));
        }
    }
}
