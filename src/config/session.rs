//! Sessions in cookies: the options of schemes of kind `session`, and of their protection against forged requests.
//!
//! Names and ages are Django's defaults, so that either side takes what the other made.

use std::collections::BTreeSet;
use std::time::Duration;

use http::HeaderName;
use toml::Spanned;

use crate::config::host::host_name;
use crate::config::identity;
use crate::config::problem::{Fault, Problems, quote};
use crate::config::raw;
use crate::config::value::{Entry, Written, is_token, one_of, unexpected, within};

/// What a session scheme reads, and what a login sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionConfig {
    /// Name of the cookie (`SESSION_COOKIE_NAME`).
    pub cookie: String,
    /// How long a session is good (`SESSION_COOKIE_AGE`).
    pub age: Duration,
    /// Whether browsers send the cookies by HTTPS alone (`SESSION_COOKIE_SECURE`, `CSRF_COOKIE_SECURE`).
    pub secure: bool,
    /// `Domain` of the cookie as written; `None`: the host that set it alone.
    pub domain: Option<String>,
    /// `SameSite` of the cookies.
    pub same_site: SameSite,
    /// Against forged requests.
    pub csrf: CsrfConfig,
}

/// When browsers send a cookie with requests that another site causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SameSite {
    /// With navigations to this site.
    #[default]
    Lax,
    /// Never.
    Strict,
    /// Always; such cookies must be `Secure`.
    None,
}

/// Protection against forged requests (Django 5.2, `CsrfViewMiddleware`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsrfConfig {
    /// Name of the cookie (`CSRF_COOKIE_NAME`).
    pub cookie: String,
    /// The field that scripts send the token in (`CSRF_HEADER_NAME`).
    pub header: HeaderName,
    /// `scheme://host[:port]` or `scheme://*.domain[:port]` (`CSRF_TRUSTED_ORIGINS`).
    pub trusted_origins: Vec<String>,
    /// `Domain` of the cookie as written; `None`: the host that set it alone.
    pub domain: Option<String>,
    /// Whether the secret is in the session and not in a cookie (`CSRF_USE_SESSIONS`).
    pub in_session: bool,
    /// How long browsers keep the cookie (`CSRF_COOKIE_AGE`).
    pub age: Duration,
}

const DAY: Duration = Duration::from_hours(24);

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            cookie: "sessionid".to_owned(),
            age: DAY.saturating_mul(14),
            secure: true,
            domain: None,
            same_site: SameSite::default(),
            csrf: CsrfConfig::default(),
        }
    }
}

impl Default for CsrfConfig {
    fn default() -> Self {
        Self {
            cookie: "csrftoken".to_owned(),
            header: HeaderName::from_static("x-csrftoken"),
            trusted_origins: Vec::new(),
            domain: None,
            in_session: false,
            // Django's 31,449,600 s: 52 weeks.
            age: DAY.saturating_mul(364),
        }
    }
}

impl Written for SameSite {
    const EXPECTED: &'static str = "\"Lax\", \"Strict\" or \"None\"";
    const WORDS: &'static [(&'static str, Self)] =
        &[("Lax", Self::Lax), ("Strict", Self::Strict), ("None", Self::None)];

    fn from_text(text: &str) -> Result<Self, Fault> {
        one_of(text)
    }
}

/// The longest name of a cookie.
const COOKIE_BYTES_MAX: usize = 128;

/// The name of a cookie (RFC 6265 section 4.1.1: a token).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CookieName(String);

impl Written for CookieName {
    const EXPECTED: &'static str = "the name of a cookie such as \"sessionid\"";
    const PATTERN: Option<&'static str> = Some("^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$");

    fn from_text(text: &str) -> Result<Self, Fault> {
        if is_token(text) && text.len() <= COOKIE_BYTES_MAX {
            return Ok(Self(text.to_owned()));
        }
        Err(unexpected::<Self>(text).help(format!("letters, digits, - and _; at most {COOKIE_BYTES_MAX}")))
    }
}

/// `Domain` of a cookie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CookieDomain(String);

impl Written for CookieDomain {
    const EXPECTED: &'static str = "a domain such as \"example.com\"";
    const PATTERN: Option<&'static str> = Some("^[A-Za-z0-9._-]+$");

    fn from_text(text: &str) -> Result<Self, Fault> {
        // RFC 6265 section 5.2.3: a dot in front means nothing; Django's settings often have one.
        let name = text.strip_prefix('.').unwrap_or(text);
        match host_name(name) {
            Ok(_) if !name.starts_with('[') => Ok(Self(text.to_ascii_lowercase())),
            _ => Err(unexpected::<Self>(text).help("the name alone, without scheme, port or path")),
        }
    }
}

