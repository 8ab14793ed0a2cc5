//! The other commands: variables, entries, control, and those that change nothing that counts.

use std::sync::Arc;

use super::args::{self, ArgsError, Opt, Parsed, Takes, opt};
use super::error::{ErrorCode, GrubError};
use super::interpreter::{Call, Machine};
use super::known_commands::module_of;
use super::number::unsigned;
use super::report::{End, MenuEntry};
use super::script::{Body, Script};
use super::state::{OK, Status};
use super::value::Value;
use super::world::{Answer, SearchBy};

const ENTRIES: usize = 2000;

const MENU_OPTIONS: &[Opt] = &[
    opt("class", None, Takes::Text),
    opt("users", None, Takes::OptionalText),
    opt("hotkey", None, Takes::Text),
    opt("source", None, Takes::Text),
    opt("id", None, Takes::Text),
    opt("unrestricted", None, Takes::Nothing),
];

const REGEXP_OPTIONS: &[Opt] = &[opt("set", Some(b's'), Takes::Text)];
const LOOPBACK_OPTIONS: &[Opt] =
    &[opt("delete", Some(b'd'), Takes::Nothing), opt("decompress", Some(b'D'), Takes::Nothing)];
const SMBIOS_OPTIONS: &[Opt] = &[
    opt("type", Some(b't'), Takes::Text),
    opt("handle", Some(b'h'), Takes::Text),
    opt("match", Some(b'm'), Takes::Text),
    opt("get-byte", Some(b'b'), Takes::Text),
    opt("get-word", Some(b'w'), Takes::Text),
    opt("get-dword", Some(b'd'), Takes::Text),
    opt("get-qword", Some(b'q'), Takes::Text),
    opt("get-string", Some(b's'), Takes::Text),
    opt("get-uuid", Some(b'u'), Takes::Text),
    opt("set", None, Takes::Text),
];

