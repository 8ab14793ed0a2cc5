//! Whole configurations, in the manner of each distribution, run over devices in memory.

use std::path::{Path, PathBuf};

use boot::grub::{
    Choice, End, ErrorCode, GrubError, Load, MemoryWorld, Platform, Release, Run, Setup, Value, Version, run,
};
use guest_files::grubenv::Grubenv;

const DEVICE: &str = "hd0,msdos1";
const UUID: &str = "11111111-aaaa-4bbb-8ccc-000000000001";

fn upstream() -> Setup {
    Setup::new(Release::upstream(Version::V2_06), Platform::Bios, DEVICE, "/boot/grub")
}

fn red_hat(major: u32) -> Setup {
    Setup::new(Release::rhel(major), Platform::Bios, DEVICE, "/grub2")
}

/// The end in one line: what boots, or why nothing does.
fn told(run: &Run) -> String {
    match &run.end {
        End::Boots(load) => match &**load {
            Load::Linux(linux) => {
                let initrds: Vec<_> =
                    linux.initrds.iter().map(|file| file.path.text().into_owned()).collect();
                let line = linux.command_line().unwrap_or_else(|| "?".to_owned());
                let (device, kernel) = (linux.kernel.device.text(), linux.kernel.path.text());
                format!("({device}){kernel} [{line}] {}", initrds.join(" ")).trim_end().to_owned()
            }
            Load::Chain { file, .. } => format!("chain ({}){}", file.device.text(), file.path.text()),
            Load::Other { command, .. } => format!("other {command}"),
        },
        End::Unknown(unknown) => format!("unknown: {unknown}"),
        end => format!("{end:?}"),
    }
}

fn errors(run: &Run) -> Vec<String> {
    run.messages.iter().map(|message| format!("{}: {}", message.origin.line, message.text)).collect()
}

fn small(script: &str) -> Run {
    let world = MemoryWorld::new()
        .uuid(DEVICE, UUID)
        .label(DEVICE, "root")
        .file(DEVICE, "/boot/grub/grub.cfg", script)
        .file(DEVICE, "/k", "kernel")
        .file(DEVICE, "/i", "initrd")
        .file(DEVICE, "/old", "kernel");
    run(&world, &upstream())
}

fn small_ends(script: &str, end: &str) {
    assert_eq!(told(&small(script)), end, "{script}");
}

const DEBIAN: &str = include_str!("debian.cfg");

fn debian(default: &[(&str, &[u8])]) -> MemoryWorld {
    MemoryWorld::new()
        .uuid(DEVICE, UUID)
        .file(DEVICE, "/boot/grub/grub.cfg", DEBIAN)
        .file(DEVICE, "/boot/grub/grubenv", Grubenv::build(default).unwrap())
        .file(DEVICE, "/boot/vmlinuz-6.1.0-2", "k2")
        .file(DEVICE, "/boot/initrd.img-6.1.0-2", "i2")
        .file(DEVICE, "/boot/vmlinuz-6.1.0-1", "k1")
        .file(DEVICE, "/boot/initrd.img-6.1.0-1", "i1")
}

const NEW: &str = "(hd0,msdos1)/boot/vmlinuz-6.1.0-2 [root=UUID=11111111-aaaa-4bbb-8ccc-000000000001 ro quiet] /boot/initrd.img-6.1.0-2";
const OLD: &str = "(hd0,msdos1)/boot/vmlinuz-6.1.0-1 [root=UUID=11111111-aaaa-4bbb-8ccc-000000000001 ro quiet] /boot/initrd.img-6.1.0-1";

#[test]
fn debian_boots_its_default() {
    let run = run(&debian(&[]), &upstream());
    assert_eq!(told(&run), NEW);
    assert_eq!(run.menu.len(), 2);
    assert_eq!((run.timeout, errors(&run)), (Some(5), Vec::new()));
    assert_eq!(run.choice, Choice::Entry { path: vec![0], is_named: false });
    assert!(run.unknowns.is_empty());
    let Some(Load::Linux(linux)) = run.load() else { panic!() };
    let argument = &linux.arguments[0];
    assert_eq!(&DEBIAN[argument.origin.span.clone()], format!("root=UUID={UUID}"));
    assert_eq!(&*linux.origin.file, "(hd0,msdos1)/boot/grub/grub.cfg");
    assert!(DEBIAN.lines().nth(linux.origin.line - 1).unwrap().starts_with("\tlinux"));
}

