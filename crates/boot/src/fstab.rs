//! What systemd makes of `/etc/fstab`: the units that its fstab generator writes.
//!
//! systemd 252, `src/fstab-generator/fstab-generator.c` and systemd.mount(5). Compared line by line with the
//! real generator in the tests.

use std::time::Duration;

use guest_files::fstab::{Entry, Fstab};
use storage::udev_node;

use crate::unit_name::unit_name_from_path;

/// How the start of the system depends on a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// Required by this target: its failure is the target's failure.
    RequiredBy(String),
    /// Wanted by this target: its failure is only logged.
    WantedBy(String),
}

/// One unit that the generator writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// The fstab line, from 1.
    pub line: usize,
    /// `boot.mount`, `data.automount`, `dev-vdb1.swap`.
    pub name: String,
    /// What is mounted or swapped on, as the unit names it.
    pub what: String,
    /// The mount point; empty for swap.
    pub target: String,
    /// Targets that pull it in; empty for `noauto`.
    pub links: Vec<Link>,
    /// The device unit that must appear first.
    pub device: Option<String>,
    /// Whether the file system is checked before it is mounted.
    pub is_checked: bool,
    /// A wait for the device other than the default; `Duration::MAX` is for ever.
    pub device_timeout: Option<Duration>,
}

impl Unit {
    /// Whether its failure keeps `local-fs.target` from being reached, which starts emergency mode.
    pub fn blocks_boot(&self) -> bool {
        self.links.iter().any(|link| matches!(link, Link::RequiredBy(target) if target == "local-fs.target"))
            && !self.name.ends_with(".automount")
    }

    /// Whether the system waits for it at all.
    pub fn is_started(&self) -> bool {
        !self.links.is_empty() && !self.name.ends_with(".automount")
    }
}

/// Why a line makes no unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// The mount point is no absolute path.
    NotAPath,
    /// The kernel's own file systems are systemd's business.
    ApiFileSystem,
    /// An earlier line has the same mount point.
    Duplicate,
    /// The source of a swap line is no path.
    SwapNotAPath,
}

/// The units of the whole file, in order, and the lines that make none.
pub fn generate(fstab: &Fstab) -> (Vec<Unit>, Vec<(usize, Ignored)>) {
    let mut units: Vec<Unit> = Vec::new();
    let mut ignored = Vec::new();
    for entry in fstab.entries() {
        let made = if entry.kind.value == b"swap" { swap(entry) } else { mount(entry) };
        match made {
            Ok(new) => {
                let is_duplicate = |unit: &Unit| units.iter().any(|old| old.name == unit.name);
                if new.first().is_some_and(is_duplicate) {
                    ignored.push((entry.line, Ignored::Duplicate));
                } else {
                    units.extend(new);
                }
            }
            Err(why) => ignored.push((entry.line, why)),
        }
    }
    (units, ignored)
}

/// The unit that one line makes, wherever it stands; `None` for swap, and for what is no mount.
pub(crate) fn unit_of(entry: &Entry) -> Option<Unit> {
    if entry.kind.value == b"swap" { None } else { mount(entry).ok()?.into_iter().next() }
}

/// Whether the kernel mounts `content`, the type that a device holds, when it is asked for `kind`.
pub fn is_mountable_as(kind: &str, content: &str) -> bool {
    let is_ext = |name: &str| matches!(name, "ext2" | "ext3" | "ext4");
    matches!(kind, "" | "auto")
        || kind.split(',').any(|kind| kind == content || is_ext(kind) && is_ext(content))
        || matches!((kind, content), ("msdos", "vfat") | ("ntfs3" | "ntfs-3g" | "fuseblk", "ntfs"))
}

