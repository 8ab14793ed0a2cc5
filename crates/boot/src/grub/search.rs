//! Commands that ask what is on the devices: `search` and its kind, `probe`.

use super::args::{Opt, Takes, opt};
use super::error::{ErrorCode, GrubError};
use super::expand::Arg;
use super::interpreter::{Call, Machine};
use super::state::{OK, Status};
use super::value::Value;
use super::world::{Answer, Platform, ProbeWhat, SearchBy, SearchRequest};

const SEARCH_OPTIONS: &[Opt] = &[
    opt("file", Some(b'f'), Takes::Nothing),
    opt("label", Some(b'l'), Takes::Nothing),
    opt("fs-uuid", Some(b'u'), Takes::Nothing),
    opt("set", Some(b's'), Takes::OptionalText),
    opt("no-floppy", Some(b'n'), Takes::Nothing),
    opt("efidisk-only", None, Takes::Nothing),
    opt("cryptodisk-only", None, Takes::Nothing),
    opt("root-dev-only", Some(b'r'), Takes::Nothing),
    opt("hint", Some(b'h'), Takes::Text),
    opt("hint-ieee1275", None, Takes::Text),
    opt("hint-bios", None, Takes::Text),
    opt("hint-baremetal", None, Takes::Text),
    opt("hint-efi", None, Takes::Text),
    opt("hint-arc", None, Takes::Text),
];

const PROBE_OPTIONS: &[Opt] = &[
    opt("set", Some(b's'), Takes::Text),
    opt("driver", Some(b'd'), Takes::Nothing),
    opt("partmap", Some(b'p'), Takes::Nothing),
    opt("fs", Some(b'f'), Takes::Nothing),
    opt("fs-uuid", Some(b'u'), Takes::Nothing),
    opt("label", Some(b'l'), Takes::Nothing),
    opt("part-uuid", None, Takes::Nothing),
];

impl Machine<'_> {
    /// `search`, with options.
    pub(super) fn search(&mut self, call: &Call<'_>) -> Status {
        let parsed = match self.options(call, SEARCH_OPTIONS, true) {
            Ok(parsed) => parsed,
            Err(status) => return status,
        };
        let platform_hint = match self.setup.platform {
            Platform::Bios => "hint-bios",
            Platform::Efi => "hint-efi",
        };
        let hints = ["hint", platform_hint, "hint-baremetal"];
        let hints: Vec<Arg> = hints.iter().flat_map(|name| parsed.values(name)).cloned().collect();
        let is_future_hint =
            |arg: &&Arg| arg.value.known().is_some_and(|value| value.starts_with(b"--hint-"));
        let key = parsed.rest.iter().find(|arg| !is_future_hint(arg));
        let set = parsed.value("set");
        let root = Value::from("root");
        let (key, variable) = match (key, set) {
            (Some(key), Some(set)) => (key, Some(&set.value)),
            (Some(key), None) => (key, parsed.has("set").then_some(&root)),
            (None, Some(set)) => (set, Some(&root)),
            (None, None) => {
                return self.error(&call.origin, GrubError::bad_argument("one argument expected"));
            }
        };
        let by = if parsed.has("label") {
            SearchBy::Label
        } else if parsed.has("fs-uuid") {
            SearchBy::FsUuid
        } else if parsed.has("file") {
            SearchBy::File
        } else {
            return self
                .error(&call.origin, GrubError::new(ErrorCode::InvalidCommand, "unspecified search type"));
        };
        let no_floppy = parsed.has("no-floppy");
        self.search_for(call, by, &key.value, variable, &hints, no_floppy)
    }

    /// `search.fs_uuid KEY [VARIABLE [HINTS…]]`.
    pub(super) fn plain_search(&mut self, call: &Call<'_>, by: SearchBy) -> Status {
        let Some(key) = call.args.first() else {
            return self.error(&call.origin, GrubError::bad_argument("one argument expected"));
        };
        let variable = call.args.get(1).map(|arg| &arg.value);
        self.search_for(call, by, &key.value, variable, call.args.get(2..).unwrap_or_default(), false)
    }

    fn search_for(
        &mut self,
        call: &Call<'_>,
        by: SearchBy,
        key: &Value,
        variable: Option<&Value>,
        hints: &[Arg],
        no_floppy: bool,
    ) -> Status {
        let known: Result<Vec<Vec<u8>>, _> =
            hints.iter().map(|hint| hint.value.as_result().map(<[u8]>::to_vec)).collect();
        let answer = match (key.as_result(), known) {
            (Ok(key), Ok(hints)) => {
                match self.world.search(&SearchRequest { by, key, hints: &hints, no_floppy }) {
                    Answer::Known(found) => Ok(found.ok_or_else(|| GrubError::no_such_device(key))),
                    Answer::Unknown(reason) => Err(self.unknown(&call.origin, reason)),
                }
            }
            (Err(unknown), _) | (_, Err(unknown)) => Err(unknown),
        };
        let value = match answer {
            // The variable keeps what it had.
            Ok(Err(error)) => return self.error(&call.origin, error),
            Ok(Ok(device)) => Value::from(device.as_str()),
            Err(unknown) => Value::Unknown(unknown),
        };
        if let Some(name) = variable {
            match name {
                Value::Known(name) => self.set_variable(name, value.clone(), Some(call.origin.clone())),
                Value::Unknown(unknown) => drop(self.lose(unknown.clone())),
            }
        }
        match value {
            Value::Known(_) => OK,
            Value::Unknown(unknown) => Status::Unknown(unknown),
        }
    }

    pub(super) fn probe(&mut self, call: &Call<'_>) -> Status {
        let parsed = match self.options(call, PROBE_OPTIONS, false) {
            Ok(parsed) => parsed,
            Err(status) => return status,
        };
        let Some(device) = parsed.rest.first() else {
            return self.error(&call.origin, GrubError::bad_argument("device name required"));
        };
        let what = [
            ("driver", ProbeWhat::Driver),
            ("partmap", ProbeWhat::PartitionMap),
            ("fs", ProbeWhat::Fs),
            ("fs-uuid", ProbeWhat::FsUuid),
            ("label", ProbeWhat::FsLabel),
            ("part-uuid", ProbeWhat::PartitionUuid),
        ];
        let Some((_, what)) = what.into_iter().find(|(name, _)| parsed.has(name)) else {
            return self.error(&call.origin, GrubError::bad_argument("unrecognised target"));
        };
        let answer = match device.value.as_result() {
            Err(unknown) => Err(unknown),
            Ok(device) => {
                let device =
                    device.strip_prefix(b"(").and_then(|name| name.strip_suffix(b")")).unwrap_or(device);
                match self.world.probe(&String::from_utf8_lossy(device), what) {
                    Answer::Known(answer) => Ok(answer),
                    Answer::Unknown(reason) => Err(self.unknown(&call.origin, reason)),
                }
            }
        };
        let (value, status) = match answer {
            Ok(Err(error)) => return self.error(&call.origin, error),
            Ok(Ok(found)) => (Value::from(found.unwrap_or_else(|| b"none".to_vec())), OK),
            Err(unknown) => (Value::Unknown(unknown.clone()), Status::Unknown(unknown)),
        };
        if let Some(name) = parsed.value("set").and_then(|set| set.value.known()) {
            self.set_variable(name, value, Some(call.origin.clone()));
        }
        status
    }
}
