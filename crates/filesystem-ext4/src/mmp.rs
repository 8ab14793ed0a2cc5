//! Multiple-mount protection: a block in which each user of the file system says that it is there.
//!
//! Linux `Documentation/filesystems/ext4/mmp.rst`. Little-endian.

use blockdev::BlockDevice;
use ondisk::{Corrupt, Result, le, read_value};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// `mmp_magic`: "MMP".
pub const MAGIC: u32 = 0x004d_4d50;

/// `mmp_seq` while nobody uses the file system.
pub const CLEAN: u32 = 0xff4d_4d50;

/// The fields that matter to somebody who only looks.
#[expect(missing_docs, reason = "the fields carry the documentation's names")]
#[derive(Debug, Clone, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawMmp {
    pub mmp_magic: le::U32, // 0x0
    pub mmp_seq: le::U32,   // 0x4 counts up while the file system is in use
}

const _: () = assert!(size_of::<RawMmp>() == 8);

/// Whether somebody says in the block at byte `offset` that the file system is in use.
///
/// # Errors
/// `Io`, `Corrupt`.
pub fn is_in_use(device: &dyn BlockDevice, offset: u64) -> Result<bool> {
    let raw: RawMmp = read_value(device, offset)?;
    if raw.mmp_magic.get() != MAGIC {
        let found = format!("{:#010x}", raw.mmp_magic);
        let expected = format!("{MAGIC:#010x}");
        return Err(Corrupt::new("MMP block", offset, "mmp_magic", expected, found).into());
    }
    Ok(raw.mmp_seq.get() != CLEAN)
}
