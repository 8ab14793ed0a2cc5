//! `blscfg`: entries of the Boot Loader Specification as Fedora's and Red Hat's GRUB puts them into the menu.

use std::cmp::Ordering;
use std::sync::Arc;

use guest_files::bls::{self, BlsEntry, Field};

use super::error::{ErrorCode, GrubError};
use super::interpreter::{Call, Fail, Machine};
use super::number::unsigned;
use super::report::MenuEntry;
use super::script::{Body, Origin, Script};
use super::state::{OK, Status};
use super::value::Value;
use super::world::{Answer, Place};

const SNIPPETS: usize = 1000;
const FOLDER: &str = "/loader/entries";

/// One entry file.
#[derive(Debug, Clone)]
pub(super) struct Snippet {
    /// Without `.conf`.
    name: Vec<u8>,
    file: Arc<str>,
    entry: Arc<BlsEntry>,
    /// Whether it is in the menu already.
    is_visible: bool,
}

/// Text that becomes part of a script, and where it comes from.
struct Text {
    bytes: Vec<u8>,
    pieces: Vec<(std::ops::Range<usize>, Origin)>,
}

impl Text {
    fn push(&mut self, text: &[u8], origin: Option<Origin>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(text);
        if let Some(origin) = origin {
            self.pieces.push((start..self.bytes.len(), origin));
        }
    }
}

