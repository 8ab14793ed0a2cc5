//! Runs scripts: lists, conditions, loops, functions, and the configuration as a whole.

use std::collections::BTreeSet;
use std::sync::Arc;

use guest_files::grub_cfg::{Command, Simple, SyntaxErrorKind, Unit, Word};

use super::error::{ErrorCode, GrubError};
use super::expand::Arg;
use super::report::{Choice, End, Message, Run};
use super::script::{Body, Origin, Script};
use super::state::{Function, OK, State, Status, Variable};
use super::value::{Unknown, Value};
use super::world::{Answer, Lookup, Place, Platform, Setup, Version, World};

/// Commands in one run.
const STEPS: usize = 50_000;
/// Conditions that go both ways in one run.
const FORKS: usize = 300;
/// Bytes that words expand to, and that scripts hold, in one run.
const BYTES: usize = 16 << 20;
/// GRUB's own bound on nested commands, menus and files.
const DEPTH: usize = 64;
/// Longest configuration file, in bytes.
pub(super) const LONGEST_FILE: usize = 1 << 20;
const MESSAGES: usize = 300;
const UNKNOWNS: usize = 300;
const VARIABLES: usize = 2000;
const FUNCTIONS: usize = 1000;
/// Bytes of a variable.
const LONGEST_VALUE: usize = 64 << 10;

/// Runs the configuration that `setup` names, in `world`, until something starts or a person is needed.
pub fn run(world: &dyn World, setup: &Setup) -> Run {
    let mut machine = Machine::new(world, setup);
    machine.start();
    machine.report()
}

/// Why a file or a value is not to be had.
#[derive(Debug)]
pub(super) enum Fail {
    Error(GrubError),
    Unknown(Arc<Unknown>),
}

impl From<Arc<Unknown>> for Fail {
    fn from(unknown: Arc<Unknown>) -> Self {
        Self::Unknown(unknown)
    }
}

impl From<GrubError> for Fail {
    fn from(error: GrubError) -> Self {
        Self::Error(error)
    }
}

/// A command with its arguments expanded.
pub(super) struct Call<'a> {
    pub(super) script: &'a Arc<Script>,
    pub(super) simple: &'a Simple,
    pub(super) origin: Origin,
    pub(super) name: String,
    pub(super) args: Vec<Arg>,
}

pub(super) struct Machine<'w> {
    pub(super) world: &'w dyn World,
    pub(super) setup: &'w Setup,
    pub(super) state: State,
    pub(super) depth: usize,
    /// What `test` would say of a number that is none.
    pub(super) number_error: Option<&'static str>,
    steps: usize,
    forks: usize,
    bytes: usize,
    unknowns: Vec<Unknown>,
    seen_unknowns: BTreeSet<(String, usize, String)>,
    pub(super) files: Vec<(Arc<str>, Vec<u8>)>,
}

impl<'w> Machine<'w> {
    fn new(world: &'w dyn World, setup: &'w Setup) -> Self {
        Self {
            world,
            setup,
            state: State::new(),
            depth: 0,
            number_error: None,
            steps: 0,
            forks: 0,
            bytes: 0,
            unknowns: Vec::new(),
            seen_unknowns: BTreeSet::new(),
            files: Vec::new(),
        }
    }

    fn start(&mut self) {
        let (cpu, platform) = match self.setup.platform {
            Platform::Bios => ("i386", "pc"),
            Platform::Efi => ("x86_64", "efi"),
        };
        let mut variables = vec![
            ("root".to_owned(), self.setup.root.clone()),
            ("prefix".to_owned(), self.setup.prefix.clone()),
            ("grub_cpu".to_owned(), cpu.to_owned()),
            ("grub_platform".to_owned(), platform.to_owned()),
        ];
        let newer = if self.setup.release.version >= Version::V2_12 { FEATURES_2_12 } else { &[] };
        for feature in FEATURES.iter().chain(newer) {
            variables.push((format!("feature_{feature}"), "y".to_owned()));
        }
        variables.extend(self.setup.variables.iter().cloned());
        for (name, value) in variables {
            self.state.set(name.as_bytes(), Value::from(value.as_str()), None);
        }
        let config = self.setup.config.clone().unwrap_or_else(|| format!("{}/grub.cfg", self.setup.prefix));
        let origin = Origin { file: config.as_str().into(), line: 0, span: 0..0 };
        self.read_configuration(&Value::from(config.as_str()), &origin);
        self.enter_menu(&origin);
    }

