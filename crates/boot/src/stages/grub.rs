//! GRUB, from its core image to a loaded kernel.

use std::sync::Arc;

use filesystem::FileSystem;
use guest::Guest;
use guest_files::os_release::OsRelease;
use storage::{Firmware, Hardware, NodeId, Storage};

use super::firmware::Loader;
use super::{Step, cause};
use crate::grub::{
    self, Answer, Choice, End, LinuxLoad, Load, Lookup, Message, Origin, Place, Platform, Release, Run,
    SearchBy, SearchRequest, Setup, Version, World,
};
use crate::grub_world::{Build, GrubWorld};
use crate::trace::{Cause, Outcome, StageName};

/// What GRUB has loaded when it starts the kernel.
pub(crate) struct Loaded {
    pub(crate) kernel: LoadedFile,
    pub(crate) initrds: Vec<LoadedFile>,
    /// Words of the command line, each with the place it comes from.
    pub(crate) arguments: Vec<(String, GuestPlace)>,
    /// The command that loads the kernel.
    pub(crate) place: GuestPlace,
    /// The entry that was started.
    pub(crate) entry: GuestPlace,
    /// The errors that were printed on the way.
    pub(crate) messages: Vec<(String, GuestPlace)>,
}

/// A file that GRUB read.
#[derive(Clone)]
pub(crate) struct LoadedFile {
    pub(crate) node: NodeId,
    pub(crate) fs: Arc<dyn FileSystem>,
    /// On its file system.
    pub(crate) path: Vec<u8>,
    /// As the guest sees it.
    pub(crate) guest_path: String,
}

/// A line of a file as the guest sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GuestPlace {
    pub(crate) file: String,
    pub(crate) line: usize,
}

impl GuestPlace {
    pub(crate) fn cause(&self, rule: &'static str, symptom: impl Into<String>) -> Cause {
        Cause { file: self.file.clone(), line: Some(self.line), ..cause(rule, symptom) }
    }
}

/// Which GRUB it is: by the version in its own code, else by the system's release.
fn release(guest: Option<&Guest>, code: Option<&[u8]>) -> (Release, Build) {
    let none = OsRelease::default();
    let os = guest.map_or(&none, |guest| &guest.os_release);
    let id = os.get("ID").unwrap_or_default().to_lowercase();
    let version = os.get("VERSION_ID").unwrap_or_default();
    let major: u32 = version.split('.').next().and_then(|text| text.parse().ok()).unwrap_or_default();
    let like = os.get("ID_LIKE").unwrap_or_default().to_lowercase();
    if let Some(version) = code.and_then(version_in) {
        // Debian's and Ubuntu's packages name themselves; Red Hat's have upstream's number alone.
        let upstream = match version.get(..4) {
            Some("2.12" | "2.11" | "2.13") => Version::V2_12,
            Some("2.14" | "2.15") => Version::V2_14,
            Some("2.02" | "2.00" | "2.01") => Version::V2_02,
            _ => Version::V2_06,
        };
        if let Some((_, package)) = version.split_once('-') {
            let is_debian =
                package.contains("deb12") || package.contains("deb13") || upstream >= Version::V2_12;
            return (Release::upstream(upstream), if is_debian { Build::Debian } else { Build::Other });
        }
    }
    let is_rhel = matches!(id.as_str(), "rhel" | "centos" | "rocky" | "almalinux" | "ol" | "scientific")
        || like.split_whitespace().any(|word| word == "rhel");
    if is_rhel && major > 0 {
        return (Release::rhel(major), Build::RedHat(major));
    }
    match id.as_str() {
        "fedora" => (Release::fedora(major), Build::RedHat(if major >= 40 { 10 } else { 9 })),
        "debian" if major >= 13 => (Release::upstream(Version::V2_12), Build::Debian),
        "debian" if major == 12 => (Release::upstream(Version::V2_06), Build::Debian),
        "debian" if (10..12).contains(&major) => (Release::upstream(Version::V2_06), Build::Other),
        "debian" => (Release::upstream(Version::V2_02), Build::Other),
        "ubuntu" if major >= 24 => (Release::upstream(Version::V2_12), Build::Debian),
        "ubuntu" if major >= 20 => (Release::upstream(Version::V2_06), Build::Other),
        "ubuntu" => (Release::upstream(Version::V2_02), Build::Other),
        _ => (Release::upstream(Version::V2_06), Build::Other),
    }
}

/// The version that `normal` prints above its menu: the text behind the format it prints it with.
fn version_in(code: &[u8]) -> Option<String> {
    const FORMAT: &[u8] = b"GNU GRUB  version %s\0";
    let at = code.windows(FORMAT.len()).position(|window| window == FORMAT)? + FORMAT.len();
    let near = code.get(at..)?;
    let texts = near[..near.len().min(4096)].split(|byte| *byte == 0);
    let is_version = |text: &[u8]| {
        text.len() < 64
            && matches!(text, [b'2', b'.', digit, ..] if digit.is_ascii_digit())
            && text.is_ascii()
    };
    texts.filter(|text| is_version(text)).map(|text| String::from_utf8_lossy(text).into_owned()).next()
}

