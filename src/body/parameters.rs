//! Values with parameters (`text/plain; charset=utf-8`) as Django 5.2 reads them: `parse_header_parameters`, which is
//! Python's `email.message.Message.get_params` with RFC 2231.

use crate::body::charset::{Named, named, raw_unicode_escape};
use crate::header::blanks::strip;

/// A value and its parameters.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// What comes before the first `;`, in small letters.
    pub(crate) value: String,
    /// In order, without quotes.
    parameters: Vec<(String, String)>,
}

/// A parameter that Python's `email` cannot make sense of; Django raises `ValueError`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadParameters;

/// A piece of a value in several (RFC 2231 section 3), or of one in a charset (section 4).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    number: Option<u64>,
    value: String,
    is_encoded: bool,
}

impl Parameters {
    /// The parameter of this name; of several the last.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Reads a value.
    ///
    /// # Errors
    /// If a parameter is in a charset that is not known, or in pieces that have no order.
    pub(crate) fn parse(line: &str) -> Result<Self, BadParameters> {
        if !line.contains(';') {
            return Ok(Self { value: strip(line).to_lowercase(), parameters: Vec::new() });
        }
        let mut all = split(line).into_iter();
        let value = all.next().map(|(name, _)| name.to_lowercase()).unwrap_or_default();
        let mut parameters = Vec::new();
        let mut in_pieces: Vec<(String, Vec<Piece>)> = Vec::new();
        for (name, value) in all {
            let value = unquoted(&value);
            if let Some((base, number)) = piece_name(&name) {
                let piece = Piece { number, value, is_encoded: name.ends_with('*') };
                match in_pieces.iter_mut().find(|(known, _)| known == base) {
                    Some((_, pieces)) => pieces.push(piece),
                    None => in_pieces.push((base.to_owned(), vec![piece])),
                }
            } else if !name.is_empty() {
                parameters.push((name, value));
            }
        }
        for (name, pieces) in in_pieces {
            parameters.push((name, joined(pieces)?));
        }
        Ok(Self { value, parameters })
    }
}

/// Names and values as they stand (`email.message._parseparam`): a `;` between quotes does not count.
fn split(line: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut rest = Some(line);
    while let Some(left) = rest {
        let (piece, after) = end(left).and_then(|at| left.split_at_checked(at)).unwrap_or((left, ""));
        all.push(match piece.split_once('=') {
            Some((name, value)) => (strip(name).to_lowercase(), strip(value).to_owned()),
            None => (strip(piece).to_owned(), String::new()),
        });
        rest = after.strip_prefix(';');
    }
    all
}

/// Where the first `;` is that is not between quotes. Looked for in one pass: Python counts the quotes anew at each `;`,
/// and a header full of them would keep a core busy.
fn end(text: &str) -> Option<usize> {
    let (mut is_open, mut before) = (false, None);
    text.char_indices().find_map(|(at, character)| {
        // A quote behind a backslash neither opens nor closes.
        is_open ^= character == '"' && before != Some('\\');
        before = Some(character);
        (character == ';' && !is_open).then_some(at)
    })
}

/// `email.utils.unquote`
fn unquoted(value: &str) -> String {
    let between =
        |open: char, close: char| value.strip_prefix(open).and_then(|rest| rest.strip_suffix(close));
    if let Some(inner) = between('"', '"') {
        inner.replace("\\\\", "\\").replace("\\\"", "\"")
    } else {
        between('<', '>').unwrap_or(value).to_owned()
    }
}

/// `title*`, `title*0`, `title*0*`: the name and the number.
fn piece_name(name: &str) -> Option<(&str, Option<u64>)> {
    let (base, rest) = name.split_once('*')?;
    let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
    if base.is_empty() || !base.chars().all(is_word) {
        return None;
    }
    if rest.is_empty() {
        return Some((base, None));
    }
    let digits = rest.strip_suffix('*').unwrap_or(rest);
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    // What does not fit comes last, as it would in Python.
    is_number.then(|| (base, Some(digits.parse().unwrap_or(u64::MAX))))
}

/// `email.utils.decode_params`, `decode_rfc2231` and `collapse_rfc2231_value`, and Django's refusal of unknown charsets.
fn joined(mut pieces: Vec<Piece>) -> Result<String, BadParameters> {
    let numbered = pieces.iter().filter(|piece| piece.number.is_some()).count();
    if numbered != 0 && numbered != pieces.len() {
        return Err(BadParameters);
    }
    pieces.sort_by(|a, b| (a.number, &a.value, a.is_encoded).cmp(&(b.number, &b.value, b.is_encoded)));
    let is_encoded = pieces.iter().any(|piece| piece.is_encoded);
    let value: String = pieces
        .iter()
        .map(|piece| if piece.is_encoded { latin1_unescaped(&piece.value) } else { piece.value.clone() })
        .collect();
    if !is_encoded {
        return Ok(value);
    }
    let mut parts = value.splitn(3, '\'');
    let (charset, text) = match (parts.next(), parts.next(), parts.next()) {
        (Some(charset), Some(_), Some(text)) => (charset, text),
        _ => ("us-ascii", value.as_str()),
    };
    match named(charset) {
        _ if charset.is_empty() => Ok(unquoted(text)),
        Named::Read(charset) => Ok(charset.decode_lossy(&raw_unicode_escape(text)).to_string()),
        Named::Refused | Named::Unknown => Err(BadParameters),
    }
}

/// Percent escapes become characters of ISO 8859-1.
fn latin1_unescaped(text: &str) -> String {
    let mut unescaped = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        unescaped.push_str(before);
        let digits = after.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            unescaped.push(char::from(byte));
            rest = after.get(2..).unwrap_or_default();
        } else {
            unescaped.push('%');
            rest = after;
        }
    }
    unescaped.push_str(rest);
    unescaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn values_end_where_python_ends_them(text in "[a\"\\\\;=é]{0,40}") {
            let is_closed = |piece: &str| {
                let quotes = piece.matches('"').count() - piece.matches("\\\"").count();
                quotes.is_multiple_of(2)
            };
            let mut ends = text.match_indices(';').map(|(at, _)| at);
            let expected = ends.find(|at| is_closed(text.split_at(*at).0));
            prop_assert_eq!(end(&text), expected);
        }
    }
}
