//! `xfs_replay IMAGE`: replays the log of an XFS image and writes the result to the image.
#![expect(clippy::print_stdout, reason = "a command-line program")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use blockdev::{BlockDevice, BlockDeviceMut, FileDevice};

const PIECE: u64 = 1 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let image = std::env::args_os().nth(1).ok_or("usage: xfs_replay IMAGE")?;
    let device = Arc::new(FileDevice::open_writable(Path::new(&image))?);
    let replayed = match (filesystem_xfs::FORMAT.replay)(device.clone()) {
        Ok(replayed) => replayed,
        Err(error) => {
            println!("refused: {error}");
            std::process::exit(1);
        }
    };
    let mut offset = 0;
    let mut changed = 0;
    while offset < device.size() {
        let length = PIECE.min(device.size() - offset);
        let (mut old, mut new) = (vec![0; usize::try_from(length)?], vec![0; usize::try_from(length)?]);
        device.read_exact_at(&mut old, offset)?;
        replayed.device.read_exact_at(&mut new, offset)?;
        for (number, (old, new)) in old.chunks(512).zip(new.chunks(512)).enumerate() {
            if old != new {
                device.write_all_at(new, offset + 512 * number as u64)?;
                changed += 1;
            }
        }
        offset += length;
    }
    device.flush()?;
    println!("{} transactions, {changed} sectors", replayed.transactions);
    Ok(())
}
