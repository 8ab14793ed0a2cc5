//! Whether a service can start its programs: systemd.service(5) "Command lines", systemd.exec(5).

use std::collections::BTreeSet;

use filesystem::path::{PathError, resolve};
use filesystem::{FileKind, FileSystem};

use super::unit::{Place, Unit};

/// Where a program without a path is looked for.
const PATH: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Commands of one kind in a service.
const MAX_COMMANDS: usize = 50;
/// Larger than any real list of users.
const MAX_USERS: u64 = 16 << 20;
/// Files of sysusers.d, and bytes of one.
const MAX_SYSUSERS: usize = 1000;
const MAX_SYSUSERS_FILE: u64 = 64 << 10;
/// Makes users and groups that are not there yet.
const SYSUSERS: &str = "systemd-sysusers.service";

/// Why a service fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) place: Place,
    pub(super) reason: String,
    /// Whether units that require it fail too: a simple service has been started before its program is looked for.
    pub(super) is_seen: bool,
}

/// What keeps a service from running, as far as files say so; `is_other_disk` tells paths on file systems that are not here.
pub(super) fn failure(
    unit: &Unit,
    fs: &dyn FileSystem,
    users: &Users,
    is_other_disk: &dyn Fn(&str) -> bool,
) -> Option<Failure> {
    let kind = unit.last("Service", "Type").map_or_else(|| "simple".to_owned(), |(kind, _)| kind);
    let is_seen = !matches!(kind.as_str(), "simple" | "idle");
    if let Some((user, place)) = unit.last("Service", "User")
        && !users.has(unit, &user)
    {
        return Some(Failure { place, reason: format!("there is no user {user}"), is_seen });
    }
    if unit.name == SYSUSERS
        && let Some(group) = &users.clash
    {
        let reason =
            format!("the group {group} is in /etc/gshadow and not in /etc/group, so that it cannot be made");
        return Some(Failure { place: Place::whole("/etc/group"), reason, is_seen });
    }
    // With its own root or image the paths are others.
    if unit.last("Service", "RootDirectory").or_else(|| unit.last("Service", "RootImage")).is_some() {
        return None;
    }
    for key in ["ExecCondition", "ExecStartPre", "ExecStart"] {
        for (command, place) in unit.all("Service", key).into_iter().take(MAX_COMMANDS) {
            let prefixes: String = command.chars().take_while(|c| "-@:+!|".contains(*c)).collect();
            let program = command[prefixes.len()..].split_whitespace().next().unwrap_or_default();
            let program = program.trim_matches(['"', '\'']);
            // A failure that counts for nothing; a getty has one, and is started again until systemd tires of it.
            let is_ignored = prefixes.contains('-') && !is_restarted(unit, key);
            let is_searched = !program.starts_with('/') && unit.last("Service", "ExecSearchPath").is_some();
            if is_ignored || is_searched || program.is_empty() || program.contains(['$', '%', '\\']) {
                continue;
            }
            if let Some(reason) = missing(fs, program, is_other_disk) {
                return Some(Failure { place, reason, is_seen: is_seen || key != "ExecStart" });
            }
        }
    }
    None
}

fn is_restarted(unit: &Unit, key: &str) -> bool {
    key == "ExecStart" && unit.last("Service", "Restart").is_some_and(|(value, _)| value == "always")
}

/// Why a program cannot be run.
fn missing(fs: &dyn FileSystem, program: &str, is_other_disk: &dyn Fn(&str) -> bool) -> Option<String> {
    let candidates: Vec<String> = match program.starts_with('/') {
        true => vec![program.to_owned()],
        false => PATH.iter().map(|folder| format!("{folder}/{program}")).collect(),
    };
    let mut reason = format!("there is no program {program}");
    for path in candidates {
        if is_other_disk(&path) {
            return None;
        }
        match resolve(fs, path.as_bytes()) {
            Ok(inode) => {
                // What cannot be read is somebody else's finding.
                let Ok(metadata) = fs.metadata(inode) else { return None };
                if metadata.kind == FileKind::Regular
                    && metadata.permissions & 0o111 != 0
                    && metadata.size > 0
                {
                    return None;
                }
                reason = format!("{path} cannot be run");
            }
            Err(PathError::Fs { .. }) => return None,
            Err(_) => {}
        }
    }
    Some(reason)
}

/// The users that a system has, or may have once it runs.
pub(super) struct Users {
    /// Those of `/etc/passwd`, and those that systemd-sysusers makes. `None` where the list is not there.
    names: Option<BTreeSet<String>>,
    /// A group that systemd-sysusers is to make and that is already in `/etc/gshadow`, which it refuses
    /// (`src/sysusers/sysusers.c`, `write_temporary_gshadow`).
    clash: Option<String>,
    /// Whether a directory service is asked as well.
    is_elsewhere: bool,
}

