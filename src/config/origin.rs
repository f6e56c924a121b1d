//! Origins as browsers write them (RFC 6454 section 6.2): scheme, host and port, and nothing else.
//!
//! They are compared as text, so each is brought here to the one form that browsers send.

use crate::config::host::{host_and_port, host_name};
use crate::config::problem::{Fault, quote};
use crate::config::value::{Written, unexpected};

/// An origin: `https://app.example.com`, with a port only if it is not the scheme's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin(pub(super) String);

impl Written for Origin {
    const EXPECTED: &'static str = "an origin such as \"https://app.example.com\"";
    const PATTERN: Option<&'static str> = Some("^https?://[^*/?#]+$");

    fn from_text(text: &str) -> Result<Self, Fault> {
        match split(text) {
            Some((scheme, rest)) if !rest.contains('*') => {
                normal(scheme, "", rest).map(Self).map_err(|help| unexpected::<Self>(text).help(help))
            }
            Some(_) => Err(unexpected::<Self>(text).help("there are no patterns: list each origin")),
            None => Err(unexpected::<Self>(text).help(help(text))),
        }
    }
}

/// An origin, or all below a domain: `https://*.example.com` (Django 5.2, `CSRF_TRUSTED_ORIGINS`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TrustedOrigin(pub(super) String);

impl Written for TrustedOrigin {
    const EXPECTED: &'static str =
        "an origin such as \"https://app.example.com\" or \"https://*.example.com\"";
    const PATTERN: Option<&'static str> = Some("^https?://(\\*\\.)?[^*/?#]+$");

    fn from_text(text: &str) -> Result<Self, Fault> {
        let refuse = |help: String| unexpected::<Self>(text).help(help);
        // Django 5.2, `check_csrf_trusted_origins` (4_0.E001): a value without a scheme is an error.
        let (scheme, rest) = split(text).ok_or_else(|| refuse(help(text)))?;
        let (star, rest) = rest.strip_prefix("*.").map_or(("", rest), |rest| ("*.", rest));
        normal(scheme, star, rest).map(Self).map_err(refuse)
    }
}

/// Scheme and the rest; `None` if it is no scheme of browsers.
fn split(text: &str) -> Option<(&str, &str)> {
    text.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
}

fn help(text: &str) -> String {
    match text {
        "*" => "with \"*\" every page could read the answers: list each origin".to_owned(),
        "null" => "every sandboxed page has the origin \"null\": list each origin".to_owned(),
        text if host_name(text).is_ok() => format!("did you mean \"https://{text}\"?"),
        _ => "`https://` or `http://`, a host, and a port if it is not the usual".to_owned(),
    }
}

/// The form that browsers send, or what is wrong.
fn normal(scheme: &str, star: &str, rest: &str) -> Result<String, String> {
    if let Some(bare) = rest.strip_suffix('/')
        && host_and_port(bare).is_ok()
    {
        return Err(format!("leave the slash out: \"{scheme}://{star}{bare}\""));
    }
    if rest.contains(['/', '?', '#']) {
        return Err("an origin has no path".to_owned());
    }
    let (host, port) = host_and_port(rest).map_err(|_| format!("{} is no host", quote(rest)))?;
    let usual = if scheme == "https" { 443 } else { 80 };
    match port {
        Some(port) if port == usual => {
            Err(format!("browsers leave the usual port out: \"{scheme}://{star}{host}\""))
        }
        Some(port) => Ok(format!("{scheme}://{star}{host}:{port}")),
        None => Ok(format!("{scheme}://{star}{host}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_what_browsers_send_or_refused() {
        for (text, origin) in [
            ("https://app.example.com", "https://app.example.com"),
            ("https://APP.example.com:8443", "https://app.example.com:8443"),
            ("http://[::1]:3000", "http://[::1]:3000"),
        ] {
            assert_eq!(Origin::from_text(text).unwrap().0, origin);
            assert_eq!(TrustedOrigin::from_text(text).unwrap().0, origin);
        }
        for (text, told) in [
            ("*", "list each origin"),
            ("null", "list each origin"),
            ("", "`https://`"),
            ("app.example.com", "did you mean \"https://app.example.com\"?"),
            ("https://a/", "leave the slash out: \"https://a\""),
            ("https://a/b", "no path"),
            ("https://a?b", "no path"),
            ("https://a:443", "\"https://a\""),
            ("http://a:80", "\"http://a\""),
            ("https://user@a", "is no host"),
            ("https://", "is no host"),
            ("ftp://a", "`https://`"),
            ("https://a:99999", "is no host"),
        ] {
            for fault in [Origin::from_text(text).unwrap_err(), TrustedOrigin::from_text(text).unwrap_err()] {
                assert!(fault.to_string().contains(told), "{text}: {fault}");
            }
        }
    }

    #[test]
    fn only_trusted_origins_may_be_all_below_a_domain() {
        assert_eq!(
            TrustedOrigin::from_text("https://*.Example.com:8443").unwrap().0,
            "https://*.example.com:8443"
        );
        for text in ["https://*", "https://*example.com", "https://a.*.com", "https://*."] {
            assert!(TrustedOrigin::from_text(text).is_err(), "{text}");
        }
        assert!(Origin::from_text("https://*.example.com").unwrap_err().to_string().contains("no patterns"));
    }
}
