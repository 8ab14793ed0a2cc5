//! `explain`: the manual page of a rule.

use std::io::{self, Write};

use anyhow::bail;

use crate::cli::Status;
use crate::cli::args::Explain;

pub(crate) fn run(args: &Explain) -> anyhow::Result<Status> {
    let mut out = io::stdout().lock();
    match &args.rule {
        None => {
            for rule in rules::RULES {
                writeln!(out, "{:<34} {}", rule.id, rule.summary)?;
            }
        }
        Some(id) => match rules::find(id) {
            Some(rule) => write!(out, "{}", rule.manual)?,
            None => bail!("no rule {id:?}; `guestmend explain` lists them"),
        },
    }
    Ok(Status::Clean)
}
