//! `Set-Cookie` (RFC 6265 section 4.1), with the attributes that Django gives its cookies.

use http::HeaderValue;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

/// A cookie to be set, or to be deleted.
#[derive(Clone, Copy)]
pub struct SetCookie<'a> {
    /// A token (RFC 9110 section 5.6.2).
    pub name: &'a str,
    /// Of cookie-octets; empty for one that is deleted.
    pub value: &'a str,
    /// When it ends, in seconds from now and in seconds since 1970. `None`: with the browser's session.
    pub ends: Option<(i64, i64)>,
    /// Hosts that get it; `None`: the one that set it.
    pub domain: Option<&'a str>,
    /// Over HTTPS alone.
    pub secure: bool,
    /// Not for scripts.
    pub http_only: bool,
    /// `Lax`, `Strict` or `None`.
    pub same_site: &'a str,
}

impl SetCookie<'_> {
    /// The field's value. `None`: something in it cannot stand there.
    pub fn value(&self) -> Option<HeaderValue> {
        // Python quotes what is empty; it is how Django deletes.
        let value = if self.value.is_empty() { "\"\"" } else { self.value };
        let mut text = format!("{}={value}", self.name);
        if let Some((age, end)) = self.ends {
            let end = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(end).unwrap_or_default());
            // Writing to a string cannot fail.
            write!(text, "; expires={}; Max-Age={age}", httpdate::fmt_http_date(end)).unwrap_or_default();
        }
        if let Some(domain) = self.domain {
            write!(text, "; Domain={domain}").unwrap_or_default();
        }
        if self.http_only {
            text.push_str("; HttpOnly");
        }
        write!(text, "; Path=/; SameSite={}", self.same_site).unwrap_or_default();
        if self.secure {
            text.push_str("; Secure");
        }
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// The value is a secret.
impl std::fmt::Debug for SetCookie<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SetCookie").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_djangos() {
        let session = SetCookie {
            name: "sessionid",
            value: "abc",
            ends: Some((1_209_600, 4_102_444_800)),
            domain: None,
            secure: true,
            http_only: true,
            same_site: "Lax",
        };
        assert_eq!(
            session.value().unwrap(),
            "sessionid=abc; expires=Fri, 01 Jan 2100 00:00:00 GMT; Max-Age=1209600; HttpOnly; Path=/; \
             SameSite=Lax; Secure"
        );
        let deleted = SetCookie { value: "", ends: Some((0, 0)), secure: false, http_only: false, ..session };
        assert_eq!(
            deleted.value().unwrap(),
            "sessionid=\"\"; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; Path=/; SameSite=Lax"
        );
        assert!(SetCookie { value: "a\nb", ..session }.value().is_none());
    }
}
