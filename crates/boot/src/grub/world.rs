//! What GRUB can see, as the caller answers it, and which GRUB it is.

use super::error::GrubError;
use super::known_commands::is_known_command;

/// An answer, or the reason why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer<T> {
    /// This is so.
    Known(T),
    /// Cannot be said; why.
    Unknown(String),
}

/// A device and the way GRUB looks for paths on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// As GRUB names it, without parentheses: `hd0,msdos1`, `lvm/vg-lv`, `lvmid/…/…`, `md/0`, `mduuid/…`.
    pub device: &'a str,
    /// Whether `btrfs_relative_path` is set: SUSE's GRUB then starts in the default subvolume.
    pub is_btrfs_relative: bool,
}

/// What GRUB finds at a path, symbolic links followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// Nothing: `file … not found`.
    Missing,
    /// A directory.
    Directory,
    /// A file.
    File {
        /// In bytes.
        size: u64,
        /// What GRUB says when it reads it to its end, if it cannot.
        damage: Option<GrubError>,
    },
    /// The device or its file system cannot be opened.
    Failed(GrubError),
}

/// How `search` looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchBy {
    /// `--fs-uuid`; letter case does not matter.
    FsUuid,
    /// `--label`.
    Label,
    /// `--file`: the path exists.
    File,
}

/// One `search`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchRequest<'a> {
    /// How.
    pub by: SearchBy,
    /// What.
    pub key: &'a [u8],
    /// Devices to try first, in order; one that ends in a comma stands for its partitions too.
    pub hints: &'a [Vec<u8>],
    /// Whether floppy drives are left out.
    pub no_floppy: bool,
}

/// What `probe` tells of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeWhat {
    /// The driver of the disk: `biosdisk`, `efidisk`, `lvm`.
    Driver,
    /// The partition table: `msdos`, `gpt`.
    PartitionMap,
    /// The file system: `ext2`, `xfs`, `btrfs`, `fat`.
    Fs,
    /// Its UUID.
    FsUuid,
    /// Its label.
    FsLabel,
    /// The UUID of the partition.
    PartitionUuid,
}

