//! Menus: which entry starts, what running it comes to, and what is tried next.

use std::sync::Arc;

use super::interpreter::Machine;
use super::number::{NotANumber, is_space, unsigned};
use super::report::{Attempt, Choice, End, MenuEntry};
use super::script::Origin;
use super::state::{Loaded, Status, Variable};
use super::value::{Unknown, Value};

/// An entry of a menu, by a name or a number.
enum Found {
    Entry(usize),
    Nothing,
}

type Resolved<T> = Result<T, Arc<Unknown>>;

impl Machine<'_> {
    /// Shows the menu of the context until something starts or waits; with `is_automatic`, after an entry that
    /// started by itself, only one entry is tried.
    pub(super) fn show_menu(&mut self, is_automatic: bool, path: &[usize], origin: &Origin) {
        loop {
            let menu = self.state.menu().to_vec();
            let choice = self.default_entry(&menu);
            let timeout = self.timeout(origin);
            let chosen = match &choice {
                Ok((index, _)) => Some([path, &[*index]].concat()),
                Err(_) => None,
            };
            let described = match &choice {
                Ok((index, is_named)) => {
                    Choice::Entry { path: [path, &[*index]].concat(), is_named: *is_named }
                }
                Err(unknown) => Choice::Unknown(unknown.clone()),
            };
            match &mut self.state.shown {
                None => self.state.shown = Some((menu.clone(), described, timeout.clone().unwrap_or(None))),
                // A submenu that is entered by itself: the choice goes on in it.
                Some((_, outer @ Choice::Entry { .. }, _)) if is_automatic => {
                    let goes_on = matches!(&*outer, Choice::Entry { path: outer, .. } if *outer == path);
                    if goes_on {
                        *outer = described;
                    }
                }
                Some(_) => {}
            }
            if matches!(timeout, Ok(None)) {
                let after_failure = !self.state.attempts.is_empty();
                self.state.end = Some(End::Menu { after_failure });
                return;
            }
            let (index, chosen) = match (choice, chosen) {
                (Ok((index, _)), Some(chosen)) => (index, chosen),
                (Err(unknown), _) => {
                    self.lose(unknown);
                    return;
                }
                _ => return,
            };
            self.state.unset(b"timeout");
            self.run_with_fallback(&menu, index, &chosen, origin);
            if self.state.end.is_some() || is_automatic {
                return;
            }
        }
    }

    /// Seconds until an entry starts by itself; `Ok(None)` is never. An unknown number is some number.
    fn timeout(&mut self, origin: &Origin) -> Result<Option<u64>, Arc<Unknown>> {
        let Some(variable) = self.state.get(b"timeout").cloned() else { return Ok(None) };
        match variable.value {
            Value::Known(text) => {
                Ok(unsigned(&text, 0).0.ok().filter(|seconds| i32::try_from(*seconds).is_ok()))
            }
            Value::Unknown(unknown) => {
                let reason = format!("how long the menu waits ({})", unknown.reason);
                Err(self.unknown(origin, reason))
            }
        }
    }

    /// The entry that starts by itself, and whether `default` names it.
    fn default_entry(&self, menu: &[Arc<MenuEntry>]) -> Resolved<(usize, bool)> {
        let found = match self.state.get(b"default") {
            None => Found::Nothing,
            Some(variable) => {
                let value = variable.value.as_result()?;
                if self.setup.release.reads_default_as_list {
                    match red_hat_entry(menu, value)? {
                        (found, None | Some([])) => found,
                        _ => Found::Nothing,
                    }
                } else {
                    upstream_entry(menu, value)?
                }
            }
        };
        let (index, is_named) = match found {
            Found::Entry(index) if index < menu.len() => (index, true),
            _ => (0, false),
        };
        match menu.get(..=index).unwrap_or_default().iter().find_map(|entry| entry.doubt.clone()) {
            Some(doubt) => Err(doubt),
            None => Ok((index, is_named)),
        }
    }

    /// The next of the entries in `fallback`, which is taken off.
    fn next_fallback(&mut self, menu: &[Arc<MenuEntry>]) -> Resolved<Option<usize>> {
        let Some(Variable { value, origin }) = self.state.get(b"fallback").cloned() else { return Ok(None) };
        let value = value.as_result()?;
        let (found, rest) = if self.setup.release.reads_default_as_list {
            match red_hat_entry(menu, value)? {
                (Found::Entry(index), Some(rest)) if rest.first().is_none_or(|byte| is_space(*byte)) => {
                    (Found::Entry(index), rest)
                }
                _ => (Found::Nothing, b"".as_slice()),
            }
        } else {
            match unsigned(value, 0) {
                (Ok(number), rest) => (Found::Entry(usize::try_from(number).unwrap_or(usize::MAX)), rest),
                (Err(_), rest) => (Found::Nothing, rest),
            }
        };
        let rest = rest.trim_ascii_start();
        match found {
            Found::Entry(index) => {
                if rest.is_empty() && self.setup.release.reads_default_as_list {
                    self.state.unset(b"fallback");
                } else {
                    self.state.set(b"fallback", Value::from(rest), origin);
                }
                Ok(Some(index))
            }
            Found::Nothing => {
                self.state.unset(b"fallback");
                Ok(None)
            }
        }
    }

    fn run_with_fallback(&mut self, menu: &[Arc<MenuEntry>], index: usize, path: &[usize], origin: &Origin) {
        let Some(entry) = menu.get(index) else { return };
        let mut status = self.run_entry(entry, path, false);
        loop {
            match status {
                _ if self.state.end.is_some() => return,
                Status::Known(0) if !self.setup.release.always_falls_back => return,
                Status::Known(_) => {}
                Status::Unknown(unknown) => {
                    self.lose(unknown);
                    return;
                }
            }
            match self.next_fallback(menu) {
                Ok(None) => return,
                Err(unknown) => {
                    self.lose(unknown);
                    return;
                }
                Ok(Some(index)) => {
                    let doubt = menu.iter().take(index + 1).find_map(|entry| entry.doubt.clone());
                    let Some(entry) = menu.get(index).filter(|_| doubt.is_none()) else {
                        let reason = format!("what GRUB does with a fallback that is no entry: {index}");
                        let unknown = doubt.unwrap_or_else(|| self.unknown(origin, reason));
                        self.lose(unknown);
                        return;
                    };
                    let outer = path.split_last().map_or(&[][..], |(_, outer)| outer);
                    status = self.run_entry(entry, &[outer, &[index]].concat(), true);
                }
            }
        }
    }

    /// Runs an entry that starts by itself.
    fn run_entry(&mut self, entry: &Arc<MenuEntry>, path: &[usize], is_fallback: bool) -> Status {
        if entry.is_restricted && self.state.get(b"superusers").is_some() {
            self.state.end = Some(End::Password);
            return super::state::OK;
        }
        if !self.step() || !self.spend(256) {
            return super::state::OK;
        }
        let first_message = self.state.messages.len();
        let place = self.state.attempts.len();
        self.state.attempts.push(Attempt {
            path: path.to_vec(),
            entry: entry.clone(),
            is_fallback,
            load: None,
            boots: false,
            messages: Vec::new(),
        });
        let chosen = self.state.get(b"chosen").cloned();
        let default = self.state.get(b"default").cloned();
        if entry.is_submenu {
            self.open_context();
            self.state.set(b"timeout", Value::from("0"), None);
        }
        self.choose(entry, chosen.as_ref(), default.as_ref());
        let scope = self.state.scope.replace(Arc::new(entry.arguments.clone()));
        self.depth += 1;
        let status = self.run_body(&entry.body);
        self.state.scope = scope;
        self.state.flow = super::state::Flow::default();
        if self.state.end.is_none() && status == super::state::OK {
            match self.state.loaded.clone() {
                Loaded::This(load) => self.state.end = Some(End::Boots(Box::new((*load).clone()))),
                Loaded::Unknown(unknown) => drop(self.lose(unknown)),
                Loaded::Nothing => {}
            }
        }
        let load = match &self.state.loaded {
            Loaded::This(load) => Some((**load).clone()),
            _ => None,
        };
        let boots = matches!(self.state.end, Some(End::Boots(_))) && self.state.attempts.len() == place + 1;
        let messages = self.state.messages.get(first_message..).unwrap_or_default().to_vec();
        if let Some(attempt) = self.state.attempts.get_mut(place) {
            attempt.load = load;
            attempt.boots = boots;
            attempt.messages = messages;
        }
        if self.state.end.is_none() && entry.is_submenu {
            if !self.state.menu().is_empty() && self.depth < 64 {
                let origin = entry.origin.clone();
                self.show_menu(true, path, &origin);
            }
            if self.state.end.is_none() {
                self.state.close_context();
            }
        }
        self.depth -= 1;
        if self.state.end.is_none() {
            self.restore(b"chosen", chosen);
            self.restore(b"default", default);
            self.state.unset(b"timeout");
        }
        status
    }

    fn restore(&mut self, name: &[u8], old: Option<Variable>) {
        match old {
            Some(old) => self.state.set(name, old.value, old.origin),
            None => self.state.unset(name),
        }
    }

    /// Sets `chosen`, and takes the outermost name off `default`.
    fn choose(&mut self, entry: &MenuEntry, chosen: Option<&Variable>, default: Option<&Variable>) {
        let value = match &entry.id {
            Value::Unknown(unknown) => Value::Unknown(unknown.clone()),
            Value::Known(id) => {
                let mut text = Vec::new();
                match chosen.map(|chosen| &chosen.value) {
                    Some(Value::Known(outer)) => {
                        text.extend_from_slice(outer);
                        text.push(b'>');
                    }
                    Some(Value::Unknown(_)) | None => {}
                }
                for byte in id.iter() {
                    text.extend(std::iter::repeat_n(*byte, if *byte == b'>' { 2 } else { 1 }));
                }
                Value::from(text)
            }
        };
        self.state.set(b"chosen", value, Some(entry.origin.clone()));
        let Some(Variable { value: Value::Known(text), origin }) = default else { return };
        let mut at = 0;
        while let Some(byte) = text.get(at) {
            match (byte, text.get(at + 1)) {
                (b'>', Some(b'>')) => at += 2,
                (b'>', Some(_)) => {
                    self.state.set(b"default", Value::from(&text[at + 1..]), origin.clone());
                    return;
                }
                _ => at += 1,
            }
        }
    }
}