impl Machine<'_> {
    pub(super) fn builtin(&mut self, call: &Call<'_>) -> Status {
        if let Some(module) = module_of(&call.name)
            && let Answer::Known(Err(error)) = self.world.module(module)
        {
            return self.error(&call.origin, error);
        }
        match call.name.as_str() {
            "test" | "[" => self.test(&call.args, &call.origin),
            "true" => OK,
            "false" => Status::Known(ErrorCode::TestFailure as i32),
            "set" => self.set(call),
            "unset" => self.unset(call),
            "export" if call.args.is_empty() => {
                self.error(&call.origin, GrubError::bad_argument("one argument expected"))
            }
            "menuentry" | "submenu" => self.menuentry(call),
            "search" => self.search(call),
            "search.fs_uuid" => self.plain_search(call, SearchBy::FsUuid),
            "search.fs_label" => self.plain_search(call, SearchBy::Label),
            "search.file" => self.plain_search(call, SearchBy::File),
            "load_env" => self.load_env(call),
            "save_env" | "list_env" => self.save_env(call),
            "insmod" => self.insmod(call),
            "blscfg" | "bls_import" => self.blscfg(call),
            "linux" | "linux16" | "linuxefi" => self.linux(call),
            "initrd" | "initrd16" | "initrdefi" => self.initrd(call),
            "chainloader" => self.chainloader(call),
            "multiboot"
            | "multiboot2"
            | "ntldr"
            | "freedos"
            | "plan9"
            | "truecrypt"
            | "pxechainloader"
            | "appleloader"
            | "kfreebsd"
            | "knetbsd"
            | "kopenbsd"
            | "xnu_kernel"
            | "xnu_kernel64"
            | "uki"
            | "xen_hypervisor"
            | "xnu_resume"
            | "coreboot_chainloader" => self.other_loader(call),
            "boot" => self.boot(call),
            "source" | "." => self.source(call, false, false),
            "configfile" => self.source(call, true, false),
            "extract_entries_source" => self.source(call, false, true),
            "extract_entries_configfile" => self.source(call, true, true),
            "normal" => self.normal(call),
            "eval" => self.eval(call),
            "break" => self.leave_loops(call, false),
            "continue" => self.leave_loops(call, true),
            "return" => self.return_from_function(call),
            "shift" => self.shift(call),
            "setparams" if self.state.scope.is_none() => Status::Known(ErrorCode::InvalidCommand as i32),
            "setparams" => {
                let values = call.args.iter().map(|arg| arg.value.clone()).collect();
                self.state.scope = Some(Arc::new(values));
                OK
            }
            "increment" | "decrement" => self.increment(call),
            "probe" => self.probe(call),
            "regexp" => self.regexp(call),
            "loopback" => self.loopback(call),
            "smbios" | "cpuid" => self.machine(call),
            "loadfont" => self.loadfont(call),
            // Nobody holds a key down.
            "keystatus" => Status::Known(ErrorCode::TestFailure as i32),
            "read" => {
                let unknown = self.unknown(&call.origin, "what a person would type");
                if let Some(name) = call.args.last().and_then(|arg| arg.value.known()) {
                    let name = name.to_vec();
                    self.set_variable(&name, Value::Unknown(unknown.clone()), Some(call.origin.clone()));
                }
                Status::Unknown(unknown)
            }
            "hwmatch" => {
                let unknown = self.unknown(&call.origin, "which graphics card there is");
                self.set_variable(b"match", Value::Unknown(unknown.clone()), Some(call.origin.clone()));
                Status::Unknown(unknown)
            }
            "halt" => self.end(End::Halt),
            "reboot" | "reset_boot" => self.end(End::Reboot),
            "exit" => self.end(End::Exit),
            "fwsetup" => self.fwsetup(call),
            "normal_exit" => self.end(End::Exit),
            name if HARMLESS.contains(&name) => OK,
            name if DECISIVE.contains(&name) => {
                let unknown = self.unknown(&call.origin, format!("what `{name}` does"));
                self.lose(unknown)
            }
            name => {
                let unknown = self.unknown(&call.origin, format!("whether `{name}` succeeds"));
                Status::Unknown(unknown)
            }
        }
    }

    fn end(&mut self, end: End) -> Status {
        self.state.end = Some(end);
        OK
    }

    fn fwsetup(&mut self, call: &Call<'_>) -> Status {
        if call.args.iter().any(|arg| arg.value.known() == Some(b"--is-supported")) {
            let unknown = self.unknown(&call.origin, "whether the firmware has a menu of its own");
            return Status::Unknown(unknown);
        }
        self.end(End::FirmwareSetup)
    }

    /// Splits options off; an error is printed.
    pub(super) fn options(
        &mut self,
        call: &Call<'_>,
        options: &[Opt],
        accepts_dash: bool,
    ) -> Result<Parsed, Status> {
        match args::parse(options, accepts_dash, &call.args) {
            Ok(parsed) => Ok(parsed),
            Err(ArgsError::Error(error)) => Err(self.error(&call.origin, error)),
            Err(ArgsError::Unknown(unknown)) => Err(Status::Unknown(unknown)),
        }
    }

    fn set(&mut self, call: &Call<'_>) -> Status {
        let Some(arg) = call.args.first() else { return OK };
        match &arg.value {
            Value::Known(bytes) => match bytes.iter().position(|byte| *byte == b'=') {
                Some(at) => {
                    self.set_variable(&bytes[..at], Value::from(&bytes[at + 1..]), Some(arg.origin.clone()));
                    OK
                }
                None => self.error(&call.origin, GrubError::bad_argument("not an assignment")),
            },
            Value::Unknown(unknown) => {
                // The name is written out in front of the `=`, whatever the value is.
                let written = call.simple.words.get(1).and_then(|word| word.parts.first());
                let name = match written {
                    Some(guest_files::grub_cfg::Part::Text(text)) => {
                        text.iter().position(|byte| *byte == b'=').map(|at| text[..at].to_vec())
                    }
                    _ => None,
                };
                match name {
                    Some(name) => {
                        self.set_variable(&name, Value::Unknown(unknown.clone()), Some(arg.origin.clone()));
                        OK
                    }
                    None => self.lose(unknown.clone()),
                }
            }
        }
    }

    fn unset(&mut self, call: &Call<'_>) -> Status {
        match call.args.first().map(|arg| &arg.value) {
            None => self.error(&call.origin, GrubError::bad_argument("one argument expected")),
            Some(Value::Known(name)) => {
                self.state.unset(name);
                OK
            }
            Some(Value::Unknown(unknown)) => self.lose(unknown.clone()),
        }
    }

    fn menuentry(&mut self, call: &Call<'_>) -> Status {
        let parsed = match self.options(call, MENU_OPTIONS, true) {
            Ok(parsed) => parsed,
            Err(status) => return status,
        };
        let has_block = call.simple.block.is_some();
        if parsed.rest.is_empty() && !has_block {
            return self.error(&call.origin, GrubError::bad_argument("missing arguments"));
        }
        let body = match (&call.simple.block, parsed.value("source")) {
            (Some(_), Some(_)) => {
                return self.error(&call.origin, GrubError::bad_argument("multiple menuentry definitions"));
            }
            (None, None) => {
                return self.error(&call.origin, GrubError::bad_argument("no menuentry definition"));
            }
            (Some(block), None) => {
                self.spend(block.span.len());
                Body {
                    script: call.script.clone(),
                    units: Arc::new(call.script.cfg.parse_block(block)),
                    ends_empty: call.script.cfg.ends_with_newline(block),
                }
            }
            (None, Some(source)) => match &source.value {
                Value::Known(text) => {
                    let mut text = text.to_vec();
                    // As an argument of the script it has no lines of its own; the last one is not empty.
                    let ends_empty = text.ends_with(b"\n");
                    text.push(b'\n');
                    let mut body = Body::whole(Script::made(text, Vec::new(), source.origin.clone()));
                    body.ends_empty = ends_empty;
                    body
                }
                Value::Unknown(unknown) => return self.lose(unknown.clone()),
            },
        };
        let Some(title) = parsed.rest.first() else {
            return self.error(&call.origin, GrubError::new(ErrorCode::Menu, "menuentry is missing title"));
        };
        let users = parsed.value("users").is_some();
        let entry = MenuEntry {
            title: title.value.clone(),
            id: parsed.value("id").map_or_else(|| title.value.clone(), |id| id.value.clone()),
            classes: parsed.values("class").map(|class| class.value.clone()).collect(),
            is_submenu: call.name == "submenu",
            is_restricted: users || !parsed.has("unrestricted"),
            origin: call.origin.clone(),
            is_bls: false,
            doubt: None,
            arguments: parsed.rest.iter().map(|arg| arg.value.clone()).collect(),
            body,
        };
        self.add_entry(entry)
    }

    pub(super) fn add_entry(&mut self, entry: MenuEntry) -> Status {
        if self.state.menu().len() >= ENTRIES {
            let unknown = self.unknown(&entry.origin, "what so long a menu holds");
            return self.lose(unknown);
        }
        if let Some(menu) = self.state.menu_mut() {
            menu.push(Arc::new(entry));
        }
        OK
    }

    /// A missing module is said, and counts as success.
    fn insmod(&mut self, call: &Call<'_>) -> Status {
        let Some(arg) = call.args.first() else {
            return self.error(&call.origin, GrubError::bad_argument("one argument expected"));
        };
        let Some(name) = arg.value.known() else { return OK };
        let name = String::from_utf8_lossy(name).into_owned();
        match self.world.module(&name) {
            Answer::Known(Ok(())) => self.state.has_wildcards |= name == "regexp",
            Answer::Known(Err(error)) => drop(self.error(&call.origin, error)),
            Answer::Unknown(reason) => drop(self.unknown(&call.origin, reason)),
        }
        OK
    }

    fn source(&mut self, call: &Call<'_>, is_new: bool, is_extract: bool) -> Status {
        let [file] = call.args.as_slice() else {
            return self.error(&call.origin, GrubError::bad_argument("filename expected"));
        };
        if let Value::Unknown(unknown) = &file.value {
            return self.lose(unknown.clone());
        }
        self.depth += 1;
        if is_extract {
            self.open_context();
            self.read_configuration(&file.value, &call.origin);
            if let Some(context) = self.state.close_context()
                && let Some(menu) = self.state.menu_mut()
            {
                menu.extend(context.menu.iter().cloned());
            }
        } else if is_new {
            self.open_context();
            self.read_configuration(&file.value, &call.origin);
            if self.state.end.is_none() && !self.state.menu().is_empty() {
                self.show_menu(false, &[], &call.origin);
            }
            if self.state.end.is_none() {
                self.state.close_context();
            }
        } else {
            self.read_configuration(&file.value, &call.origin);
        }
        self.depth -= 1;
        OK
    }

    fn normal(&mut self, call: &Call<'_>) -> Status {
        let config = match call.args.first() {
            Some(arg) => arg.value.clone(),
            None => match self.state.get(b"prefix").map(|prefix| prefix.value.clone()) {
                Some(Value::Known(prefix)) => Value::from([&*prefix, b"/grub.cfg"].concat()),
                Some(Value::Unknown(unknown)) => return self.lose(unknown),
                None => Value::from("/grub.cfg"),
            },
        };
        if let Value::Unknown(unknown) = &config {
            return self.lose(unknown.clone());
        }
        self.depth += 1;
        self.read_configuration(&config, &call.origin);
        self.enter_menu(&call.origin);
        self.depth -= 1;
        OK
    }

    fn eval(&mut self, call: &Call<'_>) -> Status {
        let known: Result<Vec<&[u8]>, _> = call.args.iter().map(|arg| arg.value.as_result()).collect();
        match known {
            Err(unknown) => self.lose(unknown),
            Ok(words) if words.is_empty() => OK,
            Ok(words) => {
                let text = words.join(&b' ');
                self.spend(text.len());
                let body = Body::whole(Script::made(text, Vec::new(), call.origin.clone()));
                self.run_body(&body)
            }
        }
    }

    fn leave_loops(&mut self, call: &Call<'_>, is_continue: bool) -> Status {
        let count = match call.args.as_slice() {
            [] => 1,
            [arg] => match arg.value.known().map(|text| unsigned(text, 10)) {
                Some((Ok(0), b"")) => {
                    return self.error(&call.origin, GrubError::bad_argument("can't break 0 loops"));
                }
                Some((Ok(count), b"")) => usize::try_from(count).unwrap_or(usize::MAX),
                Some((Err(_), _)) => return self.error(&call.origin, not_a_number()),
                _ => return self.error(&call.origin, GrubError::bad_argument("unrecognized number")),
            },
            _ => return self.error(&call.origin, GrubError::bad_argument("one argument expected")),
        };
        let flow = &mut self.state.flow;
        flow.is_continue = is_continue;
        flow.breaks = count.min(flow.loops);
        OK
    }

    fn return_from_function(&mut self, call: &Call<'_>) -> Status {
        if self.state.scope.is_none() || call.args.len() > 1 {
            return self.error(&call.origin, GrubError::bad_argument("not in function body"));
        }
        let status = match call.args.first() {
            None => self.state.status.clone().unwrap_or(OK),
            Some(arg) => match arg.value.as_result().map(|text| unsigned(text, 10)) {
                Err(unknown) => Status::Unknown(unknown),
                Ok((Ok(number), b"")) => {
                    let number = i32::try_from(number).unwrap_or(i32::MAX);
                    // `false` is printed for any number that is not that of a failed condition.
                    if number > 1 {
                        self.print(&call.origin, "false".to_owned());
                    }
                    Status::Known(number)
                }
                Ok((Err(_), _)) => return self.error(&call.origin, not_a_number()),
                Ok(_) => return self.error(&call.origin, GrubError::bad_argument("unrecognized number")),
            },
        };
        self.state.flow.returns = true;
        status
    }

    fn shift(&mut self, call: &Call<'_>) -> Status {
        let bad = Status::Known(ErrorCode::BadArgument as i32);
        let count = match call.args.as_slice() {
            [] => 1,
            [arg] => match arg.value.known().map(|text| unsigned(text, 10)) {
                Some((Ok(count), b"")) => usize::try_from(count).unwrap_or(usize::MAX),
                _ => return bad,
            },
            _ => return bad,
        };
        let Some(scope) = &self.state.scope else { return OK };
        match scope.get(count..) {
            Some(rest) => {
                self.state.scope = Some(Arc::new(rest.to_vec()));
                OK
            }
            None => bad,
        }
    }

    fn increment(&mut self, call: &Call<'_>) -> Status {
        let name = match call.args.as_slice() {
            [] => return self.error(&call.origin, GrubError::bad_argument("no variable specified")),
            [arg] => match &arg.value {
                Value::Known(name) => name.clone(),
                Value::Unknown(unknown) => return self.lose(unknown.clone()),
            },
            _ => return self.error(&call.origin, GrubError::bad_argument("too many arguments")),
        };
        let Some(variable) = self.state.get(&name).cloned() else {
            let text = format!("No such variable \"{}\"", String::from_utf8_lossy(&name));
            return self.error(&call.origin, GrubError::new(ErrorCode::FileNotFound, text));
        };
        match variable.value {
            Value::Unknown(_) => OK,
            Value::Known(text) => match unsigned(text.strip_prefix(b"-").unwrap_or(&text), 0).0 {
                Err(_) => {
                    self.error(&call.origin, GrubError::new(ErrorCode::BadNumber, "unrecognized number"))
                }
                Ok(number) => {
                    let number = i128::from(number) * if text.starts_with(b"-") { -1 } else { 1 };
                    let step = if call.name == "increment" { 1 } else { -1 };
                    let text = (number + step).to_string();
                    self.set_variable(&name, Value::from(text.as_str()), Some(call.origin.clone()));
                    OK
                }
            },
        }
    }

    /// Patterns are not matched; what they would set is unknown.
    fn regexp(&mut self, call: &Call<'_>) -> Status {
        self.state.has_wildcards = true;
        let parsed = match self.options(call, REGEXP_OPTIONS, false) {
            Ok(parsed) => parsed,
            Err(status) => return status,
        };
        let unknown = self.unknown(&call.origin, "what a regular expression matches");
        for set in parsed.values("set") {
            let Some(name) = set.value.known() else { return self.lose(unknown) };
            let start = name.iter().position(|byte| *byte == b':').map_or(0, |at| at + 1);
            self.set_variable(&name[start..], Value::Unknown(unknown.clone()), Some(call.origin.clone()));
        }
        Status::Unknown(unknown)
    }

    fn loopback(&mut self, call: &Call<'_>) -> Status {
        let parsed = match self.options(call, LOOPBACK_OPTIONS, false) {
            Ok(parsed) => parsed,
            Err(status) => return status,
        };
        let Some(name) = parsed.rest.first() else {
            return self.error(&call.origin, GrubError::bad_argument("device name required"));
        };
        let Some(name) = name.value.known() else {
            let unknown = self.unknown(&call.origin, "which loopback device is made");
            return self.lose(unknown);
        };
        let name = String::from_utf8_lossy(name).into_owned();
        if parsed.has("delete") {
            self.state.loopbacks.remove(&name);
            return OK;
        }
        let Some(file) = parsed.rest.get(1) else {
            return self.error(&call.origin, GrubError::bad_argument("filename expected"));
        };
        match self.open(&file.value, &call.origin) {
            Ok(_) => {
                self.state.loopbacks.insert(name);
                OK
            }
            Err(fail) => self.fail(&call.origin, fail),
        }
    }

    fn machine(&mut self, call: &Call<'_>) -> Status {
        let arguments: Vec<&[u8]> = call.args.iter().filter_map(|arg| arg.value.known()).collect();
        let set = match call.name.as_str() {
            "smbios" => match self.options(call, SMBIOS_OPTIONS, false) {
                Ok(parsed) => parsed.value("set").and_then(|set| set.value.known()).map(<[u8]>::to_vec),
                Err(status) => return status,
            },
            _ => None,
        };
        let (value, status) = match self.world.machine(&call.name, &arguments) {
            Answer::Known(None) => return Status::Known(ErrorCode::TestFailure as i32),
            Answer::Known(Some(value)) => (Value::from(value), OK),
            Answer::Unknown(reason) => {
                let unknown = self.unknown(&call.origin, reason);
                (Value::Unknown(unknown.clone()), Status::Unknown(unknown))
            }
        };
        if let Some(name) = set {
            self.set_variable(&name, value, Some(call.origin.clone()));
        }
        status
    }

    /// A missing font is said, and changes nothing that matters.
    fn loadfont(&mut self, call: &Call<'_>) -> Status {
        for arg in &call.args {
            let Ok(name) = arg.value.as_result() else { continue };
            let is_path = name.starts_with(b"(") || name.starts_with(b"/") || name.starts_with(b"+");
            let file = match self.state.get(b"prefix").map(|prefix| prefix.value.clone()) {
                Some(Value::Known(prefix)) if !is_path => {
                    Value::from([&*prefix, b"/fonts/", name, b".pf2"].concat())
                }
                _ => arg.value.clone(),
            };
            match self.open(&file, &call.origin) {
                Ok(_) => {}
                Err(fail) => return self.fail(&call.origin, fail),
            }
        }
        OK
    }
}

