//! What scripts/bench/volume.py measures: `bench_volume xts SECTOR | striped CHUNK FILE… | scan FILE | stack FILE`.
//!
//! Speeds of single threads count the processor's time where that is what is asked: the machine may be shared.
#![expect(clippy::print_stdout, reason = "a program")]

use std::sync::Arc;
use std::time::Instant;

use blockdev::{BlockDevice, Counter, Device, FileDevice, MemoryDevice};
use luks::{Decrypted, Keyring, SectorCipher};
use volume::raid::{Layout, array};

const PIECE: usize = 1 << 20;
const GIB: f64 = (1_u64 << 30) as f64;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["xts", sector] => xts(sector.parse()?),
        ["striped", chunk, files @ ..] => striped(chunk.parse()?, files),
        ["scan", file] => scan(file),
        ["stack", file] => stack(file),
        _ => Err("usage: bench_volume xts SECTOR | striped CHUNK FILE… | scan FILE | stack FILE".into()),
    }
}

/// AES-256-XTS out of memory, one thread.
fn xts(sector: u32) -> Result<(), Failure> {
    let below: Device = Arc::new(MemoryDevice::new(vec![0x5a; 256 << 20]));
    let cipher = SectorCipher::new("aes", "xts-plain64", &[7; 64])?;
    let cipher = cipher.with_sector_size(sector).ok_or("no such sector size")?;
    let size = below.size();
    let device = Decrypted::new(below, 0, size, cipher, 0);
    let wall = median(7, || read(&device))?;
    let start = processor_time()?;
    for _ in 0..4 {
        read(&device)?;
    }
    let used = (processor_time()? - start) / 4.0;
    println!("{:.3} {:.3}", size as f64 / GIB / used, size as f64 / GIB / wall);
    Ok(())
}

/// Seconds of processor time that this process has used, in steps of a hundredth: fields 14 and 15 of proc(5)'s stat.
fn processor_time() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / 100.0)
}

/// The whole array against all of its members, one after the other.
fn striped(chunk: u64, files: &[&str]) -> Result<(), Failure> {
    let open = |file: &&str| -> Result<Device, Failure> { Ok(Arc::new(FileDevice::open(file.as_ref())?)) };
    let members = files.iter().map(open).collect::<Result<Vec<Device>, Failure>>()?;
    let size = members.iter().map(|member| member.size()).sum();
    let device = array(Layout::Striped, chunk, size, members.iter().cloned().map(Some).collect())?;
    let ours = median(7, || read(device.as_ref()))?;
    let theirs = median(7, || members.iter().try_fold(0.0, |sum, member| Ok(sum + read(member.as_ref())?)))?;
    println!("{:.3} {:.3} {:.3}", size as f64 / GIB / ours, size as f64 / GIB / theirs, theirs / ours);
    Ok(())
}

fn scan(file: &str) -> Result<(), Failure> {
    let disk = FileDevice::open(file.as_ref())?;
    let before = processor_time()?;
    let seconds = median(5, || {
        let start = Instant::now();
        std::hint::black_box(storage::lost::search(&disk, &mut |_| {}));
        Ok(start.elapsed().as_secs_f64())
    })?;
    let used = (processor_time()? - before) / 5.0;
    let plain = median(5, || read(&disk))?;
    let size = disk.size() as f64 / GIB;
    println!("{:.3} {:.3} {:.3}", size / used, size / seconds, size / plain);
    Ok(())
}

/// Milliseconds, bytes and reads of one discovery.
fn stack(file: &str) -> Result<(), Failure> {
    let keys = Keyring::default();
    let mut read = (0, 0, 0);
    let seconds = median(21, || {
        let start = Instant::now();
        let disk = Arc::new(Counter::new(Arc::new(FileDevice::open(file.as_ref())?)));
        let storage = storage::discover(&[disk.clone() as Device], &keys);
        let time = start.elapsed().as_secs_f64();
        read = (disk.bytes(), disk.reads(), storage.nodes.len());
        Ok(time)
    })?;
    println!("{:.3} {} {} {}", seconds * 1000.0, read.0, read.1, read.2);
    Ok(())
}

/// Seconds that reading all of `device` in pieces takes.
fn read(device: &dyn BlockDevice) -> Result<f64, Failure> {
    let mut buffer = vec![0; PIECE];
    let start = Instant::now();
    let mut at = 0;
    while at + PIECE as u64 <= device.size() {
        device.read_exact_at(&mut buffer, at)?;
        at += PIECE as u64;
    }
    std::hint::black_box(&buffer);
    Ok(start.elapsed().as_secs_f64())
}

fn median(runs: usize, mut run: impl FnMut() -> Result<f64, Failure>) -> Result<f64, Failure> {
    let mut times = (0..runs).map(|_| run()).collect::<Result<Vec<f64>, Failure>>()?;
    times.sort_by(f64::total_cmp);
    Ok(times[runs / 2])
}
