//! Writes the disk inside an image as raw bytes: `convert IMAGE [OUTPUT]`, or to standard output.
//!
//! Zeros become holes of OUTPUT. Two threads read, each a chunk at a time.

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use blockdev::{BlockDevice, BlockDeviceMut, ExtentKind, FileDevice};
use image::{FolderGate, Options};

/// Bytes that one thread takes on: the largest cluster, so that none is decompressed by both.
const CHUNK: u64 = 2 << 20;

/// Bytes that are read before they are written: no more than the processor's own cache holds.
const PIECE: u64 = 512 << 10;

/// Bytes that become a hole together, or not.
const HOLE: usize = 64 << 10;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let (input, output) = match arguments.as_slice() {
        [input] => (input, None),
        [input, output] => (input, Some(output)),
        _ => return Err("usage: convert IMAGE [OUTPUT]".into()),
    };
    let image = image::open(Path::new(input), &Options::default(), &FolderGate::new())?;
    match output {
        Some(output) => to_file(&*image.device, Path::new(output))?,
        None => to_stdout(&*image.device)?,
    }
    for problem in image.problems.iter().map(ToString::to_string) {
        writeln!(std::io::stderr(), "problem: {problem}")?;
    }
    for problem in image.take_read_problems() {
        writeln!(std::io::stderr(), "problem: {problem}")?;
    }
    Ok(())
}

fn to_stdout(disk: &dyn BlockDevice) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    let mut buffer = vec![0; PIECE as usize];
    let mut offset = 0;
    while offset < disk.size() {
        let count = PIECE.min(disk.size() - offset);
        let chunk = &mut buffer[..count as usize];
        disk.read_exact_at(chunk, offset)?;
        stdout.write_all(chunk)?;
        offset += count;
    }
    stdout.flush()
}

fn to_file(disk: &dyn BlockDevice, path: &Path) -> std::io::Result<()> {
    let output = FileDevice::create_new(path)?;
    output.grow(disk.size())?;
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..2).map(|_| scope.spawn(|| copy_chunks(disk, &output, &next))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })
}

fn copy_chunks(disk: &dyn BlockDevice, output: &FileDevice, next: &AtomicU64) -> std::io::Result<()> {
    let mut buffer = vec![0; PIECE as usize];
    loop {
        let start = next.fetch_add(CHUNK, Ordering::Relaxed);
        if start >= disk.size() {
            return Ok(());
        }
        let end = (start + CHUNK).min(disk.size());
        let mut offset = start;
        while offset < end {
            let extent = disk.extent_at(offset)?;
            let length = extent.length.min(end - offset).min(PIECE);
            if extent.kind == ExtentKind::Data {
                let piece = &mut buffer[..length as usize];
                disk.read_exact_at(piece, offset)?;
                write_data(output, piece, offset)?;
            }
            offset += length;
        }
    }
}

fn write_data(output: &FileDevice, piece: &[u8], offset: u64) -> std::io::Result<()> {
    static ZEROS: [u8; HOLE] = [0; HOLE];
    let is_zero = |part: &[u8]| part == &ZEROS[..part.len()];
    let mut done = 0;
    while done < piece.len() {
        done += piece[done..].chunks(HOLE).take_while(|part| is_zero(part)).map(<[u8]>::len).sum::<usize>();
        let data: usize = piece[done..].chunks(HOLE).take_while(|part| !is_zero(part)).map(<[u8]>::len).sum();
        output.write_all_at(&piece[done..done + data], offset + done as u64)?;
        done += data;
    }
    Ok(())
}