/// Runs GRUB until it starts something.
pub(crate) fn run(
    storage: &Storage,
    guest: Option<&Guest>,
    hardware: &Hardware,
    loader: &Loader,
) -> Step<Loaded> {
    let platform = match loader.firmware {
        Firmware::Bios => Platform::Bios,
        Firmware::Uefi => Platform::Efi,
    };
    let mut world = GrubWorld::new(storage, hardware, loader.disk, platform, &loader.core.modules);
    // Its own code, which knows better, is found by its prefix.
    world.set_build(release(guest, None).1);
    let (device, directory) = match prefix(&world, storage, loader) {
        Ok(found) => found,
        Err(NoPrefix::Unknown(reason)) => return Step::unknown(StageName::Loader, reason),
        Err(NoPrefix::Error(rule, text)) => {
            return Step::stops(
                StageName::Loader,
                Outcome::GrubRescue,
                cause(rule, format!("error: {text}.")),
                format!("GRUB cannot reach its own files: {text}"),
            );
        }
    };
    world.set_prefix(&device, &directory);
    let (release, build) = release(guest, world.normal_code().as_deref());
    world.set_build(build);
    if let Some(step) = normal(&world, storage, guest, &device, &directory, platform) {
        return step;
    }
    let mut setup = Setup::new(release, platform, &device, &directory);
    if let Some((node, folder)) = &loader.program {
        // Red Hat's and Debian's GRUB look beside the program first.
        if let Some(name) = world.name_of(*node) {
            let place = Place { device: &name, is_btrfs_relative: false };
            let path = format!("{folder}/grub.cfg");
            if matches!(world.lookup(place, path.as_bytes()), Answer::Known(Lookup::File { .. }))
                && release.is_red_hat
            {
                setup.config = Some(format!("({name}){path}"));
            }
        }
    }
    let run = grub::run(&world, &setup);
    follow(&world, storage, guest, &run, &format!("{directory}/grub.cfg"), &device)
}

/// Why GRUB does not reach its own files.
enum NoPrefix {
    /// The rule, and GRUB's message.
    Error(&'static str, String),
    Unknown(String),
}

/// Device and directory of GRUB's files, as the core image finds them.
fn prefix(world: &GrubWorld<'_>, storage: &Storage, loader: &Loader) -> Result<(String, String), NoPrefix> {
    let unresolvable = |text: String| NoPrefix::Error("grub.core-prefix-unresolvable", text);
    let mut root: Option<String> = None;
    let mut prefix = loader.core.prefix.clone().unwrap_or_default();
    for line in String::from_utf8_lossy(loader.core.config.as_deref().unwrap_or_default()).lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["search.fs_uuid", uuid, variable, hints @ ..] if *variable == "root" => {
                let hints: Vec<Vec<u8>> = hints.iter().map(|hint| hint.as_bytes().to_vec()).collect();
                let request = SearchRequest {
                    by: SearchBy::FsUuid,
                    key: uuid.as_bytes(),
                    hints: &hints,
                    no_floppy: true,
                };
                match world.search(&request) {
                    Answer::Known(Some(found)) => root = Some(found),
                    Answer::Known(None) => return Err(unresolvable(format!("no such device: {uuid}"))),
                    Answer::Unknown(reason) => return Err(NoPrefix::Unknown(reason)),
                }
            }
            ["set", assignment] => {
                if let Some(value) = assignment.strip_prefix("prefix=") {
                    let value = value.replace(['\'', '"'], "");
                    prefix = match (&root, value.strip_prefix("($root)")) {
                        (Some(root), Some(path)) => format!("({root}){path}"),
                        _ => value,
                    };
                }
            }
            _ => {}
        }
    }
    let (device, directory) = match prefix.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((device, directory)) => (device.to_owned(), directory.to_owned()),
        None => (String::new(), prefix),
    };
    // A device without a drive is on the one that the firmware started; UEFI's is the one the program lies on.
    let device = if device.is_empty() || device.starts_with(',') {
        let node = storage.iter().find(|(_, node)| node.kind == storage::NodeKind::Disk(loader.disk));
        let drive = node.and_then(|(id, _)| world.name_of(id)).unwrap_or_else(|| "hd0".into());
        match (&loader.program, device.is_empty()) {
            (Some((node, _)), true) => world.name_of(*node).unwrap_or(drive),
            _ => format!("{drive}{device}"),
        }
    } else {
        device
    };
    match world.resolve(&device) {
        Ok(_) => Ok((device, directory)),
        Err(error) => {
            let rule = match device.split_once(',') {
                // A table that GRUB does not take is to blame, not the number.
                Some((_, part)) if part.starts_with("gpt") && !world.has_gpt() => "gpt.primary-invalid",
                _ if device.starts_with("md") => "md.degraded-or-missing",
                _ if device.starts_with("lvm") => "lvm.pv-missing",
                _ => "grub.core-prefix-unresolvable",
            };
            Err(NoPrefix::Error(rule, error.text))
        }
    }
}

