//! Charsets of a request's body, as Python's codecs read them, with the words in which they complain.

pub(crate) mod names;
pub(crate) mod tables;

use crate::body::charset::tables::UpperHalf;
use zeroize::Zeroizing;

/// A charset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Charset {
    Utf8,
    /// A byte-order mark at the beginning is not part of the text.
    Utf8Sig,
    Ascii,
    /// ISO 8859-1 as it was written, not the web's windows-1252: no byte is wrong.
    Latin1,
    /// The order is in the byte-order mark.
    Utf16,
    Utf16Le,
    Utf16Be,
    SingleByte(&'static UpperHalf),
}

/// What a `charset` parameter names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// A charset that is read here.
    Read(Charset),
    /// One that Python knows and that is not read here.
    Refused,
    /// None; Django 5.2 does not look at it (`HttpRequest._set_content_type_params`).
    Unknown,
}

/// What to do with bytes that are no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Errors {
    /// Refuse them; but a character that is not complete at the end is dropped, as Python's `StreamReader.read` does.
    StrictStream,
    /// Refuse them.
    Strict,
    /// Put U+FFFD in their place.
    Replace,
}

/// Bytes that cannot be read.
struct Fault {
    codec: &'static str,
    at: usize,
    bytes: Bad,
    why: &'static str,
}

/// One byte, or several.
enum Bad {
    One(u8),
    Many(usize),
}

impl Fault {
    /// Python's `UnicodeDecodeError`.
    fn text(&self) -> String {
        let Self { codec, at, why, .. } = self;
        match self.bytes {
            Bad::One(byte) => {
                format!("'{codec}' codec can't decode byte 0x{byte:02x} in position {at}: {why}")
            }
            Bad::Many(count) => {
                let last = at.saturating_add(count).saturating_sub(1);
                format!("'{codec}' codec can't decode bytes in position {at}-{last}: {why}")
            }
        }
    }
}

/// What a charset is called, whatever the name's case and punctuation (Python, `encodings.normalize_encoding`).
pub(crate) fn named(name: &str) -> Named {
    let mut normal = String::with_capacity(name.len());
    let mut is_apart = false;
    for character in name.chars() {
        if character.is_ascii_alphanumeric() || character == '.' {
            if is_apart && !normal.is_empty() {
                normal.push('_');
            }
            is_apart = false;
            normal.push(character.to_ascii_lowercase());
        } else {
            is_apart = true;
        }
    }
    let read = names::READ.binary_search_by(|(known, _)| (*known).cmp(normal.as_str()));
    match read.ok().and_then(|index| names::READ.get(index)) {
        Some((_, charset)) => Named::Read(*charset),
        None if names::KNOWN.binary_search(&normal.as_str()).is_ok() => Named::Refused,
        None => Named::Unknown,
    }
}

impl Charset {
    /// The text of these bytes.
    ///
    /// # Errors
    /// What Python says of bytes that are no text; never with [`Errors::Replace`].
    pub(crate) fn decode(self, bytes: &[u8], errors: Errors) -> Result<Zeroizing<String>, String> {
        // A byte becomes three at most: what is never moved leaves no copy behind.
        let text = Zeroizing::new(String::with_capacity(bytes.len().saturating_mul(3)));
        let mut decoding = Decoding { text, errors };
        match self {
            Self::Utf8 => decoding.utf8(bytes),
            Self::Utf8Sig => decoding.utf8(bytes.strip_prefix(UTF8_MARK).unwrap_or({
                // Of the mark alone, a part says nothing yet.
                if errors == Errors::StrictStream && UTF8_MARK.starts_with(bytes) { &[] } else { bytes }
            })),
            Self::Ascii => decoding.single(bytes, "ascii", "ordinal not in range(128)", |_| None),
            Self::Latin1 => decoding.single(bytes, "latin-1", "", |byte| Some(char::from(byte))),
            Self::SingleByte(upper) => {
                let upper: Vec<char> = upper.chars().collect();
                decoding.single(bytes, "charmap", "character maps to <undefined>", |byte| {
                    let character = upper.get(usize::from(byte & 0x7f)).copied();
                    character.filter(|character| *character != '\u{fffe}')
                })
            }
            Self::Utf16Le => decoding.utf16(bytes, 0, Order::Little),
            Self::Utf16Be => decoding.utf16(bytes, 0, Order::Big),
            Self::Utf16 => match bytes {
                [0xff, 0xfe, ..] => decoding.utf16(bytes, 2, Order::Little),
                [0xfe, 0xff, ..] => decoding.utf16(bytes, 2, Order::Big),
                _ => {
                    // Python tries the machine's own order first, and nearly every machine's is this one.
                    let done = decoding.utf16(bytes, 0, Order::Little);
                    if done.is_ok() && errors == Errors::StrictStream && !decoding.text.is_empty() {
                        return Err("UTF-16 stream does not start with BOM".to_owned());
                    }
                    done
                }
            },
        }
        .map_err(|fault| fault.text())?;
        Ok(decoding.text)
    }

