//! What a client logs in with, read from a request's body as Django REST framework 3.18 reads it on Django 5.2 (Python
//! 3.11): `ObtainAuthToken` with its three parsers and `AuthTokenSerializer`.
//!
//! Without I/O; anything may be in the body. Differences, all towards refusing: charsets that are rare today, documents
//! nested deeper than [`json::NESTING_MAX`] and forms with too many fields are 400 with a text of our own.

mod charset;
mod json;
mod multipart;
mod parameters;
mod urlencoded;

#[cfg(test)]
mod tests;

use crate::endpoint::login_input::charset::{Charset, Errors, Named};
use crate::endpoint::login_input::json::Document;
use crate::endpoint::login_input::multipart::MultipartError;
use crate::endpoint::login_input::parameters::Parameters;
use crate::secret::Secret;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

/// A username, trimmed, and a password, as it came.
#[derive(Debug)]
pub struct Login {
    /// Neither empty nor with NUL.
    pub username: String,
    /// Neither empty nor with NUL; UTF-8.
    pub password: Secret,
}

/// Why there is no [`Login`] in a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputError {
    /// 415, with the media type as it was given.
    MediaType(String),
    /// 400, with this JSON.
    Invalid(Value),
}

/// Longest `Content-Type`, in characters (DRF, `DefaultContentNegotiation.max_media_type_length`).
const MEDIA_TYPE_MAX: usize = 256;

/// DRF's parsers, in its order.
const PARSERS: [(&str, &str, Format); 3] = [
    ("application", "x-www-form-urlencoded", Format::UrlEncoded),
    ("multipart", "form-data", Format::Multipart),
    ("application", "json", Format::Json),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    UrlEncoded,
    Multipart,
    Json,
}

/// Reads a body; `content_type` is the value of the field, empty if there is none.
///
/// # Errors
/// If it is not of a type that is read, not readable, or lacks a field.
pub fn read(content_type: &[u8], body: &[u8]) -> Result<Login, InputError> {
    if body.is_empty() {
        return Fields::default().login();
    }
    // WSGI: a field's bytes are characters of ISO 8859-1.
    let given: String = content_type.iter().map(|byte| char::from(*byte)).collect();
    if given.chars().count() > MEDIA_TYPE_MAX {
        return Err(InputError::MediaType(given));
    }
    let parameters = Parameters::parse(&given).unwrap_or_default();
    let Some(format) = format(&parameters) else {
        return Err(InputError::MediaType(given));
    };
    let charset = match parameters.get("charset").map(|name| (name, charset::named(name))) {
        None | Some((_, Named::Unknown)) => Charset::Utf8,
        Some((_, Named::Read(charset))) => charset,
        // DRF 3.18, `get_encoding`.
        Some((name, Named::Refused)) => {
            return Err(detail(&format!("Unsupported charset \"{name}\" in request Content-Type header.")));
        }
    };
    match format {
        Format::UrlEncoded => urlencoded::fields(body, charset).map_err(|_| detail("Bad request."))?.login(),
        Format::Multipart => match multipart::fields(&given, &parameters, body, charset) {
            Ok(fields) => fields.login(),
            Err(MultipartError::Malformed(text)) => {
                Err(detail(&format!("Multipart form parse error - {text}")))
            }
            Err(MultipartError::TooMany) => Err(detail("Bad request.")),
        },
        Format::Json => {
            let text = charset.decode(body, Errors::StrictStream);
            let document = text.and_then(|text| json::parse(&text));
            match document.map_err(|text| detail(&format!("JSON parse error - {text}")))? {
                Document::Object(fields) => fields.login(),
                Document::Null => Err(non_field("No data provided")),
                Document::Other(name) => {
                    Err(non_field(&format!("Invalid data. Expected a dictionary, but got {name}.")))
                }
            }
        }
    }
}

