//! What is still to be told where an image could not be opened: the machine does not start with it either.

use std::io::{self, Write};

use boot::{BootTrace, Outcome};
use serde::Serialize;
use storage::{Firmware, Storage};

use crate::cli::args::{Common, Output};
use crate::cli::render::{Style, human, json};
use crate::images;
use crate::machine::Machine;

#[derive(Debug, Serialize)]
struct Body {
    images: Vec<String>,
    scenarios: Vec<json::Scenario>,
    problems: Vec<String>,
}

/// Tells how a machine ends that is started with images of which one could not be opened, where that is certain. The error stays
/// one: nothing could be examined.
pub(crate) fn tell(
    common: &Common,
    command: &'static str,
    paths: &[std::path::PathBuf],
    machines: &[Machine],
    error: anyhow::Error,
) -> anyhow::Error {
    let is_certain = error.downcast_ref::<image::Error>().is_some_and(images::is_broken_chain);
    if !is_certain {
        return error;
    }
    match print(common, command, paths, machines, &format!("{error:#}")) {
        Ok(()) => error,
        Err(failed) => failed.into(),
    }
}

fn print(
    common: &Common,
    command: &'static str,
    paths: &[std::path::PathBuf],
    machines: &[Machine],
    reason: &str,
) -> io::Result<()> {
    let boots: Vec<BootTrace> = machines
        .iter()
        .map(|machine| {
            let hardware = machine.hardware(None, paths.len());
            let mut boot = BootTrace {
                firmware: hardware.firmware.unwrap_or(Firmware::Bios),
                hardware,
                guest: None,
                stages: Vec::new(),
                outcome: Outcome::ImageError,
                cause: None,
                failing_lines: Vec::new(),
                delay: std::time::Duration::ZERO,
            };
            images::unopened(&mut boot, reason);
            boot
        })
        .collect();
    let mut out = io::stdout().lock();
    if common.output == Output::Human {
        let style = Style::stdout(common.color);
        for (boot, machine) in boots.iter().zip(machines) {
            writeln!(out, "{}", human::boot_line(boot, &machine.to_string(), style))?;
        }
        return Ok(());
    }
    let body = Body {
        images: paths.iter().map(|path| path.to_string_lossy().into_owned()).collect(),
        scenarios: json::scenarios(&boots, machines, &Storage::default()),
        problems: vec![reason.to_owned()],
    };
    json::print(&mut out, &json::document(command, body), common.output)
}