fn swap(entry: &Entry) -> Result<Vec<Unit>, Ignored> {
    let what = udev_node(&entry.source.value).unwrap_or_else(|| entry.source.text().into_owned());
    if !what.starts_with('/') {
        return Err(Ignored::SwapNotAPath);
    }
    let links = match (is_noauto(entry), is_nofail(entry)) {
        (true, _) => Vec::new(),
        (_, true) => vec![Link::WantedBy("swap.target".into())],
        (_, false) => vec![Link::RequiredBy("swap.target".into())],
    };
    Ok(vec![Unit {
        line: entry.line,
        name: unit_name_from_path(&what, "swap"),
        target: String::new(),
        links,
        device: device_unit(&what),
        is_checked: false,
        device_timeout: device_timeout(entry),
        what,
    }])
}

fn mount(entry: &Entry) -> Result<Vec<Unit>, Ignored> {
    let target = simplified(&entry.target.text());
    if is_api(&target) {
        return Err(Ignored::ApiFileSystem);
    }
    if !target.starts_with('/') {
        return Err(Ignored::NotAPath);
    }
    let is_root = target == "/";
    let what = udev_node(&entry.source.value).unwrap_or_else(|| entry.source.text().into_owned());
    let is_noauto = is_noauto(entry) && !is_root;
    let is_nofail = is_nofail(entry) && !is_root;
    let is_automount = (entry.has_option("x-systemd.automount")
        || entry.has_option("comment=systemd.automount"))
        && !is_root;
    let pulled_in_by = if is_network(entry) { "remote-fs.target" } else { "local-fs.target" };
    let link = |target: &str| {
        if is_nofail { Link::WantedBy(target.into()) } else { Link::RequiredBy(target.into()) }
    };
    let explicit = explicit_links(entry);
    let mut unit = Unit {
        line: entry.line,
        name: unit_name_from_path(&target, "mount"),
        links: Vec::new(),
        device: device_unit(&what),
        is_checked: entry.pass != 0 && what.starts_with("/dev/") && has_checker(&entry.kind.text()),
        device_timeout: device_timeout(entry),
        what,
        target,
    };
    let mut units = Vec::new();
    if is_automount {
        let automount = Unit {
            name: unit_name_from_path(&unit.target, "automount"),
            links: vec![link(pulled_in_by)],
            device: None,
            is_checked: false,
            ..unit.clone()
        };
        units.push(automount);
    }
    if !explicit.is_empty() && !is_root && !is_automount {
        unit.links = explicit;
    } else if !is_noauto && !is_automount {
        unit.links = vec![link(pulled_in_by)];
    }
    units.insert(0, unit);
    Ok(units)
}

fn is_noauto(entry: &Entry) -> bool {
    entry.last_of("noauto", "auto") == Some(true)
}

fn is_nofail(entry: &Entry) -> bool {
    entry.last_of("nofail", "fail") == Some(true)
}

/// `x-systemd.wanted-by=` and `x-systemd.required-by=`, which replace the link from the usual target.
fn explicit_links(entry: &Entry) -> Vec<Link> {
    entry
        .options()
        .filter_map(|option| {
            let option = String::from_utf8_lossy(option);
            let (key, unit) = option.split_once('=')?;
            match key {
                "x-systemd.wanted-by" => Some(Link::WantedBy(unit.to_owned())),
                "x-systemd.required-by" => Some(Link::RequiredBy(unit.to_owned())),
                _ => None,
            }
        })
        .collect()
}

fn device_unit(what: &str) -> Option<String> {
    what.starts_with("/dev/").then(|| unit_name_from_path(what, "device"))
}

/// Seconds, as systemd.mount(5) allows; 0 and `infinity` are for ever.
fn device_timeout(entry: &Entry) -> Option<Duration> {
    let value = entry
        .option_value("x-systemd.device-timeout")
        .or_else(|| entry.option_value("comment=systemd.device-timeout"))?;
    let span = guest::time_span(&String::from_utf8_lossy(value))?;
    Some(if span.is_zero() { Duration::MAX } else { span })
}

/// Types for which there is a program `fsck.TYPE`; without one the generator asks for no check.
fn has_checker(kind: &str) -> bool {
    const CHECKED: [&str; 14] = [
        "", "auto", "ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "msdos", "f2fs", "exfat", "minix", "jfs",
        "reiserfs",
    ];
    CHECKED.contains(&kind)
}

