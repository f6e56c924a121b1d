//! JSON as Python 3.11's `json.loads` reads it in DRF's strict mode, with its error texts and places.
//!
//! Follows `Modules/_json.c`: the texts say how far that scanner came, so its steps are taken in its order. What is
//! nested is walked with a stack of its own, so depth costs a byte a level and never the thread's stack.

use crate::body::{Fields, Given, Text};
use zeroize::Zeroizing;

/// Deepest nesting. Python's own limit is about 960 at this place, and Django then answers 500.
pub(crate) const NESTING_MAX: usize = 960;

/// Most digits of an integer (`sys.int_info.default_max_str_digits`).
const DIGITS_MAX: usize = 4300;

/// A document, of which only the fields that are asked for are kept.
#[derive(Debug)]
pub(crate) enum Document {
    Object(Fields),
    Null,
    /// With Python's name for its type.
    Other(&'static str),
}

/// Reads a document.
///
/// # Errors
/// Python's text.
pub(crate) fn parse(text: &str, names: &'static [&'static str]) -> Result<Document, String> {
    // Places are counted in characters, not in bytes.
    let mut characters = Zeroizing::new(Vec::with_capacity(text.len()));
    characters.extend(text.chars());
    let mut scanner = Scanner { text: &characters, at: 0, names };
    scanner.document().map_err(|fault| fault.text(&characters))
}

/// What is wrong, and where.
struct Fault {
    message: String,
    /// Index of a character; `None`: not a `JSONDecodeError`, which has a place.
    at: Option<usize>,
}

impl Fault {
    fn at(at: usize, message: &str) -> Self {
        Self { message: message.to_owned(), at: Some(at) }
    }

    fn text(&self, characters: &[char]) -> String {
        let Self { message, at } = self;
        let Some(at) = at else { return message.clone() };
        let before = characters.get(..*at).unwrap_or(characters);
        let line = before.iter().filter(|character| **character == '\n').count().saturating_add(1);
        let column =
            before.iter().rev().take_while(|character| **character != '\n').count().saturating_add(1);
        format!("{message}: line {line} column {column} (char {at})")
    }
}

/// A list or a dictionary that is not closed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    List,
    Dictionary,
}

impl Open {
    fn closer(self) -> char {
        match self {
            Self::List => ']',
            Self::Dictionary => '}',
        }
    }
}

/// A value without others in it, or the beginning of one with.
enum Term {
    Open(Open),
    Null,
    Bool,
    Integer(String),
    Float(String),
    Text(Text),
}

impl Term {
    fn given(self) -> Given {
        match self {
            Self::Open(_) | Self::Bool => Given::NoText,
            Self::Null => Given::Null,
            Self::Integer(text) | Self::Float(text) => Given::text(Zeroizing::new(text)),
            Self::Text(text) => Given::Text(text),
        }
    }
}

struct Scanner<'a> {
    text: &'a [char],
    at: usize,
    names: &'static [&'static str],
}

