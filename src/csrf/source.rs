//! Where a request comes from: `Origin` (RFC 6454), or `Referer` where that is missing and the connection is secure.

use crate::csrf::latin1;
use crate::csrf::reason::Reason;
use crate::csrf::settings::Settings;
use crate::csrf::url::Url;
use crate::header::joined::joined;
use http::{HeaderMap, header};
use std::borrow::Cow;

/// What a request says of its source, and what it was sent to.
#[derive(Debug, Clone)]
pub struct Source<'a> {
    /// Over TLS, or said to be by a proxy that is trusted.
    pub is_https: bool,
    /// `Host` or `:authority`, as sent, with its port if it has one.
    pub host: &'a [u8],
    /// The port that a cookie's domain is completed with (`SERVER_PORT`).
    pub server_port: u16,
    /// `Origin`, as sent.
    pub origin: Option<Cow<'a, [u8]>>,
    /// `Referer`, as sent.
    pub referer: Option<Cow<'a, [u8]>>,
}

impl<'a> Source<'a> {
    /// With `Origin` and `Referer` of a head.
    pub fn of(headers: &'a HeaderMap, is_https: bool, host: &'a [u8], server_port: u16) -> Self {
        let (origin, referer) = (joined(headers, &header::ORIGIN), joined(headers, &header::REFERER));
        Self { is_https, host, server_port, origin, referer }
    }

    /// Django's `get_host`: what is no host at all is not compared with anything.
    fn checked_host(&self) -> Option<&str> {
        std::str::from_utf8(self.host).ok().filter(|host| is_host(host))
    }
}

impl Settings {
    /// Checks where a request whose method is not safe comes from.
    ///
    /// # Errors
    /// If that is no place that is trusted.
    pub fn check_source(&self, source: &Source<'_>) -> Result<(), Reason> {
        match &source.origin {
            Some(origin) if self.is_trusted_origin(origin, source) => Ok(()),
            Some(origin) => Err(Reason::BadOrigin(latin1(origin))),
            None if source.is_https => self.check_referer(source),
            None => Ok(()),
        }
    }

    /// `_origin_verified`
    fn is_trusted_origin(&self, origin: &[u8], source: &Source<'_>) -> bool {
        let scheme: &[u8] = if source.is_https { b"https://" } else { b"http://" };
        let is_own =
            source.checked_host().is_some_and(|host| origin.strip_prefix(scheme) == Some(host.as_bytes()));
        if is_own {
            return true;
        }
        let mut exact = self.trusted_origins.iter().filter(|trusted| !trusted.is_pattern);
        if exact.any(|trusted| trusted.text.as_bytes() == origin) {
            return true;
        }
        let Some(url) = Url::split(&latin1(origin)) else { return false };
        let mut patterns = self.trusted_origins.iter().filter(|trusted| trusted.is_pattern);
        patterns.any(|trusted| trusted.scheme == url.scheme && is_same_domain(&url.netloc, &trusted.netloc))
    }

    /// `_check_referer`
    fn check_referer(&self, source: &Source<'_>) -> Result<(), Reason> {
        let referer = source.referer.as_deref().ok_or(Reason::NoReferer)?;
        let url = Url::split(&latin1(referer)).ok_or(Reason::MalformedReferer)?;
        if url.scheme.is_empty() || url.netloc.is_empty() {
            return Err(Reason::MalformedReferer);
        }
        if url.scheme != "https" {
            return Err(Reason::InsecureReferer);
        }
        // The scheme of a trusted origin does not count here, as in Django.
        let is_trusted =
            self.trusted_origins.iter().any(|trusted| is_same_domain(&url.netloc, &trusted.netloc));
        if is_trusted || self.good_referer(source).is_some_and(|good| is_same_domain(&url.netloc, &good)) {
            return Ok(());
        }
        Err(Reason::BadReferer(url.join()))
    }

    /// What `Referer` may be of anyway, in small letters.
    fn good_referer(&self, source: &Source<'_>) -> Option<String> {
        match &self.cookie_domain {
            None => source.checked_host().map(str::to_ascii_lowercase),
            Some(domain) if matches!(source.server_port, 80 | 443) => Some(domain.to_lowercase()),
            Some(domain) => Some(format!("{}:{}", domain.to_lowercase(), source.server_port)),
        }
    }
}

/// `django.utils.http.is_same_domain`: a pattern that begins with a dot is a domain and all below it. The pattern is in
/// small letters, the host is compared as it is.
fn is_same_domain(host: &str, pattern: &str) -> bool {
    let is_below = pattern.strip_prefix('.').is_some_and(|domain| host == domain || host.ends_with(pattern));
    !pattern.is_empty() && (is_below || host == pattern)
}

/// Django's `host_validation_re`, and that more than a dot is left of it.
fn is_host(host: &str) -> bool {
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (is_name, port) = if let Some((address, port)) = bracketed {
        (is_address(address), port)
    } else {
        let (name, port) = host.find(':').and_then(|at| host.split_at_checked(at)).unwrap_or((host, ""));
        let is_label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
        (!name.is_empty() && name != "." && name.bytes().all(is_label), port)
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    is_name && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

/// As laxly as Django, which leaves the rest to whoever resolves it.
fn is_address(text: &str) -> bool {
    let (head, tail) = text.split_once(':').unwrap_or((text, ""));
    let is_rest = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':');
    head.bytes().all(|byte| byte.is_ascii_hexdigit()) && !tail.is_empty() && tail.bytes().all(is_rest)
}
