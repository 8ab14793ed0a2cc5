//! `initramfs FILE`: the paths in an initramfs, as `lsinitramfs` lists them; segments on standard error.
#![expect(clippy::print_stderr, reason = "a program")]

use std::fs::File;
use std::io::{BufReader, Write};

use boot_files::initramfs::{Initramfs, Limits};

fn main() -> std::io::Result<()> {
    let path = std::env::args_os().nth(1).unwrap_or_default();
    let mut input = BufReader::with_capacity(1 << 20, File::open(path)?);
    let found = Initramfs::read(&mut input, Limits::default(), &|_, _| false)?;
    for segment in &found.segments {
        eprintln!("{segment:?}");
    }
    if let Some(damage) = &found.damage {
        eprintln!("{damage:?}");
    }
    let mut out = std::io::stdout().lock();
    for path in found.entries.keys() {
        out.write_all(path)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}
