//! HTTPS and nothing else: a request that came in clear is neither authenticated nor forwarded.
//!
//! Asked once, after the head was sanitised and before anything else is done with it. Who only looks is sent to HTTPS.
//! Who sends something is refused, since a redirect would come too late: what was sent has been read by whoever is on
//! the way. What counts is the client's own connection, so the word of a trusted proxy decides for the clients behind
//! it, in both directions.

pub mod exposed;
mod presented;

use crate::accept::head::{Head, RequestId};
use crate::accept::peer::Client;
use crate::config::Hsts;
use crate::header::authority::Authority;
use crate::require_https::exposed::ExposedTokens;
use http::{HeaderMap, HeaderValue, Method, header};

pub use crate::require_https::presented::SessionCookies;

/// The stage, and what is told of HTTPS afterwards.
#[derive(Debug)]
pub struct RequireHttps {
    /// The port that clients reach HTTPS by.
    pub https_port: u16,
    /// `Strict-Transport-Security` of every answer over HTTPS; `None`: what the upstream says.
    pub hsts: Option<HeaderValue>,
    /// Cookies that are credentials.
    pub session_cookies: SessionCookies,
    /// What becomes of tokens that came in clear.
    pub exposed: ExposedTokens,
}

/// Why a request in clear goes no further.
#[derive(Debug, thiserror::Error)]
pub enum InClear {
    /// It only looks: sent to this URL.
    #[error("sent to HTTPS")]
    Redirect(HeaderValue),
    /// It would change something, or ask for credentials.
    #[error("HTTPS is required")]
    Required,
    /// Credentials came in clear.
    #[error("credentials were exposed")]
    Exposed,
}

impl RequireHttps {
    /// Lets pass what came by HTTPS.
    ///
    /// `has_body`: the request has one, which is not looked at; `issues_credentials`: its route gives credentials out,
    /// asked only for what came in clear.
    ///
    /// # Errors
    /// Whatever came in clear.
    pub fn check(
        &self,
        head: &Head,
        has_body: bool,
        issues_credentials: impl FnOnce() -> bool,
    ) -> Result<(), InClear> {
        if head.client.is_https {
            return Ok(());
        }
        self.check_unread(&head.headers, &head.client, head.request_id)?;
        if issues_credentials() {
            // What is sent to such a route is a password.
            return Err(if has_body { InClear::Exposed } else { InClear::Required });
        }
        let only_looks = head.method == Method::GET || head.method == Method::HEAD;
        let location = only_looks.then(|| self.location(head)).flatten();
        Err(location.map_or(InClear::Required, InClear::Redirect))
    }

    /// Lets pass what carries no credentials, or came by HTTPS: for a head that could not be read, whose credentials
    /// were exposed all the same.
    ///
    /// # Errors
    /// Credentials that came in clear.
    pub fn check_unread(
        &self,
        headers: &HeaderMap,
        client: &Client,
        request_id: RequestId,
    ) -> Result<(), InClear> {
        if client.is_https || !presented::has_credentials(headers, &self.session_cookies) {
            return Ok(());
        }
        self.exposed.report(headers, client.address, request_id);
        Err(InClear::Exposed)
    }

    /// Says with an answer over HTTPS that there is nothing else, in place of what the upstream says of it.
    ///
    /// Never with another: RFC 6797 section 7.2.
    pub fn pin(&self, answer: &mut HeaderMap, is_https: bool) {
        if let Some(hsts) = self.hsts.as_ref().filter(|_| is_https) {
            answer.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
    }

    /// The same target over HTTPS, on the host that the client asked for.
    fn location(&self, head: &Head) -> Option<HeaderValue> {
        let forwarded = head.client.forwarded_host.as_deref().and_then(|host| Authority::parse(host).ok());
        let host = forwarded.as_ref().unwrap_or(&head.authority).host();
        location(host, self.https_port, head.target.original())
    }
}

/// Host and target are behind `https://`, so neither can lead elsewhere: a host is nothing but a host, and a target
/// begins with a slash.
fn location(host: &str, port: u16, target: &str) -> Option<HeaderValue> {
    let port = if port == HTTPS_PORT { String::new() } else { format!(":{port}") };
    let mut url = format!("https://{host}{port}").into_bytes();
    for byte in target.bytes() {
        // RFC 3986 section 2: a URL is ASCII.
        if byte.is_ascii_graphic() {
            url.push(byte);
        } else {
            url.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    HeaderValue::try_from(url).ok()
}

/// RFC 9110 section 4.2.2: the port of a URL that names none.
const HTTPS_PORT: u16 = 443;

/// The value of `Strict-Transport-Security` (RFC 6797 section 6.1).
pub fn hsts(hsts: &Hsts) -> Option<HeaderValue> {
    let mut value = format!("max-age={}", hsts.max_age.as_secs());
    if hsts.include_subdomains {
        value.push_str("; includeSubDomains");
    }
    if hsts.preload {
        value.push_str("; preload");
    }
    HeaderValue::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::target::Target;
    use proptest::prelude::*;
    use std::time::Duration;

    #[test]
    fn a_target_stays_on_its_host() {
        for (host, port, target, url) in [
            ("a.test", 443, "/", "https://a.test/"),
            ("a.test", 8443, "/x?y=%2F&z", "https://a.test:8443/x?y=%2F&z"),
            ("[::1]", 443, "/", "https://[::1]/"),
            ("a.test", 443, "//evil.test/x", "https://a.test//evil.test/x"),
            ("a.test", 443, "/@evil.test", "https://a.test/@evil.test"),
            ("a.test", 443, "/é\r\nx", "https://a.test/%C3%A9%0D%0Ax"),
        ] {
            assert_eq!(location(host, port, target).unwrap(), url);
        }
    }

    #[test]
    fn hsts_is_written_as_the_rfc_has_it() {
        let max_age = Duration::from_hours(24);
        let plain = Hsts { max_age, include_subdomains: false, preload: false };
        assert_eq!(hsts(&plain).unwrap(), "max-age=86400");
        let all = Hsts { max_age, include_subdomains: true, preload: true };
        assert_eq!(hsts(&all).unwrap(), "max-age=86400; includeSubDomains; preload");
    }

    proptest! {
        #[test]
        fn any_host_and_target_lead_to_that_host(host in "\\PC{0,20}", port: u16, target in "/\\PC{0,30}") {
            let Ok(authority) = Authority::parse(host.as_bytes()) else { return Ok(()) };
            let Some(target) = target.parse().ok().and_then(|target| Target::parse(target).ok()) else {
                return Ok(());
            };
            let value = location(authority.host(), port, target.original()).unwrap();
            let uri: http::Uri = value.to_str().unwrap().parse().unwrap();
            prop_assert_eq!(uri.scheme_str(), Some("https"));
            prop_assert_eq!(uri.host(), Some(authority.host()));
            prop_assert_eq!(uri.port_u16().unwrap_or(443), port);
        }
    }
}
