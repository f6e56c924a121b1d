//! `[identity]`: the header fields that tell the upstream who is calling.
//!
//! An upstream that gets its fields as CGI-like variables (WSGI, Rack, PHP) cannot tell `Remote-User` from
//! `remote_user`, so names are compared as such upstreams would fold them.

use std::collections::BTreeMap;

use http::HeaderName;

use crate::config::problem::{Fault, Problems, quote};
use crate::config::raw;
use crate::config::value::Entry;

/// What the upstream is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityHeaders {
    /// Carries the user's name.
    pub user: HeaderName,
    /// Carries the names of the groups; `None`: they are not told.
    pub groups: Option<HeaderName>,
    /// Carries the e-mail address; `None`: it is not told.
    pub email: Option<HeaderName>,
    /// Carries the kind of the scheme (`AUTH_TYPE` of `mod_wsgi`); `None`: it is not told.
    pub auth_type: Option<HeaderName>,
    /// Leaves verified credentials in the request.
    pub forward_credentials: bool,
}

impl Default for IdentityHeaders {
    fn default() -> Self {
        Self {
            user: HeaderName::from_static("remote-user"),
            groups: None,
            email: None,
            auth_type: None,
            forward_credentials: false,
        }
    }
}

impl IdentityHeaders {
    pub(super) fn from_raw(raw: raw::Identity, problems: &mut Problems) -> Self {
        let entries = [&raw.user, &raw.groups, &raw.email, &raw.auth_type];
        check_names(&entries, problems);
        let forward_credentials =
            raw.forward_credentials.is_some_and(|entry| warn_forwarded(&entry, problems));
        let name = |entry: Option<Entry<HeaderName>>| entry.map(|entry| entry.value);
        Self {
            user: name(raw.user).unwrap_or_else(|| Self::default().user),
            groups: name(raw.groups),
            email: name(raw.email),
            auth_type: name(raw.auth_type),
            forward_credentials,
        }
    }
}

fn warn_forwarded(entry: &Entry<bool>, problems: &mut Problems) -> bool {
    if entry.value {
        let fault =
            Fault::new("verified credentials are passed on, so every upstream sees every client's token");
        problems.warn(&entry.span, fault.help("leave it out unless an upstream checks them itself"));
    }
    entry.value
}

/// Names that mean something else, or that every hop may drop or rewrite, folded.
const RESERVED: [&str; 46] = [
    "accept",
    "accept_charset",
    "accept_encoding",
    "accept_language",
    "authorization",
    "cache_control",
    "connection",
    "content_disposition",
    "content_encoding",
    "content_language",
    "content_length",
    "content_location",
    "content_range",
    "content_type",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "host",
    "http2_settings",
    "if_match",
    "if_modified_since",
    "if_none_match",
    "if_range",
    "if_unmodified_since",
    "keep_alive",
    "max_forwards",
    "origin",
    "pragma",
    "proxy_authenticate",
    "proxy_authorization",
    "proxy_connection",
    "range",
    "referer",
    "set_cookie",
    "te",
    "trailer",
    "transfer_encoding",
    "upgrade",
    "user_agent",
    "via",
    "www_authenticate",
    "x_forwarded_for",
    "x_forwarded_host",
    "x_forwarded_proto",
    "x_request_id",
];

fn check_names(entries: &[&Option<Entry<HeaderName>>], problems: &mut Problems) {
    let mut taken = BTreeMap::new();
    if entries.first().is_some_and(|user| user.is_none()) {
        taken.insert(fold(IdentityHeaders::default().user.as_str()), "the default of `user`".to_owned());
    }
    for entry in entries.iter().copied().flatten() {
        let name = entry.value.as_str();
        let folded = fold(name);
        if is_reserved(name) {
            let fault = Fault::new(format!("{} has another meaning in HTTP", quote(name)));
            problems.error(&entry.span, fault.help("choose a name of your own, such as \"Remote-User\""));
        } else if let Some(other) = taken.get(&folded) {
            let fault = Fault::new(format!("{} is used twice: it cannot be told from {other}", quote(name)));
            let help = "upstreams fold letter case and punctuation: Remote-User and remote_user are one";
            problems.error(&entry.span, fault.help(help));
        }
        let (line, column) = problems.place(entry.span.start);
        taken.entry(folded).or_insert_with(|| format!("{} at {line}:{column}", quote(name)));
    }
}

/// Whether a name means something else already.
pub(super) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&fold(name).as_str())
}

/// As upstreams fold names: letter case and punctuation are lost.
fn fold(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_are_folded_and_sorted() {
        assert!(RESERVED.iter().all(|name| fold(name) == *name));
        assert!(RESERVED.is_sorted());
    }
}
