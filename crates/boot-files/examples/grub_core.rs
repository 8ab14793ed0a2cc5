//! `grub_core DISK`: what the boot sector of a raw disk leads to.
#![expect(clippy::print_stdout, reason = "a program")]

use boot_files::grub_core::{BootCode, Core, block_list};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let disk = std::fs::read(std::env::args_os().nth(1).unwrap_or_default())?;
    if disk.starts_with(b"MZ") {
        println!("{:#?}", Core::from_efi(&disk));
        return Ok(());
    }
    let code = BootCode::recognise(disk.get(..512).unwrap_or_default());
    println!("{code:?}");
    if let Some(BootCode::Grub { core_sector, .. }) = code {
        let at = usize::try_from(core_sector)? * 512;
        let blocks = block_list(disk.get(at..at + 512).unwrap_or_default());
        println!("{blocks:?}");
        let mut core = Vec::new();
        for blocks in blocks.into_iter().flatten() {
            let start = usize::try_from(blocks.start)? * 512;
            core.extend(disk.get(start..start + usize::from(blocks.sectors) * 512).unwrap_or_default());
        }
        println!("{:#?}", Core::decode(&core));
    }
    Ok(())
}
