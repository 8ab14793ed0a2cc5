//! GRUB's interpreter: runs a guest's `grub.cfg` to the entry that starts, without booting.
//!
//! What GRUB can see of disks and files is the caller's: a [`World`]. [`run`] executes the configuration as GRUB
//! does, with its rules for words, conditions, functions, menus, defaults and fallbacks, and its own error texts.
//! An error is printed and the script goes on; what is missing decides only where GRUB lets it decide.
//!
//! Three-valued: what the caller cannot tell is an [`Unknown`] with the line that asked. A condition on something
//! unknown runs both ways; what then differs is unknown, what does not is not. Nobody touches a key.
//!
//! Facts from the sources of GRUB 2.02, 2.06, 2.12 and 2.14 and of Red Hat's builds; compared with `grub-emu` in
//! the tests. Every walk is bounded: commands, depth, branches, sizes; beyond a bound all is unknown.

mod args;
mod blscfg;
mod commands;
mod condition;
mod environment;
mod error;
mod expand;
mod interpreter;
mod known_commands;
mod loaders;
mod memory_world;
mod menu;
mod number;
mod report;
mod script;
mod search;
mod state;
mod value;
mod world;

pub use error::{ErrorCode, GrubError};
pub use interpreter::run;
pub use known_commands::is_known_command;
pub use memory_world::MemoryWorld;
pub use report::{Argument, Attempt, Choice, End, FileName, LinuxLoad, Load, MenuEntry, Message, Run};
pub use script::Origin;
pub use value::{Unknown, Value};
pub use world::{
    Answer, Lookup, Place, Platform, ProbeWhat, Release, SearchBy, SearchRequest, Setup, Version, World,
};