/// A title or id compared with the first name of `spec`: names are separated by `>`, which is doubled inside them.
fn is_named(name: &Value, spec: &[u8]) -> Resolved<bool> {
    let name = name.as_result()?;
    let mut name = name.iter();
    let mut spec = spec.iter().peekable();
    loop {
        let wanted = spec.next();
        if wanted == Some(&b'>') {
            if spec.peek() != Some(&&b'>') {
                return Ok(name.next().is_none());
            }
            spec.next();
        }
        match (name.next(), wanted) {
            (None, None) => return Ok(true),
            (one, two) if one == two => {}
            _ => return Ok(false),
        }
    }
}

fn upstream_entry(menu: &[Arc<MenuEntry>], value: &[u8]) -> Resolved<Found> {
    match unsigned(value, 0).0 {
        // What stands behind the number is not looked at.
        Ok(number) => Ok(usize::try_from(number).map_or(Found::Nothing, Found::Entry)),
        Err(NotANumber::Overflow) => Ok(Found::Nothing),
        Err(NotANumber::NoDigits) => {
            for (index, entry) in menu.iter().enumerate() {
                if is_named(&entry.title, value)? || is_named(&entry.id, value)? {
                    return match &entry.doubt {
                        Some(doubt) => Err(doubt.clone()),
                        None => Ok(Found::Entry(index)),
                    };
                }
            }
            Ok(Found::Nothing)
        }
    }
}

