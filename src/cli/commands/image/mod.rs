//! `image`: the container around the disk.

mod chain;
mod check;
mod convert;
mod info;
mod map;
mod rebase;

use crate::cli::Status;
use crate::cli::args::{Common, ImageCommand};

pub(crate) fn run(common: &Common, command: &ImageCommand) -> anyhow::Result<Status> {
    match command {
        ImageCommand::Info(args) => info::run(common, args),
        ImageCommand::Check(args) => check::run(common, args),
        ImageCommand::Chain(args) => chain::run(common, args),
        ImageCommand::Rebase(args) => rebase::run(common, args),
        ImageCommand::Convert(args) => convert::run(common, args),
        ImageCommand::Map(args) => map::run(common, args),
    }
}
