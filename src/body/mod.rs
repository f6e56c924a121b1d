//! Fields of a request's body, read as Django REST framework 3.18 reads them on Django 5.2 (Python 3.11) with its three
//! parsers.
//!
//! Without I/O; anything may be in the body. Differences, all towards refusing: charsets that are rare today, documents
//! nested deeper than [`json::NESTING_MAX`] and forms with too many fields are 400 with a text of our own.

pub(crate) mod charset;
pub(crate) mod json;
mod multipart;
mod parameters;
mod urlencoded;

use crate::body::charset::{Charset, Errors, Named};
use crate::body::json::Document;
use crate::body::multipart::MultipartError;
use crate::body::parameters::Parameters;
use zeroize::Zeroizing;

/// Why a body cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadError {
    /// 415, with the media type as it was given.
    MediaType(String),
    /// 400, with what is wrong.
    Malformed(String),
}

/// What a body is.
#[derive(Debug)]
pub(crate) enum Body {
    /// A form; or nothing at all.
    Form(Fields),
    /// JSON.
    Document(Document),
}

/// How much of a body there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it.
    Whole,
    /// Its beginning: fields that do not end in it are not there, and JSON cannot be read.
    Prefix,
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

/// Reads the fields of these names; `content_type` is the value of the field, empty if there is none.
///
/// # Errors
/// If the body is not of a type that is read, or not readable.
pub(crate) fn read(
    content_type: &[u8],
    body: &[u8],
    extent: Extent,
    names: &'static [&'static str],
) -> Result<Body, ReadError> {
    let nothing = || Ok(Body::Form(Fields::of(names)));
    if body.is_empty() && extent == Extent::Whole {
        return nothing();
    }
    // WSGI: a field's bytes are characters of ISO 8859-1.
    let given: String = content_type.iter().map(|byte| char::from(*byte)).collect();
    if given.chars().count() > MEDIA_TYPE_MAX {
        return Err(ReadError::MediaType(given));
    }
    let parameters = Parameters::parse(&given).unwrap_or_default();
    let Some(format) = format(&parameters) else {
        return Err(ReadError::MediaType(given));
    };
    let charset = charset_of(&parameters)?;
    match (format, extent) {
        (Format::UrlEncoded, _) => {
            let body = if extent == Extent::Whole { body } else { urlencoded::complete(body, charset) };
            urlencoded::fields(body, charset, names).map_err(|_| too_many())
        }
        (Format::Multipart, _) => multipart::fields(&given, &parameters, body, extent, charset, names)
            .map_err(|error| match error {
                MultipartError::Malformed(text) => {
                    ReadError::Malformed(format!("Multipart form parse error - {text}"))
                }
                MultipartError::TooMany => too_many(),
            }),
        (Format::Json, Extent::Whole) => {
            let text = charset.decode(body, Errors::StrictStream);
            let document = text.and_then(|text| json::parse(&text, names));
            return document
                .map(Body::Document)
                .map_err(|text| ReadError::Malformed(format!("JSON parse error - {text}")));
        }
        (Format::Json, Extent::Prefix) => return nothing(),
    }
    .map(Body::Form)
}

/// Django's answer is a page that says as little.
fn too_many() -> ReadError {
    ReadError::Malformed("Bad request.".to_owned())
}

fn charset_of(parameters: &Parameters) -> Result<Charset, ReadError> {
    match parameters.get("charset").map(|name| (name, charset::named(name))) {
        None | Some((_, Named::Unknown)) => Ok(Charset::Utf8),
        Some((_, Named::Read(charset))) => Ok(charset),
        // DRF 3.18, `get_encoding`.
        Some((name, Named::Refused)) => {
            let text = format!("Unsupported charset \"{name}\" in request Content-Type header.");
            Err(ReadError::Malformed(text))
        }
    }
}

/// Whether bodies of this type are forms (DRF, `is_form_media_type`).
pub fn is_form(content_type: &[u8]) -> bool {
    let given: String = content_type.iter().map(|byte| char::from(*byte)).collect();
    let parameters = Parameters::parse(&given).unwrap_or_default();
    let is_short = given.chars().count() <= MEDIA_TYPE_MAX;
    is_short
        && matches!(parameters.value.as_str(), "application/x-www-form-urlencoded" | "multipart/form-data")
}

/// The parser that takes a media type, which may have `*` in it (DRF, `media_type_matches`).
fn format(parameters: &Parameters) -> Option<Format> {
    let (main, sub) = parameters.value.split_once('/').unwrap_or((&parameters.value, ""));
    let takes = |(parser_main, parser_sub, _): &&(&str, &str, Format)| {
        (main == "*" || main == *parser_main) && (sub == "*" || sub == *parser_sub)
    };
    PARSERS.iter().find(takes).map(|(_, _, format)| *format)
}

/// What was sent for a field.
#[derive(Debug, Default)]
pub(crate) enum Given {
    #[default]
    Nothing,
    Null,
    Text(Text),
    /// `true`, `false`, a list or a dictionary.
    NoText,
}

/// Text as Python has it; a password, perhaps, so it is not shown.
pub(crate) struct Text {
    /// With U+FFFD for each lone surrogate.
    pub(crate) text: Zeroizing<String>,
    /// The first lone surrogate.
    pub(crate) surrogate: Option<u16>,
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Text(…)")
    }
}

impl Given {
    pub(crate) fn text(text: Zeroizing<String>) -> Self {
        Self::Text(Text { text, surrogate: None })
    }
}

/// The fields that are asked for; of several of a name the last.
#[derive(Debug)]
pub(crate) struct Fields(Vec<Field>);

/// One of them.
#[derive(Debug)]
pub(crate) struct Field {
    name: &'static str,
    pub(crate) given: Given,
    /// A file of a form has the name too.
    pub(crate) is_file: bool,
}

impl Fields {
    pub(crate) fn of(names: &[&'static str]) -> Self {
        Self(names.iter().map(|name| Field { name, given: Given::Nothing, is_file: false }).collect())
    }

    fn slot(&mut self, name: &str) -> Option<&mut Field> {
        self.0.iter_mut().find(|field| field.name == name)
    }

    fn set(&mut self, name: &str, given: impl FnOnce() -> Given) {
        if let Some(field) = self.slot(name) {
            field.given = given();
        }
    }

    fn set_file(&mut self, name: &str) {
        if let Some(field) = self.slot(name) {
            field.is_file = true;
        }
    }

    /// In the order of their names.
    pub(crate) fn into_fields(self) -> impl Iterator<Item = Field> {
        self.0.into_iter()
    }
}
