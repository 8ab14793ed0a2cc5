//! What a simulated boot leaves behind, as plain data.

use std::fmt;
use std::time::Duration;

use storage::{Firmware, Hardware, NodeId};

/// Three-valued: what was not examined is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The stage was examined and works.
    Pass,
    /// The stage was examined and the boot ends here.
    Fail,
    /// Not examined, or an input is missing.
    Unknown,
}

/// The stages of a boot, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageName {
    /// The images of the machine's disks: whether it can be started with them at all. The caller knows, who has opened them.
    Images,
    /// Finding something to start: boot sector, EFI binary.
    Firmware,
    /// The boot loader's own code.
    Loader,
    /// The boot loader's configuration.
    LoaderConfig,
    /// Kernel and initramfs: there and whole.
    Kernel,
    /// Finding the root file system: drivers, then names, as the initramfs does it.
    Root,
    /// The program that the kernel hands over to.
    Init,
    /// Mounting what fstab names.
    LocalFileSystems,
    /// What systemd starts on the way to a login.
    DefaultTarget,
}

impl StageName {
    /// The name for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Images => "disk images",
            Self::Firmware => "firmware",
            Self::Loader => "boot loader",
            Self::LoaderConfig => "boot loader configuration",
            Self::Kernel => "kernel and initramfs",
            Self::Root => "root file system",
            Self::Init => "init",
            Self::LocalFileSystems => "local file systems",
            Self::DefaultTarget => "default target",
        }
    }
}

/// One stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// Which.
    pub name: StageName,
    /// How it ends.
    pub verdict: Verdict,
    /// What was concluded, in words.
    pub summary: String,
    /// What the conclusion rests on.
    pub evidence: Vec<Evidence>,
}

/// A line of a guest's file, and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Path in the guest.
    pub file: String,
    /// From 1.
    pub line: Option<usize>,
    /// What follows from it.
    pub text: String,
}

/// How a boot ends: the words that the boot lab uses for real ones. The better ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// A login prompt.
    Login,
    /// A login prompt after something failed.
    Degraded,
    /// A passphrase is asked for.
    LuksPrompt,
    /// Cannot be said.
    Unknown,
    /// systemd's emergency mode.
    Emergency,
    /// systemd's rescue mode.
    Rescue,
    /// A shell runs in the place of init.
    ShellAsInit,
    /// Waits for ever.
    Hang,
    /// The initramfs gives up: dracut's emergency shell.
    DracutEmergency,
    /// The initramfs gives up: the shell of initramfs-tools or mkinitcpio.
    InitramfsShell,
    /// systemd gives up: "Freezing execution".
    SystemdFreeze,
    /// The kernel panics.
    KernelPanic,
    /// The machine starts again and again.
    RebootLoop,
    /// GRUB says what is wrong and waits at its menu.
    GrubError,
    /// GRUB's prompt `grub>`.
    GrubPrompt,
    /// GRUB's prompt `grub rescue>`.
    GrubRescue,
    /// The firmware finds nothing to start.
    NoBootableDevice,
    /// The hypervisor cannot open the image.
    ImageError,
}

impl Outcome {
    /// The word in reports and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Degraded => "degraded",
            Self::LuksPrompt => "luks-prompt",
            Self::Unknown => "unknown",
            Self::Emergency => "emergency",
            Self::Rescue => "rescue",
            Self::ShellAsInit => "shell-as-init",
            Self::Hang => "hang",
            Self::DracutEmergency => "dracut-emergency",
            Self::InitramfsShell => "initramfs-shell",
            Self::SystemdFreeze => "systemd-freeze",
            Self::KernelPanic => "kernel-panic",
            Self::RebootLoop => "reboot-loop",
            Self::GrubError => "grub-error",
            Self::GrubPrompt => "grub-prompt",
            Self::GrubRescue => "grub-rescue",
            Self::NoBootableDevice => "no-bootable-device",
            Self::ImageError => "image-error",
        }
    }

    /// Whether a person can log in as usual.
    pub fn is_up(self) -> bool {
        matches!(self, Self::Login | Self::Degraded)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a boot does not end in a login prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The id of the rule that describes this fault.
    pub rule: &'static str,
    /// Path in the guest of the file that is to blame.
    pub file: String,
    /// From 1.
    pub line: Option<usize>,
    /// The systemd unit that fails, if it is one.
    pub unit: Option<String>,
    /// What the person sees.
    pub symptom: String,
}

/// One simulated boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootTrace {
    /// The machine.
    pub hardware: Hardware,
    /// What starts it: as the hardware says, or as the disks are made for.
    pub firmware: Firmware,
    /// The root file system of the system that was followed; `None` when none was found.
    pub guest: Option<NodeId>,
    /// In order, to the one that fails.
    pub stages: Vec<Stage>,
    /// How it ends, if every unknown stage does its part.
    pub outcome: Outcome,
    /// Why, unless it ends in a login prompt.
    pub cause: Option<Cause>,
    /// Every fstab line whose device or mount fails on this hardware, blocking or not.
    pub failing_lines: Vec<usize>,
    /// How long systemd waits for devices that do not come.
    pub delay: Duration,
}

impl BootTrace {
    /// The stages that were not examined, for the line "login, if … do their part".
    pub fn unknown_stages(&self) -> impl Iterator<Item = &Stage> {
        self.stages.iter().filter(|stage| stage.verdict == Verdict::Unknown)
    }

    /// What the outcome rests on, in words; `None` when every stage was examined.
    pub fn assumption(&self) -> Option<String> {
        let names: Vec<&str> = self.unknown_stages().map(|stage| stage.name.as_str()).collect();
        let (last, rest) = names.split_last()?;
        let list =
            if rest.is_empty() { (*last).to_owned() } else { format!("{} and {last}", rest.join(", ")) };
        let do_their = if rest.is_empty() { "does its" } else { "do their" };
        Some(format!("if {list}, not yet examined, {do_their} part"))
    }
}
