//! Where units come from: folders, links between names, drop-ins, and what generators write.
//!
//! systemd.unit(5), "Unit File Load Path" and "Description": a file of the administrator's hides the system's of the same name, a
//! link to `/dev/null` or an empty file masks, a link to another unit's name is an alias, drop-ins of all names count.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use filesystem::path::{resolve, resolve_no_follow};
use filesystem::{FileKind, FileSystem, Inode};
use guest_files::unit_file;

use super::unit::{Place, Pull, Unit};

/// The administrator's folders, then those that are hidden by what generators write.
const FOLDERS: [(&str, bool); 5] = [
    ("/etc/systemd/system.control", true),
    ("/etc/systemd/system", true),
    ("/usr/local/lib/systemd/system", false),
    ("/usr/lib/systemd/system", false),
    ("/lib/systemd/system", false),
];
/// Larger than any real unit.
const MAX_FILE: u64 = 64 << 10;
/// Drop-ins of one unit; real ones have a handful.
const MAX_DROP_INS: usize = 256;
/// Names in a chain of aliases; real ones have two.
const MAX_ALIASES: usize = 8;
/// Files in one folder of units or drop-ins; a large system has some hundreds of units.
const MAX_FILES: usize = 10_000;

/// What a name of a unit leads to.
#[derive(Debug, Clone)]
pub(crate) enum Loaded {
    Unit(Arc<Unit>),
    /// Nothing has this name, which the one that was asked for leads to.
    Missing(String),
    /// It may not be started: the link that says so.
    Masked(Place),
    /// It was read and is refused: why.
    Refused(Place, String),
}

struct Folder {
    path: String,
    is_administrators: bool,
    names: BTreeMap<String, (Inode, FileKind)>,
}

/// The units of one system.
pub(crate) struct Units<'a> {
    fs: &'a dyn FileSystem,
    folders: Vec<Folder>,
    /// Other names of a unit, by its own.
    aliases: BTreeMap<String, BTreeSet<String>>,
    generated: BTreeMap<String, Unit>,
    /// Links that generators make, by the unit they belong to.
    links: BTreeMap<String, Vec<(Pull, String, Place)>>,
    /// Masked by the command line.
    masked: BTreeMap<String, Place>,
}

impl<'a> Units<'a> {
    /// Those in the folders of a tree.
    pub(crate) fn new(fs: &'a dyn FileSystem) -> Self {
        let mut units = Self {
            fs,
            folders: Vec::new(),
            aliases: BTreeMap::new(),
            generated: BTreeMap::new(),
            links: BTreeMap::new(),
            masked: BTreeMap::new(),
        };
        let mut seen = BTreeSet::new();
        for (path, is_administrators) in FOLDERS {
            // `/lib` is `/usr/lib` on most systems.
            let Ok(inode) = resolve(fs, path.as_bytes()) else { continue };
            if !seen.insert(inode) {
                continue;
            }
            let entries = fs.read_dir(inode).unwrap_or_default().into_iter().take(MAX_FILES);
            let names = entries
                .filter_map(|entry| Some((String::from_utf8(entry.name).ok()?, (entry.inode, entry.kind))));
            units.folders.push(Folder { path: path.to_owned(), is_administrators, names: names.collect() });
        }
        units.find_aliases();
        units
    }

