//! SELinux' policy, which systemd loads before anything else.
//!
//! libselinux `selinux_init_load_policy(3)`: the mode is that of `/etc/selinux/config` unless the command line says
//! `enforcing=`; where it is enforcing and no policy can be loaded, systemd stops (`src/core/selinux-setup.c`).

use boot_files::kernel_config::{KernelConfig, Setting};
use filesystem::path::resolve;
use filesystem::{FileKind, FileSystem};
use guest::Guest;

use super::cause;
use super::kernel::Kernel;
use crate::trace::Cause;

const CONFIG: &str = "/etc/selinux/config";
/// The default of libselinux.
const DEFAULT_TYPE: &str = "targeted";

/// What comes of SELinux without a policy.
pub(crate) enum Unruled {
    /// systemd stops: it is to be enforced.
    Stops(Cause, String),
    /// The system comes up, and systemd cannot label its sockets.
    Degrades(Cause, String),
}

/// Whether SELinux runs without the policy that its configuration names.
pub(crate) fn without_policy(guest: &Guest, kernel: &Kernel, init: &str) -> Option<Unruled> {
    let fs: &dyn FileSystem = &guest.tree;
    let text = guest.read(CONFIG, 1 << 16).ok()?;
    let text = String::from_utf8_lossy(&text);
    let mode = setting(&text, "SELINUX=").map(|(_, mode)| mode.to_ascii_lowercase()).unwrap_or_default();
    if mode.starts_with("disabled") || !is_systemd(fs, init) || !is_on(kernel, guest) {
        return None;
    }
    let (line, kind) = setting(&text, "SELINUXTYPE=").unwrap_or((0, DEFAULT_TYPE));
    let folder = format!("/etc/selinux/{kind}/policy");
    if has_policy(fs, &folder) {
        return None;
    }
    let cause = |symptom: &str| Cause {
        file: CONFIG.into(),
        line: (line > 0).then_some(line),
        ..cause("selinux.config-invalid", symptom)
    };
    Some(if is_enforcing(&mode, kernel) {
        let summary = format!("SELinux is to be enforced, and {folder} holds no policy");
        Unruled::Stops(cause("systemd[1]: Failed to load SELinux policy."), summary)
    } else {
        let summary = format!("SELinux runs, and {folder} holds no policy");
        Unruled::Degrades(cause("Failed to listen on dbus.socket"), summary)
    })
}

pub(crate) fn is_systemd(fs: &dyn FileSystem, init: &str) -> bool {
    filesystem::path::real_path(fs, init.as_bytes()).is_ok_and(|path| path.ends_with("/systemd"))
}

/// Whether the kernel starts SELinux: it is built in, not switched off, and the one that is taken among its like.
fn is_on(kernel: &Kernel, guest: &Guest) -> bool {
    let arguments = &kernel.loaded.arguments;
    let value = |key: &str| arguments.iter().rev().find_map(|(argument, _)| argument.strip_prefix(key));
    // A kernel without CONFIG_SECURITY_SELINUX_BOOTPARAM, such as Debian's, does not know this word.
    let has_switch = kernel
        .config
        .as_ref()
        .is_none_or(|config| config.get("CONFIG_SECURITY_SELINUX_BOOTPARAM") != Setting::Off);
    if has_switch && value("selinux=") == Some("0") {
        return false;
    }
    let Some(config) = &kernel.config else {
        // Red Hat's and Fedora's kernels start it.
        let like = ["ID", "ID_LIKE"].map(|key| guest.os_release.get(key).unwrap_or_default());
        return like
            .iter()
            .any(|words| words.split_whitespace().any(|word| matches!(word, "rhel" | "fedora")));
    };
    config.get("CONFIG_SECURITY_SELINUX") != Setting::Off
        && is_first(config, value("lsm="), value("security="))
}

/// SELinux, AppArmor, Smack and TOMOYO of old exclude each other; the first in the list runs, or the one that is named.
fn is_first(config: &KernelConfig, lsm: Option<&str>, security: Option<&str>) -> bool {
    const EXCLUSIVE: [&str; 3] = ["selinux", "apparmor", "smack"];
    if let Some(name) = security {
        return name == "selinux";
    }
    match lsm.or(config.text("CONFIG_LSM")) {
        Some(list) => list.split(',').find(|name| EXCLUSIVE.contains(name)) == Some("selinux"),
        None => config.text("CONFIG_DEFAULT_SECURITY") == Some("selinux"),
    }
}

/// As the command line says, else the configuration, where other words than `enforcing` leave it permissive.
fn is_enforcing(mode: &str, kernel: &Kernel) -> bool {
    let mut arguments = kernel.loaded.arguments.iter().rev();
    let argument = arguments.find_map(|(argument, _)| argument.strip_prefix("enforcing="));
    argument.map_or(mode.starts_with("enforcing"), |value| value != "0")
}

/// The value of the last line that sets `key`, with its number.
fn setting<'a>(text: &'a str, key: &str) -> Option<(usize, &'a str)> {
    let lines = text.lines().enumerate();
    lines.filter_map(|(index, line)| Some((index + 1, line.trim().strip_prefix(key)?.trim()))).last()
}

/// Whether a directory holds `policy.NN` with content.
fn has_policy(fs: &dyn FileSystem, folder: &str) -> bool {
    let Ok(inode) = resolve(fs, folder.as_bytes()) else { return false };
    let entries = fs.read_dir(inode).unwrap_or_default();
    entries.iter().filter(|entry| entry.name.starts_with(b"policy.")).any(|entry| {
        let metadata = fs.metadata(entry.inode);
        metadata.is_ok_and(|metadata| metadata.kind == FileKind::Regular && metadata.size > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        let text = "# SELINUX=disabled\nSELINUX=enforcing\n SELINUXTYPE=mls \n";
        assert_eq!(setting(text, "SELINUX="), Some((2, "enforcing")));
        assert_eq!(setting(text, "SELINUXTYPE="), Some((3, "mls")));
    }

    #[test]
    fn the_first_of_those_that_exclude_each_other() {
        let config = |text: &str| KernelConfig::parse(text.as_bytes()).unwrap();
        let debian = config("CONFIG_LSM=\"landlock,lockdown,yama,apparmor,selinux\"\n");
        assert!(!is_first(&debian, None, None));
        assert!(is_first(&debian, None, Some("selinux")));
        assert!(is_first(&debian, Some("yama,selinux"), None));
        assert!(!is_first(&config("CONFIG_LSM=\"yama,selinux,apparmor\"\n"), None, Some("apparmor")));
        assert!(is_first(&config("CONFIG_DEFAULT_SECURITY=\"selinux\"\n"), None, None));
    }
}