    /// The menu if there is one, else the prompt.
    pub(super) fn enter_menu(&mut self, origin: &Origin) {
        if self.state.end.is_none() && !self.state.menu().is_empty() {
            self.show_menu(false, &[], origin);
        }
        if self.state.end.is_none() {
            self.state.shown.get_or_insert((Vec::new(), Choice::NoMenu, None));
            self.state.end = Some(End::Prompt);
        }
    }

    fn report(self) -> Run {
        let (menu, choice, timeout) = match self.state.shown {
            Some(shown) => shown,
            None => {
                let choice = match &self.state.end {
                    Some(End::Unknown(unknown)) => Choice::Unknown(unknown.clone()),
                    _ => Choice::NoMenu,
                };
                let menu = self.state.contexts.last().map(|context| context.menu.clone());
                (menu.unwrap_or_default(), choice, None)
            }
        };
        let variables = self.state.contexts.last().map(|context| {
            let pair = |(name, variable): (&Vec<u8>, &Variable)| (name.clone(), variable.value.clone());
            context.variables.iter().map(pair).collect()
        });
        Run {
            variables: variables.unwrap_or_default(),
            menu,
            choice,
            timeout,
            attempts: self.state.attempts,
            end: self.state.end.unwrap_or(End::Prompt),
            messages: self.state.messages,
            unknowns: self.unknowns,
            files: self.files,
            steps: self.steps,
        }
    }

    /// Takes from the budget of bytes; false, and the run is lost, when it is empty.
    pub(super) fn spend(&mut self, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > BYTES {
            self.lose_to_bound("more text than is followed");
            return false;
        }
        true
    }

    fn lose_to_bound(&mut self, reason: &str) {
        if !matches!(self.state.end, Some(End::Unknown(_))) {
            let unknown = Unknown { file: self.setup.prefix.clone(), line: 0, reason: reason.to_owned() };
            self.unknowns.push(unknown.clone());
            self.state.end = Some(End::Unknown(Arc::new(unknown)));
        }
    }

    /// Nothing that follows can be known.
    pub(super) fn lose(&mut self, unknown: Arc<Unknown>) -> Status {
        self.state.end = Some(End::Unknown(unknown.clone()));
        Status::Unknown(unknown)
    }

    /// Notes something that is not known.
    pub(super) fn unknown(&mut self, origin: &Origin, reason: impl Into<String>) -> Arc<Unknown> {
        let unknown = Unknown { file: origin.file.to_string(), line: origin.line, reason: reason.into() };
        let key = (unknown.file.clone(), unknown.line, unknown.reason.clone());
        if self.unknowns.len() < UNKNOWNS && self.seen_unknowns.insert(key) {
            self.unknowns.push(unknown.clone());
        }
        Arc::new(unknown)
    }

    /// Prints an error, unless it is only a condition that fails, and returns its number.
    pub(super) fn error(&mut self, origin: &Origin, error: GrubError) -> Status {
        let code = error.code;
        if code != ErrorCode::TestFailure {
            self.print(origin, error.text);
        }
        Status::Known(code as i32)
    }

    pub(super) fn print(&mut self, origin: &Origin, text: String) {
        if self.state.messages.len() < MESSAGES {
            self.state.messages.push(Message { text, origin: origin.clone(), doubt: None });
        }
    }

    pub(super) fn fail(&mut self, origin: &Origin, fail: Fail) -> Status {
        match fail {
            Fail::Error(error) => self.error(origin, error),
            Fail::Unknown(unknown) => Status::Unknown(unknown),
        }
    }