impl Machine<'_> {
    pub(super) fn blscfg(&mut self, call: &Call<'_>) -> Status {
        let (mut shows_default, mut shows_others) = (true, true);
        let (mut path, mut only) = (None, None);
        // RHEL 8 takes no arguments, and always shows all.
        if let [arg] = call.args.as_slice()
            && !self.setup.release.sorts_bls_by_version
        {
            match arg.value.as_result() {
                Ok(b"default") => shows_others = false,
                Ok(b"non-default") => shows_default = false,
                Ok(text) if text.starts_with(b"(") => path = Some(text.to_vec()),
                Ok(text) => {
                    (shows_default, shows_others) = (false, false);
                    only = Some(text.to_vec());
                }
                Err(unknown) => return self.lose(unknown),
            }
        }
        if let Err(fail) = self.load_snippets(path.as_deref(), &call.origin) {
            return match fail {
                Fail::Error(error) => self.error(&call.origin, error),
                Fail::Unknown(unknown) => self.lose(unknown),
            };
        }
        let default = self.state.get(b"default").map(|default| default.value.clone());
        if shows_default != shows_others
            && let Some(Value::Unknown(unknown)) = &default
        {
            return self.lose(unknown.clone());
        }
        let default = default.and_then(|default| default.known().map(<[u8]>::to_vec));
        for index in 0..self.state.snippets.len() {
            let Some(snippet) = self.state.snippets.get(index).cloned() else { break };
            if snippet.is_visible {
                continue;
            }
            let is_default = default.as_ref().is_some_and(|default| is_default(&snippet, default, index));
            let is_wanted = only.as_ref().is_some_and(|only| *only == snippet.name);
            if is_default && shows_default || !is_default && shows_others || is_wanted {
                self.add_snippet(&snippet, &call.origin);
                if let Some(snippet) = Arc::make_mut(&mut self.state.snippets).get_mut(index) {
                    snippet.is_visible = true;
                }
            }
        }
        if self.setup.release.sorts_bls_by_version {
            self.state.snippets = Arc::default();
        }
        OK
    }

    fn load_snippets(&mut self, path: Option<&[u8]>, origin: &Origin) -> Result<(), Fail> {
        let root = self.state.get(b"root").map(|root| root.value.clone());
        let (device, folders) = match path {
            Some(path) if path.ends_with(b".conf") => {
                let (device, path) = self.split_name(&Value::from(path), origin)?;
                let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
                let name = path[at..].to_vec();
                let folder = String::from_utf8_lossy(&path[..at]).into_owned();
                return self.load_snippet(&device, folder.trim_end_matches('/'), &name, origin);
            }
            Some(path) => {
                let (device, path) = self.split_name(&Value::from(path), origin)?;
                (device, vec![path])
            }
            None => {
                let Some(root) = root else {
                    return Err(GrubError::new(ErrorCode::FileNotFound, "variable `root' isn't set").into());
                };
                let device = String::from_utf8_lossy(root.as_result()?).into_owned();
                let folder = match self.state.get(b"blsdir") {
                    Some(folder) => folder.value.as_result()?.to_vec(),
                    None => FOLDER.as_bytes().to_vec(),
                };
                (device, vec![folder, [b"/boot".as_slice(), FOLDER.as_bytes()].concat()])
            }
        };
        match self.world.device(&device) {
            Answer::Known(Ok(())) => {}
            Answer::Known(Err(error)) => return Err(error.into()),
            Answer::Unknown(reason) => return Err(self.unknown(origin, reason).into()),
        }
        for folder in folders {
            let place = Place { device: &device, is_btrfs_relative: self.is_btrfs_relative() };
            let names = match self.world.list(place, &folder) {
                Answer::Known(Ok(names)) => names,
                Answer::Known(Err(_)) => continue,
                Answer::Unknown(reason) => return Err(self.unknown(origin, reason).into()),
            };
            let folder = String::from_utf8_lossy(&folder).into_owned();
            let folder = folder.trim_end_matches('/');
            for name in names {
                let is_entry = !name.starts_with(b".") && name.len() > 5 && name.ends_with(b".conf");
                if is_entry {
                    self.load_snippet(&device, folder, &name, origin)?;
                }
            }
            // RHEL 8 goes on to the second folder as well when the first one holds no entry.
            if !(self.setup.release.sorts_bls_by_version && self.state.snippets.is_empty()) {
                break;
            }
        }
        if self.setup.release.sorts_bls_by_version {
            let has_version = |snippet: &Snippet| snippet.entry.get("version").is_some();
            let by_version = self.state.snippets.iter().all(has_version);
            Arc::make_mut(&mut self.state.snippets).sort_by(|one, two| compare(two, one, by_version, false));
        }
        Ok(())
    }

    fn load_snippet(&mut self, device: &str, folder: &str, name: &[u8], origin: &Origin) -> Result<(), Fail> {
        let path = [folder.as_bytes(), b"/", name].concat();
        let full = Value::from([format!("({device})").as_bytes(), &path].concat());
        let (file, bytes) = match self.read(&full, bls::LONGEST, origin) {
            Ok(read) => read,
            Err(Fail::Error(_)) => return Ok(()),
            Err(unknown) => return Err(unknown),
        };
        if self.state.snippets.len() >= SNIPPETS {
            return Err(self.unknown(origin, "what so many BLS entries are").into());
        }
        if !self.files.iter().any(|(known, _)| *known == file) {
            self.files.push((file.clone(), bytes.clone()));
        }
        let name = name.strip_suffix(b".conf").unwrap_or(name).to_vec();
        let snippet = Snippet { name, file, entry: Arc::new(BlsEntry::parse(bytes)), is_visible: false };
        let sorts_later = self.setup.release.sorts_bls_by_version;
        let snippets = Arc::make_mut(&mut self.state.snippets);
        if sorts_later {
            snippets.push(snippet);
            return Ok(());
        }
        // Newest first; of two that compare equal the second is dropped.
        for (index, other) in snippets.iter().enumerate() {
            match compare(&snippet, other, false, true) {
                Ordering::Equal => return Ok(()),
                Ordering::Greater => {
                    snippets.insert(index, snippet);
                    return Ok(());
                }
                Ordering::Less => {}
            }
        }
        snippets.push(snippet);
        Ok(())
    }

    fn add_snippet(&mut self, snippet: &Snippet, origin: &Origin) {
        let entry = snippet.entry.clone();
        let Some(linux) = entry.get("linux") else { return };
        let at =
            |field: &Field| Origin { file: snippet.file.clone(), line: field.line, span: field.span.clone() };
        let mut text = Text { bytes: Vec::new(), pieces: Vec::new() };
        if self.state.get(b"save_default").is_some_and(|value| value.value.known() == Some(b"true")) {
            text.push(b"savedefault\n", None);
        }
        text.push(b"load_video\nset gfxpayload=keep\ninsmod gzio\nlinux ($root)", None);
        text.push(&linux.value, Some(at(linux)));
        let options = entry.get("options").and_then(|field| self.expand_field(&field.value, &at(field)));
        let options = options.or_else(|| {
            let variable = self.state.get(b"default_kernelopts").cloned()?;
            match &variable.value {
                Value::Known(value) => self.expand_field(value, &variable.origin.unwrap_or(at(linux))),
                Value::Unknown(_) => Some(vec![(b"$default_kernelopts".to_vec(), None)]),
            }
        });
        if let Some(options) = options {
            text.push(b" ", None);
            for (bytes, origin) in options {
                text.push(&bytes, origin);
            }
        }
        text.push(b"\n", None);
        let initrds: Vec<&Field> = entry.all("initrd").collect();
        let early = self.state.get(b"early_initrd").map(|early| early.value.clone());
        if early.is_some() || !initrds.is_empty() {
            text.push(b"initrd", None);
            if let Some(early) = early {
                let first = initrds.first().map_or(&linux.value, |field| &field.value);
                let folder = first.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
                let names = early.known().map_or_else(|| b"$early_initrd".to_vec(), <[u8]>::to_vec);
                for name in names.split(|byte| *byte == b' ') {
                    let file = [b" ($root)".as_slice(), &first[..folder], name].concat();
                    text.push(&file, None);
                }
            }
            for field in initrds {
                text.push(b" ($root)", None);
                text.push(&field.value, Some(at(field)));
            }
            text.push(b"\n", None);
        }
        if !self.spend(text.bytes.len()) {
            return;
        }
        let title = entry.get("title").unwrap_or(linux);
        let users = entry.get("grub_users").and_then(|field| self.expand_field(&field.value, &at(field)));
        let mut arguments = vec![Value::from(title.value.as_slice())];
        arguments.extend(entry.all("grub_arg").map(|field| Value::from(field.value.as_slice())));
        // GRUB cuts the id at `.conf` once more.
        let id = snippet.name.strip_suffix(b".conf").unwrap_or(&snippet.name);
        let body = Body::whole(Script::made(text.bytes, text.pieces, at(linux)));
        let made = MenuEntry {
            title: Value::from(title.value.as_slice()),
            id: Value::from(id),
            classes: entry.all("grub_class").map(|field| Value::from(field.value.as_slice())).collect(),
            is_submenu: false,
            is_restricted: users.is_some(),
            origin: at(linux),
            is_bls: true,
            doubt: None,
            arguments,
            body,
        };
        if let Status::Unknown(unknown) = self.add_entry(made) {
            self.print(origin, unknown.reason.clone());
        }
    }

    /// `expand_val`, its slips included: `$name` becomes its value and a blank; one byte that is left alone at the
    /// end is lost; a value that comes to nothing counts as missing.
    fn expand_field(&self, value: &[u8], at: &Origin) -> Option<Vec<(Vec<u8>, Option<Origin>)>> {
        let mut made: Option<Vec<(Vec<u8>, Option<Origin>)>> = None;
        let (mut start, mut end) = (0_usize, 0_usize);
        let mut is_variable = false;
        let append = |made: &mut Option<Vec<_>>, is_variable: bool, start: usize, end: usize| {
            let range = start..(end + 1).max(start);
            let text = value.get(range.clone()).unwrap_or_default();
            let place = Origin { span: at.span.start + range.start..at.span.start + range.end, ..at.clone() };
            if !is_variable {
                made.get_or_insert_default().push((text.to_vec(), Some(place)));
                return;
            }
            let Some(variable) = self.state.get(text) else { return };
            let (bytes, origin) = match &variable.value {
                Value::Known(bytes) => (bytes.to_vec(), variable.origin.clone().unwrap_or(place)),
                // Left to be expanded, and then unknown.
                Value::Unknown(_) => ([b"$", text].concat(), place),
            };
            made.get_or_insert_default().push((bytes, Some(origin)));
            made.get_or_insert_default().push((b" ".to_vec(), None));
        };
        for (index, byte) in value.iter().enumerate() {
            if *byte == b'$' && value.get(end) != Some(&b'\\') {
                if start != end {
                    append(&mut made, is_variable, start, end);
                    made.as_ref()?;
                }
                is_variable = true;
                start = index + 1;
            } else if is_variable && !byte.is_ascii_alphanumeric() && *byte != b'_' {
                append(&mut made, true, start, end);
                is_variable = false;
                start = if *byte == b' ' { index + 1 } else { index };
            }
            end = index;
        }
        if start != end {
            append(&mut made, is_variable, start, end);
        }
        made
    }
}

fn compare(one: &Snippet, two: &Snippet, by_version: bool, with_plus: bool) -> Ordering {
    let by_field = match (one.entry.get("version"), two.entry.get("version")) {
        (Some(one), Some(two)) if by_version => {
            bls::compare_version_fields(&one.value, &two.value, with_plus)
        }
        _ => Ordering::Equal,
    };
    by_field.then_with(|| bls::compare_names(&one.name, &two.name, with_plus))
}

fn is_default(snippet: &Snippet, default: &[u8], index: usize) -> bool {
    let is_title = snippet.entry.get("title").is_some_and(|title| title.value == default);
    let number = unsigned(default, 0).0.ok().and_then(|number| usize::try_from(number).ok());
    snippet.name == default || is_title || number == Some(index)
}
