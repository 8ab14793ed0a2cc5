//! `simulate`: how a boot would end on other hardware.

use std::io;

use serde::Serialize;

use super::unopened;
use crate::cli::Status;
use crate::cli::args::{Common, Output, Simulate};
use crate::cli::input::Disks;
use crate::cli::render::{Style, human, json, plain, table};
use crate::examine_images;
use crate::machine::{DiskOrder, Machine};
use storage::{Bus, Firmware};

#[derive(Debug, Serialize)]
struct Body {
    images: Vec<String>,
    scenarios: Vec<json::Scenario>,
    problems: Vec<String>,
}

pub(crate) fn run(common: &Common, args: &Simulate) -> anyhow::Result<Status> {
    use std::io::Write;
    let disks = Disks::of_machine(common, &args.images).map_err(|error| {
        let (paths, told) = (&args.images.images, machines(args));
        unopened::tell(common, "simulate", paths, &told, error)
    })?;
    let machines =
        disks.defined(if args.matrix { matrix(args, disks.devices().len()) } else { machines(args) });
    let examination = examine_images(&disks.images, &disks.keys, &machines);
    let mut out = io::stdout().lock();
    if common.output == Output::Human {
        let style = Style::stdout(common.color);
        for note in &disks.notes {
            writeln!(out, "{} {}", style.yellow("note:"), plain(note))?;
        }
        if args.matrix {
            table::print(&mut out, &examination, &machines, style)?;
        }
        let told = if args.matrix { &[][..] } else { &examination.boots };
        for (boot, machine) in told.iter().zip(machines.iter().cycle()) {
            writeln!(out, "{}", human::boot_line(boot, &human::subject(&examination, boot, machine), style))?;
            writeln!(out, "  hardware: {}", boot.hardware)?;
            for stage in &boot.stages {
                let verdict = match stage.verdict {
                    boot::Verdict::Pass => style.green("pass   "),
                    boot::Verdict::Fail => style.red("fail   "),
                    boot::Verdict::Unknown => style.yellow("unknown"),
                };
                writeln!(out, "  {verdict} {}: {}", stage.name.as_str(), plain(&stage.summary))?;
                for evidence in &stage.evidence {
                    let line = evidence.line.map_or_else(String::new, |line| format!(":{line}"));
                    writeln!(out, "          {}{line}: {}", plain(&evidence.file), plain(&evidence.text))?;
                }
            }
        }
        if examination.guests.is_empty() {
            writeln!(out, "{}: no installed system found", plain(&disks.machine_name()))?;
        }
    } else {
        let body = Body {
            images: json::paths(&disks),
            scenarios: json::scenarios(&examination.boots, &machines, &examination.storage),
            problems: json::problems(&disks, &examination),
        };
        json::print(&mut out, &json::document("simulate", body), common.output)?;
    }
    if examination.boots.is_empty() {
        return Ok(Status::Failed);
    }
    let all_up = examination.boots.iter().all(|boot| boot.outcome.is_up());
    Ok(if all_up { Status::Clean } else { Status::Findings })
}

/// Every order on every bus with every firmware that was asked for.
fn machines(args: &Simulate) -> Vec<Machine> {
    fn each<T: Copy>(asked: &[T]) -> Vec<Option<T>> {
        if asked.is_empty() { vec![None] } else { asked.iter().copied().map(Some).collect() }
    }
    let orders =
        if args.disk_order.is_empty() { vec![DiskOrder::default()] } else { args.disk_order.clone() };
    let mut machines = Vec::new();
    for firmware in each(&args.firmware) {
        for bus in each(&args.bus) {
            let base = Machine { bus, firmware, is_clone: args.is_clone, ..Machine::default() };
            machines.extend(orders.iter().map(|order| Machine { order: order.clone(), ..base.clone() }));
        }
    }
    machines
}

/// Buses, then firmware, then what happens to the disks: in the order of the table's rows and columns.
fn matrix(args: &Simulate, disks: usize) -> Vec<Machine> {
    let buses = if args.bus.is_empty() { Bus::ALL.to_vec() } else { args.bus.clone() };
    let firmwares =
        if args.firmware.is_empty() { vec![Firmware::Bios, Firmware::Uefi] } else { args.firmware.clone() };
    let mut machines = Vec::new();
    for bus in buses {
        for firmware in &firmwares {
            let machine = Machine {
                bus: Some(bus),
                firmware: Some(*firmware),
                is_clone: args.is_clone,
                ..Machine::default()
            };
            machines.push(machine.clone());
            if !args.is_clone {
                machines.push(Machine { is_clone: true, ..machine.clone() });
            }
            machines.push(Machine { order: DiskOrder::ExtraFirst(1), ..machine.clone() });
            if disks > 1 {
                let reversed = DiskOrder::Permuted((0..disks).rev().collect());
                machines.push(Machine { order: reversed, ..machine.clone() });
                machines.extend((0..disks).map(|disk| Machine { absent: vec![disk], ..machine.clone() }));
            }
        }
    }
    machines
}