    pub(super) fn set_variable(&mut self, name: &[u8], value: Value, origin: Option<Origin>) {
        let count = self.state.contexts.last().map_or(0, |context| context.variables.len());
        if count >= VARIABLES || value.known().is_some_and(|value| value.len() > LONGEST_VALUE) {
            self.lose_to_bound("more variables, or longer ones, than are followed");
            return;
        }
        self.state.set(name, value, origin);
    }

    /// The device and the path of a file name; without a device, `$root`.
    pub(super) fn split_name(&mut self, name: &Value, origin: &Origin) -> Result<(String, Vec<u8>), Fail> {
        let name = name.as_result()?;
        let (device, path) = match name.strip_prefix(b"(") {
            Some(rest) => {
                let Some(end) = rest.iter().position(|byte| *byte == b')') else {
                    return Err(GrubError::new(ErrorCode::BadFilename, "missing `)' symbol").into());
                };
                (rest[..end].to_vec(), rest[end + 1..].to_vec())
            }
            None => {
                let root = self.state.get(b"root").map(|root| root.value.clone());
                let root = root.unwrap_or_else(|| Value::from(""));
                let root = root.as_result()?.to_vec();
                if root.is_empty() {
                    return Err(GrubError::new(ErrorCode::BadDevice, "variable `root' isn't set").into());
                }
                (root, name.to_vec())
            }
        };
        let device = String::from_utf8_lossy(&device).into_owned();
        if self.state.loopbacks.contains(&device) {
            return Err(self.unknown(origin, format!("what the loopback device {device} holds")).into());
        }
        Ok((device, path))
    }

    pub(super) fn is_btrfs_relative(&self) -> bool {
        let variable = self.state.get(b"btrfs_relative_path");
        variable.is_some_and(|variable| variable.value.known().is_some_and(|value| !value.is_empty()))
    }

    /// Opens a file: its device, path and size, and what GRUB says when it reads it to its end.
    pub(super) fn open(
        &mut self,
        name: &Value,
        origin: &Origin,
    ) -> Result<(String, Vec<u8>, u64, Option<GrubError>), Fail> {
        let (device, path) = self.split_name(name, origin)?;
        let shown = String::from_utf8_lossy(&path).into_owned();
        if !path.starts_with(b"/") {
            return Err(GrubError::new(ErrorCode::BadFilename, format!("invalid file name `{shown}'")).into());
        }
        let place = Place { device: &device, is_btrfs_relative: self.is_btrfs_relative() };
        match self.world.lookup(place, &path) {
            Answer::Known(Lookup::File { size, damage }) => Ok((device, path, size, damage)),
            Answer::Known(Lookup::Missing) => Err(GrubError::file_not_found(&path).into()),
            Answer::Known(Lookup::Directory) => {
                Err(GrubError::new(ErrorCode::BadFileType, "not a regular file").into())
            }
            Answer::Known(Lookup::Failed(error)) => Err(error.into()),
            Answer::Unknown(reason) => Err(self.unknown(origin, reason).into()),
        }
    }

    /// Reads a file of at most `limit` bytes, and its name in full.
    pub(super) fn read(
        &mut self,
        name: &Value,
        limit: usize,
        origin: &Origin,
    ) -> Result<(Arc<str>, Vec<u8>), Fail> {
        let (device, path, size, _) = self.open(name, origin)?;
        let full: Arc<str> = format!("({device}){}", String::from_utf8_lossy(&path)).into();
        if usize::try_from(size).is_ok_and(|size| size > limit) {
            return Err(self.unknown(origin, format!("what {full} says: {size} bytes are too many")).into());
        }
        let place = Place { device: &device, is_btrfs_relative: self.is_btrfs_relative() };
        match self.world.read(place, &path, limit) {
            Answer::Known(Ok(bytes)) => {
                self.spend(bytes.len());
                Ok((full, bytes))
            }
            Answer::Known(Err(error)) => Err(error.into()),
            Answer::Unknown(reason) => Err(self.unknown(origin, reason).into()),
        }
    }