/// What GRUB can see: its devices and files, by its own rules (file systems unreplayed, its own drivers).
pub trait World {
    /// Opens a device.
    fn device(&self, device: &str) -> Answer<Result<(), GrubError>>;
    /// The first device that a search finds.
    fn search(&self, request: &SearchRequest<'_>) -> Answer<Option<String>>;
    /// What is at a path.
    fn lookup(&self, place: Place<'_>, path: &[u8]) -> Answer<Lookup>;
    /// The content of a file; longer than `limit` bytes is unknown.
    fn read(&self, place: Place<'_>, path: &[u8], limit: usize) -> Answer<Result<Vec<u8>, GrubError>>;
    /// The names in a directory, without `.` and `..`, in the order of the file system.
    fn list(&self, place: Place<'_>, path: &[u8]) -> Answer<Result<Vec<Vec<u8>>, GrubError>>;
    /// What `probe` says of a device; `None` when there is no such thing.
    fn probe(&self, device: &str, what: ProbeWhat) -> Answer<Result<Option<Vec<u8>>, GrubError>>;
    /// Loads a module, or finds it built in.
    fn module(&self, name: &str) -> Answer<Result<(), GrubError>>;

    /// Whether a path is a directory (`Some(true)`), something else, or missing, without following a link at
    /// its end: what `test -d`, `-e` and `-f` see.
    fn entry(&self, place: Place<'_>, path: &[u8]) -> Answer<Option<bool>> {
        match self.lookup(place, path) {
            Answer::Known(Lookup::Directory) => Answer::Known(Some(true)),
            Answer::Known(Lookup::File { .. }) => Answer::Known(Some(false)),
            Answer::Known(Lookup::Missing | Lookup::Failed(_)) => Answer::Known(None),
            Answer::Unknown(reason) => Answer::Unknown(reason),
        }
    }

    /// Whether this GRUB has a command, built in or in a module.
    fn command(&self, name: &str) -> Answer<bool> {
        Answer::Known(is_known_command(name))
    }

    /// What `cpuid` or `smbios` finds on this machine: the value, or `None` for a failure.
    fn machine(&self, command: &str, _arguments: &[&[u8]]) -> Answer<Option<Vec<u8>>> {
        Answer::Unknown(format!("what `{command}` says of this machine"))
    }
}

/// Firmware that GRUB was built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// `i386-pc`.
    Bios,
    /// `x86_64-efi`.
    Efi,
}

/// Upstream version, as far as the language and the menu differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 2.02 and its betas: RHEL 7, Debian 9, Ubuntu 16.04 and 18.04.
    V2_02,
    /// 2.03–2.06: RHEL 8 and 9, Debian 10–12, Ubuntu 20.04 and 22.04.
    V2_06,
    /// 2.12: RHEL 10, Fedora 40, Debian 13, Ubuntu 24.04.
    V2_12,
    /// 2.14.
    V2_14,
}

/// Which GRUB it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// Upstream version.
    pub version: Version,
    /// Fedora's and Red Hat's patches: `blscfg`, `increment`, one `linux` for all on EFI.
    pub is_red_hat: bool,
    /// Whether `default` and `fallback` are read as lists of ids (RHEL 8 and later, Fedora), or as upstream does.
    pub reads_default_as_list: bool,
    /// Whether an entry's last line, when it is empty, counts as a command that succeeded. So it is in every GRUB
    /// without upstream's commit 187338f1 of December 2024, which 2.14, Fedora 43 and later builds of RHEL 9 and 10
    /// have (9.0–9.4 and 10.0 do not; by the package, set this): an entry whose `linux` failed then counts as done,
    /// and one whose `initrd` failed boots without it.
    pub empty_line_succeeds: bool,
    /// Whether the next entry of `fallback` is tried whatever the one before came to, as long as it returned (upstream's
    /// `grub-core/normal/menu.c` of before 2.14; booted with Debian's 2.06), or only where that failed (Red Hat's).
    pub always_falls_back: bool,
    /// Whether BLS entries are sorted by their `version` fields if all have one (RHEL 8), or by file name.
    pub sorts_bls_by_version: bool,
}

impl Release {
    /// Upstream's, Debian's, Ubuntu's, SUSE's, Arch's.
    pub fn upstream(version: Version) -> Self {
        Self {
            version,
            is_red_hat: false,
            reads_default_as_list: false,
            empty_line_succeeds: version < Version::V2_14,
            always_falls_back: version < Version::V2_14,
            sorts_bls_by_version: false,
        }
    }

    /// Red Hat Enterprise Linux and what is built from it, by its major release.
    pub fn rhel(major: u32) -> Self {
        let version = match major {
            ..=7 => Version::V2_02,
            8 | 9 => Version::V2_06,
            _ => Version::V2_12,
        };
        Self {
            version,
            is_red_hat: true,
            reads_default_as_list: major >= 8,
            empty_line_succeeds: major < 10,
            always_falls_back: false,
            sorts_bls_by_version: major <= 8,
        }
    }

    /// Fedora Linux, by its release.
    pub fn fedora(release: u32) -> Self {
        let version = if release < 40 { Version::V2_06 } else { Version::V2_12 };
        Self {
            version,
            is_red_hat: true,
            reads_default_as_list: true,
            empty_line_succeeds: release < 43,
            always_falls_back: false,
            sorts_bls_by_version: false,
        }
    }
}

/// What is set when the configuration starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setup {
    /// Which GRUB.
    pub release: Release,
    /// For which firmware.
    pub platform: Platform,
    /// The device that `$root` names at first, without parentheses.
    pub root: String,
    /// `$prefix`: `(hd0,msdos1)/boot/grub`.
    pub prefix: String,
    /// The configuration; `None` is `$prefix/grub.cfg`.
    pub config: Option<String>,
    /// More variables, say `lockdown` or `fw_path`; exported.
    pub variables: Vec<(String, String)>,
}

impl Setup {
    /// GRUB with its files in `prefix` on `root`.
    pub fn new(release: Release, platform: Platform, root: &str, prefix: &str) -> Self {
        Self {
            release,
            platform,
            root: root.to_owned(),
            prefix: format!("({root}){prefix}"),
            config: None,
            variables: Vec::new(),
        }
    }
}