/// The parser that takes a media type, which may have `*` in it (DRF, `media_type_matches`).
fn format(parameters: &Parameters) -> Option<Format> {
    let (main, sub) = parameters.value.split_once('/').unwrap_or((&parameters.value, ""));
    let takes = |(parser_main, parser_sub, _): &&(&str, &str, Format)| {
        (main == "*" || main == *parser_main) && (sub == "*" || sub == *parser_sub)
    };
    PARSERS.iter().find(takes).map(|(_, _, format)| *format)
}

fn detail(text: &str) -> InputError {
    InputError::Invalid(json!({ "detail": text }))
}

fn non_field(text: &str) -> InputError {
    InputError::Invalid(json!({ "non_field_errors": [text] }))
}

/// What was sent for a field.
#[derive(Debug, Default)]
enum Given {
    #[default]
    Nothing,
    Null,
    Text(Text),
    /// `true`, `false`, a list or a dictionary.
    NoText,
    /// A file of a form.
    File,
}

/// Text as Python has it.
#[derive(Debug)]
struct Text {
    /// With U+FFFD for each lone surrogate.
    text: Zeroizing<String>,
    /// The first lone surrogate.
    surrogate: Option<u16>,
}

impl Given {
    fn text(text: Zeroizing<String>) -> Self {
        Self::Text(Text { text, surrogate: None })
    }
}

/// The fields that count; of several of a name the last.
#[derive(Debug, Default)]
struct Fields {
    username: Given,
    password: Given,
}

impl Fields {
    fn slot(&mut self, name: &str) -> Option<&mut Given> {
        match name {
            "username" => Some(&mut self.username),
            "password" => Some(&mut self.password),
            _ => None,
        }
    }

    fn set(&mut self, name: &str, given: impl FnOnce() -> Given) {
        // DRF, `Request._load_data_and_files`: files come after all text.
        if let Some(slot) = self.slot(name).filter(|slot| !matches!(slot, Given::File)) {
            *slot = given();
        }
    }

    fn set_file(&mut self, name: &str) {
        if let Some(slot) = self.slot(name) {
            *slot = Given::File;
        }
    }

    /// Validates as `AuthTokenSerializer` does: all fields' errors together.
    fn login(self) -> Result<Login, InputError> {
        match (self.username.validate(Trim::Yes), self.password.validate(Trim::No)) {
            (Ok(mut username), Ok(mut password)) => Ok(Login {
                username: std::mem::take(&mut *username),
                password: Secret::new(std::mem::take(&mut *password)),
            }),
            (username, password) => {
                let mut errors = Map::new();
                for (name, result) in [("username", username), ("password", password)] {
                    if let Err(messages) = result {
                        errors.insert(name.to_owned(), json!(messages));
                    }
                }
                Err(InputError::Invalid(Value::Object(errors)))
            }
        }
    }
}

/// Whether blanks around a value count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trim {
    Yes,
    No,
}

impl Given {
    /// DRF 3.18, `CharField`: the value, or every message about it.
    fn validate(self, trim: Trim) -> Result<Zeroizing<String>, Vec<String>> {
        let one = |message: &str| Err(vec![message.to_owned()]);
        let Text { text, surrogate } = match self {
            Self::Nothing => return one("This field is required."),
            Self::Null => return one("This field may not be null."),
            Self::NoText | Self::File => return one("Not a valid string."),
            Self::Text(text) => text,
        };
        let text = if trim == Trim::Yes { Zeroizing::new(python_trim(&text).to_owned()) } else { text };
        if text.is_empty() {
            return one("This field may not be blank.");
        }
        let mut messages = Vec::new();
        if text.contains('\0') {
            messages.push("Null characters are not allowed.".to_owned());
        }
        if let Some(surrogate) = surrogate {
            messages.push(format!("Surrogate characters are not allowed: U+{surrogate:X}."));
        }
        if messages.is_empty() { Ok(text) } else { Err(messages) }
    }
}

/// Python's `str.strip`: Unicode's blanks and the separators of ASCII.
fn python_trim(text: &str) -> &str {
    text.trim_matches(|character: char| {
        character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
    })
}
