//! The program that the initramfs hands over to, and the target that systemd is asked for.

use filesystem::path::{PathError, real_path, resolve, resolve_no_follow};
use filesystem::{FileKind, FileSystem};
use guest::Guest;

use super::kernel::{Kernel, Kind};
use super::selinux::{self, Unruled};
use super::{Step, cause};
use crate::trace::{Cause, Outcome, StageName};

/// The program that the kernel and every initramfs start unless told otherwise.
pub(crate) const INIT: &str = "/sbin/init";
const DEFAULT_TARGET: [&str; 3] = [
    "/etc/systemd/system/default.target",
    "/usr/lib/systemd/system/default.target",
    "/lib/systemd/system/default.target",
];

/// Whether init starts, and towards what.
pub(crate) fn run(guest: &Guest, kernel: &Kernel, kind: Kind) -> Step<()> {
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
    if let Some(loader) = interpreter(fs, inode)
        && resolve(fs, loader.as_bytes()).is_err()
    {
        let panic = "Kernel panic - not syncing: Attempted to kill init!";
        let cause = Cause { file: loader.clone(), ..cause("rootfs.libs-missing", panic) };
        let summary = format!("{path} needs {loader}, which is not there");
        return Step::stops(name, Outcome::KernelPanic, cause, summary);
    }
    if let Some(Unruled::Stops(cause, summary)) = selinux::without_policy(guest, kernel, path) {
        return Step::stops(name, Outcome::SystemdFreeze, cause, summary);
    }
    target(fs, kernel, path)
}

/// The dynamic loader that a program asks for: PT_INTERP of elf(5).
fn interpreter(fs: &dyn FileSystem, program: filesystem::Inode) -> Option<String> {
    let mut head = vec![0; 4096];
    let count = fs.read_at(program, &mut head, 0).ok()?;
    head.truncate(count);
    let number = |at: usize, length: usize| -> Option<usize> {
        let bytes = head.get(at..at.checked_add(length)?)?;
        usize::try_from(bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))).ok()
    };
    // Only 64 bits: what is older than that has no systemd.
    if head.get(4) != Some(&2) {
        return None;
    }
    let (table, each, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
    for index in 0..count.min(64) {
        let at = table.checked_add(index.checked_mul(each)?)?;
        if number(at, 4)? == 3 {
            let (offset, size) = (number(at + 8, 8)?, number(at + 0x20, 8)?);
            let text = head.get(offset..offset.checked_add(size)?)?;
            let text = text.split(|byte| *byte == 0).next()?;
            return String::from_utf8(text.to_vec()).ok();
        }
    }
    None
}

fn no_init(fs: &dyn FileSystem, path: &str, kind: Kind) -> Step<()> {
    let name = StageName::Init;
    let stops = |outcome, symptom: &str| {
        let cause = Cause { file: path.to_owned(), ..cause("init.missing", symptom) };
        Step::stops(name, outcome, cause, format!("{path} is not there, or cannot be run"))
    };
    match kind {
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
            if is_there("/bin/sh") {
                return stops(Outcome::ShellAsInit, "can't access tty; job control turned off");
            }
            stops(Outcome::InitramfsShell, "No init found. Try passing init= bootarg.")
        }
        Kind::Unknown => Step::unknown(name, format!("{path} is not there")),
    }
}

/// The target, as far as it is no ordinary one.
fn target(fs: &dyn FileSystem, kernel: &Kernel, init: &str) -> Step<()> {
    let name = StageName::Init;
    let wanted = last(kernel, "systemd.unit=");
    let word = |words: &[&str]| {
        kernel.loaded.arguments.iter().find(|(argument, _)| words.contains(&argument.as_str()))
    };
    let asked = match (&wanted, word(&["emergency", "-b"]), word(&["single", "s", "S", "1", "rescue"])) {
        (Some((unit, place)), _, _) => Some((unit.clone(), place.clone())),
        (None, Some((_, place)), _) => Some(("emergency.target".to_owned(), place.clone())),
        (None, None, Some((_, place))) => Some(("rescue.target".to_owned(), place.clone())),
        _ => None,
    };
    let outcome = |unit: &str| match unit {
        "emergency.target" | "emergency.service" => Some(Outcome::Emergency),
        "rescue.target" | "rescue.service" => Some(Outcome::Rescue),
        _ => None,
    };
    if let Some((unit, place)) = asked {
        if let Some(outcome) = outcome(&unit) {
            let cause = place.cause("cmdline.debug-leftover", format!("the command line asks for {unit}"));
            return Step::stops(name, outcome, cause, format!("the command line asks for {unit}"));
        }
        return Step::goes(name, format!("{init}, towards {unit}"), ());
    }
    for path in DEFAULT_TARGET {
        let Ok(inode) = resolve_no_follow(fs, path.as_bytes()) else { continue };
        let link = fs.read_link(inode).unwrap_or_default();
        let unit = String::from_utf8_lossy(&link);
        let unit = unit.rsplit('/').next().unwrap_or_default().to_owned();
        if resolve(fs, path.as_bytes()).is_err() {
            let symptom = "Failed to load default target, falling back to rescue.target";
            let cause = Cause { file: path.to_owned(), ..cause("systemd.default-target-broken", symptom) };
            let summary = format!("{path} leads to {}, which is not there", String::from_utf8_lossy(&link));
            return Step::stops(name, Outcome::Rescue, cause, summary);
        }
        if let Some(outcome) = outcome(&unit) {
            let cause = Cause {
                file: path.to_owned(),
                ..cause("systemd.default-target-broken", format!("the default target is {unit}"))
            };
            return Step::stops(name, outcome, cause, format!("{path} is {unit}"));
        }
        return Step::goes(
            name,
            format!("{init}, towards {}", if unit.is_empty() { "default.target" } else { &unit }),
            (),
        );
    }
    Step::goes(name, init.to_owned(), ())
}

/// The last argument that starts with `key`, which is the one that counts.
pub(crate) fn last(kernel: &Kernel, key: &str) -> Option<(String, super::grub::GuestPlace)> {
    let found = kernel.loaded.arguments.iter().rev().find_map(|(argument, place)| {
        Some((argument.strip_prefix(key)?.trim_matches('"').to_owned(), place.clone()))
    });
    found.filter(|(value, _)| !value.is_empty())
}
