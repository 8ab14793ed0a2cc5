//! What the configuration of a system says of its boot, for people to read: nothing is judged by it.
//!
//! Each file is read as the program does that it belongs to, as far as that can be told without a shell.

use std::cmp::Ordering;

use filesystem::FileKind;
use filesystem::path::real_path;
use guest_files::crypttab::{self, Entry};
use guest_files::mdadm_conf::MdadmConf;
use guest_files::shell_conf::Variable;

use crate::Guest;
use crate::cloud_init::{self, CloudInit};
use crate::reader::Reader;

/// Where systemd looks for units, the first folder first; `/run` is empty before a boot.
const UNIT_FOLDERS: [&str; 4] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
const SELINUX_CONFIG: &str = "/etc/selinux/config";
/// Debian's place, then the one that mdadm takes without it.
const MDADM_CONFIGS: [&str; 2] = ["/etc/mdadm/mdadm.conf", "/etc/mdadm.conf"];
/// The names of a kernel's initramfs: Debian's, dracut's, SUSE's.
const INITRAMFS_NAMES: [(&str, &str); 3] = [("initrd.img-", ""), ("initramfs-", ".img"), ("initrd-", "")];

/// The settings of one system; what it does not have is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// What systemd starts unless it is told otherwise.
    pub default_target: Option<DefaultTarget>,
    /// The kernels of which a part is there, the oldest version first.
    pub kernels: Vec<Kernel>,
    /// `/etc/default/grub`, and `/etc/default/grub.d` as Debian's grub-mkconfig(8) reads it.
    pub grub: Vec<Variable>,
    /// dracut.conf(5).
    pub dracut: Vec<Variable>,
    /// initramfs.conf(5).
    pub initramfs_tools: Vec<Variable>,
    /// `SELINUX` and `SELINUXTYPE` of selinux_config(5).
    pub selinux: Vec<Variable>,
    /// cloud-init, where it is installed.
    pub cloud_init: Option<CloudInit>,
    /// mdadm.conf(5).
    pub mdadm: Option<Mdadm>,
    /// The volumes of crypttab(5).
    pub crypttab: Vec<Entry>,
    /// What is there and could not be read, in words.
    pub problems: Vec<String>,
}

/// `default.target`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultTarget {
    /// The unit that it leads to; `/dev/null` where it is masked.
    pub unit: String,
    /// The link.
    pub file: String,
}

/// A kernel and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// What `uname -r` says when it runs, by the names of its files.
    pub release: String,
    /// Whether `/lib/modules` has a folder for it.
    pub has_modules: bool,
    /// Its image in `/boot`.
    pub image: Option<String>,
    /// Its initramfs in `/boot`.
    pub initramfs: Option<String>,
}

/// mdadm.conf, and which of its two places it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mdadm {
    /// Its path.
    pub file: String,
    /// What it says.
    pub conf: MdadmConf,
}

/// Reads the settings of a system. Never fails; what it reads is bounded.
pub fn settings(guest: &Guest) -> Settings {
    let mut reader = Reader::new(&guest.tree);
    let reader = &mut reader;
    Settings {
        default_target: default_target(reader),
        kernels: kernels(reader),
        grub: grub(reader),
        dracut: dracut(reader),
        initramfs_tools: initramfs_tools(reader),
        selinux: reader.file(SELINUX_CONFIG).map(|bytes| selinux(&bytes)).unwrap_or_default(),
        cloud_init: cloud_init::cloud_init(reader),
        mdadm: MDADM_CONFIGS.iter().find_map(|path| {
            let conf = MdadmConf::parse(&reader.file(path)?);
            Some(Mdadm { file: (*path).to_owned(), conf })
        }),
        crypttab: reader.file("/etc/crypttab").map(|bytes| crypttab::parse(&bytes)).unwrap_or_default(),
        problems: std::mem::take(&mut reader.problems),
    }
}

/// The first that is there counts, even if it leads nowhere.
fn default_target(reader: &Reader<'_>) -> Option<DefaultTarget> {
    UNIT_FOLDERS.iter().find_map(|folder| {
        let file = format!("{folder}/default.target");
        let link = reader.link(&file);
        let path = match real_path(reader.tree, file.as_bytes()) {
            _ if link.as_deref() == Some("/dev/null") => link?,
            Ok(path) => last_name(&path),
            Err(_) => last_name(&link?),
        };
        Some(DefaultTarget { unit: path, file })
    })
}

