//! Tokens to commands: the grammar of GRUB's `parser.y`, one token ahead.

use std::ops::Range;

use super::lexer::{Kind, Lexer, Reserved, Token};
use super::text::{Text, line_of};
use super::tree::{Block, Command, Simple, SyntaxError, SyntaxErrorKind, Unit, Word};

/// How deep constructs may nest. GRUB's parser has 10 000 symbols of room, and runs 64 levels.
const DEEPEST: usize = 150;

/// The units of a range of the text.
pub(super) fn units(text: &Text, range: Range<usize>, lines: &[usize]) -> Vec<Unit> {
    let mut units = Vec::new();
    let mut start = range.start;
    while start < range.end {
        let lexer = Lexer::new(text, start..range.end);
        let mut parser =
            Parser { lexer, text, lines, ahead: None, depth: 0, is_between: false, can_restart: false };
        let commands = parser.script().map_err(|(kind, at)| {
            let span = text.span(&(at.start..at.end.min(range.end)));
            let messages = parser.messages(kind, &at);
            SyntaxError { line: line_of(lines, span.start), span, kind, messages }
        });
        let end = parser.lexer.line_end.min(range.end).max(start + 1);
        let span = text.span(&(start..end));
        units.push(Unit { line: line_of(lines, span.start), span, commands });
        start = end;
    }
    units
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    text: &'a Text,
    lines: &'a [usize],
    ahead: Option<Token>,
    depth: usize,
    /// Whether a statement may start here, behind something else.
    is_between: bool,
    /// Whether the token that cannot stand here could start a statement.
    can_restart: bool,
}

type Parse<T> = Result<T, (SyntaxErrorKind, Range<usize>)>;