/// Loads `normal`, without which there is only the rescue prompt.
fn normal(
    world: &GrubWorld<'_>,
    storage: &Storage,
    guest: Option<&Guest>,
    device: &str,
    directory: &str,
    platform: Platform,
) -> Option<Step<Loaded>> {
    let name = StageName::Loader;
    if world.is_in_core("normal") {
        return None;
    }
    let platform = if platform == Platform::Bios { "i386-pc" } else { "x86_64-efi" };
    let path = format!("{directory}/{platform}/normal.mod");
    let place = Place { device, is_btrfs_relative: false };
    let rescue = |rule, text: String, summary: String| {
        let node = world.resolve(device).ok();
        let file = node.map_or_else(String::new, |node| guest_path(storage, guest, node, &path));
        let cause = Cause { file, ..cause(rule, format!("error: {text}.")) };
        Some(Step::stops(name, Outcome::GrubRescue, cause, summary))
    };
    match world.lookup_by_core(place, path.as_bytes()) {
        Answer::Known(Lookup::File { size, .. }) if size > 0 => None,
        Answer::Known(Lookup::File { .. }) => {
            rescue("grub.modules-missing", "premature end of file".into(), format!("{path} is empty"))
        }
        Answer::Known(Lookup::Missing | Lookup::Directory) => {
            let text = format!("file `{path}' not found");
            rescue("grub.modules-missing", text, format!("({device}){path} is not there"))
        }
        Answer::Known(Lookup::Failed(error)) => {
            let rule = if error.text == "unknown filesystem" {
                world.unreadable_rule(device)
            } else {
                "grub.fs-unreadable"
            };
            rescue(rule, error.text.clone(), format!("({device}) cannot be read: {}", error.text))
        }
        Answer::Unknown(reason) => Some(Step::unknown(name, reason)),
    }
}

fn follow(
    world: &GrubWorld<'_>,
    storage: &Storage,
    guest: Option<&Guest>,
    run: &Run,
    config: &str,
    device: &str,
) -> Step<Loaded> {
    let name = StageName::LoaderConfig;
    let place = |origin: &Origin| place(world, storage, guest, origin);
    let printed = |messages: &[Message]| -> Vec<(String, GuestPlace)> {
        messages
            .iter()
            .filter(|message| message.doubt.is_none())
            .map(|message| (message.screen(), place(&message.origin)))
            .collect()
    };
    match &run.end {
        End::Boots(load) => match &**load {
            Load::Linux(linux) => {
                let entry =
                    run.default_entry().map_or_else(String::new, |entry| entry.title.text().into_owned());
                match loaded(world, storage, guest, run, linux, &printed(&run.messages)) {
                    Ok(loaded) => Step::goes(name, format!("GRUB starts \"{entry}\""), loaded),
                    Err(reason) => Step::unknown(name, reason),
                }
            }
            Load::Chain { origin, .. } | Load::Other { origin, .. } => {
                let place = place(origin);
                Step::unknown(name, format!("{}:{} starts something else than Linux", place.file, place.line))
            }
        },
        End::Prompt => {
            let node = world.resolve(device).ok();
            let file = node.map_or_else(String::new, |node| guest_path(storage, guest, node, config));
            let is_there = matches!(
                world.lookup(Place { device, is_btrfs_relative: false }, config.as_bytes()),
                Answer::Known(Lookup::File { size: 1.., .. })
            );
            let summary = if is_there {
                format!("{file} makes no menu")
            } else {
                format!("{file} is not there, or empty")
            };
            let rule = if is_there { "grub.cfg-syntax" } else { "grub.cfg-missing" };
            let cause = Cause { file, ..cause(rule, "grub>") };
            Step::stops(name, Outcome::GrubPrompt, cause, summary)
        }
        End::Menu { after_failure: true } => {
            // The first error of the entry that was tried is what the person reads first.
            let tried = run.attempts.iter().flat_map(|attempt| &attempt.messages).find(|m| m.doubt.is_none());
            let message = tried.or_else(|| run.messages.iter().find(|message| message.doubt.is_none()));
            let Some(message) = message else {
                return Step::unknown(name, "the default entry starts nothing");
            };
            let at = place(&message.origin);
            let mut cause = at.cause(rule_of(&message.text), message.screen());
            // What is wrong is the file, not the line that names it.
            let named = message
                .text
                .strip_prefix("premature end of file ")
                .or_else(|| message.text.strip_prefix("file `")?.strip_suffix("' not found"))
                .filter(|_| matches!(cause.rule, "kernel.image-invalid" | "grub.modules-missing"));
            if let (Some(path), Ok(node)) = (named, world.resolve(device)) {
                (cause.file, cause.line) = (guest_path(storage, guest, node, path), None);
            }
            Step::stops(name, Outcome::GrubError, cause, message.screen())
        }
        End::Unknown(unknown) => {
            Step::unknown(name, format!("{}:{}: {}", unknown.file, unknown.line, unknown.reason))
        }
        other => {
            let what = match other {
                End::Menu { .. } => "its menu waits for a key",
                End::Password => "it asks for a password",
                End::Halt => "it switches the machine off",
                End::Reboot => "it starts the machine again",
                End::Exit | End::FirmwareSetup => "it goes back to the firmware",
                _ => "it stops",
            };
            let stops = cause("grub.default-unresolved", format!("GRUB: {what}"));
            Step::stops(name, Outcome::Hang, stops, format!("GRUB starts nothing by itself: {what}"))
        }
    }
}