fn last_name(path: &str) -> String {
    path.rsplit('/').find(|name| !name.is_empty()).unwrap_or_default().to_owned()
}

fn kernels(reader: &mut Reader<'_>) -> Vec<Kernel> {
    let modules = reader.names("/lib/modules", |_| true);
    let boot = reader.names("/boot", |name| name.starts_with("vmlinuz-") || name.starts_with("init"));
    let mut releases: Vec<&str> = boot.iter().filter_map(|name| name.strip_prefix("vmlinuz-")).collect();
    releases.extend(modules.iter().map(String::as_str));
    releases.sort_by(|a, b| version_order(a, b));
    releases.dedup();
    let file = |name: String| {
        let path = format!("/boot/{name}");
        (boot.contains(&name) && reader.kind(&path) == Some(FileKind::Regular)).then_some(path)
    };
    let kernels = releases.into_iter().map(|release| Kernel {
        release: release.to_owned(),
        has_modules: modules.contains(release)
            && reader.kind(&format!("/lib/modules/{release}")) == Some(FileKind::Directory),
        image: file(format!("vmlinuz-{release}")),
        initramfs: INITRAMFS_NAMES.iter().find_map(|(start, end)| file(format!("{start}{release}{end}"))),
    });
    kernels.filter(|kernel| kernel.has_modules || kernel.image.is_some()).collect()
}

fn grub(reader: &mut Reader<'_>) -> Vec<Variable> {
    let names = reader.names("/etc/default/grub.d", |name| name.ends_with(".cfg"));
    let mut files = vec![vec!["/etc/default/grub".to_owned()]];
    files.extend(names.iter().map(|name| vec![format!("/etc/default/grub.d/{name}")]));
    reader.sourced(&files)
}

/// The drop-ins of both folders by name, as `sort -V` has them; those of `/etc` mask the others.
fn dracut(reader: &mut Reader<'_>) -> Vec<Variable> {
    const FOLDERS: [&str; 2] = ["/etc/dracut.conf.d", "/usr/lib/dracut/dracut.conf.d"];
    let mut names: Vec<String> = Vec::new();
    for folder in FOLDERS {
        names.extend(reader.names(folder, |name| name.ends_with(".conf")));
    }
    names.sort_by(|a, b| version_order(a, b));
    names.dedup();
    let mut files = vec![vec!["/etc/dracut.conf".to_owned()]];
    files.extend(names.iter().map(|name| FOLDERS.map(|folder| format!("{folder}/{name}")).to_vec()));
    reader.sourced(&files)
}

/// The drop-ins of packages that `/etc` does not mask, then those of `/etc`.
fn initramfs_tools(reader: &mut Reader<'_>) -> Vec<Variable> {
    const PACKAGES: &str = "/usr/share/initramfs-tools/conf.d";
    const ADMIN: &str = "/etc/initramfs-tools/conf.d";
    let accepts = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
            && !name.contains(".dpkg-")
    };
    let of_packages = reader.names(PACKAGES, accepts);
    let of_admin = reader.names(ADMIN, accepts);
    let mut files = vec![vec!["/etc/initramfs-tools/initramfs.conf".to_owned()]];
    files.extend(of_packages.difference(&of_admin).map(|name| vec![format!("{PACKAGES}/{name}")]));
    files.extend(of_admin.iter().map(|name| vec![format!("{ADMIN}/{name}")]));
    reader.sourced(&files)
}

/// The last line of each key; unlike in a shell, quotes belong to the value.
fn selinux(bytes: &[u8]) -> Vec<Variable> {
    let text = String::from_utf8_lossy(bytes);
    let last = |name: &str| {
        let lines = (1..).zip(text.lines());
        let values =
            lines.filter_map(|(line, text)| Some((line, text.trim().strip_prefix(name)?.strip_prefix('=')?)));
        let (line, value) = values.last()?;
        let (value, file) = (Some(value.trim().to_owned()), SELINUX_CONFIG.to_owned());
        Some(Variable { name: name.to_owned(), value, file, line })
    };
    ["SELINUX", "SELINUXTYPE"].into_iter().filter_map(last).collect()
}

