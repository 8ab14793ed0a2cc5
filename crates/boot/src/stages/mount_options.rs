//! Options that a file system's driver has ever known: one that it never knew keeps it from being mounted.
//!
//! The union over Linux 3.10 to 6.12 (`Documentation/filesystems/`, and the drivers' tables), so that an option of another
//! version is not blamed. mount(8) and systemd take theirs out before the driver sees them.

use std::collections::HashSet;
use std::sync::LazyLock;

/// What mount(8), systemd and the kernel's common code take.
const COMMON: &str = "defaults auto noauto user nouser users owner group nofail fail loop offset sizelimit encryption uhelper helper \
comment ro rw sync async dirsync exec noexec suid nosuid dev nodev atime noatime diratime nodiratime relatime \
norelatime strictatime nostrictatime lazytime nolazytime iversion noiversion mand nomand remount silent loud \
symfollow nosymfollow nofollow rbind bind context fscontext defcontext rootcontext seclabel pri private shared";

const EXT4: &str = "bsddf minixdf grpid nogrpid bsdgroups sysvgroups resgid resuid sb errors nouid32 debug oldalloc orlov \
user_xattr nouser_xattr acl noacl noload norecovery bh nobh commit min_batch_time max_batch_time journal_dev \
journal_path journal_checksum nojournal_checksum journal_async_commit abort data data_err usrjquota grpjquota \
prjjquota jqfmt quota noquota usrquota grpquota prjquota barrier nobarrier i_version dax stripe delalloc \
nodelalloc warn_on_error nowarn_on_error debug_want_extra_isize mblk_io_submit nomblk_io_submit block_validity \
noblock_validity inode_readahead_blks journal_ioprio auto_da_alloc noauto_da_alloc dioread_nolock \
nodioread_nolock dioread_lock discard nodiscard init_itable init_inode_table noinit_itable noinit_inode_table \
max_dir_size_kb test_dummy_encryption inlinecrypt nombcache no_mbcache check nocheck reservation noreservation \
journal prefetch_block_bitmaps no_prefetch_block_bitmaps mb_optimize_scan fc_debug_force fc_debug_max_replay \
extents noextents mballoc nomballoc xip lazytime nolazytime";

const XFS: &str = "logbufs logbsize logdev rtdev biosize wsync noalign swalloc sunit swidth nouuid mtpt grpid nogrpid bsdgroups \
sysvgroups allocsize norecovery barrier nobarrier inode64 inode32 ikeep noikeep largeio nolargeio attr2 \
noattr2 filestreams quota noquota usrquota grpquota prjquota uquota gquota pquota uqnoenforce gqnoenforce \
pqnoenforce qnoenforce discard nodiscard dax delaylog nodelaylog ihashsize osyncisdsync osyncisosync irixsgid \
dmapi xdsm lifetime nolifetime max_open_zones max_atomic_write";

const BTRFS: &str = "acl noacl clear_cache commit compress compress-force degraded device fatal_errors flushoncommit \
noflushoncommit inode_cache noinode_cache max_inline metadata_ratio barrier nobarrier datacow nodatacow \
datasum nodatasum norecovery notreelog treelog nologreplay rescan_uuid_tree rescue skip_balance space_cache \
nospace_cache ssd nossd ssd_spread nossd_spread subvol subvolid subvolrootid thread_pool \
user_subvol_rm_allowed usebackuproot recovery check_int check_int_data check_int_print_mask autodefrag \
noautodefrag discard nodiscard enospc_debug noenospc_debug alloc_start defrag nodefrag fragment ref_verify \
ignorebadroots ignoredatacsums ibadroots idatacsums";

const VFAT: &str = "check uid gid umask dmask fmask allow_utime codepage usefree nocase quiet showexec debug immutable \
sys_immutable flush tz time_offset errors discard nodiscard nfs dos1xfloppy iocharset shortname utf8 uni_xlate \
nonumtail rodir dots nodots dotsOK blocksize conv fat cvf_format cvf_options";

const TMPFS: &str = "size nr_blocks nr_inodes mode uid gid mpol huge inode32 inode64 noswap quota usrquota grpquota \
usrquota_block_hardlimit usrquota_inode_hardlimit grpquota_block_hardlimit grpquota_inode_hardlimit casefold strict_encoding \
nr_block nr_inode";

/// Those of ext4, XFS, btrfs, FAT and tmpfs, each with the common ones.
static KNOWN: LazyLock<[HashSet<&str>; 5]> = LazyLock::new(|| {
    [EXT4, XFS, BTRFS, VFAT, TMPFS].map(|own| COMMON.split(' ').chain(own.split(' ')).collect())
});

/// The first of `options` that the driver of `kind` never knew; `None` for the drivers that are not listed here.
pub(crate) fn unknown<'a>(kind: &str, options: impl Iterator<Item = &'a [u8]>) -> Option<String> {
    let [ext4, xfs, btrfs, vfat, tmpfs] = &*KNOWN;
    let known = match kind {
        "ext2" | "ext3" | "ext4" => ext4,
        "xfs" => xfs,
        "btrfs" => btrfs,
        "vfat" => vfat,
        "tmpfs" => tmpfs,
        _ => return None,
    };
    // A value in quotes holds commas, which the words here would be cut at.
    let mut is_quoted = false;
    for option in options {
        let option = String::from_utf8_lossy(option);
        let was_quoted = is_quoted;
        is_quoted ^= option.matches('"').count() % 2 == 1;
        let name = option.split('=').next().unwrap_or_default();
        let is_theirs = name.starts_with("x-") || name.starts_with("X-") || name.starts_with('_');
        let is_passed_over = was_quoted || is_theirs || name.is_empty() || name.starts_with("verity.");
        if !is_passed_over && !known.contains(name) {
            return Some(option.into_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(kind: &str, options: &str) -> Option<String> {
        unknown(kind, options.split(',').map(str::as_bytes))
    }

    #[test]
    fn options() {
        for (kind, options) in [
            ("ext4", "defaults,noatime,errors=remount-ro,x-systemd.growfs,nofail,commit=60"),
            ("xfs", "defaults,inode64,logbufs=8,logbsize=32k,noquota,_netdev"),
            ("btrfs", "subvol=@home,compress=zstd:3,space_cache=v2,ssd,discard=async"),
            ("vfat", "umask=0077,shortname=winnt,utf8=1,iocharset=ascii"),
            ("ext4", "context=\"system_u:object_r:x_t:s0:c1,c2\",acl"),
            ("nfs4", "whatever"),
            ("tmpfs", "size=10%,mode=1777,nosuid,nr_inodes=1k"),
        ] {
            assert_eq!(first(kind, options), None, "{kind} {options}");
        }
        assert_eq!(first("vfat", "umask=0077,bogus=1").as_deref(), Some("bogus=1"));
        assert_eq!(first("tmpfs", "size=1m,bogus=1").as_deref(), Some("bogus=1"));
        assert_eq!(first("ext4", "defaults,noatme").as_deref(), Some("noatme"));
        assert_eq!(first("xfs", "errors=remount-ro").as_deref(), Some("errors=remount-ro"));
    }
}