/// The rule that describes an error of an entry.
fn rule_of(text: &str) -> &'static str {
    if text.starts_with("premature end") || text.contains("invalid magic") || text.contains("invalid arch") {
        "kernel.image-invalid"
    } else if text.starts_with("no such device") || text.contains("no such partition") {
        "grub.cfg-search-stale"
    } else if text.ends_with(".mod' not found") {
        "grub.modules-missing"
    } else if text.contains("not found") {
        "grub.entry-file-missing"
    } else {
        "grub.cfg-syntax"
    }
}

fn loaded(
    world: &GrubWorld<'_>,
    storage: &Storage,
    guest: Option<&Guest>,
    run: &Run,
    linux: &LinuxLoad,
    messages: &[(String, GuestPlace)],
) -> Result<Loaded, String> {
    if let Choice::Unknown(unknown) = &run.choice {
        return Err(format!("{}:{}: {}", unknown.file, unknown.line, unknown.reason));
    }
    let file = |name: &grub::FileName| -> Result<LoadedFile, String> {
        let (Some(device), Some(path)) = (name.device.known(), name.path.known()) else {
            return Err(format!("line {}: which file this is", name.origin.line));
        };
        let device = String::from_utf8_lossy(device);
        let place = Place { device: &device, is_btrfs_relative: false };
        let (node, fs) = world
            .open(place, path)
            .ok_or_else(|| format!("({device}){} cannot be opened", String::from_utf8_lossy(path)))?;
        let guest_path = guest_path(storage, guest, node, &String::from_utf8_lossy(path));
        Ok(LoadedFile { node, fs, path: path.to_vec(), guest_path })
    };
    let mut arguments = Vec::new();
    for argument in &linux.arguments {
        let at = place(world, storage, guest, &argument.origin);
        let value = argument.value.known().ok_or_else(|| format!("{}:{}: an argument", at.file, at.line))?;
        arguments.push((String::from_utf8_lossy(value).into_owned(), at));
    }
    Ok(Loaded {
        kernel: file(&linux.kernel)?,
        initrds: linux.initrds.iter().map(file).collect::<Result<_, _>>()?,
        arguments,
        place: place(world, storage, guest, &linux.origin),
        entry: place(world, storage, guest, run.default_entry().map_or(&linux.origin, |entry| &entry.origin)),
        messages: messages.to_vec(),
    })
}

fn place(world: &GrubWorld<'_>, storage: &Storage, guest: Option<&Guest>, origin: &Origin) -> GuestPlace {
    let named = origin.file.strip_prefix('(').and_then(|rest| rest.split_once(')'));
    let file = named
        .and_then(|(device, path)| Some(guest_path(storage, guest, world.resolve(device).ok()?, path)))
        .unwrap_or_else(|| origin.file.to_string());
    GuestPlace { file, line: origin.line }
}

/// A path on one file system as the guest sees it; with the volume's name in front where the guest does not mount it.
pub(crate) fn guest_path(storage: &Storage, guest: Option<&Guest>, node: NodeId, path: &str) -> String {
    let path = path.trim_start_matches('/');
    for mount in guest.iter().flat_map(|guest| &guest.mounts).filter(|mount| mount.node == node) {
        let target = mount.target.trim_end_matches('/');
        match &mount.subvolume {
            None => return format!("{target}/{path}"),
            Some(subvolume) => {
                if let Some(rest) = path.strip_prefix(subvolume.trim_matches('/')) {
                    return format!("{target}/{}", rest.trim_start_matches('/'));
                }
            }
        }
    }
    format!("{}:/{path}", storage.node(node).path)
}
