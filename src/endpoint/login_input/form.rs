//! What the login page's form sends, or a program in its place: any of the three kinds of bodies, no field needed.

use crate::body::json::Document;
use crate::body::{Body, Extent, Given, ReadError};
use crate::endpoint::login_input::{InputError, detail};
use crate::secret::Secret;
use unicode_normalization::UnicodeNormalization as _;
use zeroize::Zeroizing;

/// The fields; `None`: not given, or no text.
#[derive(Debug, Default)]
pub struct Form {
    /// As it was typed.
    pub username: Option<String>,
    /// As it was typed; UTF-8.
    pub password: Option<Secret>,
    /// Where to go afterwards.
    pub next: Option<String>,
    /// Against forged requests; of forms alone.
    pub csrf_token: Option<Vec<u8>>,
}

/// Which of the two fields that are needed are not there, or empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missing {
    /// Or of blanks alone.
    pub username: bool,
    /// Blanks are a password.
    pub password: bool,
}

impl Form {
    /// The name as it is looked up, and the password as it was typed.
    ///
    /// # Errors
    /// If one is missing.
    pub fn credentials(&self) -> Result<(String, Secret), Missing> {
        let username = self.username.as_deref().map(normal_username).unwrap_or_default();
        let password = self.password.as_ref().filter(|password| !password.expose().is_empty());
        match password {
            Some(password) if !username.is_empty() => Ok((username, password.clone())),
            _ => Err(Missing { username: username.is_empty(), password: password.is_none() }),
        }
    }
}

const FORM: &[u8] = b"application/x-www-form-urlencoded";
const NAMES: &[&str] = &["username", "password", "next", "csrfmiddlewaretoken"];

/// Reads a body; `content_type` is the value of the field, empty if there is none. An empty body has no fields.
///
/// # Errors
/// If it is not of a type that is read, or not readable.
pub fn form(content_type: &[u8], body: &[u8]) -> Result<Form, InputError> {
    let (fields, is_form) = match crate::body::read(content_type, body, Extent::Whole, NAMES) {
        Ok(Body::Form(fields)) => (fields, true),
        Ok(Body::Document(Document::Object(fields))) => (fields, false),
        Ok(Body::Document(_)) => return Err(detail("Bad request.")),
        Err(ReadError::MediaType(given)) => return Err(InputError::MediaType(given)),
        Err(ReadError::Malformed(text)) => return Err(detail(&text)),
    };
    let mut values = fields.into_fields().map(|field| match field.given {
        Given::Text(text) => Some(text.text),
        _ => None,
    });
    let mut next = || values.next().flatten();
    let take = |mut text: Zeroizing<String>| std::mem::take(&mut *text);
    Ok(Form {
        username: next().map(take),
        password: next().map(|text| Secret::new(take(text))),
        next: next().map(take),
        csrf_token: next().filter(|_| is_form).map(|text| take(text).into_bytes()),
    })
}

/// A username as Django's form takes it (5.2, `UsernameField`): without blanks around it, and in the form NFKC.
pub fn normal_username(typed: &str) -> String {
    crate::header::blanks::strip(typed).nfkc().collect()
}

/// The last `next` of a query (RFC 3986 section 3.4), which is written as a form is.
pub fn next_of(query: Option<&str>) -> Option<String> {
    let query = query.unwrap_or_default().as_bytes();
    let Ok(Body::Form(fields)) = crate::body::read(FORM, query, Extent::Whole, &["next"]) else {
        return None;
    };
    match fields.into_fields().next()?.given {
        Given::Text(mut text) => Some(std::mem::take(&mut *text.text)),
        _ => None,
    }
}
