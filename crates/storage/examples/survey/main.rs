//! What is wrong with a file system, as far as reading all of it shows: for `scripts/oracles/corpus.py`.
//!
//! `survey IMAGE`: the type, a count of files and of bytes, then each problem on a line, as on disk; the same
//! after recovery when the journal holds something.

#![allow(clippy::print_stdout, reason = "it is what this is for")]

mod walk;

use std::path::Path;
use std::sync::Arc;

use blockdev::{Device, FileDevice};
use filesystem::Format;
use storage::FILESYSTEMS;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: survey IMAGE")?;
    let device: Device = Arc::new(FileDevice::open(Path::new(&path))?);
    for format in FILESYSTEMS {
        match (format.probe)(device.as_ref()) {
            Ok(None) => {}
            Ok(Some(identity)) => {
                show(format, device.clone(), identity.kind);
                match (format.replay)(device) {
                    Ok(replayed) if replayed.transactions > 0 => show(format, replayed.device, "recovered"),
                    Ok(_) => {}
                    Err(error) => println!("problem\trecovery: {error}"),
                }
                return Ok(());
            }
            Err(error) => println!("problem\t{}: {error}", format.name),
        }
    }
    println!("none\t0\t0");
    Ok(())
}

fn show(format: &Format, device: Device, what: &str) {
    match (format.open)(device) {
        Ok(opened) => {
            let walked = walk::walk(opened.value.as_ref());
            println!("{what}\t{}\t{}", walked.files, walked.bytes);
            if opened.value.info().needs_recovery {
                println!("problem\tneeds recovery, or was not unmounted");
            }
            opened.problems.iter().for_each(|problem| println!("problem\t{problem}"));
            walked.problems.iter().for_each(|problem| println!("problem\t{problem}"));
        }
        Err(error) => println!("{what}\t0\t0\nproblem\topen: {error}"),
    }
}
