//! What scripts/bench/filesystem.py measures: `bench_filesystem read IMAGE PATH | walk IMAGE | mounted-read FILE | mounted-walk DIR`.
//!
//! Prints seconds and what was read, so that both sides can be seen to have done the same. Opening the file system
//! counts, as the kernel's caches are as cold after its mount.
#![expect(clippy::print_stdout, reason = "a program")]

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use blockdev::{Device, FileDevice};
use filesystem::{FileKind, FileSystem, path};

const PIECE: usize = 1 << 20;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let start = Instant::now();
    let (count, bytes) =
        match words.as_slice() {
            ["read", image, path] => read(&*open(image)?, path)?,
            ["walk", image] => walk(&*open(image)?)?,
            ["mounted-read", file] => mounted_read(file)?,
            ["mounted-walk", folder] => mounted_walk(folder)?,
            _ => return Err(
                "usage: bench_filesystem read IMAGE PATH | walk IMAGE | mounted-read FILE | mounted-walk DIR"
                    .into(),
            ),
        };
    println!("{:.6} {count} {bytes}", start.elapsed().as_secs_f64());
    Ok(())
}

fn open(image: &str) -> Result<Box<dyn FileSystem>, Failure> {
    let device: Device = Arc::new(FileDevice::open(image.as_ref())?);
    let known = storage::FILESYSTEMS.iter().find(|format| matches!((format.probe)(&*device), Ok(Some(_))));
    let format = known.ok_or("no file system that is known")?;
    Ok((format.open)(device)?.value)
}

/// Pieces and bytes of one file.
fn read(fs: &dyn FileSystem, name: &str) -> Result<(u64, u64), Failure> {
    let file = path::resolve(fs, name.as_bytes())?;
    let mut buf = vec![0; PIECE];
    let (mut count, mut bytes) = (0, 0);
    loop {
        match fs.read_at(file, &mut buf, bytes)? {
            0 => return Ok((count, bytes)),
            got => (count, bytes) = (count + 1, bytes + got as u64),
        }
    }
}

/// Files below the root, and the sum of their sizes.
fn walk(fs: &dyn FileSystem) -> Result<(u64, u64), Failure> {
    let mut folders = vec![fs.root()];
    let (mut count, mut bytes) = (0, 0);
    while let Some(folder) = folders.pop() {
        for entry in fs.read_dir(folder)? {
            let metadata = fs.metadata(entry.inode)?;
            count += 1;
            match metadata.kind {
                FileKind::Directory => folders.push(entry.inode),
                FileKind::Regular => bytes += metadata.size,
                _ => {}
            }
        }
    }
    Ok((count, bytes))
}

fn mounted_read(name: &str) -> Result<(u64, u64), Failure> {
    let mut file = File::open(name)?;
    let mut buf = vec![0; PIECE];
    let (mut count, mut bytes) = (0, 0);
    loop {
        match file.read(&mut buf)? {
            0 => return Ok((count, bytes)),
            got => (count, bytes) = (count + 1, bytes + got as u64),
        }
    }
}

fn mounted_walk(name: &str) -> Result<(u64, u64), Failure> {
    let mut folders = vec![Path::new(name).to_owned()];
    let (mut count, mut bytes) = (0, 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            count += 1;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else if metadata.is_file() {
                bytes += metadata.size();
            }
        }
    }
    Ok((count, bytes))
}
