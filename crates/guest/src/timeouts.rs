//! How long systemd waits for a device: systemd-system.conf(5).
//!
//! `DefaultDeviceTimeoutSec=` where it is set, else `DefaultTimeoutStartSec=`, else 90 s; drop-ins in
//! `system.conf.d` override the main file, later names override earlier ones.

use std::collections::BTreeMap;
use std::time::Duration;

use filesystem::FileSystem;
use filesystem::path::resolve;

/// What systemd is compiled with.
pub(crate) const BUILT_IN: Duration = Duration::from_secs(90);
/// Larger than any real configuration file.
const LIMIT: u64 = 1 << 20;
/// Drop-ins are looked for in these, the later ones masking the earlier by file name.
const DROP_INS: [&str; 3] =
    ["/lib/systemd/system.conf.d", "/usr/lib/systemd/system.conf.d", "/etc/systemd/system.conf.d"];

/// The effective wait of the guest with this tree.
pub(crate) fn device_timeout(tree: &dyn FileSystem) -> Duration {
    let mut files: Vec<Vec<u8>> = read(tree, "/etc/systemd/system.conf").into_iter().collect();
    let mut drop_ins = BTreeMap::new();
    for folder in DROP_INS {
        let entries = resolve(tree, folder.as_bytes()).ok().and_then(|dir| tree.read_dir(dir).ok());
        for entry in entries.into_iter().flatten().filter(|entry| entry.name.ends_with(b".conf")) {
            let path = format!("{folder}/{}", String::from_utf8_lossy(&entry.name));
            drop_ins.insert(entry.name, read(tree, &path));
        }
    }
    files.extend(drop_ins.into_values().flatten());
    let last = |key: &str| files.iter().rev().find_map(|file| value(file, key));
    last("DefaultDeviceTimeoutSec").or_else(|| last("DefaultTimeoutStartSec")).unwrap_or(BUILT_IN)
}

fn read(tree: &dyn FileSystem, path: &str) -> Option<Vec<u8>> {
    let inode = resolve(tree, path.as_bytes()).ok()?;
    filesystem::read_to_end(tree, inode, LIMIT).ok()
}

fn value(file: &[u8], key: &str) -> Option<Duration> {
    let text = String::from_utf8_lossy(file);
    let mut lines = text.lines().rev().map(str::trim);
    lines.find_map(|line| time_span(line.strip_prefix(key)?.trim_start().strip_prefix('=')?))
}

/// A time span as systemd.time(7) writes it, as far as timeouts use it: `45`, `45s`, `1min 30s`, `infinity`
/// (which is [`Duration::MAX`]). `None` for anything else.
pub fn time_span(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text == "infinity" {
        return Some(Duration::MAX);
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let seconds = match &rest[..letters] {
            "" | "s" | "sec" | "second" | "seconds" => number,
            "m" | "min" | "minute" | "minutes" => number.checked_mul(60)?,
            "h" | "hr" | "hour" | "hours" => number.checked_mul(3600)?,
            "ms" | "msec" => number / 1000,
            _ => return None,
        };
        total = total.checked_add(Duration::from_secs(seconds))?;
        rest = rest[letters..].trim_start();
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use filesystem::MemoryFs;

    use super::*;

    #[test]
    fn spans() {
        let seconds = |text: &str| time_span(text).map(|span| span.as_secs());
        assert_eq!(seconds("45s"), Some(45));
        assert_eq!(seconds("1min 30s"), Some(90));
        assert_eq!(seconds("2m"), Some(120));
        assert_eq!(seconds("infinity"), Some(u64::MAX));
        assert_eq!(seconds("soon"), None);
        assert_eq!(seconds(""), None);
    }

    #[test]
    fn drop_ins_override() {
        assert_eq!(device_timeout(&MemoryFs::new()), BUILT_IN);
        let guest = MemoryFs::new().file(
            "/etc/systemd/system.conf",
            "[Manager]\n#DefaultTimeoutStartSec=90s\nDefaultTimeoutStartSec=30s\n",
        );
        assert_eq!(device_timeout(&guest).as_secs(), 30);
        let guest = guest
            .file("/usr/lib/systemd/system.conf.d/b.conf", "DefaultDeviceTimeoutSec=10\n")
            .file("/etc/systemd/system.conf.d/a.conf", "DefaultDeviceTimeoutSec=20\n");
        assert_eq!(device_timeout(&guest).as_secs(), 10);
        let guest = guest.file("/etc/systemd/system.conf.d/b.conf", "DefaultDeviceTimeoutSec = 40\n");
        assert_eq!(device_timeout(&guest).as_secs(), 40);
    }
}
