//! The head of a request to an upstream: the client's fields without those that end here, and ours.

use crate::accept::head::Head;
use crate::authenticate::scheme::Identity;
use crate::config::UpstreamHost;
use crate::forward::upload::Framing;
use crate::header::{cookie, forwarded, hop_by_hop, identity_value};
use crate::identity::SchemeKind;
use bytes::BytesMut;
use http::{HeaderName, HeaderValue, Version, header};
use std::borrow::Cow;
use std::fmt::Write as _;

/// What is added to and taken from a request's fields.
#[derive(Debug, Clone)]
pub struct ForwardHeaders {
    /// Names the user to the upstream.
    pub user: HeaderName,
    /// Names the groups, if any name is configured.
    pub groups: Option<HeaderName>,
    /// Names the e-mail address.
    pub email: Option<HeaderName>,
    /// Names the scheme's kind.
    pub auth_type: Option<HeaderName>,
    /// Leave `Authorization` in, if it was verified.
    pub forwards_verified: bool,
    /// Leave `Authorization` in, though nobody looked at it.
    pub passes_unverified: bool,
    /// Names of the cookies that are doorward's: they go no further, as other credentials.
    pub cookies: Vec<String>,
    /// The route's path prefix, if it is to be taken off.
    pub strip_prefix: Option<String>,
}

impl ForwardHeaders {
    /// Names that tell of identities: an upstream's answer may not use them.
    pub(in crate::forward) fn identity_names(&self) -> impl Iterator<Item = &HeaderName> {
        let optional = [&self.groups, &self.email, &self.auth_type];
        std::iter::once(&self.user).chain(optional.into_iter().flatten())
    }
}

/// Everything that the head of one request is written from.
#[derive(Debug)]
pub(in crate::forward) struct HeadWriter<'a> {
    pub(in crate::forward) settings: &'a ForwardHeaders,
    pub(in crate::forward) head: &'a Head,
    pub(in crate::forward) identity: Option<&'a Identity>,
}

