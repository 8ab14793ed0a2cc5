//! The partitions that a disk's contents tell of: `lost FILE [SECTOR_SIZE]`. Nothing is written.
#![allow(clippy::print_stdout, clippy::allow_attributes, reason = "a program")]

use blockdev::{BlockDevice, FileDevice};
use storage::lost::{propose, search};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: lost FILE [SECTOR_SIZE]")?;
    let sector_size = arguments.next().map_or(Ok(512), |size| size.parse())?;
    let disk = FileDevice::open(path.as_ref())?;
    let found = search(&disk, &mut |_| {});
    for partition in propose(&found.value, disk.size(), sector_size).partitions {
        println!(
            "{}: byte {}, {} bytes, {}",
            partition.number,
            partition.start,
            partition.length,
            partition.kind.name()
        );
        for line in &partition.evidence {
            println!("    {line}");
        }
    }
    for candidate in found.value.iter().filter(|candidate| candidate.rejected.is_some()) {
        let why = candidate.rejected.as_deref().unwrap_or_default();
        println!("not: byte {}, {}: {why}", candidate.start, candidate.kind.name());
    }
    for problem in found.problems {
        println!("problem: {problem}");
    }
    Ok(())
}
