//! What Linux, GRUB and OVMF would see on disks, for scripts/oracles/partitions.py.
//!
//! Arguments: FILE or FILE:SECTOR_SIZE. Prints for each: the name; the table's partitions; the three judgements; the
//! problems. Values of a partition are number, first byte, length.
#![allow(clippy::print_stdout, reason = "a program")]

use std::sync::Arc;

use blockdev::{BlockDevice, Device, Extent, FileDevice};
use volume::{Judgement, read_table};

/// A disk with another sector size.
#[derive(Debug)]
struct Sized(Device, u32);

impl BlockDevice for Sized {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn sector_size(&self) -> u32 {
        self.1
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
    fn extent_at(&self, offset: u64) -> std::io::Result<Extent> {
        self.0.extent_at(offset)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for argument in std::env::args().skip(1) {
        let (path, sector_size) = match argument.rsplit_once(':') {
            Some((path, size)) => (path.to_owned(), size.parse()?),
            None => (argument.clone(), 512),
        };
        let disk = Sized(Arc::new(FileDevice::open(path.as_ref())?), sector_size);
        println!("disk {argument}");
        let judges = volume::judge::all(&disk);
        for (name, judgement) in [("linux", &judges.linux), ("grub", &judges.grub), ("ovmf", &judges.ovmf)] {
            let seen: Vec<String> = judgement
                .partitions()
                .iter()
                .map(|seen| format!("{},{},{}", seen.number, seen.start, seen.length))
                .collect();
            let verdict = if matches!(judgement, Judgement::Accepts { .. }) { "accepts" } else { "rejects" };
            println!("{name} {verdict} [{}] {judgement}", seen.join(" "));
        }
        let Some(table) = read_table(&disk)? else {
            println!("table none []");
            continue;
        };
        let listed: Vec<String> =
            table.value.partitions.iter().map(|p| format!("{},{},{}", p.number, p.start, p.length)).collect();
        println!("table {} [{}]", table.value.kind.name(), listed.join(" "));
        for problem in &table.problems {
            println!("problem {problem}");
        }
    }
    Ok(())
}