/// As Red Hat's build: the first word of a list as an id, all of it as a title, then a number. Also what stands
/// behind it; `None` when nothing can.
fn red_hat_entry<'a>(menu: &[Arc<MenuEntry>], value: &'a [u8]) -> Resolved<(Found, Option<&'a [u8]>)> {
    let length = value.iter().take_while(|byte| !is_space(**byte)).count();
    let sure = |index: usize, entry: &MenuEntry| match &entry.doubt {
        Some(doubt) => Err(doubt.clone()),
        None => Ok(Found::Entry(index)),
    };
    for (index, entry) in menu.iter().enumerate() {
        let id = entry.id.as_result()?;
        if id_matches(id, value, length) {
            return Ok((sure(index, entry)?, value.get(length..)));
        }
    }
    for (index, entry) in menu.iter().enumerate() {
        if !entry.title.as_result()?.is_empty() && is_named(&entry.title, value)? {
            return Ok((sure(index, entry)?, None));
        }
    }
    match unsigned(value, 0) {
        (Ok(number), rest) if rest.first().is_none_or(|byte| is_space(*byte)) => {
            Ok((usize::try_from(number).map_or(Found::Nothing, Found::Entry), Some(rest)))
        }
        _ => Ok((Found::Nothing, None)),
    }
}

/// `menuentry_eq` with a limit: an id that ends where the word does, or at a `>`.
fn id_matches(id: &[u8], spec: &[u8], limit: usize) -> bool {
    let (mut one, mut two) = (0, 0);
    while one <= limit {
        let wanted = spec.get(two);
        let is_separator = wanted == Some(&b'>') && spec.get(two + 1) != Some(&b'>');
        if is_separator {
            return id.get(one).is_none() && two > 0;
        }
        if wanted == Some(&b'>') {
            two += 1;
        }
        if id.get(one) != spec.get(two) {
            let ends_at_word =
                one == limit && id.get(one).is_none() && spec.get(two).is_some_and(|byte| is_space(*byte));
            // `ptr1 - id - 1`, which is no match for an id of one letter.
            return ends_at_word && one > 1;
        }
        if id.get(one).is_none() {
            return one > 0;
        }
        one += 1;
        two += 1;
    }
    false
}
