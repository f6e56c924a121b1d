//! Forms (`application/x-www-form-urlencoded`) as Django's `QueryDict` reads them: Python's `urllib.parse.parse_qsl`
//! with blank values kept.

use crate::body::charset::{Charset, Errors};
use crate::body::{Fields, Given};
use zeroize::Zeroizing;

/// Django's `DATA_UPLOAD_MAX_NUMBER_FIELDS`.
pub(crate) const FIELDS_MAX: usize = 1000;

/// More fields than [`FIELDS_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyFields;

/// The fields of a form.
///
/// # Errors
/// If there are too many; empty ones count.
pub(crate) fn fields(body: &[u8], charset: Charset, names: &[&'static str]) -> Result<Fields, TooManyFields> {
    // Django 5.2, `QueryDict`: what is not in the charset is taken for ISO 8859-1.
    let text = charset.decode(body, Errors::Strict).unwrap_or_else(|_| Charset::Latin1.decode_lossy(body));
    let mut fields = Fields::of(names);
    if text.is_empty() {
        return Ok(fields);
    }
    if text.matches('&').count() >= FIELDS_MAX {
        return Err(TooManyFields);
    }
    for field in text.split('&').filter(|field| !field.is_empty()) {
        let (name, value) = field.split_once('=').unwrap_or((field, ""));
        let name = unescaped(name, charset);
        fields.set(&name, || Given::text(unescaped(value, charset)));
    }
    Ok(fields)
}

/// What is whole of a form that goes on.
pub(crate) fn complete(prefix: &[u8], charset: Charset) -> &[u8] {
    if matches!(charset, Charset::Utf16 | Charset::Utf16Le | Charset::Utf16Be) {
        // A byte that looks like `&` may be half of another character.
        return &[];
    }
    let end = prefix.iter().rposition(|byte| *byte == b'&').unwrap_or(0);
    prefix.get(..end).unwrap_or_default()
}

/// Plus is a blank; escapes are bytes of the charset (`urllib.parse.unquote`).
fn unescaped(text: &str, charset: Charset) -> Zeroizing<String> {
    let text = Zeroizing::new(text.replace('+', " "));
    if !text.contains('%') {
        return text;
    }
    // Bytes become characters within each run of ASCII; what was a character before stays one.
    let mut unescaped = Zeroizing::new(String::with_capacity(text.len().saturating_mul(3)));
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let end = rest.find(|character: char| !character.is_ascii()).unwrap_or(rest.len());
        let (ascii, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        unescaped.push_str(&charset.decode_lossy(&bytes(ascii)));
        let end = after.find(|character: char| character.is_ascii()).unwrap_or(after.len());
        let (others, after) = after.split_at_checked(end).unwrap_or((after, ""));
        unescaped.push_str(others);
        rest = after;
    }
    unescaped
}

/// The bytes that percent escapes stand for; what is no escape stays as it is.
fn bytes(text: &str) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digit = |at: usize| after.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        let escaped = match (digit(0), digit(1)) {
            (Some(high), Some(low)) if *first == b'%' => u8::try_from(high << 4 | low).ok(),
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    bytes
}
