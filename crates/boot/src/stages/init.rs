//! The program that the initramfs hands over to, and the target that systemd is asked for.

use std::sync::Arc;

use filesystem::path::{PathError, real_path, resolve, resolve_no_follow};
use filesystem::{FileKind, FileSystem};
use guest::Guest;

use super::default_target::{Plans, Towards};
use super::kernel::{Kernel, Kind, Unpacked};
use super::offline_update::{self, Update};
use super::selinux::{self, Unruled};
use super::{Step, cause, libraries, local_fs};
use crate::systemd::{Broken, Place, Refusal};
use crate::trace::{Cause, Outcome, StageName};

/// The program that the kernel and every initramfs start unless told otherwise.
pub(crate) const INIT: &str = "/sbin/init";
pub(crate) const DEFAULT_TARGET: &str = "default.target";

/// What the system starts with.
pub(crate) struct Init {
    /// What systemd sets out to start; `None` for another init, or where no units are.
    pub(crate) towards: Option<Arc<Towards>>,
}

/// Whether init starts, and towards what.
pub(crate) fn run(guest: &Guest, kernel: &Kernel, kind: Kind, plans: &Plans) -> Step<Init> {
    let name = StageName::Init;
    let fs: &dyn FileSystem = &guest.tree;
    let argument = last(kernel, "init=");
    if let Some((value, place)) = &argument
        && matches!(value.rsplit('/').next(), Some("sh" | "bash" | "dash" | "busybox"))
        && resolve(fs, value.as_bytes()).is_ok()
    {
        let cause = place.cause("cmdline.debug-leftover", format!("init={value}"));
        return Step::stops(
            name,
            Outcome::ShellAsInit,
            cause,
            format!("the command line asks for init={value}"),
        );
    }
    // initramfs-tools goes on with the usual one where the one that was asked for is not there.
    let asked = argument.as_ref().map(|(value, _)| value.as_str());
    let path = asked
        .filter(|path| kind != Kind::InitramfsTools || resolve(fs, path.as_bytes()).is_ok())
        .unwrap_or(INIT);
    let inode = match resolve(fs, path.as_bytes()) {
        Ok(inode) => inode,
        Err(PathError::Fs { path, cause: error }) => return Step::unknown(name, format!("{path}: {error}")),
        Err(_) => return no_init(fs, path, kind),
    };
    let mut head = [0; 4];
    let metadata = match fs.metadata(inode) {
        Ok(metadata) => metadata,
        Err(error) => return Step::unknown(name, format!("{path}: {error}")),
    };
    let count = fs.read_at(inode, &mut head, 0).unwrap_or_default();
    let is_program = head[..count] == *b"\x7fELF" || head[..count].starts_with(b"#!");
    if metadata.kind != FileKind::Regular || metadata.permissions & 0o111 == 0 {
        return no_init(fs, path, kind);
    }
    if !is_program {
        let (outcome, symptom) = match kind {
            Kind::Dracut => {
                (Outcome::SystemdFreeze, "Failed to execute /sbin/init, giving up: Exec format error")
            }
            _ => (
                Outcome::KernelPanic,
                "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100",
            ),
        };
        let path = real_path(fs, path.as_bytes()).unwrap_or_else(|_| path.to_owned());
        let cause = Cause { file: path.clone(), ..cause("init.missing", symptom) };
        return Step::stops(name, outcome, cause, format!("{path} is no program: {} bytes", metadata.size));
    }
    if let Some(lost) = plans.lost(guest, path) {
        let panic = "Kernel panic - not syncing: Attempted to kill init!";
        let cause = Cause { file: lost.path, ..cause("rootfs.libs-missing", panic) };
        return Step::stops(name, Outcome::KernelPanic, cause, lost.reason);
    }
    if let Some(step) = no_system(fs, kernel, kind) {
        return step;
    }
    if let Some(Unruled::Stops(cause, summary)) = selinux::without_policy(guest, kernel, path) {
        return Step::stops(name, Outcome::SystemdFreeze, cause, summary);
    }
    target(guest, kernel, path, plans)
}

/// What comes of a root file system that has no init by itself; `None` where one is there.
pub(super) fn not_there(fs: &dyn FileSystem, kernel: &Kernel, kind: Kind) -> Option<Step<Init>> {
    let asked = last(kernel, "init=");
    let path = asked.as_ref().map_or(INIT, |(value, _)| value.as_str());
    let is_there = resolve(fs, path.as_bytes()).is_ok() || resolve(fs, INIT.as_bytes()).is_ok();
    (!is_there).then(|| no_init(fs, path, kind))
}

