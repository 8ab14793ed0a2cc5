//! Changes an image in place, for `scripts/oracles/ext4.sh` to judge.
//!
//! `edit replay IMAGE`, or `edit replace IMAGE PATH SOURCE`

#![expect(clippy::print_stdout, reason = "printing is its purpose")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use blockdev::{Device, FileDevice};
use filesystem::{Timestamp, path};
use filesystem_ext4::FORMAT;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["replay", image] => replay(image),
        ["replace", image, path, source] => replace(image, path, source),
        _ => Err("usage: edit replay IMAGE | edit replace IMAGE PATH SOURCE".into()),
    }
}

fn replay(image: &str) -> Result<(), Box<dyn Error>> {
    let file: Device = Arc::new(FileDevice::open_writable(Path::new(image))?);
    let replayed = (FORMAT.replay)(file.clone())?;
    println!("{} transactions", replayed.transactions);
    let mut offset = 0;
    while offset < file.size() {
        let length = usize::try_from((file.size() - offset).min(1 << 20))?;
        let (mut old, mut new) = (vec![0; length], vec![0; length]);
        file.read_exact_at(&mut old, offset)?;
        replayed.device.read_exact_at(&mut new, offset)?;
        if old != new {
            blockdev::writable(&file)?.write_all_at(&new, offset)?;
        }
        offset += u64::try_from(length)?;
    }
    Ok(())
}

fn replace(image: &str, name: &str, source: &str) -> Result<(), Box<dyn Error>> {
    let opened = (FORMAT.open)(Arc::new(FileDevice::open_writable(Path::new(image))?))?;
    for problem in &opened.problems {
        println!("# {problem}");
    }
    let file = path::resolve(&*opened.value, name.as_bytes())?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let now = Timestamp { seconds: i64::try_from(since.as_secs())?, nanoseconds: since.subsec_nanos() };
    let writable = opened.value.writable().ok_or("the image is read-only")?;
    Ok(writable.replace(file, &std::fs::read(source)?, now)?)
}
