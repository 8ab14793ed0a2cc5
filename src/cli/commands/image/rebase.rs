//! `image rebase`: another name for the parent, and nothing else.

use std::io::{self, Write};

use image::Staging;

use crate::cli::Status;
use crate::cli::args::{Common, ImageRebase, Output};
use crate::cli::input;
use crate::cli::render::{Style, container, json};
use crate::container::rebase;
use crate::delivery;

pub(crate) fn run(common: &Common, args: &ImageRebase) -> anyhow::Result<Status> {
    let path = &args.image.image;
    let keys = input::keys(common)?;
    let options = input::options(common, keys.passphrases().next());
    let staging = if args.dry_run { Staging::preview() } else { Staging::for_commit() };
    let rebased = rebase::rebase(path, &options, &staging, &args.parent, &input::gate(common))?;
    if !args.dry_run {
        delivery::commit_staged(&staging, path)?;
    }
    let mut out = io::stdout().lock();
    let result = if args.dry_run { "dry-run" } else { "rebased" };
    if common.output == Output::Human {
        container::rebased(&mut out, &rebased, path, Style::stdout(common.color))?;
        let words = if args.dry_run { "nothing was written" } else { "`guestmend undo` takes it back" };
        writeln!(out, "{}: {result}; {words}", input::display_name(path))?;
    } else {
        let body = json::container::Rebase::new(&rebased, path, result);
        json::print(&mut out, &json::document("image rebase", body), common.output)?;
    }
    Ok(Status::Clean)
}