#[test]
fn debian_follows_its_environment() {
    let old = b"gnulinux-advanced-1>gnulinux-6.1.0-1".as_slice();
    let run_with = |environment: &[(&str, &[u8])]| run(&debian(environment), &upstream());
    let saved = run_with(&[("saved_entry", old)]);
    assert_eq!(told(&saved), OLD);
    assert_eq!(saved.choice, Choice::Entry { path: vec![1, 1], is_named: true });
    assert_eq!(saved.default_entry().unwrap().title.text(), "Debian, with Linux 6.1.0-1");
    assert_eq!(told(&run_with(&[("saved_entry", b"1>1")])), OLD);
    assert_eq!(told(&run_with(&[("next_entry", b"1>1"), ("saved_entry", b"0")])), OLD);
    assert_eq!(told(&run_with(&[("saved_entry", b"gone")])), NEW);
    assert_eq!(run_with(&[("recordfail", b"1")]).timeout, Some(30));
    let mut broken = Grubenv::build(&[]).unwrap();
    broken[0] = b'?';
    let run = run(&debian(&[]).file(DEVICE, "/boot/grub/grubenv", broken), &upstream());
    assert_eq!((told(&run).as_str(), errors(&run)), (NEW, vec!["3: invalid environment block".to_owned()]));
}

#[test]
fn debian_with_something_missing() {
    let gone = MemoryWorld::new().uuid(DEVICE, UUID).file(DEVICE, "/boot/grub/grub.cfg", DEBIAN).file(
        DEVICE,
        "/boot/initrd.img-6.1.0-2",
        "i2",
    );
    let run_it = |world: &MemoryWorld| run(world, &upstream());
    let no_kernel = run_it(&gone);
    assert_eq!(no_kernel.end, End::Menu { after_failure: true });
    assert_eq!(
        no_kernel.messages.iter().map(boot::grub::Message::screen).collect::<Vec<_>>(),
        ["error: file `/boot/vmlinuz-6.1.0-2' not found.", "error: you need to load the kernel first."]
    );
    assert_eq!(no_kernel.attempts.len(), 1);
    // The line behind `initrd` is empty and counts as success: the kernel starts without one.
    let no_initrd = run_it(&gone.clone().file(DEVICE, "/boot/vmlinuz-6.1.0-2", "k"));
    assert!(told(&no_initrd).ends_with(" /boot/initrd.img-6.1.0-2"));
    let world = MemoryWorld::new().uuid(DEVICE, UUID).file(DEVICE, "/boot/grub/grub.cfg", DEBIAN);
    let no_initrd = world.clone().file(DEVICE, "/boot/vmlinuz-6.1.0-2", "k");
    let old = run_it(&no_initrd);
    assert!(told(&old).ends_with("quiet]"), "{}", told(&old));
    let newer = Setup { release: Release::upstream(Version::V2_14), ..upstream() };
    assert_eq!(run(&no_initrd, &newer).end, End::Menu { after_failure: true });
    let empty = run_it(&world.clone().file(DEVICE, "/boot/vmlinuz-6.1.0-2", ""));
    assert!(errors(&empty)[0].ends_with("premature end of file /boot/vmlinuz-6.1.0-2"));
    let other_uuid = debian(&[]).uuid(DEVICE, "other");
    let wrong_uuid = run_it(&other_uuid);
    assert_eq!(told(&wrong_uuid), NEW);
    assert!(errors(&wrong_uuid)[0].ends_with(&format!("no such device: {UUID}")));
    let moved =
        run(&debian(&[]).uuid(DEVICE, "other"), &Setup { root: "hd1,msdos1".to_owned(), ..upstream() });
    assert!(told(&moved).starts_with("(hd0,msdos1)"));
    let no_config = run_it(&MemoryWorld::new().uuid(DEVICE, UUID));
    assert_eq!((no_config.end, no_config.choice), (End::Prompt, Choice::NoMenu));
    let module = run_it(&debian(&[]).without_module("ext2"));
    assert_eq!(told(&module), NEW);
    assert!(errors(&module)[0].ends_with("ext2.mod' not found"));
}

const RHEL9: &str = include_str!("rhel9.cfg");

fn bls(version: &str, options: &str) -> String {
    format!(
        "title Red Hat Enterprise Linux ({version}) 9.1 (Plow)\nversion {version}\nlinux /vmlinuz-{version}\n\
         initrd /initramfs-{version}.img $tuned_initrd\noptions {options}\ngrub_users $grub_users\n\
         grub_arg --unrestricted\ngrub_class rhel\n"
    )
}

