//! Checks of file systems at boot, and when they stop one.
//!
//! initramfs-tools 0.142 (`scripts/functions`, `_checkfs_once`) and systemd 252 (`src/fsck/fsck.c`) both call `fsck -a`. Its exit status
//! stops them with bit 4, errors left; systemd also at bit 2, a reboot that is asked for. A corrected file system (1) and a program
//! that gives up by itself (8 alone) do not. `fsck.xfs` and `fsck.btrfs` do nothing, `fsck.vfat -a` repairs.

use filesystem::path::resolve;
use guest::Guest;
use storage::{BootCheck, Node};

use super::grub::GuestPlace;
use super::kernel::{Kernel, Unpacked};

/// What the command line says, systemd-fsck@.service(8).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Auto,
    Force,
    Skip,
}

/// Who checks: the words of the command line, and the programs that are there.
pub(super) struct Checks<'a> {
    mode: Mode,
    /// Whether every repair is answered with yes, or with no; else only safe ones are made.
    answer: Option<bool>,
    has_program: Box<dyn Fn(&str) -> bool + 'a>,
}

/// How a check ends.
pub(super) enum Checked {
    /// The boot goes on.
    GoesOn,
    /// Errors are left.
    Stops(String),
    Unknown(String),
}

impl<'a> Checks<'a> {
    fn new(arguments: &[(String, GuestPlace)], has_program: impl Fn(&str) -> bool + 'a) -> Self {
        let (mut mode, mut answer) = (Mode::Auto, None);
        for (word, _) in arguments {
            match word.as_str() {
                "fsck.mode=auto" => mode = Mode::Auto,
                "fsck.mode=force" | "forcefsck" => mode = Mode::Force,
                "fsck.mode=skip" | "fastboot" => mode = Mode::Skip,
                "fsck.repair=preen" => answer = None,
                "fsck.repair=yes" | "fsckfix" => answer = Some(true),
                "fsck.repair=no" => answer = Some(false),
                _ => {}
            }
        }
        Self { mode, answer, has_program: Box::new(has_program) }
    }

    /// In an initramfs.
    pub(super) fn in_image(kernel: &Kernel, unpacked: &'a Unpacked) -> Self {
        Self::new(&kernel.loaded.arguments, |name| unpacked.has_program(name))
    }

    /// Of the running system.
    pub(super) fn on_root(kernel: Option<&Kernel>, guest: &'a Guest) -> Self {
        let arguments = kernel.map_or(&[][..], |kernel| &kernel.loaded.arguments);
        let is_there = |path: String| resolve(&guest.tree, path.as_bytes()).is_ok();
        Self::new(arguments, move |name| {
            ["/usr/sbin", "/sbin", "/usr/bin", "/bin"]
                .iter()
                .any(|folder| is_there(format!("{folder}/{name}")))
        })
    }

    /// What the check of a file system comes to.
    pub(super) fn of(&self, node: &Node) -> Checked {
        let kind = node.content_type().unwrap_or_default();
        if self.mode == Mode::Skip
            || !(self.has_program)("fsck")
            || !(self.has_program)(&format!("fsck.{kind}"))
        {
            return Checked::GoesOn;
        }
        let found = node.boot_check(self.mode == Mode::Force);
        let path = &node.path;
        match (found, self.answer) {
            (BootCheck::Skipped | BootCheck::Refused(_), _)
            | (BootCheck::Passes | BootCheck::ByHand(_), Some(true)) => Checked::GoesOn,
            (BootCheck::Passes, None) => Checked::GoesOn,
            (BootCheck::ByHand(reasons), None | Some(false)) => {
                let first = reasons.first().map_or("", String::as_str);
                Checked::Stops(format!("the check of {path} leaves errors for a person: {first}"))
            }
            (BootCheck::Passes, Some(false)) => {
                Checked::Unknown(format!("whether a check of {path} that repairs nothing finds anything"))
            }
            (BootCheck::Unknown(reason), Some(true)) => Checked::Unknown(format!("{path}: {reason}")),
            (BootCheck::Unknown(reason), _) => Checked::Unknown(format!("the check of {path}: {reason}")),
        }
    }
}
