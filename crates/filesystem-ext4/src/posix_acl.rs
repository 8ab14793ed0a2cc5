//! POSIX access control lists: stored shorter than Linux' system calls show them.
//!
//! Linux `Documentation/filesystems/ext4/attributes.rst`, "POSIX ACLs", and acl(5). Little-endian. Stored: a
//! version, 1; then entries of tag and permissions, with an id only where the tag needs one. Shown: a version,
//! 2; then entries of tag, permissions and id.

use ondisk::{Corrupt, le};
use zerocopy::FromBytes;

const STORED_VERSION: u32 = 1;
const SHOWN_VERSION: u32 = 2;

/// Tags whose entries name a user or group.
const NAMED: [u16; 2] = [0x02, 0x08];

/// The id of an entry that names nobody.
const NOBODY: u32 = !0;

/// An ACL as getxattr(2) shows it. `offset` is where the inode lies that has it.
///
/// # Errors
/// `Corrupt`.
pub(crate) fn for_users(stored: &[u8], offset: u64) -> Result<Vec<u8>, Corrupt> {
    const STRUCTURE: &str = "access control list";
    let cut_off = || Corrupt::new(STRUCTURE, offset, "length", "whole entries", stored.len());
    let (version, mut rest) = le::U32::read_from_prefix(stored).ok().ok_or_else(cut_off)?;
    if version.get() != STORED_VERSION {
        return Err(Corrupt::new(STRUCTURE, offset, "version", STORED_VERSION, version));
    }
    let mut shown = SHOWN_VERSION.to_le_bytes().to_vec();
    while !rest.is_empty() {
        let ([tag, permissions], after) = <[le::U16; 2]>::read_from_prefix(rest).ok().ok_or_else(cut_off)?;
        rest = after;
        let mut id = le::U32::new(NOBODY);
        if NAMED.contains(&tag.get()) {
            (id, rest) = le::U32::read_from_prefix(rest).ok().ok_or_else(cut_off)?;
        }
        shown.extend(tag.get().to_le_bytes());
        shown.extend(permissions.get().to_le_bytes());
        shown.extend(id.get().to_le_bytes());
    }
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_entries_store_an_id() {
        // user::rw-, user:1000:r--, mask::r--
        let stored = [1, 0, 0, 0, 1, 0, 6, 0, 2, 0, 4, 0, 0xe8, 3, 0, 0, 0x10, 0, 4, 0];
        let shown = for_users(&stored, 0).unwrap();
        assert_eq!(shown[..4], [2, 0, 0, 0]);
        assert_eq!(shown[4..12], [1, 0, 6, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(shown[12..20], [2, 0, 4, 0, 0xe8, 3, 0, 0]);
        assert_eq!(shown.len(), 4 + 3 * 8);
        assert_eq!(for_users(&stored[..14], 0).unwrap_err().field, "length");
        assert_eq!(for_users(&[2, 0, 0, 0], 0).unwrap_err().field, "version");
    }
}