fn rhel9(environment: &[(&str, &[u8])], options: &str) -> MemoryWorld {
    let mut world = MemoryWorld::new().uuid(DEVICE, UUID).file(DEVICE, "/grub2/grub.cfg", RHEL9).file(
        DEVICE,
        "/grub2/grubenv",
        Grubenv::build(environment).unwrap(),
    );
    for version in ["5.14.0-70.el9", "5.14.0-162.el9", "0-rescue"] {
        world = world
            .file(DEVICE, &format!("/loader/entries/id-{version}.conf"), bls(version, options))
            .file(DEVICE, &format!("/vmlinuz-{version}"), "k")
            .file(DEVICE, &format!("/initramfs-{version}.img"), "i");
    }
    world
}

#[test]
fn rhel_reads_bls_entries() {
    let world = rhel9(&[], "root=/dev/mapper/r ro $tuned_params");
    let run_it = |world: &MemoryWorld| run(world, &red_hat(9));
    let newest = run_it(&world);
    assert_eq!(
        told(&newest),
        "(hd0,msdos1)/vmlinuz-5.14.0-162.el9 [root=/dev/mapper/r ro] /initramfs-5.14.0-162.el9.img"
    );
    let titles: Vec<_> = newest.menu.iter().map(|entry| entry.id.text().into_owned()).collect();
    assert_eq!(titles, ["id-5.14.0-162.el9", "id-5.14.0-70.el9", "id-0-rescue"]);
    assert!(!newest.menu[0].is_restricted && newest.menu[0].is_bls);
    let Some(Load::Linux(linux)) = newest.load() else { panic!() };
    let origin = &linux.arguments[0].origin;
    assert_eq!((&*origin.file, origin.line), ("(hd0,msdos1)/loader/entries/id-5.14.0-162.el9.conf", 5));
    let file = bls("5.14.0-162.el9", "root=/dev/mapper/r ro $tuned_params");
    assert_eq!(&file[origin.span.clone()], "root=/dev/mapper/r");
    let kernel = &linux.kernel.origin;
    assert_eq!(kernel.line, 3);

    let saved = rhel9(
        &[("saved_entry", b"id-5.14.0-70.el9"), ("tuned_params", b"a=1 b=2"), ("boot_success", b"1")],
        "x ro $tuned_params",
    );
    assert_eq!(
        told(&run_it(&saved)),
        "(hd0,msdos1)/vmlinuz-5.14.0-70.el9 [x ro a=1 b=2] /initramfs-5.14.0-70.el9.img"
    );
    assert_eq!(run_it(&saved).timeout, Some(1));
    let Some(Load::Linux(linux)) = run_it(&saved).load().cloned() else { panic!() };
    assert_eq!(&*linux.arguments[2].origin.file, "(hd0,msdos1)/grub2/grubenv");

    let kernelopts = rhel9(&[("kernelopts", b"root=/dev/vda2 ro")], "$kernelopts");
    assert!(told(&run_it(&kernelopts)).contains("[root=/dev/vda2 ro]"));
    let default = run(&rhel9(&[], "$kernelopts"), &red_hat(8));
    assert!(told(&default).contains("[root=/dev/mapper/default ro]"), "{}", told(&default));

    let index = run_it(&rhel9(&[("saved_entry", b"2")], "ro x"));
    assert!(told(&index).contains("0-rescue"));
    let unknown =
        rhel9(&[], "ro x").unknown(DEVICE, "/loader/entries/zz-9.conf", "a file that cannot be read");
    let unknown = run_it(&unknown);
    assert!(told(&unknown).starts_with("unknown: (hd0,msdos1)/grub2/grub.cfg:"), "{}", told(&unknown));
    assert!(told(&unknown).ends_with("a file that cannot be read"));
}

#[test]
fn without_blscfg_there_is_a_message_and_no_menu() {
    let world =
        MemoryWorld::new().uuid(DEVICE, UUID).file(DEVICE, "/grub2/grub.cfg", "set timeout=5\nblscfgx\n");
    let run = run(&world, &red_hat(9));
    assert_eq!(
        (run.end.clone(), errors(&run)),
        (End::Prompt, vec!["2: can't find command `blscfgx'".to_owned()])
    );
}