impl Scanner<'_> {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn step(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    fn take(&mut self, character: char) -> bool {
        let is_next = self.peek() == Some(character);
        if is_next {
            self.step();
        }
        is_next
    }

    fn take_word(&mut self, word: &str) -> bool {
        let end = self.at.saturating_add(word.len());
        let is_next = self.text.get(self.at..end).is_some_and(|next| next.iter().copied().eq(word.chars()));
        if is_next {
            self.at = end;
        }
        is_next
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t' | '\n' | '\r')) {
            self.step();
        }
    }

    fn fault<T>(&self, message: &str) -> Result<T, Fault> {
        Err(Fault::at(self.at, message))
    }

    /// `json.loads`
    fn document(&mut self) -> Result<Document, Fault> {
        if self.peek() == Some('\u{feff}') {
            return self.fault("Unexpected UTF-8 BOM (decode using utf-8-sig)");
        }
        self.blanks();
        let document = match self.term()? {
            Term::Open(open) => {
                let fields = self.nested(open)?;
                if open == Open::Dictionary { Document::Object(fields) } else { Document::Other("list") }
            }
            Term::Null => Document::Null,
            Term::Bool => Document::Other("bool"),
            Term::Integer(_) => Document::Other("int"),
            Term::Float(_) => Document::Other("float"),
            Term::Text(_) => Document::Other("str"),
        };
        self.blanks();
        if self.at < self.text.len() { self.fault("Extra data") } else { Ok(document) }
    }

    /// The rest of a list or a dictionary, with all that is in it (`_parse_object_unicode`, `_parse_array_unicode`).
    fn nested(&mut self, outermost: Open) -> Result<Fields, Fault> {
        let mut fields = Fields::of(self.names);
        let mut name = None;
        let mut stack = vec![outermost];
        let mut is_first = true;
        while let Some(innermost) = stack.last().copied() {
            self.blanks();
            let is_closed = self.take(innermost.closer());
            if is_closed {
                stack.pop();
            } else {
                if !is_first {
                    if !self.take(',') {
                        return self.fault("Expecting ',' delimiter");
                    }
                    self.blanks();
                }
                if innermost == Open::Dictionary {
                    let key = self.key()?;
                    if stack.len() == 1 {
                        name = Some(key);
                    }
                }
                let term = self.term()?;
                if let Term::Open(open) = term {
                    if stack.len() >= NESTING_MAX {
                        return self.fault("Nested too deeply");
                    }
                    stack.push(open);
                    is_first = true;
                    continue;
                }
                if stack.len() == 1 {
                    fields.set(name.as_deref().map_or("", String::as_str), || term.given());
                }
            }
            is_first = false;
            if is_closed && stack.len() == 1 {
                fields.set(name.as_deref().map_or("", String::as_str), || Given::NoText);
            }
        }
        Ok(fields)
    }

    /// A name and its colon.
    fn key(&mut self) -> Result<Zeroizing<String>, Fault> {
        if !self.take('"') {
            return self.fault("Expecting property name enclosed in double quotes");
        }
        let key = self.string()?;
        self.blanks();
        if !self.take(':') {
            return self.fault("Expecting ':' delimiter");
        }
        self.blanks();
        Ok(key.text)
    }

    /// `_scan_once_unicode`
    fn term(&mut self) -> Result<Term, Fault> {
        let words = [("null", Term::Null), ("true", Term::Bool), ("false", Term::Bool)];
        for (word, term) in words {
            if self.take_word(word) {
                return Ok(term);
            }
        }
        for constant in ["NaN", "Infinity", "-Infinity"] {
            if self.take_word(constant) {
                // DRF, `rest_framework.utils.json.strict_constant`.
                let message = format!("Out of range float values are not JSON compliant: '{constant}'");
                return Err(Fault { message, at: None });
            }
        }
        if self.take('"') {
            self.string().map(Term::Text)
        } else if self.take('{') {
            Ok(Term::Open(Open::Dictionary))
        } else if self.take('[') {
            Ok(Term::Open(Open::List))
        } else {
            self.number()
        }
    }

    /// What is left of a string behind its opening quote (`scanstring_unicode`).
    fn string(&mut self) -> Result<Text, Fault> {
        let begin = self.at.saturating_sub(1);
        let unterminated = || Fault::at(begin, "Unterminated string starting at");
        let mut text = Text { text: Zeroizing::default(), surrogate: None };
        // Sized once: what is moved leaves a copy behind.
        let left = self.text.get(self.at..).unwrap_or_default().iter();
        let length =
            left.take_while(|character| **character != '"').map(|character| character.len_utf8()).sum();
        text.text.reserve_exact(length);
        loop {
            let character = self.peek().ok_or_else(unterminated)?;
            match character {
                '"' => {
                    self.step();
                    return Ok(text);
                }
                '\\' => {
                    self.step();
                    let escape = self.peek().ok_or_else(unterminated)?;
                    self.escape(escape, &mut text)?;
                }
                '\0'..='\u{1f}' => return self.fault("Invalid control character at"),
                _ => {
                    text.text.push(character);
                    self.step();
                }
            }
        }
    }

    /// What a backslash begins; the scanner stands behind it.
    fn escape(&mut self, escape: char, text: &mut Text) -> Result<(), Fault> {
        let character = match escape {
            '"' | '\\' | '/' => escape,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => return self.unicode_escape(text),
            _ => return Err(Fault::at(self.at.saturating_sub(1), "Invalid \\escape")),
        };
        text.text.push(character);
        self.step();
        Ok(())
    }

    fn unicode_escape(&mut self, text: &mut Text) -> Result<(), Fault> {
        let invalid = |at| Fault::at(at, "Invalid \\uXXXX escape");
        let digits = self.at.saturating_add(1);
        let end = digits.saturating_add(4);
        // At least the closing quote must follow.
        if end >= self.text.len() {
            return Err(invalid(self.at));
        }
        let first = self.hexadecimal(digits).ok_or_else(|| invalid(self.at))?;
        self.at = end;
        let mut units = [first, 0];
        let is_pair = (0xd800..0xdc00).contains(&first)
            && end.saturating_add(6) < self.text.len()
            && self.text.get(end..).is_some_and(|rest| rest.starts_with(&['\\', 'u']));
        if is_pair {
            let second = self.hexadecimal(end.saturating_add(2));
            units = [first, second.ok_or_else(|| invalid(end.saturating_add(1)))?];
        }
        if let Some(Ok(character)) = char::decode_utf16(units).next() {
            text.text.push(character);
            if is_pair {
                self.at = end.saturating_add(6);
            }
        } else {
            text.surrogate.get_or_insert(first);
            text.text.push(char::REPLACEMENT_CHARACTER);
        }
        Ok(())
    }

    /// Four digits.
    fn hexadecimal(&self, at: usize) -> Option<u16> {
        let digits = self.text.get(at..at.saturating_add(4))?;
        digits.iter().try_fold(0, |number, digit| {
            u16::try_from(digit.to_digit(16)?).ok().map(|digit| number << 4 | digit)
        })
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|character| character.is_ascii_digit()) {
            self.step();
        }
    }

    /// `_match_number_unicode`
    fn number(&mut self) -> Result<Term, Fault> {
        let start = self.at;
        self.take('-');
        let first = self.at;
        if !self.take('0') {
            self.digits();
        }
        if self.at == first {
            return Err(Fault::at(start, "Expecting value"));
        }
        let mut is_float = false;
        let behind = self.text.get(self.at.saturating_add(1)).copied();
        if self.peek() == Some('.') && behind.is_some_and(|character| character.is_ascii_digit()) {
            is_float = true;
            self.step();
            self.digits();
        }
        let before_exponent = self.at;
        if self.take('e') || self.take('E') {
            if !self.take('+') {
                self.take('-');
            }
            let exponent = self.at;
            self.digits();
            if self.at == exponent {
                self.at = before_exponent;
            } else {
                is_float = true;
            }
        }
        let number: String = self.text.get(start..self.at).unwrap_or_default().iter().collect();
        if is_float {
            // What is too large is infinite, as in Python.
            return Ok(Term::Float(number.parse().map(float_repr).unwrap_or(number)));
        }
        let digits = self.at.saturating_sub(first);
        if digits > DIGITS_MAX {
            let message = format!(
                "Exceeds the limit ({DIGITS_MAX} digits) for integer string conversion: value has {digits} digits; \
                 use sys.set_int_max_str_digits() to increase the limit"
            );
            return Err(Fault { message, at: None });
        }
        Ok(Term::Integer(if number == "-0" { "0".to_owned() } else { number }))
    }
}

/// Python's `repr` of a float: the shortest digits that give the same number again, with an exponent below 1e-4 and
/// from 1e16 on.
fn float_repr(number: f64) -> String {
    if !number.is_finite() {
        return number.to_string();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..16).contains(&exponent) {
        let plain = number.to_string();
        if plain.contains('.') { plain } else { format!("{plain}.0") }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
    }
}