    /// Whether there is no folder of units at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.folders.is_empty()
    }

    /// A unit that a generator writes; files of the administrator's hide it, it hides those of the system.
    pub(crate) fn generate(&mut self, unit: Unit) {
        self.generated.insert(unit.name.clone(), unit);
    }

    /// A link in `UNIT.wants` or `UNIT.requires` that a generator makes.
    pub(crate) fn generate_link(&mut self, unit: &str, pull: Pull, other: &str, place: Place) {
        self.links.entry(unit.to_owned()).or_default().push((pull, other.to_owned(), place));
    }

    /// Masks a unit, as `systemd.mask=` on the command line.
    pub(crate) fn mask(&mut self, name: &str, place: Place) {
        self.masked.insert(name.to_owned(), place);
    }

    /// Whether a program of this system writes units that are not known here.
    pub(crate) fn has_other_generators(&self) -> bool {
        const KNOWN: [&str; 18] = [
            "systemd-bless-boot-generator",
            "systemd-cryptsetup-generator",
            "systemd-debug-generator",
            "systemd-fstab-generator",
            "systemd-getty-generator",
            "systemd-gpt-auto-generator",
            "systemd-hibernate-resume-generator",
            "systemd-integritysetup-generator",
            "systemd-rc-local-generator",
            "systemd-run-generator",
            "systemd-system-update-generator",
            "systemd-sysv-generator",
            "systemd-veritysetup-generator",
            "systemd-tpm2-generator",
            "systemd-ssh-generator",
            "systemd-factory-reset-generator",
            "systemd-import-generator",
            "cloud-init-generator",
        ];
        [
            "/etc/systemd/system-generators",
            "/usr/local/lib/systemd/system-generators",
            "/usr/lib/systemd/system-generators",
        ]
        .iter()
        .any(|path| {
            let Ok(inode) = resolve(self.fs, path.as_bytes()) else { return false };
            let entries = self.fs.read_dir(inode).unwrap_or_default();
            entries.iter().any(|entry| !KNOWN.iter().any(|known| known.as_bytes() == entry.name))
        })
    }

    fn find_aliases(&mut self) {
        let mut aliases: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for folder in &self.folders {
            for (name, (inode, kind)) in &folder.names {
                if !matches!(kind, FileKind::Symlink | FileKind::Unknown) || !name.contains('.') {
                    continue;
                }
                let target = self.fs.read_link(*inode).unwrap_or_default();
                let target = String::from_utf8_lossy(&target).into_owned();
                let other = target.rsplit('/').next().unwrap_or_default();
                if !other.is_empty() && other != name && target != "/dev/null" {
                    aliases.entry(other.to_owned()).or_default().insert(name.clone());
                }
            }
        }
        self.aliases = aliases;
    }

    /// What a name leads to.
    pub(crate) fn load(&self, name: &str) -> Loaded {
        let mut name = name.to_owned();
        for _ in 0..MAX_ALIASES {
            if let Some(place) = self.masked.get(&name) {
                return Loaded::Masked(place.clone());
            }
            match self.find(&name) {
                Some(Source::Alias(other)) => name = other,
                Some(Source::Masked(place)) => return Loaded::Masked(place),
                Some(Source::File(path, inode)) => return self.read(&name, Some((path, inode))),
                Some(Source::Generated) => return self.read(&name, None),
                None => return Loaded::Missing(name),
            }
        }
        Loaded::Missing(name)
    }

    /// The first folder that has a name, or the template of an instance.
    fn find(&self, name: &str) -> Option<Source> {
        let template = template_of(name);
        for wanted in [Some(name), template.as_deref()].into_iter().flatten() {
            let find = |is_administrators: bool| {
                let folders =
                    self.folders.iter().filter(move |folder| folder.is_administrators == is_administrators);
                folders.filter_map(|folder| self.source(folder, wanted, name)).next()
            };
            let generated =
                || (wanted == name && self.generated.contains_key(name)).then_some(Source::Generated);
            if let Some(found) = find(true).or_else(generated).or_else(|| find(false)) {
                return Some(found);
            }
        }
        None
    }

    fn source(&self, folder: &Folder, wanted: &str, name: &str) -> Option<Source> {
        let (inode, kind) = folder.names.get(wanted)?;
        let path = format!("{}/{wanted}", folder.path);
        let place = || Place::whole(&path);
        if matches!(kind, FileKind::Symlink | FileKind::Unknown)
            && let Ok(target) = self.fs.read_link(*inode)
        {
            let target = String::from_utf8_lossy(&target).into_owned();
            if target == "/dev/null" {
                return Some(Source::Masked(place()));
            }
            let other = target.rsplit('/').next().unwrap_or_default();
            // A link out of the folders of units makes a unit of its own, whatever the file is called.
            let folder = target.rsplit_once('/').map_or("", |(folder, _)| folder);
            let is_elsewhere = folder.starts_with('/') && !FOLDERS.iter().any(|(known, _)| *known == folder);
            if other != wanted && !is_elsewhere {
                return Some(Source::Alias(with_instance(other, name)));
            }
            let inode = resolve(self.fs, path.as_bytes()).ok()?;
            return Some(Source::File(path, inode));
        }
        let metadata = self.fs.metadata(*inode).ok()?;
        match metadata.kind {
            FileKind::Regular if metadata.size == 0 => Some(Source::Masked(place())),
            FileKind::Regular => Some(Source::File(path, *inode)),
            _ => None,
        }
    }

    fn read(&self, name: &str, file: Option<(String, Inode)>) -> Loaded {
        let mut unit = match file {
            Some((path, inode)) => {
                let mut unit = Unit::new(name, Place::whole(&path), false);
                match filesystem::read_to_end(self.fs, inode, MAX_FILE) {
                    Ok(text) => unit.add(&path, unit_file::parse(&text)),
                    Err(error) => return Loaded::Refused(unit.place, error.to_string()),
                }
                unit
            }
            None => match self.generated.get(name) {
                Some(unit) => unit.clone(),
                None => return Loaded::Missing(name.to_owned()),
            },
        };
        let mut names: Vec<String> = vec![name.to_owned()];
        names.extend(self.aliases.get(name).into_iter().flatten().cloned());
        names.extend(template_of(name));
        for (path, inode) in self.drop_ins(name, &names) {
            if let Ok(text) = filesystem::read_to_end(self.fs, inode, MAX_FILE) {
                unit.add(&path, unit_file::parse(&text));
            }
        }
        for (suffix, pull) in [("wants", Pull::Wants), ("requires", Pull::Requires), ("upholds", Pull::Wants)]
        {
            for name in &names {
                for (other, place) in self.linked(&format!("{name}.{suffix}")) {
                    unit.link(pull, with_instance(&other, &unit.name), place);
                }
            }
        }
        for (pull, other, place) in names.iter().filter_map(|name| self.links.get(name)).flatten() {
            unit.link(*pull, other.clone(), place.clone());
        }
        match refused(&unit) {
            Some(reason) => Loaded::Refused(unit.place.clone(), reason),
            None => Loaded::Unit(Arc::new(unit)),
        }
    }

    /// `NAME.d/*.conf` of every name and of the kind, by file name; one of the administrator's hides another of the same name.
    fn drop_ins(&self, name: &str, names: &[String]) -> Vec<(String, Inode)> {
        let kind = name.rsplit_once('.').map_or("", |(_, kind)| kind);
        let mut wanted: Vec<String> = names.iter().map(|name| format!("{name}.d")).collect();
        wanted.push(format!("{kind}.d"));
        // `a-b-c.mount` is also `a-b-.mount` and `a-.mount`.
        let stem = name.rsplit_once('.').map_or("", |(stem, _)| stem);
        wanted.extend(stem.match_indices('-').map(|(at, _)| format!("{}.{kind}.d", &stem[..=at])));
        let mut found: BTreeMap<Vec<u8>, (String, Inode)> = BTreeMap::new();
        for folder in &self.folders {
            for wanted in &wanted {
                let Some((inode, _)) = folder.names.get(wanted) else { continue };
                let entries = self.fs.read_dir(*inode).unwrap_or_default().into_iter().take(MAX_FILES);
                for entry in entries.filter(|entry| entry.name.ends_with(b".conf")) {
                    let path = format!("{}/{wanted}/{}", folder.path, String::from_utf8_lossy(&entry.name));
                    // A link to /dev/null hides as well, and cannot be read.
                    let Ok(inode) = resolve(self.fs, path.as_bytes())
                        .or_else(|_| resolve_no_follow(self.fs, path.as_bytes()))
                    else {
                        continue;
                    };
                    found.entry(entry.name).or_insert((path, inode));
                }
            }
        }
        found.into_values().take(MAX_DROP_INS).collect()
    }

    /// The names in a folder of links, of every folder of units.
    fn linked(&self, folder_name: &str) -> Vec<(String, Place)> {
        let mut found: BTreeMap<String, Place> = BTreeMap::new();
        for folder in &self.folders {
            let Some((inode, _)) = folder.names.get(folder_name) else { continue };
            for entry in self.fs.read_dir(*inode).unwrap_or_default().into_iter().take(MAX_FILES) {
                let Ok(name) = String::from_utf8(entry.name) else { continue };
                let place = Place::whole(&format!("{}/{folder_name}/{name}", folder.path));
                found.entry(name).or_insert(place);
            }
        }
        found.into_iter().collect()
    }
}

