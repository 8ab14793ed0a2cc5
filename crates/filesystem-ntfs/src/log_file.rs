//! `$LogFile`: whether Windows still has changes to make from its journal.
//!
//! Linux-NTFS documentation, "$LogFile"; restart pages as in `fs/ntfs3/fslog.c`. Little-endian. Two restart pages
//! take turns; the one with the higher LSN counts. Records are not read: what they mean is known to Windows.

use ondisk::Result;

use crate::Ntfs;
use crate::file::File;
use crate::fixup;
use crate::mft::{self, number};
use crate::record::kind;
use crate::span::{Checked, Span};
use crate::stream::Stream;

const NO_CLIENT: u16 = 0xffff;
const VOLUME_IS_CLEAN: u16 = 2;
/// Restart pages of 4 KiB; Windows makes no others on the machines that guests have.
const MAX_PAGE: u32 = 64 << 10;

/// What the journal says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// No restart page: filled with ones by a formatter or a Linux driver.
    Empty,
    /// Closed: there is nothing to replay. The version is major and minor.
    Clean {
        /// 1.1 after a shutdown; 2.0 while Windows 8 or later keeps metadata to itself, as in Fast Startup.
        version: (u16, u16),
    },
    /// In use: Windows has changes to replay or to undo.
    NeedsReplay {
        /// As for [`Log::Clean`].
        version: (u16, u16),
    },
    /// It cannot be read.
    Unknown,
}

impl Log {
    /// Version of the journal, major and minor.
    pub fn version(self) -> Option<(u16, u16)> {
        match self {
            Self::Clean { version } | Self::NeedsReplay { version } => Some(version),
            Self::Empty | Self::Unknown => None,
        }
    }
}

/// The state of the volume's journal.
pub(crate) fn state(ntfs: &Ntfs) -> Result<Log> {
    let file = File::open(ntfs, mft::inode(number::LOG_FILE))?;
    let Some(stream) = file.stream(ntfs, kind::DATA, &[])? else { return Ok(Log::Empty) };
    let offset = mft::place(&ntfs.volume, &stream, 0);
    let read = |at: u64, length: u64| -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        stream.read_metadata(&ntfs.volume, &mut bytes, at)?;
        Ok(bytes)
    };
    let first = read(0, page_length(&stream, 0))?;
    let second_at = second_place(&stream, &first);
    let second = read(second_at, page_length(&stream, second_at))?;
    // Whoever cannot keep a journal fills it with ones; Windows then begins a new one.
    if [&first, &second].iter().all(|page| page.iter().take(4).all(|byte| *byte == 0xff)) {
        return Ok(Log::Empty);
    }
    // A page may be torn or old; the other counts then.
    let second_offset = mft::place(&ntfs.volume, &stream, second_at);
    let (one, other) = (restart_page(&first, offset), restart_page(&second, second_offset));
    match (one, other) {
        (Ok(one), Ok(other)) => Ok(if other.lsn > one.lsn { other.log } else { one.log }),
        (Ok(page), Err(_)) | (Err(_), Ok(page)) => Ok(page.log),
        (Err(damage), Err(_)) => Err(damage.into()),
    }
}

/// The second restart page follows the first, whose length the first says.
fn second_place(stream: &Stream, first: &[u8]) -> u64 {
    let stored = Span::new("restart page", 0, first).u32(16, "system_page_size").unwrap_or_default();
    let length = if stored.is_power_of_two() && (512..=MAX_PAGE).contains(&stored) { stored } else { 4096 };
    u64::from(length).min(stream.size)
}

fn page_length(stream: &Stream, at: u64) -> u64 {
    stream.size.saturating_sub(at).min(u64::from(MAX_PAGE))
}

struct RestartPage {
    lsn: u64,
    log: Log,
}

fn restart_page(bytes: &[u8], offset: u64) -> Checked<RestartPage> {
    const STRUCTURE: &str = "restart page";
    let span = Span::new(STRUCTURE, offset, bytes);
    let magic = span.slice(0, 4, "magic")?;
    if magic != b"RSTR" && magic != b"CHKD" {
        return Err(span.corrupt("magic", "RSTR", magic.escape_ascii()));
    }
    let length = span.u32(16, "system_page_size")?;
    if !length.is_power_of_two() || !(512..=MAX_PAGE).contains(&length) {
        return Err(span.corrupt("system_page_size", "a power of two of 512..=65536", length));
    }
    let length = span.length32(16, "system_page_size")?;
    let mut page = span.slice(0, length, "system_page_size")?.to_vec();
    fixup::apply(STRUCTURE, offset, &mut page)?;
    let page = Span::new(STRUCTURE, offset, &page);
    let version = (page.u16(28, "major_ver")?, page.u16(26, "minor_ver")?);
    let area = page.length16(24, "restart_area_offset")?;
    let field = |at: usize| page.u16(area.saturating_add(at), "restart_area_offset");
    let is_clean = field(12)? == NO_CLIENT || field(14)? & VOLUME_IS_CLEAN != 0;
    let log = if is_clean { Log::Clean { version } } else { Log::NeedsReplay { version } };
    Ok(RestartPage { lsn: page.u64(area, "restart_area_offset")?, log })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A restart page as Windows writes it, but for its size.
    fn page(client: u16, flags: u16) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[..8].copy_from_slice(b"RSTR\x1e\0\x02\0");
        bytes[16..24].copy_from_slice(&[0, 2, 0, 0, 0, 2, 0, 0]);
        bytes[24..30].copy_from_slice(&[0x30, 0, 1, 0, 1, 0]);
        bytes[30..34].copy_from_slice(&[7, 0, 0, 0]);
        bytes[0x30] = 99;
        bytes[0x3c..0x3e].copy_from_slice(&client.to_le_bytes());
        bytes[0x3e..0x40].copy_from_slice(&flags.to_le_bytes());
        bytes[510..].copy_from_slice(&[7, 0]);
        bytes
    }

    #[test]
    fn clean_or_not() {
        let log = |client, flags| restart_page(&page(client, flags), 0).unwrap().log;
        assert_eq!(log(NO_CLIENT, 0), Log::Clean { version: (1, 1) });
        assert_eq!(log(0, VOLUME_IS_CLEAN), Log::Clean { version: (1, 1) });
        assert_eq!(log(0, 0), Log::NeedsReplay { version: (1, 1) });
        assert_eq!(restart_page(&page(0, 0), 0).unwrap().lsn, 99);
    }

    #[test]
    fn damaged() {
        for (at, value, field) in [
            (0, b'X', "magic"),
            (17, 3, "system_page_size"),
            (17, 4, "system_page_size"),
            (510, 8, "update sequence"),
            (25, 2, "restart_area_offset"),
        ] {
            let mut bytes = page(0, 0);
            bytes[at] = value;
            assert_eq!(restart_page(&bytes, 0).err().unwrap().field, field, "byte {at}");
        }
    }
}
