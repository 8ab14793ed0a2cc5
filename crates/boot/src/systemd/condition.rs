//! Conditions and assertions of a unit, as far as the disks and the command line tell them: systemd.unit(5), "Conditions and
//! Asserts".

use filesystem::path::{resolve, resolve_no_follow};
use filesystem::{FileKind, FileSystem};

use super::unit::Unit;

/// What holds of a unit's conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    Yes,
    No,
    /// It depends on what only the running machine has.
    Unknown,
}

/// Filled while the machine runs.
const RUNTIME: [&str; 5] = ["/dev", "/proc", "/run", "/sys", "/tmp"];

/// Paths that the kernel of every distribution makes.
const KERNELS: [&str; 5] = [
    "/dev/tty0",
    "/proc/sys/fs/mqueue",
    "/sys/kernel/debug",
    "/sys/kernel/mm/hugepages",
    "/sys/kernel/tracing",
];

/// Whether all conditions of a unit hold: each plain one, and one of those with a `|` in front.
pub(super) fn all(unit: &Unit, fs: &dyn FileSystem, words: &[String]) -> Holds {
    const KEYS: [&str; 17] = [
        "PathExists",
        "PathExistsGlob",
        "PathIsDirectory",
        "PathIsSymbolicLink",
        "PathIsMountPoint",
        "PathIsReadWrite",
        "DirectoryNotEmpty",
        "FileNotEmpty",
        "FileIsExecutable",
        "KernelCommandLine",
        "Virtualization",
        "FirstBoot",
        "Capability",
        "Security",
        "ACPower",
        "NeedsUpdate",
        "Credential",
    ];
    let mut result = Holds::Yes;
    let mut any: Option<Holds> = None;
    for key in KEYS {
        for (value, _) in unit.all("Unit", &format!("Condition{key}")) {
            let (is_trigger, value) =
                value.strip_prefix('|').map_or((false, value.as_str()), |rest| (true, rest));
            let (is_negated, value) = value.strip_prefix('!').map_or((false, value), |rest| (true, rest));
            let holds = match (one(key, value.trim(), fs, words), is_negated) {
                (Holds::Yes, true) => Holds::No,
                (Holds::No, true) => Holds::Yes,
                (holds, _) => holds,
            };
            if is_trigger {
                any = Some(match (any, holds) {
                    (Some(Holds::Yes), _) | (_, Holds::Yes) => Holds::Yes,
                    (Some(Holds::Unknown), _) | (_, Holds::Unknown) => Holds::Unknown,
                    _ => Holds::No,
                });
            } else {
                result = both(result, holds);
            }
        }
    }
    both(result, any.unwrap_or(Holds::Yes))
}

fn both(a: Holds, b: Holds) -> Holds {
    match (a, b) {
        (Holds::No, _) | (_, Holds::No) => Holds::No,
        (Holds::Unknown, _) | (_, Holds::Unknown) => Holds::Unknown,
        _ => Holds::Yes,
    }
}