fn not_a_number() -> GrubError {
    GrubError::new(ErrorCode::BadNumber, "unrecognized number")
}

/// Commands that change nothing on the way to an entry, and that nothing depends on.
const HARMLESS: &[&str] = &[
    "export",
    "echo",
    "background_color",
    "background_image",
    "terminal_input",
    "terminal_output",
    "terminfo",
    "serial",
    "play",
    "clear",
    "sleep",
    "gettext",
    "cat",
    "ls",
    "lsmod",
    "lspci",
    "lsmmap",
    "lsacpi",
    "lsefi",
    "lsefimmap",
    "lsefisystab",
    "lsfonts",
    "videoinfo",
    "vbeinfo",
    "videotest",
    "help",
    "date",
    "hexdump",
    "keymap",
    "fix_video",
    "loadbios",
    "fakebios",
    "password",
    "password_pbkdf2",
    "parttool",
    "gptsync",
    "drivemap",
    "devicetree",
    "module",
    "module2",
    "acpi",
    "badram",
    "cutmem",
    "rmmod",
    "authenticate",
    "version",
    "usb",
    "sendkey",
    "btrfs-info",
    "btrfs-list-subvols",
    "xnu_kext",
    "xnu_kextdir",
    "xnu_mkext",
    "xnu_ramdisk",
    "xnu_devprop_load",
    "xnu_splash",
    "xnu_uuid",
    "kfreebsd_loadenv",
    "kfreebsd_module",
    "kfreebsd_module_elf",
    "knetbsd_module",
    "knetbsd_module_elf",
    "kopenbsd_ramdisk",
    "xen_module",
    "xen_initrd",
    "xen_linux",
    "efivar",
    "connectefi",
    "tpm2_key_protector_init",
    "tpm2_key_protector_clear",
];

/// Commands that bring in entries or devices in ways that are not followed.
const DECISIVE: &[&str] = &[
    "legacy_configfile",
    "legacy_source",
    "extract_legacy_entries_configfile",
    "extract_legacy_entries_source",
    "syslinux_configfile",
    "syslinux_source",
    "extract_syslinux_entries_configfile",
    "extract_syslinux_entries_source",
    "legacy_kernel",
    "legacy_initrd",
    "legacy_initrd_nounzip",
    "authenticate",
    "nativedisk",
    "btrfs-mount-subvol",
    "blsuki",
];
