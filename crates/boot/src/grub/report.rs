//! What a run leaves behind, as plain data.

use std::sync::Arc;

use super::script::{Body, Origin};
use super::value::{Unknown, Value};

/// An entry of a menu.
#[derive(Debug, Clone)]
pub struct MenuEntry {
    /// What the person reads.
    pub title: Value,
    /// What `default` and `fallback` may name; the title if there is no `--id`.
    pub id: Value,
    /// Classes, for icons.
    pub classes: Vec<Value>,
    /// Whether it opens another menu.
    pub is_submenu: bool,
    /// Whether it asks for a password once `superusers` is set: no `--unrestricted`.
    pub is_restricted: bool,
    /// The command that made it, or the BLS entry.
    pub origin: Origin,
    /// Whether it came from a BLS entry.
    pub is_bls: bool,
    /// Why it may not be there at all; `None` when it is.
    pub doubt: Option<Arc<Unknown>>,
    pub(super) arguments: Vec<Value>,
    pub(super) body: Body,
}

impl PartialEq for MenuEntry {
    fn eq(&self, other: &Self) -> bool {
        self.origin == other.origin
            && self.title == other.title
            && self.id == other.id
            && self.doubt == other.doubt
            && self.arguments == other.arguments
    }
}

/// Which entry starts when nobody touches a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// This one: its place in each menu, from 0, outermost first.
    Entry {
        /// One number, or more for submenus.
        path: Vec<usize>,
        /// Whether `default` named it; else it is first because `default` names nothing.
        is_named: bool,
    },
    /// There is no menu.
    NoMenu,
    /// Cannot be said.
    Unknown(Arc<Unknown>),
}

/// A file as GRUB opened it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName {
    /// The device, without parentheses.
    pub device: Value,
    /// The path on it.
    pub path: Value,
    /// Bytes, when the file is known.
    pub size: Option<u64>,
    /// The word that names it.
    pub origin: Origin,
}

/// One argument of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// After expansion.
    pub value: Value,
    /// The word, or the part of a BLS entry's options, that it comes from.
    pub origin: Origin,
    /// The variable in that word and where its value was set, when it comes from one.
    pub variable: Option<(Vec<u8>, Origin)>,
}

/// What `linux` and `initrd` loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinuxLoad {
    /// `linux`, `linux16`, `linuxefi`.
    pub command: String,
    /// The kernel.
    pub kernel: FileName,
    /// Its command line, after `BOOT_IMAGE=`.
    pub arguments: Vec<Argument>,
    /// In order; empty when there is none, or it failed.
    pub initrds: Vec<FileName>,
    /// The command.
    pub origin: Origin,
}

impl LinuxLoad {
    /// The command line as the kernel sees it, if every argument is known.
    pub fn command_line(&self) -> Option<String> {
        let known: Option<Vec<_>> = self
            .arguments
            .iter()
            .map(|argument| argument.value.known().map(String::from_utf8_lossy))
            .collect();
        Some(known?.join(" "))
    }
}

/// What is loaded, and starts with `boot`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Load {
    /// Linux.
    Linux(LinuxLoad),
    /// `chainloader`: another boot loader.
    Chain {
        /// The file, or the boot sector `+1`.
        file: FileName,
        /// Its arguments.
        arguments: Vec<Argument>,
        /// The command.
        origin: Origin,
    },
    /// `multiboot`, `ntldr` and others.
    Other {
        /// The command's name.
        command: String,
        /// Its first argument.
        file: Option<FileName>,
        /// The command.
        origin: Origin,
    },
}

/// One entry that was run.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Its place in each menu, from 0, outermost first.
    pub path: Vec<usize>,
    /// The entry.
    pub entry: Arc<MenuEntry>,
    /// Whether it is a fallback for one that failed.
    pub is_fallback: bool,
    /// What was loaded at its end.
    pub load: Option<Load>,
    /// Whether GRUB started what was loaded.
    pub boots: bool,
    /// What GRUB printed on the way.
    pub messages: Vec<Message>,
}

/// An error that GRUB prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Without `error: ` and the full stop.
    pub text: String,
    /// The command that failed.
    pub origin: Origin,
    /// Why it may not be printed at all; `None` when it is.
    pub doubt: Option<Arc<Unknown>>,
}

impl Message {
    /// The line on the screen.
    pub fn screen(&self) -> String {
        format!("error: {}.", self.text)
    }
}

/// What happens in the end.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// GRUB starts what is loaded.
    Boots(Box<Load>),
    /// The menu waits for a key: no timeout, or every entry that starts by itself has failed.
    Menu {
        /// Whether an entry was tried first.
        after_failure: bool,
    },
    /// The prompt `grub>`: no configuration, or no menu in it.
    Prompt,
    /// A user name and a password are asked for.
    Password,
    /// `halt`.
    Halt,
    /// `reboot`.
    Reboot,
    /// `exit`: back to the firmware, which tries its next entry or stops.
    Exit,
    /// The firmware's own menu.
    FirmwareSetup,
    /// GRUB itself stops: `Aborted. Press any key to exit.`
    Fatal(String),
    /// Cannot be said.
    Unknown(Arc<Unknown>),
}

/// A whole run.
#[derive(Debug, Clone)]
pub struct Run {
    /// The menu, in order; of a configuration that another one hands over to, its menu.
    pub menu: Vec<Arc<MenuEntry>>,
    /// Which entry starts.
    pub choice: Choice,
    /// Seconds until then: 0 at once, `None` for ever or unknown.
    pub timeout: Option<u64>,
    /// The entries that were run, in order.
    pub attempts: Vec<Attempt>,
    /// What happens in the end.
    pub end: End,
    /// Everything that GRUB printed as an error.
    pub messages: Vec<Message>,
    /// Everything that could not be known, in order, whether or not it mattered.
    pub unknowns: Vec<Unknown>,
    /// The variables at the end, of the innermost context.
    pub variables: Vec<(Vec<u8>, Value)>,
    /// The configuration files that were read, in order, with their bytes.
    pub files: Vec<(Arc<str>, Vec<u8>)>,
    /// How many commands were run.
    pub steps: usize,
}

impl Run {
    /// The entry that starts by itself, submenus followed.
    pub fn default_entry(&self) -> Option<&MenuEntry> {
        match &self.choice {
            Choice::Entry { path, .. } => {
                let attempt = self.attempts.iter().find(|attempt| attempt.path == *path);
                attempt
                    .map(|attempt| &*attempt.entry)
                    .or_else(|| self.menu.get(*path.first()?).map(|entry| &**entry))
            }
            Choice::NoMenu | Choice::Unknown(_) => None,
        }
    }

    /// What boots, if something does.
    pub fn load(&self) -> Option<&Load> {
        match &self.end {
            End::Boots(load) => Some(load),
            _ => None,
        }
    }
}