/// File systems that need the network, by type or by `_netdev`.
fn is_network(entry: &Entry) -> bool {
    const NETWORK: [&str; 17] = [
        "afs",
        "ceph",
        "cifs",
        "davfs",
        "gfs",
        "gfs2",
        "glusterfs",
        "lustre",
        "ncp",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "pvfs2",
        "smb3",
        "smbfs",
        "sshfs",
    ];
    let kind = entry.kind.text();
    NETWORK.contains(&kind.strip_prefix("fuse.").unwrap_or(&kind)) || entry.has_option("_netdev")
}

/// Mount points that systemd sets up itself.
fn is_api(target: &str) -> bool {
    const API: [&str; 20] = [
        "/proc",
        "/sys",
        "/dev",
        "/sys/kernel/security",
        "/sys/fs/smackfs",
        "/dev/shm",
        "/dev/pts",
        "/run",
        "/sys/fs/cgroup",
        "/sys/fs/cgroup/unified",
        "/sys/fs/cgroup/systemd",
        "/sys/fs/pstore",
        "/sys/firmware/efi/efivars",
        "/sys/fs/bpf",
        "/sys/fs/selinux",
        "/sys/selinux",
        "/selinux",
        "/dev/console",
        "/proc/kmsg",
        "/proc/sys",
    ];
    let is_below = |folder: &str| target.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    API.contains(&target) || ["/proc/sys", "/sys/fs/cgroup"].into_iter().any(is_below)
}

