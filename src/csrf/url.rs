//! URLs in pieces as Python 3.11 splits and joins them (`urllib.parse.urlsplit`, `urlunsplit`): what Django compares is
//! what that makes of `Origin` and `Referer`, and not what RFC 3986 would.

use std::net::Ipv6Addr;

/// A URL in pieces, none of them decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// In small letters; empty if there is none.
    pub(crate) scheme: String,
    /// With user information and port, as it stands; empty if there is none.
    pub(crate) netloc: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) fragment: String,
}

impl Url {
    /// Splits a text; `None` is Python's `ValueError`.
    ///
    /// Python's check of characters that become `/?#@:` under NFKC is left out: no character of ISO 8859-1 does, and
    /// configured origins are ASCII.
    pub(crate) fn split(text: &str) -> Option<Self> {
        let text = text.trim_start_matches(|character| character <= ' ');
        let text = text.replace(['\t', '\r', '\n'], "");
        let (scheme, rest) = scheme(&text).unwrap_or(("", &text));
        let (netloc, rest) = match rest.strip_prefix("//") {
            Some(rest) => {
                rest.find(['/', '?', '#']).and_then(|at| rest.split_at_checked(at)).unwrap_or((rest, ""))
            }
            None => ("", rest),
        };
        if !are_brackets_right(netloc) {
            return None;
        }
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        Some(Self {
            scheme: scheme.to_ascii_lowercase(),
            netloc: netloc.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            fragment: fragment.to_owned(),
        })
    }

    /// The URL again, without delimiters of what is empty; of a URL with scheme and netloc.
    pub(crate) fn join(&self) -> String {
        let Self { scheme, netloc, path, query, fragment } = self;
        let behind = |delimiter: &str, piece: &str| {
            if piece.is_empty() { String::new() } else { format!("{delimiter}{piece}") }
        };
        format!("{scheme}://{netloc}{path}{}{}", behind("?", query), behind("#", fragment))
    }
}

/// The scheme and what is behind its colon.
fn scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    is_scheme.then_some((scheme, rest))
}

/// `urlsplit` and `_check_bracketed_netloc`: brackets stand around an address and nowhere else.
fn are_brackets_right(netloc: &str) -> bool {
    match (netloc.contains('['), netloc.contains(']')) {
        (false, false) => true,
        (true, true) => is_bracketed_netloc(netloc),
        _ => false,
    }
}

fn is_bracketed_netloc(netloc: &str) -> bool {
    let host_and_port = netloc.rsplit('@').next().unwrap_or(netloc);
    let Some((before, bracketed)) = host_and_port.split_once('[') else {
        return is_bracketed_host(host_and_port.split(':').next().unwrap_or_default());
    };
    let (host, port) = bracketed.split_once(']').unwrap_or((bracketed, ""));
    before.is_empty() && (port.is_empty() || port.starts_with(':')) && is_bracketed_host(host)
}

/// `_check_bracketed_host`: an IPv6 address, which may have a scope, or one of a later version (RFC 3986 section 3.2.2).
fn is_bracketed_host(host: &str) -> bool {
    if let Some(future) = host.strip_prefix('v') {
        return future.split_once('.').is_some_and(|(version, rest)| {
            !version.is_empty() && version.bytes().all(|byte| byte.is_ascii_hexdigit()) && !rest.is_empty()
        });
    }
    let (address, scope) =
        host.split_once('%').map_or((host, None), |(address, scope)| (address, Some(scope)));
    let is_scope = scope.is_none_or(|scope| !scope.is_empty() && !scope.contains('%'));
    is_scope && address.parse::<Ipv6Addr>().is_ok()
}