    /// The text of these bytes, with U+FFFD for what is none.
    pub(crate) fn decode_lossy(self, bytes: &[u8]) -> Zeroizing<String> {
        self.decode(bytes, Errors::Replace).unwrap_or_default()
    }
}

const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// Order of the bytes of a code unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

impl Order {
    fn codec(self) -> &'static str {
        match self {
            Self::Little => "utf-16-le",
            Self::Big => "utf-16-be",
        }
    }

    fn unit(self, bytes: &[u8], at: usize) -> Option<u16> {
        let (one, two) = (*bytes.get(at)?, *bytes.get(at.checked_add(1)?)?);
        Some(match self {
            Self::Little => u16::from_le_bytes([one, two]),
            Self::Big => u16::from_be_bytes([one, two]),
        })
    }
}

/// Text that is being made.
struct Decoding {
    text: Zeroizing<String>,
    errors: Errors,
}

impl Decoding {
    /// Bytes that are wrong.
    fn wrong(&mut self, fault: Fault) -> Result<(), Fault> {
        if self.errors == Errors::Replace {
            self.text.push(char::REPLACEMENT_CHARACTER);
            Ok(())
        } else {
            Err(fault)
        }
    }

    /// Bytes at the end that more could have made right.
    fn unfinished(&mut self, fault: Fault) -> Result<(), Fault> {
        if self.errors == Errors::StrictStream { Ok(()) } else { self.wrong(fault) }
    }

    fn utf8(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let mut at = 0_usize;
        for chunk in bytes.utf8_chunks() {
            self.text.push_str(chunk.valid());
            at = at.saturating_add(chunk.valid().len());
            let invalid = chunk.invalid();
            let Some(first) = invalid.first() else { continue };
            // CPython waits for the third byte of a surrogate too, only to refuse it.
            let is_cut_surrogate = matches!(bytes.get(at..), Some([0xed, 0xa0..=0xbf]));
            if is_cut_surrogate && self.errors == Errors::StrictStream {
                return Ok(());
            }
            let bad = if invalid.len() == 1 { Bad::One(*first) } else { Bad::Many(invalid.len()) };
            // The Unicode Standard, table 3-7: what a sequence of several bytes can begin with.
            let is_start = (0xc2..=0xf4).contains(first);
            let why = if is_start { "invalid continuation byte" } else { "invalid start byte" };
            let fault = Fault { codec: "utf-8", at, bytes: bad, why };
            at = at.saturating_add(invalid.len());
            let needs_more = std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if needs_more && at == bytes.len() {
                self.unfinished(fault)?;
            } else {
                self.wrong(fault)?;
            }
        }
        Ok(())
    }

    /// A byte for each character; below 0x80 it is ASCII.
    fn single(
        &mut self,
        bytes: &[u8],
        codec: &'static str,
        why: &'static str,
        upper: impl Fn(u8) -> Option<char>,
    ) -> Result<(), Fault> {
        for (at, byte) in bytes.iter().copied().enumerate() {
            let character = if byte.is_ascii() { Some(char::from(byte)) } else { upper(byte) };
            match character {
                Some(character) => self.text.push(character),
                None => self.wrong(Fault { codec, at, bytes: Bad::One(byte), why })?,
            }
        }
        Ok(())
    }

    /// From `at`; places are counted from the beginning.
    fn utf16(&mut self, bytes: &[u8], mut at: usize, order: Order) -> Result<(), Fault> {
        let codec = order.codec();
        while at < bytes.len() {
            let left = bytes.len().saturating_sub(at);
            let end = |why| Fault { codec, at, bytes: Bad::Many(left), why };
            let Some(unit) = order.unit(bytes, at) else {
                return self.unfinished(end("truncated data"));
            };
            let next = order.unit(bytes, at.saturating_add(2));
            let is_high = (0xd800..0xdc00).contains(&unit);
            if is_high && next.is_none() {
                return self.unfinished(end("unexpected end of data"));
            }
            let pair = [unit, next.unwrap_or_default()];
            let units = if is_high { &pair } else { pair.get(..1).unwrap_or_default() };
            if let Some(Ok(character)) = char::decode_utf16(units.iter().copied()).next() {
                self.text.push(character);
                at = at.saturating_add(character.len_utf16().saturating_mul(2));
            } else {
                let why = if is_high { "illegal UTF-16 surrogate" } else { "illegal encoding" };
                self.wrong(Fault { codec, at, bytes: Bad::Many(2), why })?;
                at = at.saturating_add(2);
            }
        }
        Ok(())
    }
}

/// Bytes as Python's `raw-unicode-escape` writes text: Latin-1, and `\u0000` for the rest.
pub(crate) fn raw_unicode_escape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        let number = u32::from(character);
        match u8::try_from(character).ok() {
            Some(byte) => bytes.push(byte),
            None if number > 0xffff => bytes.extend_from_slice(format!("\\U{number:08x}").as_bytes()),
            None => bytes.extend_from_slice(format!("\\u{number:04x}").as_bytes()),
        }
    }
    bytes
}
