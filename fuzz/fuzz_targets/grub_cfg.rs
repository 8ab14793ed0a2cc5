//! grub.cfg: any script, parsed and run.
//!
//! The first byte chooses the release and the firmware, the rest is the script. Whatever it says, parsing must give
//! its bytes back, and running must end without a panic, and quickly.
#![no_main]

use boot::grub::{MemoryWorld, Platform, Release, Setup, Version, run};
use guest_files::grub_cfg::{GrubCfg, Reader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((choice, script)) = input.split_first() else { return };
    if script.len() > 16384 {
        return;
    }
    for reader in [Reader::Grub, Reader::ScriptCheck] {
        let cfg = GrubCfg::parse_as(script, reader);
        assert_eq!(cfg.to_bytes(), script);
        for command in cfg.all_commands(100) {
            for word in &command.words {
                let edited = guest_files::apply(script, &[cfg.set_word(word, b"x")]);
                assert!(edited.is_ok());
            }
        }
    }
    let release = match choice % 4 {
        0 => Release::upstream(Version::V2_06),
        1 => Release::upstream(Version::V2_14),
        2 => Release::rhel(8),
        _ => Release::fedora(42),
    };
    let platform = if choice & 4 == 0 { Platform::Bios } else { Platform::Efi };
    let world = if choice & 8 == 0 { MemoryWorld::new() } else { MemoryWorld::with_any_file() };
    let world = world
        .uuid("hd0,msdos1", "1-2")
        .file("hd0,msdos1", "/boot/grub/grub.cfg", script)
        .file("hd0,msdos1", "/boot/grub/grubenv", script)
        .file("hd0,msdos1", "/loader/entries/a-1.conf", script)
        .file("hd0,msdos1", "/loader/entries/a-2.conf", "title t\nlinux /k\noptions $x ro\n")
        .file("hd0,msdos1", "/k", "k");
    let run = run(&world, &Setup::new(release, platform, "hd0,msdos1", "/boot/grub"));
    assert!(run.steps <= 50_001);
});
