//! What the parser finds.

use std::ops::Range;

/// Lines that GRUB parses, and then runs, as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// From the first line to the last, with its newline.
    pub span: Range<usize>,
    /// Line of its first byte, from 1.
    pub line: usize,
    /// Its commands; on an error none of them is run, though functions defined before it are.
    pub commands: Result<Vec<Command>, SyntaxError>,
}

/// A command, or what holds commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A command with its arguments, or an assignment.
    Simple(Simple),
    /// `if … then … elif … then … else … fi`.
    If {
        /// Line of the `if`.
        line: usize,
        /// Conditions with what runs when one holds; the first is the `if`, the others are `elif`.
        arms: Vec<(Vec<Command>, Vec<Command>)>,
        /// Behind `else`; empty without one.
        otherwise: Vec<Command>,
    },
    /// `while … do … done`, `until … do … done`.
    While {
        /// Line of the `while`.
        line: usize,
        /// Whether it is `until`.
        is_until: bool,
        /// Run before each round.
        condition: Vec<Command>,
        /// Run in each round.
        body: Vec<Command>,
    },
    /// `for NAME in WORDS; do … done`.
    For {
        /// Line of the `for`.
        line: usize,
        /// The variable.
        name: Vec<u8>,
        /// What it takes in turn, before expansion.
        words: Vec<Word>,
        /// Run in each round.
        body: Vec<Command>,
    },
    /// `function NAME { … }`: defined as soon as it is parsed.
    Function {
        /// Line of the `function`.
        line: usize,
        /// Its name.
        name: Vec<u8>,
        /// What it runs.
        body: Vec<Command>,
    },
}

/// Words, the first of which names the command, and perhaps a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Simple {
    /// The words, at least one.
    pub words: Vec<Word>,
    /// The block behind them.
    pub block: Option<Block>,
    /// From the first word to the last, or to the block's `}`.
    pub span: Range<usize>,
    /// Line of the first word, from 1.
    pub line: usize,
}

/// One word, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Where it stands, quotes included.
    pub span: Range<usize>,
    /// Its line, from 1.
    pub line: usize,
    /// Its pieces. None, or only empty text, makes no argument; empty quotes make an empty one.
    pub parts: Vec<Part>,
}

/// A piece of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Outside of quotes; backslashes still escape, `*` and `?` may match files.
    Text(Vec<u8>),
    /// Inside quotes of either kind, quoting undone.
    Quoted(Vec<u8>),
    /// A variable; outside of double quotes its value is split at blanks.
    Variable {
        /// The name: letters, digits, or one of `?#*@`.
        name: Vec<u8>,
        /// Whether it stands in double quotes.
        is_quoted: bool,
    },
    /// `$"…"`, translated; variables are expanded afterwards.
    Translated(Vec<u8>),
}

/// `{ … }` behind a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Between the braces.
    pub span: Range<usize>,
    /// The same in the text that the parser sees.
    pub(super) text: Range<usize>,
}

/// Where and why a unit was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// The token that cannot stand there.
    pub span: Range<usize>,
    /// Its line, from 1.
    pub line: usize,
    /// Why.
    pub kind: SyntaxErrorKind,
    /// What GRUB prints, in order, without the leading `error: ` and the full stop.
    pub messages: Vec<String>,
}

/// Why a unit is no script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyntaxErrorKind {
    /// This token cannot stand here.
    UnexpectedToken,
    /// A `$` or another byte that starts no token.
    BadToken,
    /// The file ends inside a quote, a block, an `if`, a loop or a function, or behind a backslash.
    UnexpectedEnd,
    /// A word of more than 8191 bytes: GRUB itself stops.
    WordTooLong,
    /// More levels than GRUB's parser has room for.
    TooDeep,
}

impl Word {
    /// Its value when no variable, translation or wildcard has a part in it.
    pub fn literal(&self) -> Option<Vec<u8>> {
        let mut value = Vec::new();
        for part in &self.parts {
            match part {
                Part::Quoted(text) => value.extend_from_slice(text),
                Part::Text(text) => {
                    let mut bytes = text.iter();
                    while let Some(byte) = bytes.next() {
                        match byte {
                            b'\\' => value.extend(bytes.next()),
                            b'*' | b'?' => return None,
                            _ => value.push(*byte),
                        }
                    }
                }
                Part::Variable { .. } | Part::Translated(_) => return None,
            }
        }
        Some(value)
    }
}

impl Simple {
    /// The name of the command when it is written out.
    pub fn name(&self) -> Option<Vec<u8>> {
        self.words.first().and_then(Word::literal)
    }
}