#[test]
fn a_stub_hands_over() {
    let world = debian(&[]).uuid("hd0,gpt1", "AAAA-BBBB").file(
        "hd0,gpt1",
        "/EFI/debian/grub.cfg",
        format!("search.fs_uuid {UUID} root \nset prefix=($root)'/boot/grub'\nconfigfile $prefix/grub.cfg\n"),
    );
    let setup = Setup::new(Release::upstream(Version::V2_06), Platform::Efi, "hd0,gpt1", "/EFI/debian");
    let handed_over = run(&world, &setup);
    assert_eq!(told(&handed_over), NEW);
    assert_eq!(handed_over.files.len(), 2);
    let lost = MemoryWorld::new().file(
        "hd0,gpt1",
        "/EFI/debian/grub.cfg",
        format!("search.fs_uuid {UUID} root\nconfigfile $prefix/grub.cfg2\n"),
    );
    let lost = run(&lost, &setup);
    assert_eq!((lost.end.clone(), errors(&lost)), (End::Prompt, vec![format!("1: no such device: {UUID}")]));
}

#[test]
fn suse_arch_and_foreign_entries() {
    let suse = "set btrfs_relative_path=\"yes\"\nexport btrfs_relative_path\nif [ -f ${config_directory}/grubenv ]; then load_env; fi\n\
        set default=\"SLES\"\nif [ -n \"$extra_cmdline\" ]; then submenu \"Bootable snapshot #$snapshot_num\" { menuentry a { true; } }; fi\n\
        set timeout=8\nmenuentry 'SLES'  --class sles $menuentry_id_option 'gnulinux-simple' {\n\tload_video\n\tset gfxpayload=keep\n\
        \tsearch --no-floppy --fs-uuid --set=root 11111111-aaaa-4bbb-8ccc-000000000001\n\techo\t'Loading'\n\
        \tlinux\t/k root=UUID=1 ${extra_cmdline} splash=silent\n\tinitrd\t/i\n}\n\
        if [ -f \"/.snapshots/grub-snapshot.cfg\" ]; then\n  source \"/.snapshots/grub-snapshot.cfg\"\nfi\n";
    let suse = small(suse);
    assert_eq!(told(&suse), "(hd0,msdos1)/k [root=UUID=1 splash=silent] /i");
    assert_eq!(errors(&suse), ["8: can't find command `load_video'"]);
    small_ends(
        "set timeout=3\nmenuentry 'Arch' --class arch {\n\tlinux /k root=UUID=2 rw\n\tinitrd /i /i\n}\n",
        "(hd0,msdos1)/k [root=UUID=2 rw] /i /i",
    );
    small_ends("set timeout=0\nmenuentry W { insmod chain; chainloader +1 }", "chain (hd0,msdos1)+1");
    small_ends("set timeout=0\nmenuentry W { chainloader (hd0,msdos1)/k }", "chain (hd0,msdos1)/k");
    small_ends("set timeout=0\nmenuentry m { multiboot /k a; module /i }", "other multiboot");
    small_ends("linux /k a='b c' \"d e\"\ninitrd /i\nboot\n", "(hd0,msdos1)/k [a=b c d e] /i");
}

#[test]
fn fallbacks_ends_and_waits() {
    small_ends(
        "set timeout=0\nset fallback=1\nmenuentry a { linux /gone }\nmenuentry b { linux /old; }\n",
        "(hd0,msdos1)/old []",
    );
    // With the `}` on a line of its own the failure is not seen; upstream does not ask.
    small_ends(
        "set timeout=0\nset fallback=1\nmenuentry a {\nlinux /gone\n}\nmenuentry b { linux /old; }\n",
        "(hd0,msdos1)/old []",
    );
    small_ends("menuentry a { linux /k; }\n", "Menu { after_failure: false }");
    small_ends("set timeout=-1\nmenuentry a { linux /k; }\n", "Menu { after_failure: false }");
    small_ends("set timeout=0\nset superusers=root\nmenuentry a { linux /k; }\n", "Password");
    small_ends(
        "set timeout=0\nset superusers=root\nmenuentry a --unrestricted { linux /k; }\n",
        "(hd0,msdos1)/k []",
    );
    small_ends("set timeout=0\nmenuentry a { reboot }\n", "Reboot");
    small_ends("set timeout=0\nmenuentry a { halt; }\n", "Halt");
    small_ends("set timeout=0\nmenuentry a { fwsetup }\n", "FirmwareSetup");
    small_ends("exit\n", "Exit");
    small_ends("normal /gone\n", "Prompt");
    small_ends("set timeout=0\nmenuentry a { linux16 /k; initrd /i; }\n", "Menu { after_failure: true }");
    small_ends("set timeout=0\nmenuentry a { linux /k b; initrd newc:x:/i; }\n", "(hd0,msdos1)/k [b] /i");
    small_ends(
        "set timeout=0\nset default=1\nmenuentry a { true; }\nmenuentry b { configfile /c.cfg; }\n",
        "Menu { after_failure: true }",
    );
    let extracted =
        small("extract_entries_source /gone\nset timeout=0\nmenuentry a { linux ($root)/k $prefix; }\n");
    assert_eq!(told(&extracted), "(hd0,msdos1)/k [(hd0,msdos1)/boot/grub]");
}

