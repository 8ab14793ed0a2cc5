//! Reads 4 KiB at a stride, as `qemu-img bench` does: `reads IMAGE COUNT STRIDE THREADS`. For scripts/bench.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use image::{FolderGate, Options};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, count, stride, threads] = arguments.as_slice() else {
        return Err("usage: reads IMAGE COUNT STRIDE THREADS".into());
    };
    let (count, stride, threads): (u64, u64, usize) = (count.parse()?, stride.parse()?, threads.parse()?);
    let image = image::open(Path::new(path), &Options::default(), &FolderGate::new())?;
    let disk = &*image.device;
    let next = AtomicU64::new(0);
    let size = disk.size() - 4096;
    thread::scope(|scope| {
        let work = || -> std::io::Result<()> {
            let mut buffer = [0; 4096];
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok(());
                }
                disk.read_exact_at(&mut buffer, number.wrapping_mul(stride) % size)?;
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a reader does not panic"))
    })?;
    Ok(())
}
