//! VMDK extents that no tool here can make, built from their layout.

use crate::support::Folder;

/// A COWD delta with the sectors of `content` that are not zeros; grains of 8 sectors.
pub(crate) fn cowd(content: &[u8]) -> Vec<u8> {
    const GRAIN: usize = 8 * 512;
    let tables = content.len().div_ceil(GRAIN * 4096);
    let mut file = vec![0; 4 * 512 + tables.next_multiple_of(128) * 4];
    let mut directory = Vec::new();
    for part in content.chunks(GRAIN * 4096) {
        let table_at = file.len();
        directory.push(table_at / 512);
        file.resize(table_at + 4096 * 4, 0);
        for (number, grain) in part.chunks(GRAIN).enumerate() {
            if grain.iter().all(|byte| *byte == 0) {
                continue;
            }
            let sector = (file.len() / 512) as u32;
            file[table_at + number * 4..][..4].copy_from_slice(&sector.to_le_bytes());
            file.extend_from_slice(grain);
            file.resize(file.len().next_multiple_of(512), 0);
        }
    }
    let words = [1, 3, content.len() / 512, GRAIN / 512, 4, tables, file.len() / 512];
    file[..4].copy_from_slice(b"COWD");
    for (number, word) in words.iter().enumerate() {
        file[4 + number * 4..][..4].copy_from_slice(&(*word as u32).to_le_bytes());
    }
    for (number, sector) in directory.iter().enumerate() {
        file[2048 + number * 4..][..4].copy_from_slice(&(*sector as u32).to_le_bytes());
    }
    file
}

/// A seSparse delta with the grains of `content` that are not zeros, in reverse order; every seventh hole is a
/// zeroed grain.
pub(crate) fn sesparse(content: &[u8]) -> Vec<u8> {
    const GRAIN: usize = 4096;
    let tables = content.len().div_ceil(GRAIN * 4096);
    let directory_at = 4 * 512;
    let tables_at = directory_at + (tables * 8).next_multiple_of(512);
    let grains_at = (tables_at + tables * 32_768).next_multiple_of(GRAIN);
    let mut file = vec![0; grains_at];
    let put =
        |file: &mut Vec<u8>, at: usize, word: u64| file[at..at + 8].copy_from_slice(&word.to_le_bytes());
    let mut holes = 0;
    for (number, grain) in content.chunks(GRAIN).enumerate().collect::<Vec<_>>().into_iter().rev() {
        let at = tables_at + number * 8;
        if grain.iter().all(|byte| *byte == 0) {
            holes += 1;
            if holes % 7 == 0 {
                put(&mut file, at, if holes % 2 == 0 { 2 << 60 } else { 1 << 60 });
            }
            continue;
        }
        let index = ((file.len() - grains_at) / GRAIN) as u64;
        put(&mut file, at, 3 << 60 | (index & 0xfff) << 48 | index >> 12);
        file.extend_from_slice(grain);
        file.resize(file.len().next_multiple_of(GRAIN), 0);
    }
    for number in 0..tables {
        put(&mut file, directory_at + number * 8, 1 << 60 | number as u64);
    }
    let sector = |at: usize| (at / 512) as u64;
    let words = [
        (0, 0xcafe_babe),
        (8, 0x2_0000_0001),
        (16, sector(content.len())),
        (24, 8),
        (32, 64),
        // Volatile header, journal header and journal are one sector each here.
        (80, 1),
        (88, 1),
        (96, 2),
        (104, 1),
        (112, 3),
        (120, 1),
        (128, sector(directory_at)),
        (136, sector(tables_at - directory_at)),
        (144, sector(tables_at)),
        (152, sector(grains_at - tables_at)),
        (192, sector(grains_at)),
        (200, sector(file.len() - grains_at)),
        (512, 0xcafe_cafe),
    ];
    for (at, word) in words {
        put(&mut file, at, word);
    }
    file
}

/// The digest of a file by `sha256sum`; says so when it is not there.
pub(crate) fn sha256_of_tool(folder: &Folder, name: &str) -> Option<String> {
    match std::process::Command::new("sha256sum").arg(folder.path(name)).output() {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).split(' ').next()?.to_owned()),
        Err(_) => {
            println!("skipped: sha256sum is not installed");
            None
        }
    }
}