impl Parser<'_> {
    fn peek(&mut self) -> Parse<Kind> {
        if self.ahead.is_none() {
            self.ahead = Some(self.lexer.next()?);
        }
        Ok(self.ahead.as_ref().map_or(Kind::End, |token| token.kind))
    }

    fn take(&mut self) -> Parse<Token> {
        self.peek()?;
        let end = self.lexer.at;
        Ok(self.ahead.take().unwrap_or(Token { kind: Kind::End, range: end..end, parts: Vec::new() }))
    }

    /// GRUB's parser gives up at once between statements. Inside of one it starts over, with the same token.
    fn messages(&self, kind: SyntaxErrorKind, at: &Range<usize>) -> Vec<String> {
        let bad = match kind {
            SyntaxErrorKind::WordTooLong => return vec!["token too large, exceeds YYLMAX".to_owned()],
            SyntaxErrorKind::TooDeep => return vec!["memory exhausted".to_owned()],
            SyntaxErrorKind::UnexpectedEnd => Some("out of memory".to_owned()),
            SyntaxErrorKind::BadToken if at.len() == 1 => {
                let token = self.text.bytes.get(at.clone()).unwrap_or_default();
                Some(String::from_utf8_lossy(token).into_owned())
            }
            SyntaxErrorKind::BadToken | SyntaxErrorKind::UnexpectedToken => None,
        };
        let rest: &[&str] = match (self.is_between, self.can_restart) {
            (true, _) => &["syntax error"],
            (false, false) => &["syntax error", "Incorrect command", "syntax error"],
            (false, true) => {
                &["syntax error", "Incorrect command", "syntax error", "Incorrect command", "syntax error"]
            }
        };
        bad.into_iter().chain(rest.iter().map(|text| (*text).to_owned())).collect()
    }

    fn unexpected<T>(&mut self) -> Parse<T> {
        let token = self.take()?;
        let starters = [Reserved::If, Reserved::For, Reserved::While, Reserved::Until, Reserved::Function];
        self.can_restart = match token.kind {
            Kind::Name | Kind::Word => true,
            Kind::Reserved(reserved) => starters.contains(&reserved),
            _ => false,
        };
        Err((SyntaxErrorKind::UnexpectedToken, token.range))
    }

    fn expect(&mut self, kind: Kind) -> Parse<Token> {
        if self.peek()? == kind { self.take() } else { self.unexpected() }
    }

    fn newlines(&mut self) -> Parse<()> {
        while self.peek()? == Kind::Newline {
            self.take()?;
        }
        Ok(())
    }

    /// One delimiter, and newlines behind it.
    fn delimiters(&mut self) -> Parse<bool> {
        if !matches!(self.peek()?, Kind::Newline | Kind::Semicolon) {
            return Ok(false);
        }
        self.take()?;
        self.newlines()?;
        Ok(true)
    }

    fn script(&mut self) -> Parse<Vec<Command>> {
        let mut commands = Vec::new();
        while self.peek()? == Kind::Newline {
            self.take()?;
            self.is_between = true;
        }
        while self.peek()? != Kind::End {
            let kind = self.peek()?;
            let starts = matches!(kind, Kind::Name | Kind::Word | Kind::Reserved(_));
            self.is_between &= !starts || self.cannot_start(kind);
            commands.push(match kind {
                Kind::Reserved(Reserved::Function) => self.function()?,
                _ => self.command()?,
            });
            if !matches!(self.peek()?, Kind::Newline | Kind::Semicolon) {
                return self.unexpected();
            }
            self.take()?;
            self.is_between = true;
            self.newlines()?;
        }
        Ok(commands)
    }

    fn cannot_start(&self, kind: Kind) -> bool {
        let starters = [Reserved::If, Reserved::For, Reserved::While, Reserved::Until, Reserved::Function];
        matches!(kind, Kind::Reserved(reserved) if !starters.contains(&reserved))
    }

    /// Commands, and whether a delimiter stands behind the last.
    fn list(&mut self) -> Parse<(Vec<Command>, bool)> {
        self.newlines()?;
        let mut commands = vec![self.command()?];
        loop {
            if !self.delimiters()? {
                return Ok((commands, false));
            }
            match self.peek()? {
                Kind::Name | Kind::Word => {}
                Kind::Reserved(Reserved::If | Reserved::For | Reserved::While | Reserved::Until) => {}
                _ => return Ok((commands, true)),
            }
            commands.push(self.command()?);
        }
    }

    /// Commands with a delimiter behind the last, and then a reserved word.
    fn list_before(&mut self, reserved: Reserved) -> Parse<Vec<Command>> {
        let commands = self.delimited_list()?;
        self.expect(Kind::Reserved(reserved))?;
        Ok(commands)
    }

    fn delimited_list(&mut self) -> Parse<Vec<Command>> {
        let (commands, is_delimited) = self.list()?;
        if is_delimited { Ok(commands) } else { self.unexpected() }
    }

    fn line(&self, token: &Token) -> usize {
        line_of(self.lines, self.text.origin(token.range.start))
    }

    fn command(&mut self) -> Parse<Command> {
        self.depth += 1;
        let kind = self.peek()?;
        if self.depth > DEEPEST {
            let token = self.take()?;
            return Err((SyntaxErrorKind::TooDeep, token.range));
        }
        let command = match kind {
            Kind::Name | Kind::Word => Command::Simple(self.simple()?),
            Kind::Reserved(Reserved::If) => self.conditional()?,
            Kind::Reserved(Reserved::For) => self.counted_loop()?,
            Kind::Reserved(Reserved::While) => self.conditional_loop(false)?,
            Kind::Reserved(Reserved::Until) => self.conditional_loop(true)?,
            _ => return self.unexpected(),
        };
        self.depth -= 1;
        Ok(command)
    }

    fn conditional(&mut self) -> Parse<Command> {
        let token = self.take()?;
        let line = self.line(&token);
        self.lexer.open += 1;
        let mut arms = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            let condition = self.list_before(Reserved::Then)?;
            let then = self.delimited_list()?;
            arms.push((condition, then));
            match self.peek()? {
                Kind::Reserved(Reserved::Elif) => {
                    self.take()?;
                    continue;
                }
                Kind::Reserved(Reserved::Else) => {
                    self.take()?;
                    otherwise = self.delimited_list()?;
                }
                _ => {}
            }
            self.expect(Kind::Reserved(Reserved::Fi))?;
            self.lexer.open -= 1;
            return Ok(Command::If { line, arms, otherwise });
        }
    }

    fn counted_loop(&mut self) -> Parse<Command> {
        let token = self.take()?;
        let line = self.line(&token);
        let name = self.expect(Kind::Name)?;
        self.lexer.open += 1;
        self.expect(Kind::Reserved(Reserved::In))?;
        let words = self.arguments()?;
        if !self.delimiters()? {
            return self.unexpected();
        }
        self.expect(Kind::Reserved(Reserved::Do))?;
        let body = self.list_before(Reserved::Done)?;
        self.lexer.open -= 1;
        Ok(Command::For { line, name: self.raw(&name), words, body })
    }

    fn conditional_loop(&mut self, is_until: bool) -> Parse<Command> {
        let token = self.take()?;
        let line = self.line(&token);
        self.lexer.open += 1;
        let condition = self.list_before(Reserved::Do)?;
        let body = self.list_before(Reserved::Done)?;
        self.lexer.open -= 1;
        Ok(Command::While { line, is_until, condition, body })
    }

    fn function(&mut self) -> Parse<Command> {
        let token = self.take()?;
        let line = self.line(&token);
        let name = self.expect(Kind::Name)?;
        self.lexer.open += 1;
        self.newlines()?;
        self.expect(Kind::BlockStart)?;
        let body = self.delimited_list()?;
        self.expect(Kind::BlockEnd)?;
        self.lexer.open -= 1;
        Ok(Command::Function { line, name: self.raw(&name), body })
    }

    fn raw(&self, token: &Token) -> Vec<u8> {
        self.text.bytes.get(token.range.clone()).unwrap_or_default().to_vec()
    }

    fn arguments(&mut self) -> Parse<Vec<Word>> {
        let mut words = Vec::new();
        while matches!(self.peek()?, Kind::Name | Kind::Word | Kind::Reserved(_)) {
            let token = self.take()?;
            words.push(self.word(token));
        }
        Ok(words)
    }

    fn word(&self, token: Token) -> Word {
        let span = self.text.span(&token.range);
        Word { line: line_of(self.lines, span.start), span, parts: token.parts }
    }

    fn simple(&mut self) -> Parse<Simple> {
        let first = self.take()?;
        let start = first.range.start;
        let line = self.line(&first);
        let mut words = vec![self.word(first)];
        words.extend(self.arguments()?);
        let mut end = words.last().map_or(0, |word| word.span.end);
        let mut block = None;
        if self.peek()? == Kind::BlockStart {
            let brace = self.take()?;
            self.lexer.open += 1;
            self.list()?;
            let close = self.expect(Kind::BlockEnd)?;
            self.lexer.open -= 1;
            let inside = brace.range.end..close.range.start;
            let from = self.text.origin(brace.range.end);
            let to = self.text.origin(close.range.start);
            end = self.text.origin(close.range.start) + 1;
            block = Some(Block { span: from..to.max(from), text: inside });
        }
        Ok(Simple { words, block, span: self.text.origin(start)..end, line })
    }
}