enum Source {
    File(String, Inode),
    Generated,
    Alias(String),
    Masked(Place),
}

/// `getty@.service` of `getty@tty1.service`.
fn template_of(name: &str) -> Option<String> {
    let (prefix, rest) = name.split_once('@')?;
    let (instance, kind) = rest.rsplit_once('.')?;
    (!instance.is_empty()).then(|| format!("{prefix}@.{kind}"))
}

/// A template with the instance of another unit.
fn with_instance(template: &str, of: &str) -> String {
    let instance =
        of.split_once('@').and_then(|(_, rest)| rest.rsplit_once('.')).map_or("", |(instance, _)| instance);
    match template.split_once("@.") {
        Some((prefix, kind)) if !instance.is_empty() => format!("{prefix}@{instance}.{kind}"),
        _ => template.to_owned(),
    }
}

/// Why systemd does not take a unit that it has read: `service_verify` of `src/core/service.c`, and mounts without their two words.
fn refused(unit: &Unit) -> Option<String> {
    if unit.is_generated {
        return None;
    }
    let has = |section: &str, key: &str| unit.last(section, key).is_some();
    match unit.kind() {
        "service" => {
            let runs = ["ExecStart", "ExecStop"].iter().any(|key| has("Service", key))
                || has("Unit", "SuccessAction");
            (!runs).then(|| "the service starts nothing".to_owned())
        }
        "mount" => (!has("Mount", "What")).then(|| "the mount has no What=".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use filesystem::MemoryFs;

    use super::*;

    const SERVICE: &str = "[Service]\nExecStart=/bin/a\n";

    fn shown(units: &Units<'_>, name: &str) -> String {
        match units.load(name) {
            Loaded::Unit(unit) => {
                let pulls: Vec<String> = unit
                    .pulls()
                    .into_iter()
                    .map(|(_, name, _)| name)
                    .filter(|name| name != "sysinit.target")
                    .collect();
                let program = unit
                    .last("Service", "ExecStart")
                    .map_or(String::new(), |(program, _)| format!(" {program}"));
                format!("{} of {}{program} [{}]", unit.name, unit.place.file, pulls.join(" "))
            }
            Loaded::Missing(_) => "missing".into(),
            Loaded::Masked(place) => format!("masked by {}", place.file),
            Loaded::Refused(_, reason) => reason,
        }
    }

    #[test]
    fn files_of_the_administrator_hide_and_mask() {
        let fs = MemoryFs::new()
            .file("/usr/lib/systemd/system/a.service", SERVICE)
            .file("/usr/lib/systemd/system/b.service", SERVICE)
            .file("/usr/lib/systemd/system/c.service", "[Service]\n")
            .file("/etc/systemd/system/a.service", "[Service]\nExecStart=/bin/b\n")
            .file("/etc/systemd/system/d.service", "")
            .symlink("/lib", "usr/lib")
            .symlink("/etc/systemd/system/b.service", "/dev/null");
        let units = Units::new(&fs);
        assert_eq!(shown(&units, "a.service"), "a.service of /etc/systemd/system/a.service /bin/b []");
        assert_eq!(shown(&units, "b.service"), "masked by /etc/systemd/system/b.service");
        assert_eq!(shown(&units, "c.service"), "the service starts nothing");
        assert_eq!(shown(&units, "d.service"), "masked by /etc/systemd/system/d.service");
        assert_eq!(shown(&units, "e.service"), "missing");
    }

    #[test]
    fn aliases_templates_drop_ins_and_links() {
        let fs = MemoryFs::new()
            .file("/usr/lib/systemd/system/multi-user.target", "[Unit]\nRequires=basic.target\n")
            .file("/usr/lib/systemd/system/getty@.service", SERVICE)
            .file(
                "/usr/lib/systemd/system/getty@.service.d/z.conf",
                "[Service]\nExecStart=\nExecStart=/bin/z\n",
            )
            .file(
                "/etc/systemd/system/getty@tty1.service.d/z.conf",
                "[Service]\nExecStart=\nExecStart=/bin/%i\n",
            )
            .symlink("/etc/systemd/system/default.target", "/lib/systemd/system/multi-user.target")
            .symlink("/etc/systemd/system/default.target.wants/x.service", "/lib/systemd/system/x.service")
            .symlink("/etc/systemd/system/multi-user.target.requires/y.service", "../y.service")
            .file("/opt/agent/run.service", SERVICE)
            .symlink("/etc/systemd/system/agent.service", "/opt/agent/run.service")
            .symlink("/etc/systemd/system/loop.target", "loop2.target")
            .symlink("/etc/systemd/system/loop2.target", "loop.target");
        let units = Units::new(&fs);
        assert_eq!(
            shown(&units, "default.target"),
            "multi-user.target of /usr/lib/systemd/system/multi-user.target [basic.target x.service y.service]"
        );
        assert_eq!(
            shown(&units, "getty@tty1.service"),
            "getty@tty1.service of /usr/lib/systemd/system/getty@.service /bin/tty1 []"
        );
        assert_eq!(
            shown(&units, "getty@tty2.service"),
            "getty@tty2.service of /usr/lib/systemd/system/getty@.service /bin/z []"
        );
        assert_eq!(shown(&units, "loop.target"), "missing");
        assert_eq!(
            shown(&units, "agent.service"),
            "agent.service of /etc/systemd/system/agent.service /bin/a []"
        );
    }

    #[test]
    fn what_generators_write_lies_between() {
        let fs = MemoryFs::new()
            .file("/usr/lib/systemd/system/tmp.mount", "[Mount]\nWhat=tmpfs\nWhere=/tmp\n")
            .file("/etc/systemd/system/data.mount", "[Mount]\nWhat=tmpfs\nWhere=/data\n")
            .file("/usr/lib/systemd/system/local-fs.target", "[Unit]\n");
        let mut units = Units::new(&fs);
        for name in ["tmp.mount", "data.mount"] {
            units.generate(Unit::new(name, Place { file: "/etc/fstab".into(), line: 2 }, true));
            units.generate_link("local-fs.target", Pull::Requires, name, Place::whole("/etc/fstab"));
        }
        units.mask("x.service", Place::whole("/proc/cmdline"));
        assert_eq!(shown(&units, "tmp.mount"), "tmp.mount of /etc/fstab []");
        assert_eq!(shown(&units, "data.mount"), "data.mount of /etc/systemd/system/data.mount []");
        assert_eq!(
            shown(&units, "local-fs.target"),
            "local-fs.target of /usr/lib/systemd/system/local-fs.target [tmp.mount data.mount]"
        );
        assert_eq!(shown(&units, "x.service"), "masked by /proc/cmdline");
    }
}
