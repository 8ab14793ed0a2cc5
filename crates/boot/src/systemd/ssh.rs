//! sshd(8) does not start without a host key. Templates have theirs taken away; in some systems the first boot makes new ones, in
//! Debian nothing does.

use filesystem::FileSystem;
use filesystem::path::resolve;

use super::program::Failure;
use super::unit::{Place, Unit};

const FOLDER: &str = "/etc/ssh";
/// Larger than any real configuration.
const MAX_CONFIG: u64 = 1 << 20;
/// Units that make host keys: Red Hat's and SUSE's, Raspberry Pi's, cloud-init.
const MAKERS: [&str; 5] =
    ["sshd-keygen", "ssh-keygen", "ssh_keygen", "regenerate_ssh_host_keys", "cloud-init"];

/// Why an SSH server fails, if it does, beside the units `others` that are started.
pub(super) fn failure<'a>(
    unit: &Unit,
    fs: &dyn FileSystem,
    mut others: impl Iterator<Item = &'a str>,
) -> Option<Failure> {
    if !matches!(unit.name.as_str(), "ssh.service" | "sshd.service") || has_key(fs) {
        return None;
    }
    let mut commands = ["ExecStartPre", "ExecStart"].into_iter().flat_map(|key| unit.all("Service", key));
    let makes_its_own =
        commands.any(|(command, _)| command.contains("keygen") || command.contains("genkeys"));
    if makes_its_own || others.any(|other| MAKERS.iter().any(|maker| other.starts_with(maker))) {
        return None;
    }
    let reason = format!("there is no host key in {FOLDER}, and nothing makes one");
    Some(Failure { place: Place::whole(FOLDER), reason, is_seen: true })
}

/// Whether there is a host key, or may be one where the configuration says.
fn has_key(fs: &dyn FileSystem) -> bool {
    let names = |folder: &str| {
        let inode = resolve(fs, folder.as_bytes()).ok()?;
        fs.read_dir(inode).ok()
    };
    // What cannot be read is not missing.
    let Some(entries) = names(FOLDER) else { return true };
    let is_key = |name: &[u8]| name.starts_with(b"ssh_host_") && name.ends_with(b"_key");
    let has_more = || {
        names("/etc/ssh/sshd_config.d")
            .is_some_and(|found| found.iter().any(|entry| entry.name.ends_with(b".conf")))
    };
    if entries.iter().any(|entry| is_key(&entry.name)) || has_more() {
        return true;
    }
    let config = resolve(fs, b"/etc/ssh/sshd_config").ok();
    let text =
        config.and_then(|inode| filesystem::read_to_end(fs, inode, MAX_CONFIG).ok()).unwrap_or_default();
    text.split(|byte| *byte == b'\n')
        .any(|line| line.trim_ascii_start().to_ascii_lowercase().starts_with(b"hostkey"))
}

#[cfg(test)]
mod tests {
    use filesystem::MemoryFs;

    use super::*;

    fn fails(fs: &MemoryFs, text: &str, others: &[&str]) -> bool {
        let mut unit = Unit::new("ssh.service", Place::whole("/a"), false);
        unit.add("/a", guest_files::unit_file::parse(format!("[Service]\n{text}\n").as_bytes()));
        failure(&unit, fs, others.iter().copied()).is_some()
    }

    #[test]
    fn host_keys() {
        let bare = || MemoryFs::new().file("/etc/ssh/sshd_config", "#HostKey /a\nPort 22\n");
        assert!(fails(&bare(), "ExecStart=/usr/sbin/sshd -D", &["dbus.service"]));
        assert!(!fails(&bare(), "ExecStart=/usr/sbin/sshd -D", &["sshd-keygen@rsa.service"]));
        assert!(!fails(&bare(), "ExecStartPre=/usr/bin/ssh-keygen -A\nExecStart=/usr/sbin/sshd", &[]));
        assert!(!fails(&bare().file("/etc/ssh/ssh_host_rsa_key", "x"), "ExecStart=/usr/sbin/sshd", &[]));
        let elsewhere = MemoryFs::new().file("/etc/ssh/sshd_config", "HostKey /srv/key\n");
        assert!(!fails(&elsewhere, "ExecStart=/usr/sbin/sshd", &[]));
        assert!(!fails(&MemoryFs::new(), "ExecStart=/usr/sbin/sshd", &[]));
    }
}
