//! What changes while a script runs, and how two ways it may have gone become one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guest_files::grub_cfg::Command;

use super::blscfg::Snippet;
use super::report::{Attempt, Choice, End, Load, MenuEntry, Message};
use super::script::{Origin, Script};
use super::value::{Unknown, Value};

/// What a command returned: GRUB's error number, 0 for none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Status {
    Known(i32),
    Unknown(Arc<Unknown>),
}

pub(super) const OK: Status = Status::Known(0);

#[derive(Debug, Clone)]
pub(super) struct Variable {
    pub(super) value: Value,
    /// Where it was set; `None` for what GRUB sets itself.
    pub(super) origin: Option<Origin>,
}

/// Variables and a menu: a submenu and another configuration get their own.
#[derive(Debug, Clone, Default)]
pub(super) struct Context {
    pub(super) variables: BTreeMap<Vec<u8>, Variable>,
    pub(super) menu: Vec<Arc<MenuEntry>>,
}

#[derive(Debug, Clone)]
pub(super) enum Function {
    Known { script: Arc<Script>, body: Arc<Vec<Command>> },
    Unknown(Arc<Unknown>),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Flow {
    /// Loops around the command, in this function.
    pub(super) loops: usize,
    /// Loops still to leave.
    pub(super) breaks: usize,
    pub(super) is_continue: bool,
    pub(super) returns: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Loaded {
    Nothing,
    This(Arc<Load>),
    Unknown(Arc<Unknown>),
}

#[derive(Debug, Clone)]
pub(super) struct State {
    /// The innermost last.
    pub(super) contexts: Vec<Arc<Context>>,
    pub(super) functions: BTreeMap<Vec<u8>, Function>,
    /// `$1` and so on; `None` outside of functions and entries.
    pub(super) scope: Option<Arc<Vec<Value>>>,
    pub(super) flow: Flow,
    /// `$?`; not set before the first command.
    pub(super) status: Option<Status>,
    pub(super) loaded: Loaded,
    /// Whether `*` and `?` match files: the module `regexp` is loaded.
    pub(super) has_wildcards: bool,
    pub(super) loopbacks: BTreeSet<String>,
    pub(super) snippets: Arc<Vec<Snippet>>,
    pub(super) messages: Vec<Message>,
    pub(super) attempts: Vec<Attempt>,
    /// The menu that was shown first, what starts from it, and after how many seconds.
    pub(super) shown: Option<(Vec<Arc<MenuEntry>>, Choice, Option<u64>)>,
    pub(super) end: Option<End>,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            contexts: vec![Arc::default()],
            functions: BTreeMap::new(),
            scope: None,
            flow: Flow::default(),
            status: None,
            loaded: Loaded::Nothing,
            has_wildcards: false,
            loopbacks: BTreeSet::new(),
            snippets: Arc::default(),
            messages: Vec::new(),
            attempts: Vec::new(),
            shown: None,
            end: None,
        }
    }

    fn context(&self) -> Option<&Context> {
        self.contexts.last().map(|context| &**context)
    }

    pub(super) fn get(&self, name: &[u8]) -> Option<&Variable> {
        self.context()?.variables.get(name)
    }

    pub(super) fn set(&mut self, name: &[u8], value: Value, origin: Option<Origin>) {
        // The one variable whose value GRUB changes: a device without its parentheses.
        let value = match &value {
            Value::Known(bytes) if name == b"root" => {
                let bare = bytes.strip_prefix(b"(").and_then(|bytes| bytes.strip_suffix(b")"));
                bare.map_or(value.clone(), Value::from)
            }
            _ => value,
        };
        if let Some(context) = self.contexts.last_mut() {
            Arc::make_mut(context).variables.insert(name.to_vec(), Variable { value, origin });
        }
    }

    pub(super) fn unset(&mut self, name: &[u8]) {
        if let Some(context) = self.contexts.last_mut() {
            Arc::make_mut(context).variables.remove(name);
        }
    }

    pub(super) fn menu(&self) -> &[Arc<MenuEntry>] {
        self.context().map_or(&[], |context| &context.menu)
    }