#[test]
fn errors_have_grubs_words() {
    let errors_of = |script: &str| errors(&small(script)).join(" | ");
    for (script, expected) in [
        ("linux", "1: filename expected"),
        ("linux (hd0,msdos1)/gone", "1: file `/gone' not found"),
        ("linux (hd0,msdos9)/k", "1: no such partition"),
        ("linux (hd7,msdos1)/k", "1: disk `hd7,msdos1' not found"),
        ("linux (hd0/k", "1: missing `)' symbol"),
        ("linux k", "1: invalid file name `k'"),
        ("linux /", "1: not a regular file"),
        ("initrd /i", "1: you need to load the kernel first"),
        ("boot", "1: you need to load the kernel first"),
        ("unset root; linux /k", "1: variable `root' isn't set"),
        ("lin", "1: can't find command `lin'"),
        ("search --set=root --label nope", "1: no such device: nope"),
        ("load_env", "1: file `/boot/grub/grubenv' not found"),
        ("menuentry a", "1: no menuentry definition"),
        ("if", "1: out of memory | 1: syntax error | 1: Incorrect command | 1: syntax error"),
    ] {
        assert_eq!(errors_of(script), expected, "{script}");
    }
    let broken = MemoryWorld::new()
        .file(DEVICE, "/boot/grub/grub.cfg", "set root=hd1,gpt1\nlinux /k\nset root=hd0,msdos1\nlinux /k\n")
        .broken("hd1,gpt1", GrubError::unknown_filesystem())
        .damaged(DEVICE, "/k", 10, GrubError::new(ErrorCode::FileReadError, "premature end of file /k"));
    assert_eq!(errors(&run(&broken, &upstream())), ["2: unknown filesystem", "4: premature end of file /k"]);
}

#[test]
fn what_is_not_known_has_a_line() {
    // Both ways lead to the same kernel: it boots, and only the argument is unknown.
    let same = small(
        "smbios --type 1 --get-string 5 --set x\nset timeout=1\nif [ \"$x\" = y ]; then a=1; else a=1; fi\nmenuentry a { linux /k $x $a; }\n",
    );
    let Some(Load::Linux(linux)) = same.load() else { panic!("{}", told(&same)) };
    assert!(
        matches!(linux.arguments[0].value, Value::Unknown(_)) && linux.arguments[1].value == Value::from("1")
    );
    assert_eq!(same.unknowns.len(), 1);
    let differs = small(
        "set timeout=1\nif cpuid -l; then set default=1; fi\nmenuentry a { linux /k; }\nmenuentry b { linux /old; }\n",
    );
    assert_eq!(
        told(&differs),
        "unknown: (hd0,msdos1)/boot/grub/grub.cfg:2: what `cpuid` says of this machine"
    );
    assert_eq!(differs.menu.len(), 2);
    let entry = small(
        "set timeout=1\nset default=b\nif cpuid -l; then menuentry x { true; }; fi\nmenuentry b { linux /k; }\n",
    );
    assert!(told(&entry).starts_with("unknown: (hd0,msdos1)/boot/grub/grub.cfg:3"));
    small_ends(
        "set timeout=1\nif hwmatch a 3; then if [ $match = 0 ]; then m=keep; fi; fi\nmenuentry a { set gfxpayload=$m; linux /k; }\n",
        "(hd0,msdos1)/k []",
    );
    let pattern = small("set timeout=1\nregexp --set 1:v '(.*)-x' a-x\nmenuentry a { linux /$v; }\n");
    assert!(told(&pattern).contains("grub.cfg:2: what a regular expression matches"));
    let legacy = small("legacy_configfile /menu.lst\n");
    assert!(told(&legacy).contains("what `legacy_configfile` does"));
    let loopback = small("set timeout=0\nmenuentry a { loopback loop /i; linux (loop)/k; }\n");
    assert!(told(&loopback).contains("loopback device loop"));
}

