//! The command line: the only place that prints and reads the environment.

mod args;
mod commands;
mod input;
mod render;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use args::{Arguments, Command};

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Nothing is wrong, or the work was done.
    Clean,
    /// Something was found, or a boot would not end in a login prompt.
    Findings,
    /// Could not tell: I/O, an unreadable image, wrong usage.
    Failed,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(match status {
            Status::Clean => 0,
            Status::Findings => 1,
            Status::Failed => 2,
        })
    }
}

/// Runs the command that `arguments` ask for.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are answers, not errors; whether they could be printed does not matter.
            let status = if error.use_stderr() { Status::Failed } else { Status::Clean };
            drop(error.print());
            return status.into();
        }
    };
    match dispatch(&arguments) {
        Ok(status) => status.into(),
        Err(error) if is_broken_pipe(&error) => Status::Clean.into(),
        Err(error) => {
            drop(writeln!(io::stderr(), "guestmend: {}", render::plain(&format!("{error:#}"))));
            Status::Failed.into()
        }
    }
}

fn dispatch(arguments: &Arguments) -> anyhow::Result<Status> {
    let common = &arguments.common;
    match &arguments.command {
        Command::Check(args) => commands::check::run(common, args),
        Command::Simulate(args) => commands::simulate::run(common, args),
        Command::Fix(args) => commands::fix::run(common, args),
        Command::Commit(args) => commands::deliver::commit(common, args),
        Command::Discard(args) => commands::deliver::discard(common, args),
        Command::Undo(args) => commands::deliver::undo(common, args),
        Command::Inspect(args) => commands::inspect::run(common, args),
        Command::Explain(args) => commands::explain::run(args),
        Command::Ls(args) => commands::look::ls(common, args),
        Command::Cat(args) => commands::look::cat(common, args),
        Command::Stat(args) => commands::look::stat(common, args),
        Command::Find(args) => commands::look::find(common, args),
        Command::CpOut(args) => commands::look::cp_out(common, args),
        Command::Mount(args) => commands::mount::run(common, args),
        Command::Image(command) => commands::image::run(common, command),
        Command::Preflight(args) => commands::preflight::run(common, args),
    }
}

/// A reader that closed its end early (`guestmend … | head`) has what it wanted.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}