    pub(super) fn menu_mut(&mut self) -> Option<&mut Vec<Arc<MenuEntry>>> {
        Some(&mut Arc::make_mut(self.contexts.last_mut()?).menu)
    }

    /// All variables, an empty menu.
    pub(super) fn open_context(&mut self) {
        let variables = self.context().map(|context| context.variables.clone()).unwrap_or_default();
        self.contexts.push(Arc::new(Context { variables, menu: Vec::new() }));
    }

    /// The innermost context, taken away; the outermost stays.
    pub(super) fn close_context(&mut self) -> Option<Arc<Context>> {
        if self.contexts.len() > 1 { self.contexts.pop() } else { None }
    }

    /// What is true whichever of the two ways it went; `why` is what decides between them.
    pub(super) fn join(self, other: Self, why: &Arc<Unknown>) -> Self {
        let mut state = self;
        let same_end = match (&state.end, &other.end) {
            (None, None) => true,
            (Some(one), Some(two)) => one == two,
            _ => false,
        };
        if !same_end || state.flow != other.flow || state.contexts.len() != other.contexts.len() {
            state.end = Some(End::Unknown(why.clone()));
            return state;
        }
        let unknown = || Value::Unknown(why.clone());
        for (mine, theirs) in state.contexts.iter_mut().zip(&other.contexts) {
            if Arc::ptr_eq(mine, theirs) {
                continue;
            }
            let mine = Arc::make_mut(mine);
            for (name, variable) in &mut mine.variables {
                if theirs.variables.get(name).is_none_or(|other| other.value != variable.value) {
                    *variable = Variable { value: unknown(), origin: None };
                }
            }
            for name in theirs.variables.keys() {
                if !mine.variables.contains_key(name) {
                    mine.variables.insert(name.clone(), Variable { value: unknown(), origin: None });
                }
            }
            let common = mine.menu.iter().zip(&theirs.menu).take_while(|(one, two)| one == two).count();
            let doubtful = |entry: &Arc<MenuEntry>| {
                let doubt = entry.doubt.clone().or_else(|| Some(why.clone()));
                Arc::new(MenuEntry { doubt, ..(**entry).clone() })
            };
            let rest: Vec<_> =
                mine.menu.iter().skip(common).chain(theirs.menu.iter().skip(common)).map(doubtful).collect();
            mine.menu.truncate(common);
            mine.menu.extend(rest);
        }
        for (name, function) in &mut state.functions {
            let is_same = match (&*function, other.functions.get(name)) {
                (Function::Known { body: one, .. }, Some(Function::Known { body: two, .. })) => {
                    Arc::ptr_eq(one, two)
                }
                (Function::Unknown(_), Some(Function::Unknown(_))) => true,
                _ => false,
            };
            if !is_same {
                *function = Function::Unknown(why.clone());
            }
        }
        for name in other.functions.keys() {
            state.functions.entry(name.clone()).or_insert_with(|| Function::Unknown(why.clone()));
        }
        if state.scope != other.scope {
            let length = |scope: &Option<Arc<Vec<Value>>>| scope.as_ref().map_or(0, |scope| scope.len());
            let count = length(&state.scope).max(length(&other.scope));
            state.scope = Some(Arc::new((0..count).map(|_| unknown()).collect()));
        }
        if state.status != other.status {
            state.status = Some(Status::Unknown(why.clone()));
        }
        if state.loaded != other.loaded {
            state.loaded = Loaded::Unknown(why.clone());
        }
        state.has_wildcards |= other.has_wildcards;
        state.loopbacks.extend(other.loopbacks);
        if other.snippets.len() > state.snippets.len() {
            state.snippets = other.snippets;
        }
        let common = state.messages.iter().zip(&other.messages).take_while(|(one, two)| one == two).count();
        let theirs = other.messages.into_iter().skip(common);
        let mut rest: Vec<Message> = state.messages.drain(common..).chain(theirs).collect();
        for message in &mut rest {
            message.doubt = message.doubt.take().or_else(|| Some(why.clone()));
        }
        state.messages.extend(rest);
        state
    }
}