impl HeadWriter<'_> {
    /// Writes the head.
    pub(in crate::forward) fn write(
        &self,
        framing: Framing,
        host: &UpstreamHost,
        authority: &str,
    ) -> BytesMut {
        let mut out = BytesMut::with_capacity(1024);
        self.request_line(&mut out);
        let host = match host {
            UpstreamHost::Preserve => self.head.authority.value().as_bytes(),
            UpstreamHost::Upstream => authority.as_bytes(),
            UpstreamHost::Fixed(value) => value.as_bytes(),
        };
        field(&mut out, "host", host);
        self.client_fields(&mut out);
        match framing {
            // RFC 9110 section 8.6: what was said to be empty is said to be so again; some upstreams insist.
            Framing::None if self.head.headers.contains_key(header::CONTENT_LENGTH) => {
                field(&mut out, "content-length", b"0");
            }
            Framing::None => {}
            // Writing to memory cannot fail.
            Framing::Length(bytes) => write!(out, "content-length: {bytes}\r\n").unwrap_or_default(),
            Framing::Chunked => field(&mut out, "transfer-encoding", b"chunked"),
        }
        self.our_fields(&mut out);
        out.extend_from_slice(b"\r\n");
        out
    }

    fn request_line(&self, out: &mut BytesMut) {
        let path = self.head.target.path();
        let stripped = self.settings.strip_prefix.as_ref().and_then(|prefix| strip_prefix(path, prefix));
        let path = stripped.unwrap_or(path);
        out.extend_from_slice(self.head.method.as_str().as_bytes());
        out.extend_from_slice(b" ");
        out.extend_from_slice(path.as_bytes());
        if let Some(query) = self.head.target.query() {
            out.extend_from_slice(b"?");
            out.extend_from_slice(query.as_bytes());
        }
        out.extend_from_slice(b" HTTP/1.1\r\n");
    }

    fn client_fields(&self, out: &mut BytesMut) {
        let headers = &self.head.headers;
        let has_options = headers.contains_key(header::CONNECTION);
        for (name, value) in headers {
            let ends_here = hop_by_hop::is_hop_by_hop(name)
                // Framing and `100 Continue` are between us and the upstream.
                || *name == header::CONTENT_LENGTH
                || *name == header::EXPECT
                || *name == header::VIA
                || (*name == header::AUTHORIZATION && !self.keeps_authorization())
                || (has_options && is_nominated(name, headers));
            if ends_here {
                continue;
            }
            if let Some(value) = self.cookies_left(name, value) {
                field(out, name.as_str(), value.as_bytes());
            }
        }
    }

    /// Credentials that were used here are of no use to the upstream; those that nobody looked at are not ours
    /// to hand out either, unless the route says so.
    fn keeps_authorization(&self) -> bool {
        match self.identity {
            Some(_) => self.settings.forwards_verified,
            None => self.settings.passes_unverified,
        }
    }

    /// A field as it goes on: of cookies those that are not ours. `None`: there is no other.
    fn cookies_left<'v>(&self, name: &HeaderName, value: &'v HeaderValue) -> Option<Cow<'v, HeaderValue>> {
        if *name != header::COOKIE || self.settings.cookies.is_empty() || self.keeps_cookies() {
            return Some(Cow::Borrowed(value));
        }
        cookie::without(value, &self.settings.cookies)
    }

    /// As credentials in `Authorization`: those that were used, or where nobody is asked for any.
    fn keeps_cookies(&self) -> bool {
        match self.identity {
            Some(identity) => self.settings.forwards_verified && identity.scheme == SchemeKind::Session,
            None => self.settings.passes_unverified,
        }
    }

    fn our_fields(&self, out: &mut BytesMut) {
        if let Some(identity) = self.identity {
            let user = &identity.user.user;
            let auth_type = identity.scheme.name();
            identity_field(out, Some(&self.settings.user), [&*user.username]);
            identity_field(out, self.settings.groups.as_ref(), user.groups.iter().map(|group| &**group));
            identity_field(out, self.settings.email.as_ref(), [&*user.email]);
            identity_field(out, self.settings.auth_type.as_ref(), [auth_type]);
        }
        let client = &self.head.client;
        // Both kinds tell of the same host: upstreams read the one or the other.
        let host = client.forwarded_host.as_deref().unwrap_or(self.head.authority.value().as_bytes());
        out.extend_from_slice(b"x-forwarded-for: ");
        forwarded::write_address(client.address, out);
        out.extend_from_slice(b"\r\n");
        field(out, "x-forwarded-proto", if client.is_https { b"https" } else { b"http" });
        field(out, "x-forwarded-host", host);
        out.extend_from_slice(b"forwarded: ");
        forwarded::write_element(client.address, client.is_https, host, out);
        out.extend_from_slice(b"\r\n");
        self.via(out);
        field(out, "x-request-id", self.head.request_id.as_bytes());
    }

    /// RFC 9110 section 7.6.3: a gateway must say that it was on the way.
    fn via(&self, out: &mut BytesMut) {
        out.extend_from_slice(b"via: ");
        for value in self.head.headers.get_all(header::VIA) {
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b", ");
        }
        let version: &[u8] = match self.head.version {
            Version::HTTP_2 => b"2.0 doorward\r\n",
            Version::HTTP_10 => b"1.0 doorward\r\n",
            _ => b"1.1 doorward\r\n",
        };
        out.extend_from_slice(version);
    }
}

/// `/api/x` without `/api` is `/x`; `None` if the path is not under the prefix (it was matched otherwise).
fn strip_prefix<'a>(path: &'a str, prefix: &str) -> Option<&'a str> {
    if prefix == "/" {
        return Some(path);
    }
    let (head, rest) = path.split_at_checked(prefix.len())?;
    let is_prefix = head.eq_ignore_ascii_case(prefix) && (rest.is_empty() || rest.starts_with('/'));
    is_prefix.then_some(if rest.is_empty() { "/" } else { rest })
}

/// Fields that a client may not have removed by nominating them: what the request is about.
fn is_nominated(name: &HeaderName, headers: &http::HeaderMap) -> bool {
    *name != header::CONTENT_TYPE && *name != header::COOKIE && hop_by_hop::is_nominated(name, headers)
}

/// What is told of the user, if a name is configured for it and there is anything to tell.
fn identity_field<'a>(
    out: &mut BytesMut,
    name: Option<&HeaderName>,
    texts: impl IntoIterator<Item = &'a str>,
) {
    let mut texts = texts.into_iter().filter(|text| !text.is_empty()).peekable();
    let (Some(name), Some(_)) = (name, texts.peek()) else { return };
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    identity_value::write_list(texts, out);
    out.extend_from_slice(b"\r\n");
}

fn field(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_stripped_on_whole_segments() {
        for (path, prefix, rest) in [
            ("/api/x", "/api", Some("/x")),
            ("/api", "/api", Some("/")),
            ("/api/", "/api", Some("/")),
            ("/apix", "/api", None),
            ("/API/x", "/api", Some("/x")),
            ("/x", "/", Some("/x")),
        ] {
            assert_eq!(strip_prefix(path, prefix), rest, "{path}");
        }
    }
}