/// What else a root file system has to have before its init is started: a release for systemd in the initramfs
/// (`src/shared/switch-root.c`), and `/dev` for the console that initramfs-tools opens there.
fn no_system(fs: &dyn FileSystem, kernel: &Kernel, kind: Kind) -> Option<Step<Init>> {
    let is_there = |path: &str| resolve(fs, path.as_bytes()).is_ok();
    let is_systemd = kernel.initramfs.as_deref().is_some_and(Unpacked::starts_systemd);
    if is_systemd && !is_there("/etc/os-release") && !is_there("/usr/lib/os-release") {
        let symptom = "Specified switch root path '/sysroot' does not seem to be an OS tree. os-release file is missing.";
        let cause = Cause { file: "/etc/os-release".into(), ..cause("init.missing", symptom) };
        let summary = "neither /etc/os-release nor /usr/lib/os-release is there";
        return Some(Step::stops(StageName::Init, Outcome::DracutEmergency, cause, summary));
    }
    if kind == Kind::InitramfsTools && !is_there("/dev") {
        let symptom = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100";
        let cause = Cause { file: "/dev".into(), ..cause("rootfs.mount-points-missing", symptom) };
        let summary = "there is no /dev on which the kernel's devices could be mounted";
        return Some(Step::stops(StageName::Init, Outcome::KernelPanic, cause, summary));
    }
    // systemd makes what is missing where it may write; where not, its initramfs starts over, again and again.
    let missing = ["/dev", "/proc", "/sys", "/run"].into_iter().find(|path| !is_there(path));
    if let Some(path) = missing.filter(|_| is_systemd && local_fs::is_read_only(kernel)) {
        let symptom = "Starting initrd-switch-root.service - Switch Root...";
        let cause = Cause { file: path.into(), ..cause("rootfs.mount-points-missing", symptom) };
        let summary = format!("there is no {path} to go on with, and the initramfs starts over without end");
        return Some(Step::stops(StageName::Init, Outcome::Hang, cause, summary));
    }
    None
}

fn no_init(fs: &dyn FileSystem, path: &str, kind: Kind) -> Step<Init> {
    let name = StageName::Init;
    let stops = |outcome, symptom: &str| {
        let cause = Cause { file: path.to_owned(), ..cause("init.missing", symptom) };
        Step::stops(name, outcome, cause, format!("{path} is not there, or cannot be run"))
    };
    match kind {
        // systemd in the image finds it and cannot run it.
        Kind::Dracut if resolve(fs, path.as_bytes()).is_ok() => {
            stops(Outcome::SystemdFreeze, "[!!!!!!] Failed to execute fallback shell.")
        }
        Kind::Dracut => stops(
            Outcome::DracutEmergency,
            "Cannot find init! Please check to make sure you passed a valid root filesystem!",
        ),
        Kind::InitramfsTools | Kind::Mkinitcpio => {
            // What the kernel and run-init try next.
            let is_there = |path: &str| resolve(fs, path.as_bytes()).is_ok();
            if ["/etc/init", "/bin/init"].into_iter().any(is_there) {
                return Step::unknown(name, format!("{path} is not there, and another init is"));
            }
            if is_there("/bin/sh") && libraries::lost(fs, "/bin/sh").is_some() {
                return stops(Outcome::KernelPanic, "Kernel panic - not syncing: Attempted to kill init!");
            }
            if is_there("/bin/sh") {
                return stops(Outcome::ShellAsInit, "can't access tty; job control turned off");
            }
            stops(Outcome::InitramfsShell, "No init found. Try passing init= bootarg.")
        }
        Kind::Unknown => Step::unknown(name, format!("{path} is not there")),
    }
}

