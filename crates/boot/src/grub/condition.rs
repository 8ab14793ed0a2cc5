//! `test` and `[`: GRUB's own evaluation, left to right, without precedence but `-o` below all.

use std::sync::Arc;

use super::error::ErrorCode;
use super::expand::Arg;
use super::interpreter::{Fail, Machine};
use super::number::{NotANumber, signed, unsigned};
use super::script::Origin;
use super::state::{OK, Status};
use super::value::{Unknown, Value};
use super::world::{Answer, Place};

/// Levels of parentheses.
const DEPTH: usize = 100;

type Truth = Result<bool, Arc<Unknown>>;

fn and(one: Truth, two: Truth) -> Truth {
    match (one, two) {
        (Ok(false), _) | (_, Ok(false)) => Ok(false),
        (Ok(true), other) | (other, _) => other,
    }
}

fn or(one: Truth, two: Truth) -> Truth {
    match (one, two) {
        (Ok(true), _) | (_, Ok(true)) => Ok(true),
        (Ok(false), other) | (other, _) => other,
    }
}

struct Sum {
    or: Truth,
    and: Truth,
    invert: bool,
}

impl Sum {
    fn update(&mut self, value: Truth) {
        let value = value.map(|value| value != self.invert);
        self.and = and(self.and.clone(), value);
        self.invert = false;
    }

    fn result(&self) -> Truth {
        or(self.or.clone(), self.and.clone())
    }
}

