//! `check`: what is wrong, where, and why.

use std::io::{self, Write};

use crate::cli::Status;
use crate::cli::args::{Common, Images, Output};
use crate::cli::input::Disks;
use crate::cli::render::{Style, human, json, plain};
use crate::machine::Machine;
use crate::{Examination, examine_images};

/// The machines that `check` follows the boot on: as it stands, and after the founding fault.
pub(crate) fn machines() -> Vec<Machine> {
    vec![Machine::as_is(), Machine::reordered()]
}

pub(crate) fn run(common: &Common, args: &Images) -> anyhow::Result<Status> {
    let disks = Disks::of_machine(common, args)?;
    let machines = disks.defined(machines());
    let examination = examine_images(&disks.images, &disks.keys, &machines);
    let mut out = io::stdout().lock();
    let problems = json::problems(&disks, &examination);
    if common.output == Output::Human {
        let style = Style::stdout(common.color);
        for finding in &examination.findings {
            human::finding(&mut out, finding, &disks.machine_name(), &examination.storage, style)?;
        }
        for problem in &problems {
            writeln!(out, "{} {}", style.yellow("note:"), plain(problem))?;
        }
        human::boots(&mut out, &examination, &machines, style)?;
        if examination.guests.is_empty() {
            writeln!(out, "{}: no installed system found", plain(&disks.machine_name()))?;
        } else {
            writeln!(out, "{}", human::summary(&disks.machine_name(), &examination.findings))?;
        }
    } else {
        let body = json::Check::new(&disks, &examination, &machines);
        json::print(&mut out, &json::document("check", body), common.output)?;
    }
    Ok(status(&examination))
}

/// Without an installed system nothing could be told.
pub(crate) fn status(examination: &Examination) -> Status {
    if !examination.findings.is_empty() {
        Status::Findings
    } else if examination.guests.is_empty() {
        Status::Failed
    } else {
        Status::Clean
    }
}