/// `//`, `/./` and a trailing `/` dropped; other text stays as it is.
fn simplified(path: &str) -> String {
    if !path.starts_with('/') {
        return path.to_owned();
    }
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    let simplified = parts.fold(String::new(), |path, part| path + "/" + part);
    if simplified.is_empty() { "/".into() } else { simplified }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;
    use std::process::Command;

    use super::*;

    const GENERATOR: &str = "/usr/lib/systemd/system-generators/systemd-fstab-generator";

    /// What matters of a generated folder: `unit`, `target.requires/unit`, `unit fsck`.
    fn real(fstab: &str) -> BTreeSet<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fstab");
        std::fs::write(&path, fstab).unwrap();
        let out = folder.path().join("out");
        std::fs::create_dir(&out).unwrap();
        let run = Command::new(GENERATOR)
            .args([&out, &out, &out])
            .env("SYSTEMD_FSTAB", &path)
            .env("SYSTEMD_SYSROOT_FSTAB", "/dev/null")
            .env("SYSTEMD_IN_INITRD", "0")
            .env("SYSTEMD_PROC_CMDLINE", "")
            .env("SYSTEMD_LOG_TARGET", "null")
            .output()
            .unwrap();
        drop(run);
        let mut facts = BTreeSet::new();
        collect(&out, "", &mut facts);
        facts
    }

    fn collect(folder: &Path, prefix: &str, facts: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                if !name.ends_with(".device.d") {
                    collect(&entry.path(), &format!("{name}/"), facts);
                }
                continue;
            }
            // Helper links of systemd itself, the same for every fstab.
            if name.contains("systemd-remount-fs.service") || name.contains("systemd-fsck-root.service") {
                continue;
            }
            if prefix.is_empty() {
                let text = std::fs::read_to_string(entry.path()).unwrap();
                let what = text.lines().find_map(|line| line.strip_prefix("What="));
                facts.insert(format!("{name} what={}", what.unwrap_or("-").replace("%%", "%")));
                if text.lines().any(|line| {
                    line.starts_with("Requires=systemd-fsck@") || line.starts_with("Wants=systemd-fsck@")
                }) {
                    facts.insert(format!("{name} fsck"));
                }
            } else {
                facts.insert(name);
            }
        }
    }

    fn ours(fstab: &str) -> BTreeSet<String> {
        let mut facts = BTreeSet::new();
        for unit in generate(&Fstab::parse(fstab)).0 {
            let what = if unit.name.ends_with(".automount") { "-" } else { &unit.what };
            facts.insert(format!("{} what={what}", unit.name));
            if unit.is_checked && unit.name != "-.mount" {
                facts.insert(format!("{} fsck", unit.name));
            }
            for link in &unit.links {
                facts.insert(match link {
                    Link::RequiredBy(target) => format!("{target}.requires/{}", unit.name),
                    Link::WantedBy(target) => format!("{target}.wants/{}", unit.name),
                });
            }
        }
        facts
    }

    /// The lines of the table in the head comment's sources, and their relatives.
    const LINES: &[&str] = &[
        "/dev/vda1 /boot xfs defaults 0 0",
        "/dev/mapper/centos-root / xfs defaults 0 0",
        "UUID=aa-BB /data ext4 defaults 0 2",
        "UUID=\"aa\" /data ext4 defaults 0 2",
        "LABEL=my\\040disk /data ext4 defaults 0 x",
        "PARTUUID=1 /boot/efi vfat umask=0077 0 1",
        "PARTLABEL=x/y /data ext4",
        "/dev/sdb1 /data ext4 nofail 0 2",
        "/dev/sdb1 /data ext4 noauto 0 2",
        "/dev/sdb1 /data ext4 nofail,fail 0 2",
        "/dev/sdb1 /data ext4 noauto,auto 0 2",
        "/dev/sdb1 / ext4 nofail,noauto,x-systemd.automount 0 1",
        "/dev/sdb1 /data ext4 _netdev 0 2",
        "server:/x /data nfs defaults 0 0",
        "server:/x /data nfs4 nofail 0 0",
        "x /data fuse.sshfs defaults 0 0",
        "//s/x /data cifs nofail 0 0",
        "/dev/sdb1 /data ext4 x-systemd.automount 0 2",
        "/dev/sdb1 /data ext4 noauto,x-systemd.automount 0 2",
        "/dev/sdb1 /data ext4 nofail,x-systemd.automount 0 2",
        "/dev/sdb1 /data ext4 x-systemd.required-by=a.service 0 2",
        "/dev/sdb1 /data ext4 x-systemd.wanted-by=a.service,x-systemd.wanted-by=b.target 0 2",
        "/dev/sdb1 /data ext4 noauto,x-systemd.wanted-by=a.service 0 2",
        "/dev/sdb2 swap swap defaults 0 0",
        "/dev/sdb2 none swap sw,nofail 0 0",
        "/dev/sdb2 none swap noauto 0 0",
        "/swapfile none swap defaults 0 0",
        "UUID=x none swap defaults 0 0",
        "/a /b none bind 0 0",
        "tmpfs /tmp tmpfs size=1G 0 0",
        "proc /proc proc defaults 0 0",
        "devpts /dev/pts devpts gid=5 0 0",
        "cg /sys/fs/cgroup/cpu cgroup cpu 0 0",
        "x none ext4 defaults 0 0",
        "x relative ext4 defaults 0 0",
        "onefield",
        "/dev/sdb1 /data",
        "ID=x /data ext4 defaults 0 0",
        "/dev/sdb1 //data///x/ ext4 defaults 0 0",
        "/dev/sdb1 /da-ta/.x ext4 defaults, 0 0",
        "/dev//sdb1 /data ext4 defaults 0 0",
        "UUID=x /usr ext4 defaults 0 0",
        "UUID=x /sysroot ext4 x-initrd.mount 0 0",
        "UUID=x /data ext4 defaults 0 0\r",
        "/dev/sr0 /media iso9660 ro,noauto 0 0",
        "/dev/sdb1 /da\\040ta ext4 defaults 0 -1",
    ];

    #[test]
    fn the_real_generator_agrees() {
        if !Path::new(GENERATOR).exists() {
            println!("skipped: systemd-fstab-generator is not installed");
            return;
        }
        // In a container the generator passes swap lines over, whatever they say.
        let sees_swap = !real("/dev/sdb2 none swap sw 0 0").is_empty();
        if !sees_swap {
            println!("skipped: swap lines, which systemd-fstab-generator ignores in a container");
        }
        let mut wrong = Vec::new();
        for line in LINES.iter().filter(|line| sees_swap || !line.contains(" swap ")) {
            let (real, ours) = (real(line), ours(line));
            if real != ours {
                wrong.push(format!("{line}\n  real {real:?}\n  ours {ours:?}"));
            }
        }
        let twice = "UUID=a /data ext4\nUUID=b /data xfs nofail\n";
        if real(twice) != ours(twice) {
            wrong.push(format!("{twice}  real {:?}\n  ours {:?}", real(twice), ours(twice)));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    /// Six hundred lines made at random, ten to a file, so that some share a mount point.
    #[test]
    fn the_real_generator_agrees_on_random_files() {
        if !Path::new(GENERATOR).exists() {
            println!("skipped: systemd-fstab-generator is not installed");
            return;
        }
        const SOURCES: [&str; 12] = [
            "/dev/vda1",
            "UUID=0a0b-0C0D",
            "LABEL=a\\040b",
            "PARTUUID=12-01",
            "PARTLABEL=root",
            "/dev/mapper/vg-lv",
            "tmpfs",
            "server:/export",
            "/dev//sdb1",
            "\"UUID=q\"",
            "overlay",
            "/srv/file.img",
        ];
        const TARGETS: [&str; 12] = [
            "/",
            "/boot",
            "/boot/efi",
            "/data",
            "/data/",
            "/srv//x",
            "/usr",
            "/var/lib",
            "none",
            "/tmp",
            "relative",
            "/da\\040ta",
        ];
        const KINDS: [&str; 9] =
            ["ext4", "xfs", "vfat", "auto", "nfs", "cifs", "tmpfs", "btrfs", "fuse.sshfs"];
        const OPTIONS: [&str; 16] = [
            "defaults",
            "nofail",
            "noauto",
            "auto",
            "fail",
            "_netdev",
            "ro",
            "bind",
            "x-systemd.automount",
            "nofail,fail",
            "x-systemd.device-timeout=5s",
            "x-systemd.wanted-by=a.target",
            "x-systemd.required-by=b.service",
            "subvol=@",
            "defaults,",
            "x-initrd.mount",
        ];
        let mut state = 0x1234_5678_9abc_def1_u64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        for _ in 0..60 {
            let mut text = String::new();
            for _ in 0..10 {
                let options: Vec<&str> = (0..=random(3)).map(|_| OPTIONS[random(OPTIONS.len())]).collect();
                text += &format!("{} {} {}", SOURCES[random(12)], TARGETS[random(12)], KINDS[random(9)]);
                if random(10) > 0 {
                    text += &format!(" {} 0 {}", options.join(","), random(3));
                }
                text.push('\n');
            }
            let (ours, real) = (ours(&text), real(&text));
            let only = |one: &BTreeSet<String>, other| {
                one.difference(other).cloned().collect::<Vec<_>>().join("\n  ")
            };
            assert!(
                ours == real,
                "{text}ours alone:\n  {}\nthe generator's alone:\n  {}",
                only(&ours, &real),
                only(&real, &ours)
            );
        }
    }

    #[test]
    fn what_blocks_the_boot() {
        let blocks = |line: &str| generate(&Fstab::parse(line)).0.iter().any(Unit::blocks_boot);
        assert!(blocks("/dev/vda1 /boot xfs defaults 0 0"));
        assert!(blocks("/dev/vda1 / xfs nofail 0 0"));
        for harmless in
            ["nofail", "noauto", "_netdev", "x-systemd.automount", "x-systemd.required-by=a.service"]
        {
            assert!(!blocks(&format!("/dev/vda1 /boot xfs {harmless} 0 0")), "{harmless}");
        }
        assert!(!blocks("/dev/vda2 swap swap defaults 0 0"));
        let timeout = |text: &str| generate(&Fstab::parse(text)).0[0].device_timeout;
        assert_eq!(timeout("/dev/a /b xfs x-systemd.device-timeout=10s"), Some(Duration::from_secs(10)));
        assert_eq!(timeout("/dev/a /b xfs x-systemd.device-timeout=0"), Some(Duration::MAX));
    }
}
