//! What a client logs in with, read from a request's body as Django REST framework 3.18 reads it on Django 5.2 (Python
//! 3.11): `ObtainAuthToken` with its three parsers and `AuthTokenSerializer`.
//!
//! Without I/O; the body itself is read by [`body`](crate::body).

mod form;
#[cfg(test)]
mod tests;

pub use form::{Form, Missing, form, next_of, normal_username};

use crate::body::json::Document;
use crate::body::{Body, Extent, Field, Fields, Given, ReadError, Text};
use crate::header::blanks::strip;
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

/// Reads a body; `content_type` is the value of the field, empty if there is none.
///
/// # Errors
/// If it is not of a type that is read, not readable, or lacks a field.
pub fn read(content_type: &[u8], body: &[u8]) -> Result<Login, InputError> {
    let read = crate::body::read(content_type, body, Extent::Whole, &["username", "password"]);
    let document = match read {
        Ok(Body::Form(fields)) => return login(fields),
        Ok(Body::Document(document)) => document,
        Err(ReadError::MediaType(given)) => return Err(InputError::MediaType(given)),
        Err(ReadError::Malformed(text)) => return Err(detail(&text)),
    };
    match document {
        Document::Object(fields) => login(fields),
        Document::Null => Err(non_field("No data provided")),
        Document::Other(name) => {
            Err(non_field(&format!("Invalid data. Expected a dictionary, but got {name}.")))
        }
    }
}

fn detail(text: &str) -> InputError {
    InputError::Invalid(json!({ "detail": text }))
}

fn non_field(text: &str) -> InputError {
    InputError::Invalid(json!({ "non_field_errors": [text] }))
}

/// Validates as `AuthTokenSerializer` does: all fields' errors together.
fn login(fields: Fields) -> Result<Login, InputError> {
    let mut fields = fields.into_fields();
    let mut next = |trim| fields.next().map_or(Err(vec![REQUIRED.to_owned()]), |field| validate(field, trim));
    match (next(Trim::Yes), next(Trim::No)) {
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

/// DRF 3.18, `Field`, and Django 5.2, `Field`.
pub(in crate::endpoint) const REQUIRED: &str = "This field is required.";

/// Whether blanks around a value count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trim {
    Yes,
    No,
}

/// DRF 3.18, `CharField`: the value, or every message about it.
fn validate(field: Field, trim: Trim) -> Result<Zeroizing<String>, Vec<String>> {
    let one = |message: &str| Err(vec![message.to_owned()]);
    let Text { text, surrogate } = match field.given {
        // DRF, `Request._load_data_and_files`: files come after all text.
        _ if field.is_file => return one("Not a valid string."),
        Given::Nothing => return one(REQUIRED),
        Given::Null => return one("This field may not be null."),
        Given::NoText => return one("Not a valid string."),
        Given::Text(text) => text,
    };
    let text = if trim == Trim::Yes { Zeroizing::new(strip(&text).to_owned()) } else { text };
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