#[test]
fn nothing_runs_for_ever() {
    for script in [
        "while true; do true; done",
        "function f { f; }\nf",
        "x=a; while true; do x=$x$x; done",
        "while true; do eval 'while true; do true; done'; done",
        "source /boot/grub/grub.cfg",
        "configfile /boot/grub/grub.cfg",
        "for i in 1 2 3 4 5 6 7 8 9; do for j in $i $i $i; do while true; do menuentry a { true; }; done; done; done",
        "while cpuid; do if cpuid; then x=$x.; fi; done; while cpuid; do while cpuid; do y=$y.$x; done; done",
        "set timeout=0\nmenuentry a { configfile /boot/grub/grub.cfg; }",
        "set timeout=0\nsubmenu a { source /boot/grub/grub.cfg; }",
        &format!("if cpuid; then a\n{}fi", "elif cpuid; then b\n".repeat(5000)),
        "x='a '; while true; do x=$x$x; for i in $x; do true; done; done",
        "set timeout=0\nx='0 '\nfor i in 1 2 3 4 5 6 7 8 9 10; do x=\"$x$x\"; done\nset fallback=\"$x\"\n\
         menuentry a --source 'function f { a; }; false'",
    ] {
        let run = small(script);
        let shown = script.get(..script.len().min(200)).unwrap();
        let is_over = matches!(run.end, End::Unknown(_) | End::Prompt | End::Menu { .. });
        assert!(is_over, "{shown}: {}", told(&run));
        assert!(run.steps < 60_000);
    }
}

#[test]
fn any_script_ends() {
    let mut state = 9_u64;
    let mut random = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit
    };
    let samples = [DEBIAN, RHEL9];
    let words = [
        "if ",
        "then ",
        "fi\n",
        "$x",
        "while true; do ",
        "done\n",
        "{",
        "}",
        "submenu a ",
        "configfile $prefix/grub.cfg\n",
        "cpuid; ",
        "'",
        "set default=1>1\n",
    ];
    let mut booted = 0;
    for round in 0..20_000 {
        let mut bytes = samples[round % 2].as_bytes().to_vec();
        for _ in 0..random(5) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = b"\n\r\0'\"\\{}$;#[ x\xff0"[random(16)],
                1 => drop(bytes.drain(at..(at + random(30)).min(bytes.len()))),
                _ => drop(bytes.splice(at..at, words[random(words.len())].bytes())),
            }
        }
        let (world, setup) = match round % 2 {
            0 => (debian(&[]).file(DEVICE, "/boot/grub/grub.cfg", bytes), upstream()),
            _ => (rhel9(&[], "ro $x").file(DEVICE, "/grub2/grub.cfg", bytes), red_hat(9)),
        };
        booted += usize::from(run(&world, &setup).load().is_some());
    }
    assert!(booted > 8000, "{booted} still boot");
}

fn corpus() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus");
    let path = std::env::var_os("GUESTMEND_CORPUS").map_or(default, PathBuf::from);
    path.is_dir().then_some(path)
}

#[test]
fn the_corpus_runs_to_an_entry() {
    let Some(corpus) = corpus() else {
        println!("skipped: no corpus");
        return;
    };
    let mut files = vec![
        corpus.join("snapd/grub.cfg"),
        corpus.join("leapp/ensurevalidgrubcfghybrid_tests_files_invalid_grub.cfg"),
    ];
    for (folder, prefix) in [("insights-core/grub.cfg", "grub_conf"), ("grubby/test", "grub2.")] {
        let entries = std::fs::read_dir(corpus.join(folder)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
        files.extend(paths.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(prefix)));
    }
    files.sort();
    let mut with_entry = 0;
    for path in files {
        let bytes = std::fs::read(&path).unwrap();
        let world = MemoryWorld::with_any_file()
            .file(DEVICE, "/boot/grub/grub.cfg", bytes)
            .file(DEVICE, "/boot/grub/grubenv", Grubenv::build(&[]).unwrap())
            .file(DEVICE, "/EFI/ubuntu/grubenv", Grubenv::build(&[]).unwrap());
        let setup = Setup { release: Release::rhel(7), platform: Platform::Efi, ..upstream() };
        let run = run(&world, &setup);
        let entry = run.default_entry().map(|entry| entry.title.text().into_owned());
        with_entry += usize::from(entry.is_some());
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        println!(
            "{name} | {} entries | {} | {} | {} unknown | {} errors",
            run.menu.len(),
            entry.unwrap_or_default(),
            told(&run),
            run.unknowns.len(),
            run.messages.len()
        );
    }
    assert!(with_entry >= 20, "{with_entry}");
}