impl Machine<'_> {
    pub(super) fn test(&mut self, args: &[Arg], origin: &Origin) -> Status {
        let args = match args.split_last() {
            Some((last, rest)) if last.value.known() == Some(b"]") => rest,
            _ => args,
        };
        self.number_error = None;
        match self.expression(args, &mut 0, 0, origin) {
            // An error on the way is printed only when the condition holds; else its own replaces it.
            Ok(true) => {
                if let Some(text) = self.number_error.take() {
                    self.print(origin, text.to_owned());
                }
                OK
            }
            Ok(false) => Status::Known(ErrorCode::TestFailure as i32),
            Err(unknown) => Status::Unknown(unknown),
        }
    }

    fn expression(&mut self, args: &[Arg], at: &mut usize, depth: usize, origin: &Origin) -> Truth {
        let mut sum = Sum { or: Ok(false), and: Ok(true), invert: false };
        let word = |index: usize| args.get(index).and_then(|arg| arg.value.known());
        while let Some(first) = args.get(*at) {
            let operator = word(*at + 1).unwrap_or_default();
            if let Some(second) = args.get(*at + 2)
                && let Some(value) = self.binary(&first.value, operator, &second.value, origin)
            {
                sum.update(value);
                *at += 3;
                continue;
            }
            let kind = word(*at).unwrap_or_default();
            if let Some(operand) = args.get(*at + 1)
                && let Some(value) = self.unary(kind, &operand.value, origin)
            {
                sum.update(value);
                *at += 2;
                continue;
            }
            *at += 1;
            match kind {
                b")" => return sum.result(),
                b"(" => {
                    if depth >= DEPTH {
                        let unknown = self.unknown(origin, "what so many parentheses say");
                        return Err(unknown);
                    }
                    let value = self.expression(args, at, depth + 1, origin);
                    sum.update(value);
                }
                b"!" => sum.invert = !sum.invert,
                b"-a" => {}
                b"-o" => {
                    sum.or = sum.result();
                    sum.and = Ok(true);
                }
                _ => sum.update(first.value.as_result().map(|value| !value.is_empty())),
            }
        }
        sum.result()
    }

    fn binary(&mut self, one: &Value, operator: &[u8], two: &Value, origin: &Origin) -> Option<Truth> {
        let both = || Ok::<_, Arc<Unknown>>((one.as_result()?, two.as_result()?));
        if matches!(operator, b"-eq" | b"-ne" | b"-lt" | b"-le" | b"-gt" | b"-ge") {
            for text in [one, two].into_iter().filter_map(Value::known) {
                self.note_number(text.strip_prefix(b"-").unwrap_or(text));
            }
        }
        if let (b"-pgt" | b"-plt", Some(one), Some(two)) = (operator, one.known(), two.known()) {
            let at = behind_common(one, two);
            for text in [one, two] {
                self.note_number(text.get(at..).unwrap_or_default());
            }
        }
        let text = |test: fn(&[u8], &[u8]) -> bool| Some(both().map(|(one, two)| test(one, two)));
        let number =
            |test: fn(&i64, &i64) -> bool| Some(both().map(|(one, two)| test(&signed(one), &signed(two))));
        match operator {
            b"=" | b"==" => text(|one, two| one == two),
            b"!=" => text(|one, two| one != two),
            b"<" => text(|one, two| one < two),
            b"<=" => text(|one, two| one <= two),
            b">" => text(|one, two| one > two),
            b">=" => text(|one, two| one >= two),
            b"-eq" => number(i64::eq),
            b"-ne" => number(i64::ne),
            b"-lt" => number(i64::lt),
            b"-le" => number(i64::le),
            b"-gt" => number(i64::gt),
            b"-ge" => number(i64::ge),
            b"-pgt" => text(|one, two| {
                let (one, two) = behind_prefix(one, two);
                one > two
            }),
            b"-plt" => text(|one, two| {
                let (one, two) = behind_prefix(one, two);
                one < two
            }),
            _ if operator.starts_with(b"-nt") || operator.starts_with(b"-ot") => {
                let unknown = self.unknown(origin, "which file is newer as GRUB sees it");
                Some(Err(unknown))
            }
            _ => None,
        }
    }

    fn note_number(&mut self, text: &[u8]) {
        match unsigned(text, 0).0 {
            Ok(_) => {}
            Err(NotANumber::NoDigits) => self.number_error = Some("unrecognized number"),
            Err(NotANumber::Overflow) => self.number_error = Some("overflow is detected"),
        }
    }

    fn unary(&mut self, operator: &[u8], operand: &Value, origin: &Origin) -> Option<Truth> {
        match operator {
            b"-n" => Some(operand.as_result().map(|value| !value.is_empty())),
            b"-z" => Some(operand.as_result().map(<[u8]>::is_empty)),
            b"-s" => {
                self.number_error = None;
                Some(match self.open(operand, origin) {
                    Ok((_, _, size, _)) => Ok(size != 0),
                    Err(Fail::Error(_)) => Ok(false),
                    Err(Fail::Unknown(unknown)) => Err(unknown),
                })
            }
            b"-d" => Some(self.entry(operand, origin).map(|entry| entry == Some(true))),
            b"-f" => Some(self.entry(operand, origin).map(|entry| entry == Some(false))),
            b"-e" => Some(self.entry(operand, origin).map(|entry| entry.is_some())),
            _ => None,
        }
    }

    fn entry(&mut self, name: &Value, origin: &Origin) -> Result<Option<bool>, Arc<Unknown>> {
        let (device, mut path) = match self.split_name(name, origin) {
            Ok(split) => split,
            Err(Fail::Error(_)) => return Ok(None),
            Err(Fail::Unknown(unknown)) => return Err(unknown),
        };
        while path.ends_with(b"/") {
            path.pop();
        }
        if !path.starts_with(b"/") {
            path.insert(0, b'/');
        }
        let place = Place { device: &device, is_btrfs_relative: self.is_btrfs_relative() };
        match self.world.entry(place, &path) {
            Answer::Known(entry) => Ok(entry),
            Answer::Unknown(reason) => Err(self.unknown(origin, reason)),
        }
    }
}

/// Where the numbers start behind what two texts have in common.
fn behind_common(one: &[u8], two: &[u8]) -> usize {
    let mut at = one.iter().zip(two).take_while(|(one, two)| one == two).count();
    // Digits in common belong to the numbers; the first byte never does.
    while at > 1 && one.get(at - 1).is_some_and(u8::is_ascii_digit) {
        at -= 1;
    }
    at
}

/// The numbers behind what two texts have in common.
fn behind_prefix(one: &[u8], two: &[u8]) -> (u64, u64) {
    let at = behind_common(one, two);
    let number = |text: &[u8]| match unsigned(text.get(at..).unwrap_or_default(), 0).0 {
        Ok(number) => number,
        Err(NotANumber::NoDigits) => 0,
        Err(NotANumber::Overflow) => u64::MAX,
    };
    (number(one), number(two))
}