    /// `read_config_file`: runs a file in the context there is. What cannot be read is said by nobody.
    pub(super) fn read_configuration(&mut self, name: &Value, origin: &Origin) {
        match self.read(name, LONGEST_FILE, origin) {
            Ok((file, bytes)) => {
                if !self.files.iter().any(|(known, _)| *known == file) {
                    self.files.push((file.clone(), bytes.clone()));
                }
                let outer = |name: &[u8]| self.state.get(name).cloned();
                let (old_file, old_folder) = (outer(b"config_file"), outer(b"config_directory"));
                let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
                self.state.set(b"config_file", Value::from(&*file), None);
                self.state.set(b"config_directory", Value::from(folder), None);
                let body = Body::whole(Script::file(file, bytes));
                self.run_file(&body);
                for (name, old) in [(b"config_file".as_slice(), old_file), (b"config_directory", old_folder)]
                {
                    match old {
                        Some(old) => self.state.set(name, old.value, old.origin),
                        None => self.state.unset(name),
                    }
                }
            }
            Err(Fail::Error(_)) => {}
            Err(Fail::Unknown(unknown)) => drop(self.lose(unknown)),
        }
    }

    /// Runs a file unit by unit, whatever happens.
    fn run_file(&mut self, body: &Body) {
        for unit in body.units.iter() {
            if self.state.end.is_some() {
                return;
            }
            self.run_unit(&body.script, unit);
            self.state.flow.returns = false;
        }
    }

    /// Runs the text of an entry or a command: a syntax error ends it, and its last line decides.
    pub(super) fn run_body(&mut self, body: &Body) -> Status {
        let mut status = OK;
        let empty_line_succeeds = self.setup.release.empty_line_succeeds;
        for unit in body.units.iter() {
            if self.state.end.is_some() {
                return status;
            }
            match &unit.commands {
                Err(_) => {
                    self.run_unit(&body.script, unit);
                    return OK;
                }
                Ok(commands) if commands.is_empty() => {
                    if empty_line_succeeds {
                        status = OK;
                    }
                }
                Ok(_) => status = self.run_unit(&body.script, unit),
            }
        }
        if body.ends_empty && empty_line_succeeds { OK } else { status }
    }

    fn run_unit(&mut self, script: &Arc<Script>, unit: &Unit) -> Status {
        let commands = match &unit.commands {
            Ok(commands) => commands,
            Err(error) => {
                let origin = script.origin(&error.span, error.line);
                match error.kind {
                    SyntaxErrorKind::TooDeep => {
                        let unknown = self.unknown(&origin, "what a script so deeply nested does");
                        return self.lose(unknown);
                    }
                    SyntaxErrorKind::WordTooLong => {
                        self.state.end = Some(End::Fatal(error.messages.concat()));
                    }
                    _ => {
                        for message in &error.messages {
                            self.print(&origin, message.clone());
                        }
                    }
                }
                return OK;
            }
        };
        for command in commands {
            if let Command::Function { name, body, .. } = command {
                let body = Arc::new(body.clone());
                if self.state.functions.len() >= FUNCTIONS {
                    self.lose_to_bound("more functions than are followed");
                    return OK;
                }
                self.state.functions.insert(name.clone(), Function::Known { script: script.clone(), body });
            }
        }
        self.list(script, commands)
    }

    /// Commands in order; the status of the last.
    pub(super) fn list(&mut self, script: &Arc<Script>, commands: &[Command]) -> Status {
        if self.depth >= DEPTH {
            // GRUB before 2.14 has no bound here and runs out of its stack at an unknown depth.
            self.lose_to_bound("more levels than GRUB has room for");
            return OK;
        }
        self.depth += 1;
        let mut status = OK;
        for command in commands {
            if self.state.flow.breaks > 0 || self.state.end.is_some() {
                break;
            }
            if matches!(command, Command::Function { .. }) {
                continue;
            }
            status = self.command(script, command);
            self.state.status = Some(status.clone());
            if self.state.flow.returns {
                break;
            }
        }
        self.depth -= 1;
        status
    }

    /// Takes from the budget of commands; false, and the run is lost, when it is empty.
    pub(super) fn step(&mut self) -> bool {
        self.steps += 1;
        if self.steps > STEPS {
            self.lose_to_bound("more commands than are followed");
        }
        self.steps <= STEPS
    }