impl SessionConfig {
    /// Options that another kind has are not looked at.
    pub(super) fn from_raw(raw: raw::Scheme, is_django: bool, problems: &mut Problems) -> Self {
        let default = Self::default();
        let (secure, same_site) = (raw.secure, raw.same_site);
        let is_secure = secure.as_ref().is_none_or(|entry| entry.value);
        if let Some(entry) = secure.filter(|entry| !entry.value) {
            let fault =
                Fault::new("browsers send these cookies in clear, too, so who listens has the session");
            problems.warn(&entry.span, fault.help("leave it out unless this is a test"));
        }
        if let Some(entry) = same_site.as_ref().filter(|entry| entry.value == SameSite::None && !is_secure) {
            // RFC 6265bis section 5.7: browsers refuse them.
            let fault = Fault::new("cookies with same_site = \"None\" must be secure");
            problems.error(&entry.span, fault.help("take secure = false out"));
        }
        let cookie = CookieRules { is_secure, has_domain: raw.domain.is_some() };
        let csrf = raw.csrf.map(Spanned::into_inner).unwrap_or_default();
        let config = Self {
            cookie: cookie.name(raw.cookie.as_ref(), default.cookie, problems),
            age: age(raw.age.as_ref(), default.age, problems),
            secure: is_secure,
            domain: raw.domain.map(|entry| entry.value.0),
            same_site: same_site.map(|entry| entry.value).unwrap_or_default(),
            csrf: CsrfConfig::default(),
        };
        let place = csrf.cookie.as_ref().or(raw.cookie.as_ref()).map(|entry| entry.span.clone());
        let config = Self { csrf: CsrfConfig::from_raw(csrf, is_secure, is_django, problems), ..config };
        if let Some(span) = place
            && config.cookie == config.csrf.cookie
        {
            let fault = Fault::new(format!("both cookies are called {}", quote(&config.cookie)));
            problems.error(&span, fault.help("give the cookie of `csrf` another name"));
        }
        config
    }
}

impl CsrfConfig {
    fn from_raw(raw: raw::Csrf, is_secure: bool, is_django: bool, problems: &mut Problems) -> Self {
        let default = Self::default();
        let cookie = CookieRules { is_secure, has_domain: raw.domain.is_some() };
        if let Some(entry) = raw.in_session.as_ref().filter(|entry| entry.value && !is_django) {
            let fault = Fault::new("`in_session` is for layout = \"django\" alone");
            problems.error(&entry.span, fault.help("leave it out: the secret is in a cookie"));
        }
        if let Some(entry) = &raw.header {
            check_header(entry, "X-CSRFToken", problems);
        }
        let origins = raw.trusted_origins.map(Spanned::into_inner).unwrap_or_default();
        let mut seen = BTreeSet::new();
        for origin in &origins {
            if !seen.insert(origin.value.0.as_str()) {
                let fault = Fault::new(format!("origin {} is listed twice", quote(&origin.value.0)));
                problems.error(&origin.span, fault.help("keep one"));
            }
        }
        Self {
            cookie: cookie.name(raw.cookie.as_ref(), default.cookie, problems),
            header: raw.header.map_or(default.header, |entry| entry.value),
            trusted_origins: origins.into_iter().map(|origin| origin.value.0).collect(),
            domain: raw.domain.map(|entry| entry.value.0),
            in_session: raw.in_session.is_some_and(|entry| entry.value),
            age: age(raw.age.as_ref(), default.age, problems),
        }
    }
}

/// Browsers drop cookies that live longer (RFC 6265bis section 5.5).
const AGE_MAX: Duration = DAY.saturating_mul(400);

fn age(entry: Option<&Entry<Duration>>, default: Duration, problems: &mut Problems) -> Duration {
    within(entry, default, Duration::from_mins(1)..=AGE_MAX, "age", problems)
}

/// A field of the request that means nothing else.
pub(super) fn check_header(entry: &Entry<HeaderName>, example: &str, problems: &mut Problems) {
    if identity::is_reserved(entry.value.as_str()) {
        let fault = Fault::new(format!("{} has another meaning in HTTP", quote(entry.value.as_str())));
        problems.error(&entry.span, fault.help(format!("choose a name of your own, such as \"{example}\"")));
    }
}

/// What a name may ask of the rest of its cookie.
#[derive(Debug, Clone, Copy)]
struct CookieRules {
    is_secure: bool,
    has_domain: bool,
}

impl CookieRules {
    /// The name; browsers refuse cookies that break the promise of their name (RFC 6265bis section 4.1.3).
    fn name(self, entry: Option<&Entry<CookieName>>, default: String, problems: &mut Problems) -> String {
        let Some(Entry { value: CookieName(name), span }) = entry else { return default };
        let begins_with =
            |prefix: &str| name.get(..prefix.len()).is_some_and(|p| p.eq_ignore_ascii_case(prefix));
        let is_host = begins_with("__Host-");
        if is_host && self.has_domain {
            let fault = Fault::new(format!("browsers refuse {} with a `domain`", quote(name)));
            problems.error(span, fault.help("leave one of them out"));
        }
        if (is_host || begins_with("__Secure-")) && !self.is_secure {
            let fault = Fault::new(format!("browsers refuse {} without `secure`", quote(name)));
            problems.error(span, fault.help("take secure = false out, or give the cookie another name"));
        }
        name.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_domains_of_cookies_are_checked() {
        for text in ["", "a b", "a=b", "a;b", "é", &"x".repeat(129)] {
            assert!(CookieName::from_text(text).is_err(), "{text}");
        }
        assert_eq!(CookieDomain::from_text(".Example.com").unwrap().0, ".example.com");
        for text in ["", ".", "a b", "https://a", "a:80", "[::1]", "a;b"] {
            assert!(CookieDomain::from_text(text).is_err(), "{text}");
        }
    }
}