fn one(key: &str, value: &str, fs: &dyn FileSystem, words: &[String]) -> Holds {
    let told = |is: bool| if is { Holds::Yes } else { Holds::No };
    match key {
        // What the kernels of distributions have.
        "PathExists" if KERNELS.contains(&value) => Holds::Yes,
        "KernelCommandLine" => {
            let is_word = |word: &String| {
                word == value || !value.contains('=') && word.split('=').next() == Some(value)
            };
            told(words.iter().any(is_word))
        }
        "Virtualization" => match value {
            "yes" | "true" | "1" | "vm" => Holds::Yes,
            "no" | "false" | "0" | "container" => Holds::No,
            _ => Holds::Unknown,
        },
        "FirstBoot" => {
            let is_wanted = matches!(value, "1" | "yes" | "true" | "on");
            let id = resolve(fs, b"/etc/machine-id").and_then(|inode| {
                filesystem::read_to_end(fs, inode, 4096)
                    .map_err(|cause| filesystem::path::PathError::Fs { path: String::new(), cause })
            });
            let is_first = !id.is_ok_and(|id| !id.starts_with(b"uninitialized"));
            told(is_first == is_wanted)
        }
        "Capability" => Holds::Yes,
        "NeedsUpdate" => needs_update(value, fs),
        "Security" | "ACPower" | "Credential" | "PathExistsGlob" | "PathIsMountPoint" | "PathIsReadWrite" => {
            Holds::Unknown
        }
        _ if RUNTIME.iter().any(|folder| {
            value == *folder || value.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
        }) =>
        {
            Holds::Unknown
        }
        _ => {
            let found = match key {
                "PathIsSymbolicLink" => resolve_no_follow(fs, value.as_bytes()),
                _ => resolve(fs, value.as_bytes()),
            };
            let Ok(inode) = found else { return Holds::No };
            let Ok(metadata) = fs.metadata(inode) else { return Holds::Unknown };
            told(match key {
                "PathIsDirectory" => metadata.kind == FileKind::Directory,
                "PathIsSymbolicLink" => metadata.kind == FileKind::Symlink,
                "DirectoryNotEmpty" => fs.read_dir(inode).is_ok_and(|entries| !entries.is_empty()),
                "FileNotEmpty" => metadata.kind == FileKind::Regular && metadata.size > 0,
                "FileIsExecutable" => metadata.kind == FileKind::Regular && metadata.permissions & 0o111 != 0,
                _ => true,
            })
        }
    }
}

/// Whether `/usr` is newer than the last update of a folder, by the time that `systemd-update-done` has left there.
fn needs_update(folder: &str, fs: &dyn FileSystem) -> Holds {
    let modified = |path: &str| {
        let inode = resolve(fs, path.as_bytes()).ok()?;
        fs.metadata(inode).ok().map(|metadata| metadata.modified)
    };
    match (modified("/usr"), modified(&format!("{folder}/.updated"))) {
        (_, None) => Holds::Yes,
        (None, Some(_)) => Holds::Unknown,
        (Some(usr), Some(done)) => {
            if usr.seconds > done.seconds {
                Holds::Yes
            } else {
                Holds::No
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use filesystem::MemoryFs;

    use super::super::unit::Place;
    use super::*;

    fn check(conditions: &str, expected: Holds) {
        let fs = MemoryFs::new()
            .file("/etc/a", "x")
            .file("/etc/empty", "")
            .directory("/srv")
            .symlink("/update", "/var/x");
        let mut unit = Unit::new("a.service", Place::whole("/a"), false);
        unit.add("/a", guest_files::unit_file::parse(format!("[Unit]\n{conditions}\n").as_bytes()));
        let words = ["ro", "console=ttyS0", "quiet"].map(str::to_owned);
        assert_eq!(all(&unit, &fs, &words), expected, "{conditions}");
    }

    #[test]
    fn what_the_disks_say() {
        check("", Holds::Yes);
        check("ConditionPathExists=/etc/a", Holds::Yes);
        check("ConditionPathExists=!/etc/a", Holds::No);
        check("ConditionPathExists=/etc/a\nConditionPathExists=/etc/b", Holds::No);
        check("ConditionPathExists=|/etc/a\nConditionPathExists=|/etc/b", Holds::Yes);
        check("ConditionPathExists=|/etc/c\nConditionPathExists=|/etc/b", Holds::No);
        check("ConditionFileNotEmpty=/etc/empty", Holds::No);
        check("ConditionDirectoryNotEmpty=/srv", Holds::No);
        check("ConditionPathIsSymbolicLink=/update", Holds::Yes);
        check("ConditionPathExists=/run/x", Holds::Unknown);
        check("ConditionPathExists=/run/x\nConditionPathExists=/etc/b", Holds::No);
    }

    #[test]
    fn what_the_machine_is() {
        check("ConditionKernelCommandLine=quiet", Holds::Yes);
        check("ConditionKernelCommandLine=console", Holds::Yes);
        check("ConditionKernelCommandLine=!quiet", Holds::No);
        check("ConditionVirtualization=!container", Holds::Yes);
        check("ConditionVirtualization=xen", Holds::Unknown);
        check("ConditionFirstBoot=yes", Holds::Yes);
        check("ConditionNeedsUpdate=|/etc\nConditionCredential=|x", Holds::Yes);
        check("ConditionNeedsUpdate=!/var", Holds::No);
    }
}