    /// Opens a context, which copies every variable.
    pub(super) fn open_context(&mut self) {
        let count = self.state.contexts.last().map_or(0, |context| context.variables.len());
        self.spend(count.saturating_mul(32));
        self.state.open_context();
    }

    fn command(&mut self, script: &Arc<Script>, command: &Command) -> Status {
        if !self.step() {
            return OK;
        }
        match command {
            Command::Simple(simple) => self.simple(script, simple),
            Command::If { arms, otherwise, .. } => self.conditional(script, arms, otherwise),
            Command::While { is_until, condition, body, .. } => {
                self.conditional_loop(script, *is_until, condition, body)
            }
            Command::For { name, words, body, .. } => self.counted_loop(script, name, words, body),
            Command::Function { .. } => OK,
        }
    }

    fn conditional(
        &mut self,
        script: &Arc<Script>,
        arms: &[(Vec<Command>, Vec<Command>)],
        otherwise: &[Command],
    ) -> Status {
        let mut arms = arms;
        while let Some(((condition, then), rest)) = arms.split_first() {
            let status = self.list(script, condition);
            if self.state.flow.returns || self.state.end.is_some() {
                return status;
            }
            match status {
                Status::Known(0) => return self.list(script, then),
                Status::Known(_) => arms = rest,
                Status::Unknown(why) => {
                    let mut statuses = (OK, OK);
                    self.depth += 1;
                    self.fork(
                        &why,
                        |machine| statuses.0 = machine.list(script, then),
                        |machine| statuses.1 = machine.conditional(script, rest, otherwise),
                    );
                    self.depth -= 1;
                    return if statuses.0 == statuses.1 { statuses.0 } else { Status::Unknown(why) };
                }
            }
        }
        if otherwise.is_empty() { OK } else { self.list(script, otherwise) }
    }

    /// Goes both ways from here, and joins what comes of them.
    pub(super) fn fork(
        &mut self,
        why: &Arc<Unknown>,
        one: impl FnOnce(&mut Self),
        other: impl FnOnce(&mut Self),
    ) {
        self.forks += 1;
        if self.forks > FORKS || self.depth > DEPTH {
            self.lose(why.clone());
            return;
        }
        let before = self.state.clone();
        one(self);
        let after_one = std::mem::replace(&mut self.state, before);
        other(self);
        let after_other = std::mem::replace(&mut self.state, State::new());
        self.state = after_one.join(after_other, why);
    }

    fn conditional_loop(
        &mut self,
        script: &Arc<Script>,
        is_until: bool,
        condition: &[Command],
        body: &[Command],
    ) -> Status {
        self.state.flow.loops += 1;
        let mut status;
        let mut unknown_rounds = 0;
        loop {
            status = self.list(script, condition);
            if self.state.flow.returns || self.state.end.is_some() {
                break;
            }
            match &status {
                Status::Known(number) if (*number == 0) == is_until => break,
                Status::Known(_) => {}
                Status::Unknown(why) => {
                    // One more round or none; after two of them whatever a round changes is unknown.
                    let why = why.clone();
                    unknown_rounds += 1;
                    self.fork(
                        &why,
                        |machine| {
                            machine.list(script, body);
                            machine.state.flow.breaks = 0;
                        },
                        |_| {},
                    );
                    if unknown_rounds == 2 || self.state.end.is_some() {
                        break;
                    }
                    continue;
                }
            }
            status = self.list(script, body);
            if self.state.flow.returns || self.state.end.is_some() {
                break;
            }
            if self.state.flow.breaks == 1 && self.state.flow.is_continue {
                self.state.flow.breaks = 0;
            }
            if self.state.flow.breaks > 0 {
                break;
            }
        }
        let flow = &mut self.state.flow;
        flow.breaks = flow.breaks.saturating_sub(1);
        flow.loops = flow.loops.saturating_sub(1);
        status
    }