impl Users {
    pub(super) fn read(fs: &dyn FileSystem) -> Self {
        let text = |path: &str, limit: u64| {
            let inode = resolve(fs, path.as_bytes()).ok()?;
            Some(String::from_utf8_lossy(&filesystem::read_to_end(fs, inode, limit).ok()?).into_owned())
        };
        let first_fields = |path: &str| -> Option<BTreeSet<String>> {
            let text = text(path, MAX_USERS)?;
            Some(text.lines().filter_map(|line| line.split(':').next()).map(str::to_owned).collect())
        };
        let mut names = first_fields("/etc/passwd");
        let groups = first_fields("/etc/group").unwrap_or_default();
        let shadowed = first_fields("/etc/gshadow").unwrap_or_default();
        let mut clash = None;
        for folder in ["/usr/lib/sysusers.d", "/etc/sysusers.d"] {
            let Ok(inode) = resolve(fs, folder.as_bytes()) else { continue };
            for entry in fs.read_dir(inode).unwrap_or_default().iter().take(MAX_SYSUSERS) {
                let path = format!("{folder}/{}", String::from_utf8_lossy(&entry.name));
                let text = text(&path, MAX_SYSUSERS_FILE).unwrap_or_default();
                let made = text.lines().filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned);
                let grouped = text.lines().filter(|line| line.starts_with("u ") || line.starts_with("g "));
                let mut grouped = grouped.filter_map(|line| line.split_whitespace().nth(1));
                clash = clash.or_else(|| {
                    grouped
                        .find(|name| shadowed.contains(*name) && !groups.contains(*name))
                        .map(str::to_owned)
                });
                names.iter_mut().for_each(|names| names.extend(made.clone()));
            }
        }
        let services = text("/etc/nsswitch.conf", MAX_SYSUSERS_FILE).unwrap_or_default();
        let is_other =
            |source: &str| !matches!(source, "files" | "compat" | "systemd") && !source.starts_with('[');
        let mut sources = services.lines().filter_map(|line| line.trim().strip_prefix("passwd:"));
        let is_elsewhere = sources.any(|sources| sources.split_whitespace().any(is_other));
        Self { names, clash, is_elsewhere }
    }

    /// Whether there is such a user, or something could know one.
    fn has(&self, unit: &Unit, user: &str) -> bool {
        user == "root"
            || user.bytes().all(|byte| byte.is_ascii_digit())
            || user.contains(['%', '$'])
            || unit.last("Service", "DynamicUser").is_some()
            || self.is_elsewhere
            || self.names.as_ref().is_none_or(|names| names.contains(user))
    }
}

#[cfg(test)]
mod tests {
    use filesystem::MemoryFs;

    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let fs = MemoryFs::new()
            .file("/usr/bin/a", "#!")
            .file("/usr/bin/empty", "")
            .file("/etc/passwd", "root:x:0:0::/:/bin/sh\ndaemon:x:1:1::/:/bin/sh\n")
            .file("/usr/lib/sysusers.d/x.conf", "# comment\nu made - \"x\"\n");
        let mut unit = Unit::new("a.service", Place::whole("/a"), false);
        unit.add("/a", guest_files::unit_file::parse(format!("[Service]\n{text}\n").as_bytes()));
        let found = failure(&unit, &fs, &Users::read(&fs), &|path| path.starts_with("/opt/"));
        assert_eq!(found.map(|failure| failure.reason).as_deref(), expected, "{text}");
    }

    #[test]
    fn programs() {
        check("ExecStart=/usr/bin/a -x", None);
        check("ExecStart=a", None);
        check("ExecStart=@/usr/bin/a b", None);
        check("ExecStart=/usr/bin/b", Some("there is no program /usr/bin/b"));
        check("ExecStart=-/usr/bin/b", None);
        check("ExecStart=-/usr/bin/b\nRestart=always", Some("there is no program /usr/bin/b"));
        check("ExecStart=/usr/bin/empty", Some("/usr/bin/empty cannot be run"));
        check("ExecStartPre=-b\nExecStart=/opt/agent/bin", None);
        check("ExecStart=b", Some("there is no program b"));
        check("ExecSearchPath=/opt/x\nExecStart=b", None);
    }

    #[test]
    fn groups_that_clash() {
        let fs = |group: &str| {
            MemoryFs::new()
                .file("/usr/bin/a", "#!")
                .file("/etc/group", group)
                .file("/etc/gshadow", "disk:*::\n")
                .file("/usr/lib/sysusers.d/x.conf", "g disk - -\ng new - -\n")
        };
        let mut unit = Unit::new(SYSUSERS, Place::whole("/a"), false);
        unit.add("/a", guest_files::unit_file::parse(b"[Service]\nType=oneshot\nExecStart=a\n"));
        let found =
            |fs: &MemoryFs| failure(&unit, fs, &Users::read(fs), &|_| false).map(|failure| failure.reason);
        assert_eq!(found(&fs("disk:x:6:\n")), None);
        assert!(found(&fs("")).unwrap().contains("the group disk is in /etc/gshadow"));
    }

    #[test]
    fn users() {
        check("User=daemon\nExecStart=a", None);
        check("User=made\nExecStart=a", None);
        check("User=33\nExecStart=a", None);
        check("User=nobody-here\nExecStart=a", Some("there is no user nobody-here"));
        check("User=nobody-here\nDynamicUser=yes\nExecStart=a", None);
    }
}