/// The target that systemd is asked for, and what it sets out to start for it.
fn target(guest: &Guest, kernel: &Kernel, init: &str, plans: &Plans) -> Step<Init> {
    let name = StageName::Init;
    let arguments = &kernel.loaded.arguments;
    if !selinux::is_systemd(&guest.tree, init) {
        return Step::goes(name, init.to_owned(), Init { towards: None });
    }
    let asked = asked_target(kernel);
    let update = if asked.is_none() { offline_update::pending(guest, kernel, plans) } else { None };
    if let Some(Update::Ends(outcome, cause, summary)) = update {
        return Step::stops(name, outcome, cause, summary);
    }
    let wanted = asked.as_ref().map_or(DEFAULT_TARGET, |(unit, _)| unit.as_str());
    let Some(towards) = plans.towards(guest, arguments, wanted) else {
        return Step::goes(name, init.to_owned(), Init { towards: None });
    };
    let plan = &towards.plan;
    let broken = |why: &Broken, symptom: &str| match &asked {
        Some((_, place)) => place.cause("cmdline.debug-leftover", symptom),
        None => {
            let place = if why.place.file.is_empty() {
                Place::whole(&default_target(guest))
            } else {
                why.place.clone()
            };
            place.cause("systemd.default-target-broken", &why.unit, symptom.to_owned())
        }
    };
    match &plan.refusal {
        // systemd starts rescue.target in its place.
        Some(Refusal::Target(why)) => {
            let mut cause = broken(why, "Failed to load default target, falling back to rescue.target");
            if asked.is_none() {
                cause.file = default_target(guest);
            }
            let summary = format!("systemd is to start {wanted}, which is {}: {}", why.unit, why.reason);
            return Step::stops(name, Outcome::Rescue, cause, summary);
        }
        Some(Refusal::Required(why)) => {
            let cause = broken(why, "[!!!!!!] Failed to isolate default target.");
            let summary = format!("{} requires {}: {}", plan.target, why.unit, why.reason);
            return Step::stops(name, Outcome::SystemdFreeze, cause, summary);
        }
        None => {}
    }
    let outcome = match plan.target.as_str() {
        "emergency.target" | "emergency.service" => Some(Outcome::Emergency),
        "rescue.target" | "rescue.service" => Some(Outcome::Rescue),
        _ => None,
    };
    if let Some(outcome) = outcome {
        let (cause, summary) = match &asked {
            Some((unit, place)) => {
                let summary = format!("the command line asks for {unit}");
                (place.cause("cmdline.debug-leftover", summary.clone()), summary)
            }
            None => {
                let symptom = format!("the default target is {}", plan.target);
                let file = default_target(guest);
                let summary = format!("{file} is {}", plan.target);
                (Cause { file, ..cause("systemd.default-target-broken", symptom) }, summary)
            }
        };
        return Step::stops(name, outcome, cause, summary);
    }
    let first =
        if update.is_some() { "an update is made first, then the machine starts again; " } else { "" };
    let summary = format!("{first}{init}, towards {}", plan.target);
    Step::goes(name, summary, Init { towards: Some(towards) })
}

/// The link that names the default target.
fn default_target(guest: &Guest) -> String {
    let folders = [
        "/etc/systemd/system",
        "/usr/local/lib/systemd/system",
        "/usr/lib/systemd/system",
        "/lib/systemd/system",
    ];
    let mut paths = folders.iter().map(|folder| format!("{folder}/{DEFAULT_TARGET}"));
    let is_there = |path: &String| resolve_no_follow(&guest.tree, path.as_bytes()).is_ok();
    paths.find(is_there).unwrap_or_else(|| format!("{}/{DEFAULT_TARGET}", folders[0]))
}

/// The unit that the command line asks for: `systemd.unit=`, or a word that stands for one, as in `src/core/main.c`.
fn asked_target(kernel: &Kernel) -> Option<(String, super::grub::GuestPlace)> {
    last(kernel, "systemd.unit=").or_else(|| {
        kernel.loaded.arguments.iter().rev().find_map(|(word, place)| {
            let unit = match word.as_str() {
                "emergency" | "-b" => "emergency.target",
                "rescue" | "single" | "-s" | "s" | "S" | "1" => "rescue.target",
                "2" | "3" | "4" => "multi-user.target",
                "5" => "graphical.target",
                _ => return None,
            };
            Some((unit.to_owned(), place.clone()))
        })
    })
}

/// The last argument that starts with `key`, which is the one that counts.
pub(crate) fn last(kernel: &Kernel, key: &str) -> Option<(String, super::grub::GuestPlace)> {
    let found = kernel.loaded.arguments.iter().rev().find_map(|(argument, place)| {
        Some((argument.strip_prefix(key)?.trim_matches('"').to_owned(), place.clone()))
    });
    found.filter(|(value, _)| !value.is_empty())
}
