//! `commit`, `discard`, `undo`: what becomes of what `fix` made.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;

use crate::cli::Status;
use crate::cli::args::{Common, Image, Output, Overlay};
use crate::cli::input::{self, gate};
use crate::cli::render::json;
use crate::delivery::{self, Undone};

pub(crate) fn commit(common: &Common, args: &Overlay) -> anyhow::Result<Status> {
    let gate = gate(common);
    let keys = input::keys(common)?;
    let options = input::options(common, keys.passphrases().next());
    let base = delivery::commit_overlay(&args.overlay, &options, &gate)
        .with_context(|| format!("cannot commit {}", args.overlay.display()))?;
    let undo = delivery::journal_path(&base);
    say(
        common,
        &base,
        "commit",
        "committed",
        &format!("`guestmend undo` takes it back; journal: {}", undo.display()),
    )
}

pub(crate) fn discard(common: &Common, args: &Overlay) -> anyhow::Result<Status> {
    delivery::discard(&args.overlay).with_context(|| format!("cannot discard {}", args.overlay.display()))?;
    say(common, &args.overlay, "discard", "discarded", "the image below was never changed")
}

pub(crate) fn undo(common: &Common, args: &Image) -> anyhow::Result<Status> {
    let undone = delivery::undo(&args.image, &gate(common))
        .with_context(|| format!("cannot undo {}", args.image.display()))?;
    let (result, words) = match undone {
        Undone::Commit => ("undone", "the image is as it was before the commit"),
        Undone::CutCommit => ("recovered", "a commit was cut short; the image is as it was before it"),
        Undone::Nothing => ("nothing-to-do", "a commit was cut before it touched the image"),
    };
    say(common, &args.image, "undo", result, words)
}

fn say(
    common: &Common,
    image: &Path,
    command: &'static str,
    result: &'static str,
    words: &str,
) -> anyhow::Result<Status> {
    let mut out = io::stdout().lock();
    if common.output == Output::Human {
        writeln!(out, "{}: {result}; {words}", image.display())?;
    } else {
        let body = json::Delivery { image: image.to_string_lossy().into_owned(), result };
        json::print(&mut out, &json::document(command, body), common.output)?;
    }
    Ok(Status::Clean)
}
