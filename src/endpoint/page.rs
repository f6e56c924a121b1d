//! Pages for people: HTML that needs nothing from elsewhere and runs nothing.

use crate::accept::head::RequestId;
use crate::endpoint::login_input::{Missing, REQUIRED};
use crate::respond::body::Body;
use askama::Template;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

/// The page that asks for a name and a password.
#[derive(Debug, Template)]
#[template(path = "login.html")]
pub(in crate::endpoint) struct LoginPage<'a> {
    /// Against forged requests.
    pub(in crate::endpoint) csrf_token: &'a str,
    /// What else it shows.
    pub(in crate::endpoint) shown: Shown<'a>,
    /// The style, of which the policy has the digest.
    pub(in crate::endpoint) style: &'a str,
}

/// What the login page shows besides its fields.
#[derive(Debug, Default, Clone, Copy)]
pub(in crate::endpoint) struct Shown<'a> {
    /// Where to go afterwards; empty: the usual place.
    pub(in crate::endpoint) next: &'a str,
    /// What was typed in before.
    pub(in crate::endpoint) username: &'a str,
    /// What was wrong with it.
    pub(in crate::endpoint) wrong: Wrong,
}

/// What is wrong with what was typed in.
#[derive(Debug, Default, Clone, Copy)]
pub(in crate::endpoint) enum Wrong {
    #[default]
    Nothing,
    /// Not all was.
    Missing(Missing),
    /// Nobody has this name and this password.
    Mismatch,
}

impl Wrong {
    /// For the title, which is what is read out first.
    fn title(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Missing(Missing { username: true, password: true }) => "Username and password missing",
            Self::Missing(Missing { username: true, .. }) => "Username missing",
            Self::Missing(_) => "Password missing",
            Self::Mismatch => "Wrong username or password",
        }
    }

    fn is_mismatch(self) -> bool {
        matches!(self, Self::Mismatch)
    }

    fn lacks_username(self) -> bool {
        matches!(self, Self::Missing(Missing { username: true, .. }))
    }

    fn lacks_password(self) -> bool {
        matches!(self, Self::Missing(Missing { password: true, .. }))
    }
}

impl Shown<'_> {
    /// Whether that is the field to go on with.
    fn begins_with_username(&self) -> bool {
        self.username.is_empty() || self.wrong.lacks_username()
    }
}

/// Django 5.2, `AuthenticationForm.error_messages`.
pub(in crate::endpoint) const MISMATCH: &str =
    "Please enter a correct username and password. Note that both fields may be case-sensitive.";

/// A page that says one thing.
#[derive(Debug, Template)]
#[template(path = "message.html")]
pub(in crate::endpoint) struct MessagePage<'a> {
    /// What it is about.
    pub(in crate::endpoint) title: &'a str,
    /// What there is to say.
    pub(in crate::endpoint) text: &'a str,
    /// What to do.
    pub(in crate::endpoint) help: &'a str,
    /// Why, for whoever is asked for help; may be empty.
    pub(in crate::endpoint) reason: &'a str,
    /// Where to do it: a path; empty: where this page is.
    pub(in crate::endpoint) again: &'a str,
    /// Names the request in the log.
    pub(in crate::endpoint) request_id: &'a str,
    /// The style.
    pub(in crate::endpoint) style: &'a str,
}

/// All of it; has no `<`.
pub(in crate::endpoint) const STYLE: &str = include_str!("../../templates/page.css");

/// An answer with a page.
pub(in crate::endpoint) fn html(
    status: StatusCode,
    page: &impl Template,
    request_id: RequestId,
) -> Response<Body> {
    // Rendering fails only if writing to memory does.
    let text = page.render().unwrap_or_default();
    let mut answer = Response::new(Body::own(Bytes::from(text)));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    harden(headers);
    if let Ok(id) = HeaderValue::from_str(request_id.as_str()) {
        headers.insert("x-request-id", id);
    }
    answer
}

/// What Django says with its pages, and a policy that lets nothing in and nothing run.
///
/// `form-action` is more than `'self'`: Chromium asks it for every redirect after a form, too, and where a login leads
/// to is a page of an application, which may lead on to another origin. The login would seem to do nothing.
fn harden(headers: &mut http::HeaderMap) {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, STYLE.as_bytes());
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; form-action 'self' https:; frame-ancestors 'none'; base-uri 'none'",
        data_encoding::BASE64.encode(digest.as_ref())
    );
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("x-frame-options", "DENY"),
        ("cache-control", "max-age=0, no-cache, no-store, must-revalidate, private"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