/// The order of `sort -V`: runs of digits by their number, letters before other characters, `~` before the end. The
/// ending of a configuration file counts only where the rest is alike.
fn version_order(a: &str, b: &str) -> Ordering {
    let stem = |name: &str| name.strip_suffix(".conf").unwrap_or(name).to_owned();
    compare_runs(stem(a).as_bytes(), stem(b).as_bytes())
        .then_with(|| compare_runs(a.as_bytes(), b.as_bytes()))
        .then_with(|| a.cmp(b))
}

fn compare_runs(mut a: &[u8], mut b: &[u8]) -> Ordering {
    let weight = |byte: Option<&u8>| match byte {
        Some(b'~') => -2,
        None => -1,
        Some(byte) if byte.is_ascii_digit() => 0,
        Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
        Some(byte) => i32::from(*byte) + 256,
    };
    let split = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    while !(a.is_empty() && b.is_empty()) {
        // The end of a name is a number of no digits.
        let is_number = |text: &[u8]| text.first().is_none_or(u8::is_ascii_digit);
        let order = if is_number(a) && is_number(b) {
            let ((left, rest_a), (right, rest_b)) = (a.split_at(split(a)), b.split_at(split(b)));
            (a, b) = (rest_a, rest_b);
            let significant = |digits: &[u8]| {
                let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
                digits.get(zeros..).unwrap_or_default().to_vec()
            };
            let (left, right) = (significant(left), significant(right));
            left.len().cmp(&right.len()).then_with(|| left.cmp(&right))
        } else {
            let order = weight(a.first()).cmp(&weight(b.first()));
            (a, b) = (a.get(1..).unwrap_or_default(), b.get(1..).unwrap_or_default());
            order
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use filesystem::MemoryFs;
    use guest_files::os_release::OsRelease;
    use storage::NodeId;

    use super::*;
    use crate::JoinedFs;

    fn read(fs: MemoryFs) -> Settings {
        settings(&Guest {
            root: NodeId(0),
            os_release: OsRelease::default(),
            fstab: None,
            mounts: Vec::new(),
            tree: JoinedFs::new(NodeId(0), Arc::new(fs)),
            bus: None,
            device_timeout: crate::timeouts::BUILT_IN,
            problems: Vec::new(),
        })
    }

    /// `name=value` and the file it is from.
    fn facts(variables: &[Variable]) -> Vec<String> {
        let value = |variable: &Variable| variable.value.clone().unwrap_or_else(|| "?".into());
        let fact = |variable: &Variable| {
            format!("{}={} {}:{}", variable.name, value(variable), variable.file, variable.line)
        };
        variables.iter().map(fact).collect()
    }

    #[test]
    fn nothing_there() {
        assert_eq!(read(MemoryFs::new()), Settings::default());
    }

    #[test]
    fn the_order_of_versions() {
        for [a, b] in [
            ["9-x.conf", "10-a.conf"],
            ["01-dist.conf", "local.conf"],
            ["5.14.0-9", "5.14.0-70"],
            ["6.1.0~rc1", "6.1.0"],
            ["6.1.0-9-amd64", "6.1.0-10-amd64"],
            ["a.conf", "a-b.conf"],
            ["a0.conf", "a.conf"],
            ["1", "01"],
        ] {
            let order = if b == "01" { Ordering::Greater } else { Ordering::Less };
            assert_eq!(version_order(a, b), order, "{a} {b}");
            assert_eq!(version_order(b, a), order.reverse(), "{b} {a}");
        }
    }

    #[test]
    fn drop_ins_and_what_masks_them() {
        let found = read(
            MemoryFs::new()
                .file("/etc/default/grub", "GRUB_DEFAULT=0\nGRUB_TIMEOUT=5\n")
                .file("/etc/default/grub.d/50-x.cfg", "GRUB_DEFAULT=saved\n")
                .file("/etc/default/grub.d/x.dpkg-old", "GRUB_DEFAULT=9\n")
                .file("/etc/dracut.conf", "hostonly=yes\n")
                .file("/usr/lib/dracut/dracut.conf.d/9-a.conf", "add_drivers+=\" a \"\n")
                .file("/usr/lib/dracut/dracut.conf.d/10-b.conf", "add_drivers+=\" b \"\n")
                .file("/usr/lib/dracut/dracut.conf.d/c.conf", "hostonly=sloppy\n")
                .symlink("/usr/lib/dracut/dracut.conf.d/d.conf", "/nowhere")
                .symlink("/etc/dracut.conf.d/c.conf", "/dev/null")
                .file("/etc/dracut.conf.d/10-b.conf", "\nadd_drivers+=\" B \"\n")
                .file("/etc/dracut.conf.d/.hidden.conf", "hostonly=no\n")
                .file("/etc/initramfs-tools/initramfs.conf", "MODULES=most\nCOMPRESS=zstd\n")
                .file("/usr/share/initramfs-tools/conf.d/z", "MODULES=list\nRESUME=auto\n")
                .file("/usr/share/initramfs-tools/conf.d/a", "COMPRESS=xz\n")
                .file("/etc/initramfs-tools/conf.d/a", "MODULES=dep\n")
                .file("/etc/initramfs-tools/conf.d/b.dpkg-dist", "MODULES=netboot\n")
                .file(
                    "/etc/selinux/config",
                    "# SELINUX=disabled\nSELINUX=permissive\n SELINUXTYPE=mls \nSELINUX=enforcing\n",
                ),
        );
        assert_eq!(
            facts(&found.grub),
            ["GRUB_DEFAULT=saved /etc/default/grub.d/50-x.cfg:1", "GRUB_TIMEOUT=5 /etc/default/grub:2"]
        );
        assert_eq!(
            facts(&found.dracut),
            ["add_drivers= a  B  /etc/dracut.conf.d/10-b.conf:2", "hostonly=yes /etc/dracut.conf:1"]
        );
        assert_eq!(
            facts(&found.initramfs_tools),
            [
                "COMPRESS=zstd /etc/initramfs-tools/initramfs.conf:2",
                "MODULES=dep /etc/initramfs-tools/conf.d/a:1",
                "RESUME=auto /usr/share/initramfs-tools/conf.d/z:2"
            ]
        );
        assert_eq!(
            facts(&found.selinux),
            ["SELINUX=enforcing /etc/selinux/config:4", "SELINUXTYPE=mls /etc/selinux/config:3"]
        );
        assert!(found.problems.is_empty());
    }

    #[test]
    fn kernels_and_what_belongs_to_them() {
        let found = read(
            MemoryFs::new()
                .directory("/usr/lib/modules/6.1.0-10-amd64")
                .directory("/usr/lib/modules/6.1.0-9-amd64")
                .file("/usr/lib/modules/readme", "")
                .symlink("/lib", "usr/lib")
                .file("/boot/vmlinuz-6.1.0-10-amd64", "")
                .file("/boot/initrd.img-6.1.0-10-amd64", "")
                .file("/boot/vmlinuz-0-rescue-1", "")
                .file("/boot/initramfs-0-rescue-1.img", "")
                .symlink("/boot/vmlinuz-gone", "vmlinuz-old")
                .file("/boot/initrd-6.1.0-9-amd64", ""),
        );
        let path = |path: &str| Some(path.to_owned());
        let kernel = |release: &str, has_modules, image, initramfs| Kernel {
            release: release.into(),
            has_modules,
            image,
            initramfs,
        };
        assert_eq!(
            found.kernels,
            [
                kernel(
                    "0-rescue-1",
                    false,
                    path("/boot/vmlinuz-0-rescue-1"),
                    path("/boot/initramfs-0-rescue-1.img")
                ),
                kernel("6.1.0-9-amd64", true, None, path("/boot/initrd-6.1.0-9-amd64")),
                kernel(
                    "6.1.0-10-amd64",
                    true,
                    path("/boot/vmlinuz-6.1.0-10-amd64"),
                    path("/boot/initrd.img-6.1.0-10-amd64")
                ),
            ]
        );
    }

    #[test]
    fn where_the_default_target_leads() {
        let check = |fs: MemoryFs, unit: &str, file: &str| {
            let expected = DefaultTarget { unit: unit.into(), file: file.into() };
            assert_eq!(read(fs).default_target, Some(expected));
        };
        let vendor = "/usr/lib/systemd/system/default.target";
        let admin = "/etc/systemd/system/default.target";
        let fs = || {
            MemoryFs::new()
                .file("/usr/lib/systemd/system/graphical.target", "")
                .symlink(vendor, "graphical.target")
        };
        check(fs(), "graphical.target", vendor);
        check(fs().symlink(admin, "/lib/systemd/system/multi-user.target"), "multi-user.target", admin);
        let alias = fs().symlink("/usr/lib/systemd/system/runlevel5.target", "graphical.target");
        check(alias.symlink(admin, "/usr/lib/systemd/system/runlevel5.target"), "graphical.target", admin);
        check(fs().symlink(admin, "/dev/null"), "/dev/null", admin);
        check(fs().file(admin, "[Unit]\n"), "default.target", admin);
        check(fs().symlink(admin, admin), "default.target", admin);
    }

    #[test]
    fn cloud_init_arrays_and_encrypted_volumes() {
        let fs = || MemoryFs::new().file("/var/lib/cloud/data/instance-id", "iid-1\n");
        assert_eq!(read(fs()).cloud_init, None);
        let found = read(
            fs().file("/etc/cloud/cloud.cfg", "datasource_list: [ Ec2 ]\n")
                .file("/etc/cloud/cloud.cfg.d/90_dpkg.cfg", "\ndatasource_list: [ NoCloud, None ]\n")
                .file("/etc/cloud/cloud.cfg.d/99-x.cfg", "datasource: {}\n")
                .file("/etc/cloud/cloud.cfg.d/99-y.cfg.bak", "datasource_list: [ GCE ]\n")
                .file("/etc/cloud/cloud-init.disabled", "")
                .symlink("/var/lib/cloud/instance", "/var/lib/cloud/instances/iid-1")
                .file("/var/lib/cloud/seed/nocloud-net/meta-data", "")
                .file("/etc/mdadm.conf", "ARRAY /dev/md0 UUID=1\n")
                .file("/etc/crypttab", "root UUID=1 none luks\n"),
        );
        let expected = CloudInit {
            is_disabled: true,
            datasources: Some(cloud_init::Datasources {
                names: vec!["NoCloud".into(), "None".into()],
                file: "/etc/cloud/cloud.cfg.d/90_dpkg.cfg".into(),
                line: 2,
            }),
            instance_id: Some("iid-1".into()),
            instance: Some("/var/lib/cloud/instances/iid-1".into()),
            seeds: vec!["/var/lib/cloud/seed/nocloud-net".into()],
        };
        assert_eq!(found.cloud_init, Some(expected));
        let mdadm = found.mdadm.unwrap();
        assert_eq!((mdadm.file.as_str(), mdadm.conf.arrays.len()), ("/etc/mdadm.conf", 1));
        assert_eq!(found.crypttab[0].name, "root");
    }

    #[test]
    fn bounds_are_kept_and_told() {
        let mut fs = MemoryFs::new().file("/etc/crypttab", vec![b'x'; 1 << 21]).directory("/etc/mdadm.conf");
        for number in 0..1001 {
            let length = if number < 20 { 1 << 20 } else { 1 };
            fs = fs.file(&format!("/etc/dracut.conf.d/{number:04}.conf"), vec![b'\n'; length]);
        }
        let found = read(fs);
        assert!(found.crypttab.is_empty() && found.mdadm.is_none());
        assert_eq!(
            found.problems,
            [
                "/etc/dracut.conf.d: more than 1000 names, the others are left out",
                "/etc/dracut.conf.d/0016.conf: too much configuration, the rest is not read",
            ]
        );
    }

    #[test]
    fn any_bytes() {
        let mut state = 17_u32;
        for _ in 0..300 {
            let mut fs = MemoryFs::new().file("/usr/bin/cloud-init", "");
            for path in [
                "/etc/default/grub",
                "/etc/dracut.conf",
                "/etc/initramfs-tools/initramfs.conf",
                "/etc/mdadm.conf",
                "/etc/cloud/cloud.cfg",
                "/etc/crypttab",
                "/etc/selinux/config",
                "/var/lib/cloud/data/instance-id",
            ] {
                let mut bytes = b"SELINUX=x\nARRAY x\ndatasource_list: [ a ]\nx UUID=1 - a,b\n".to_vec();
                for _ in 0..12 {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let at = (state >> 8) as usize % bytes.len();
                    bytes[at] = b"\n#[], =\0\xff\"'+"[(state >> 3) as usize % 12];
                }
                fs = fs.file(path, bytes);
            }
            assert!(read(fs).problems.is_empty());
        }
    }
}
