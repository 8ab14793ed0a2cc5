//! The environment block: `load_env`, `save_env`, `list_env`.

use std::sync::Arc;

use guest_files::grubenv::Grubenv;

use super::args::{Opt, Parsed, Takes, opt};
use super::error::{ErrorCode, GrubError};
use super::interpreter::{Call, Fail, Machine};
use super::script::Origin;
use super::state::{OK, Status};
use super::value::Value;

/// Longest environment block that is read, in bytes.
const LONGEST_ENVIRONMENT: usize = 64 << 10;

const ENV_OPTIONS: &[Opt] =
    &[opt("file", Some(b'f'), Takes::Text), opt("skip-sig", Some(b's'), Takes::Nothing)];

impl Machine<'_> {
    fn environment(&mut self, call: &Call<'_>, parsed: &Parsed) -> Result<(Arc<str>, Grubenv), Fail> {
        let name = match parsed.value("file") {
            Some(file) => file.value.clone(),
            None => match self.state.get(b"prefix").map(|prefix| prefix.value.clone()) {
                None => {
                    return Err(GrubError::new(ErrorCode::FileNotFound, "variable `prefix' isn't set").into());
                }
                Some(prefix) => Value::from([prefix.as_result()?, b"/grubenv"].concat()),
            },
        };
        let (file, bytes) = self.read(&name, LONGEST_ENVIRONMENT, &call.origin)?;
        let block = Grubenv::parse(bytes);
        if !block.is_valid() {
            return Err(GrubError::new(ErrorCode::BadFileType, "invalid environment block").into());
        }
        Ok((file, block))
    }

    pub(super) fn load_env(&mut self, call: &Call<'_>) -> Status {
        let parsed = match self.options(call, ENV_OPTIONS, false) {
            Ok(parsed) => parsed,
            Err(status) => return status,
        };
        let (file, block) = match self.environment(call, &parsed) {
            Ok(found) => found,
            Err(Fail::Error(error)) => return self.error(&call.origin, error),
            // Any variable may have changed.
            Err(Fail::Unknown(unknown)) => return self.lose(unknown),
        };
        let mut wanted = Vec::new();
        for arg in &parsed.rest {
            match &arg.value {
                Value::Known(name) => wanted.push(name.clone()),
                Value::Unknown(unknown) => return self.lose(unknown.clone()),
            }
        }
        for variable in block.variables() {
            if wanted.is_empty() || wanted.iter().any(|name| **name == *variable.name) {
                let origin = Origin { file: file.clone(), line: variable.line, span: variable.span.clone() };
                self.set_variable(&variable.name, Value::from(variable.value.as_slice()), Some(origin));
            }
        }
        OK
    }

    /// What it writes is read at the next boot, not in this one.
    pub(super) fn save_env(&mut self, call: &Call<'_>) -> Status {
        let parsed = match self.options(call, ENV_OPTIONS, false) {
            Ok(parsed) => parsed,
            Err(status) => return status,
        };
        if parsed.rest.is_empty() && call.name == "save_env" {
            return self.error(&call.origin, GrubError::bad_argument("no variable is specified"));
        }
        match self.environment(call, &parsed) {
            Ok(_) => OK,
            Err(fail) => self.fail(&call.origin, fail),
        }
    }
}