    fn counted_loop(
        &mut self,
        script: &Arc<Script>,
        name: &[u8],
        words: &[Word],
        body: &[Command],
    ) -> Status {
        let args = self.expand(script, words);
        self.state.flow.loops += 1;
        let mut status = OK;
        for arg in args {
            if self.state.end.is_some() {
                break;
            }
            if self.state.flow.is_continue && self.state.flow.breaks == 1 {
                self.state.flow.breaks = 0;
            }
            if self.state.flow.breaks == 0 {
                self.set_variable(name, arg.value, Some(arg.origin));
                status = self.list(script, body);
                if self.state.flow.returns {
                    break;
                }
            }
        }
        let flow = &mut self.state.flow;
        flow.breaks = flow.breaks.saturating_sub(1);
        flow.loops = flow.loops.saturating_sub(1);
        status
    }

    fn simple(&mut self, script: &Arc<Script>, simple: &Simple) -> Status {
        let origin = script.origin(&simple.span, simple.line);
        let mut args = self.expand(script, &simple.words);
        if self.state.end.is_some() || args.is_empty() {
            return OK;
        }
        let mut name = args.remove(0);
        let is_inverted = name.value.known() == Some(b"!");
        if is_inverted {
            if args.is_empty() {
                return self.error(&origin, GrubError::bad_argument("no command is specified"));
            }
            name = args.remove(0);
        }
        let Some(bytes) = name.value.known() else {
            let unknown = self.unknown(&origin, "which command this is");
            return self.lose(unknown);
        };
        let bytes = bytes.to_vec();
        let call = Call { script, simple, origin, name: String::from_utf8_lossy(&bytes).into_owned(), args };
        let is_command = match self.world.command(&call.name) {
            Answer::Known(is_command) => is_command,
            Answer::Unknown(reason) => {
                let unknown = self.unknown(&call.origin, reason);
                return self.lose(unknown);
            }
        };
        let status = if is_command {
            self.builtin(&call)
        } else if let Some(function) = self.state.functions.get(&bytes).cloned() {
            let values = call.args.iter().map(|arg| arg.value.clone()).collect();
            self.call_function(function, values, &call.origin)
        } else {
            // Neither the assignment nor the error makes a difference to a condition: both count as success.
            match bytes.iter().position(|byte| *byte == b'=') {
                Some(at) if is_special(&bytes[..at]) => {
                    let shown = String::from_utf8_lossy(&bytes[..at]).into_owned();
                    self.print(&call.origin, format!("invalid variable name `{shown}'"));
                }
                Some(at) => {
                    self.set_variable(&bytes[..at], Value::from(&bytes[at + 1..]), Some(name.origin.clone()));
                }
                None => {
                    let text = format!("can't find command `{}'", call.name);
                    self.print(&call.origin, text);
                }
            }
            return OK;
        };
        if !is_inverted {
            return status;
        }
        match status {
            Status::Known(0) => Status::Known(ErrorCode::TestFailure as i32),
            Status::Known(_) => OK,
            Status::Unknown(unknown) => Status::Unknown(unknown),
        }
    }

    fn call_function(&mut self, function: Function, values: Vec<Value>, origin: &Origin) -> Status {
        let (script, body) = match function {
            Function::Known { script, body } => (script, body),
            Function::Unknown(unknown) => {
                let text = format!("whether a function is defined ({})", unknown.reason);
                let unknown = self.unknown(origin, text);
                return self.lose(unknown);
            }
        };
        let scope = self.state.scope.replace(Arc::new(values));
        let loops = std::mem::take(&mut self.state.flow.loops);
        let status = self.list(&script, &body);
        self.state.scope = scope;
        self.state.flow.loops = loops;
        self.state.flow.returns = false;
        status
    }
}

/// Names that no assignment can have.
fn is_special(name: &[u8]) -> bool {
    name.first().is_some_and(u8::is_ascii_digit) || matches!(name, b"#" | b"*" | b"@")
}

const FEATURES: &[&str] = &[
    "chainloader_bpb",
    "ntldr",
    "platform_search_hint",
    "default_font_path",
    "all_video_module",
    "menuentry_id",
    "menuentry_options",
    "200_final",
    "nativedisk_cmd",
    "timeout_style",
];

const FEATURES_2_12: &[&str] = &["search_cryptodisk_only"];
