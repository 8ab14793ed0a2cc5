//! Many boots as one table: a bus in each row, and the rest of the machine in each column.

use std::collections::BTreeMap;
use std::io::{self, Write};

use boot::BootTrace;
use storage::Bus;

use super::{Style, plain};
use crate::Examination;
use crate::machine::{DiskOrder, Machine};

/// Prints one table for every system, and below it what the numbers in it stand for.
pub(crate) fn print(
    out: &mut dyn Write,
    examination: &Examination,
    machines: &[Machine],
    style: Style,
) -> io::Result<()> {
    for (guest, boots) in examination.guests.iter().zip(examination.boots.chunks(machines.len().max(1))) {
        let path = &examination.storage.node(guest.root).path;
        writeln!(out, "{} on {}", style.bold(&plain(guest.name())), plain(path))?;
        one(out, boots, machines, style)?;
    }
    Ok(())
}

fn one(out: &mut dyn Write, boots: &[BootTrace], machines: &[Machine], style: Style) -> io::Result<()> {
    let mut columns: Vec<String> = Vec::new();
    let mut rows: Vec<Bus> = Vec::new();
    let mut notes: Vec<String> = Vec::new();
    let mut cells: BTreeMap<(usize, usize), (String, bool)> = BTreeMap::new();
    for (boot, machine) in boots.iter().zip(machines) {
        let column = index_of(&mut columns, title(machine));
        let row = index_of(&mut rows, machine.bus.unwrap_or(Bus::VirtioBlk));
        let note = note(boot);
        let mark = note.map(|note| format!(" {}", index_of(&mut notes, note) + 1)).unwrap_or_default();
        cells.insert((row, column), (format!("{}{mark}", boot.outcome.as_str()), boot.outcome.is_up()));
    }
    let cell = |row: usize, column: usize| cells.get(&(row, column)).map_or("", |(text, _)| text);
    let first = rows.iter().map(|bus| bus.name().len()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| {
            let longest = (0..rows.len()).map(|row| cell(row, column).len()).max().unwrap_or_default();
            longest.max(columns[column].len())
        })
        .collect();
    write!(out, "  {:first$}", "")?;
    for (column, width) in columns.iter().zip(&widths) {
        write!(out, "  {column:width$}")?;
    }
    writeln!(out)?;
    for (row, bus) in rows.iter().enumerate() {
        write!(out, "  {:first$}", bus.name())?;
        for (column, width) in widths.iter().enumerate() {
            let is_up = cells.get(&(row, column)).is_some_and(|(_, is_up)| *is_up);
            let text = format!("{:width$}", cell(row, column));
            write!(out, "  {}", if is_up { style.green(&text) } else { style.red(&text) })?;
        }
        writeln!(out)?;
    }
    for (number, note) in notes.iter().enumerate() {
        writeln!(out, "  {}: {}", number + 1, plain(note))?;
    }
    Ok(())
}

fn index_of<T: PartialEq>(known: &mut Vec<T>, value: T) -> usize {
    known.iter().position(|found| *found == value).unwrap_or_else(|| {
        known.push(value);
        known.len() - 1
    })
}

/// What is said of the machine beside its bus.
fn title(machine: &Machine) -> String {
    let mut words = Vec::new();
    words.extend(machine.firmware.map(|firmware| firmware.name().to_owned()));
    match &machine.order {
        DiskOrder::ExtraFirst(0) => {}
        DiskOrder::ExtraFirst(count) => words.push(format!("+{count} disk first")),
        DiskOrder::Permuted(_) => words.push("reversed".into()),
    }
    if machine.is_clone {
        words.push("clone".into());
    }
    words.extend(machine.absent.iter().map(|disk| format!("no disk{disk}")));
    words.join(", ")
}

/// The first broken link, or what the outcome rests on.
fn note(boot: &BootTrace) -> Option<String> {
    match &boot.cause {
        Some(cause) => {
            let place = match cause.line {
                Some(line) => format!("{}:{line}, ", cause.file),
                None if cause.file.is_empty() => String::new(),
                None => format!("{}, ", cause.file),
            };
            Some(format!("{} ({place}{})", cause.symptom, cause.rule))
        }
        None => boot.assumption(),
    }
}
