//! Sanitise: from what hyper parsed to a request head that has one reading and nothing forged in it.
//!
//! Everything behind this stage sees only [`Head`]. What a client sent under a name that is ours is kept aside in
//! [`Claimed`], where nobody finds it by accident.

use crate::accept::peer::{Client, Peer};
use crate::header::authority::Authority;
use crate::header::guarded::GuardedNames;
use crate::header::target::{Target, TargetError};
use crate::trace::Trace;
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header, request};
use ipnet::IpNet;
use smallvec::SmallVec;

/// A request's head, sanitised.
#[derive(Debug)]
pub struct Head {
    /// Method; never CONNECT.
    pub method: Method,
    /// Path in normal form, and query.
    pub target: Target,
    /// Host and port.
    pub authority: Authority,
    /// The client's fields, without those that are ours.
    pub headers: HeaderMap,
    /// What the client's connection speaks.
    pub version: Version,
    /// The far end of the socket.
    pub peer: Peer,
    /// The client behind it.
    pub client: Client,
    /// Fields removed, for the scheme that may believe a peer.
    pub claimed: Claimed,
    /// Ours; a client's own is replaced.
    pub request_id: RequestId,
    /// `Expect: 100-continue` was sent.
    pub expects_continue: bool,
}

/// Fields that the client sent under names that only the gateway may set.
#[derive(Debug, Default)]
pub struct Claimed(HeaderMap);

impl Claimed {
    /// Whether the sender says for which client it speaks, as proxies do; says nothing of whether to believe it.
    pub fn names_a_client(&self) -> bool {
        self.0.contains_key("x-forwarded-for") || self.0.contains_key(header::FORWARDED)
    }

    /// The claimed values of one field. Only after the socket's peer was checked.
    pub fn values_from_checked_peer(&self, name: &HeaderName) -> impl Iterator<Item = &HeaderValue> {
        self.0.get_all(name).iter()
    }
}

/// Name of one request in logs, answers and upstreams: 32 lower-case hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId([u8; 32]);

impl RequestId {
    /// From 128 bits that are unlikely to repeat.
    pub fn new(bits: u128) -> Self {
        let mut text = [b'0'; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(bits.to_be_bytes()) {
            for (slot, nibble) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
                *slot = if nibble < 10 { b'0' + nibble } else { b'a' + (nibble - 10) };
            }
        }
        Self(text)
    }

    /// Its last eight bits: as good as random, for what has to be spread.
    pub fn byte(&self) -> u8 {
        self.as_str().get(30..).and_then(|digits| u8::from_str_radix(digits, 16).ok()).unwrap_or_default()
    }

    /// Its digits, as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Its digits.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Why a request is refused before anything is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// RFC 9112 section 3.2: exactly one valid Host.
    #[error("the host is missing, repeated, or not a host")]
    BadHost,
    /// More than one reading.
    #[error("the target is ambiguous")]
    BadTarget(#[source] TargetError),
    /// Longer than the limit.
    #[error("the target is too long")]
    TargetTooLong,
    /// More fields than the limit.
    #[error("too many header fields")]
    TooManyHeaders,
    /// RFC 9110 section 10.1.1: only `100-continue` is known.
    #[error("an expectation cannot be met")]
    Expectation,
    /// RFC 9110 section 9.3.6: this is no proxy.
    #[error("CONNECT")]
    Connect,
    /// RFC 9110 section 5.1: a field's name is a token.
    #[error("a field's name is not a token")]
    BadName,
    /// RFC 9112 section 6.1: framing that parsers disagree about.
    #[error("ambiguous framing")]
    Framing,
}

/// What sanitising needs to know of the configuration.
#[derive(Debug)]
pub struct Sanitiser {
    /// Names that clients may not set.
    pub guarded: GuardedNames,
    /// Peers whose forwarding fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Longest path and query.
    pub target_bytes: usize,
    /// Most fields.
    pub header_count: usize,
}

impl Sanitiser {
    /// The client of a request, whether or not its head can be read.
    pub fn client(&self, peer: &Peer, headers: &HeaderMap) -> Client {
        Client::of(peer, headers, &self.trusted_proxies)
    }

    /// Whether what this peer says of others is believed.
    pub fn trusts(&self, peer: &Peer) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(&peer.address.ip()))
    }

    /// Reads a request's head, and takes it out of `parts`.
    ///
    /// # Errors
    /// If it is ambiguous or over a limit; its credentials are left in `parts`.
    pub fn sanitise(
        &self,
        parts: &mut request::Parts,
        peer: &Peer,
        request_id: RequestId,
        trace: &mut Trace,
    ) -> Result<Head, AcceptError> {
        let request::Parts { method, uri, version, headers, .. } = parts;
        let version = *version;
        if *method == Method::CONNECT {
            return Err(AcceptError::Connect);
        }
        if headers.len() > self.header_count {
            return Err(AcceptError::TooManyHeaders);
        }
        // `http` takes a quote for a letter; RFC 9110 section 5.1 does not, and the next parser may not.
        if headers.keys().any(|name| name.as_str().bytes().any(|byte| byte == b'"')) {
            return Err(AcceptError::BadName);
        }
        check_framing(version, headers)?;
        check_form(uri)?;
        let authority = authority(uri.authority(), headers, version)?;
        let target = std::mem::take(uri)
            .into_parts()
            .path_and_query
            .unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
        if target.as_str().len() > self.target_bytes {
            return Err(AcceptError::TargetTooLong);
        }
        let target = Target::parse(target).map_err(AcceptError::BadTarget)?;
        let expects_continue = expects_continue(headers, version)?;
        let client = self.client(peer, headers);
        let claimed = self.take_guarded(headers);
        trace.headers_removed = u16::try_from(claimed.0.len()).unwrap_or(u16::MAX);
        join_cookies(headers);
        hide_secrets(headers);
        let peer = *peer;
        Ok(Head {
            method: std::mem::take(method),
            target,
            authority,
            headers: std::mem::take(headers),
            version,
            peer,
            client,
            claimed,
            request_id,
            expects_continue,
        })
    }

    /// Moves the fields that are ours out of the client's.
    fn take_guarded(&self, headers: &mut HeaderMap) -> Claimed {
        let guarded: SmallVec<[HeaderName; 4]> =
            headers.keys().filter(|name| self.guarded.contains(name)).cloned().collect();
        let mut claimed = HeaderMap::new();
        for name in guarded {
            if let header::Entry::Occupied(entry) = headers.entry(&name) {
                let (name, values) = entry.remove_entry_mult();
                for value in values {
                    claimed.append(name.clone(), value);
                }
            }
        }
        Claimed(claimed)
    }
}

/// RFC 9112 sections 6.1 and 6.3: one framing that every parser reads alike.
///
/// hyper answers most of these itself; what it mends silently (it drops `Content-Length` beside
/// `Transfer-Encoding`) is refused here where it can still be seen.
fn check_framing(version: Version, headers: &HeaderMap) -> Result<(), AcceptError> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    let is_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
    let is_plain = version == Version::HTTP_11 && !headers.contains_key(header::CONTENT_LENGTH);
    if is_chunked && is_plain { Ok(()) } else { Err(AcceptError::Framing) }
}

/// RFC 9112 section 3.2: a path, or an absolute target of HTTP. `host:port` alone is for CONNECT, and another
/// scheme is another protocol.
fn check_form(uri: &Uri) -> Result<(), AcceptError> {
    let is_http = |scheme: &Scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS;
    match (uri.scheme(), uri.authority()) {
        (None, None) => Ok(()),
        (Some(scheme), Some(_)) if is_http(scheme) => Ok(()),
        _ => Err(AcceptError::BadTarget(TargetError::NotAPath)),
    }
}

/// RFC 9112 section 3.2.2: the authority of an absolute target replaces Host; RFC 9113 section 8.3.1: so does
/// `:authority`. Otherwise exactly one Host.
fn authority(
    of_target: Option<&http::uri::Authority>,
    headers: &mut HeaderMap,
    version: Version,
) -> Result<Authority, AcceptError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(AcceptError::BadHost);
    }
    let is_http1 = version < Version::HTTP_2;
    let read = match (of_target, host) {
        // RFC 9112 section 3.2: a request of HTTP/1.1 without Host is bad whatever its target.
        (Some(_), None) if version == Version::HTTP_11 => return Err(AcceptError::BadHost),
        // RFC 9113 section 8.3.1 lets the two disagree only by mistake; refused rather than guessed.
        (Some(target), Some(host)) if !is_http1 && host.as_bytes() != target.as_str().as_bytes() => {
            return Err(AcceptError::BadHost);
        }
        (Some(target), _) => Authority::parse(target.as_str().as_bytes()),
        (None, Some(host)) => Authority::parse(host.as_bytes()),
        (None, None) => return Err(AcceptError::BadHost),
    };
    let authority = read.map_err(|_| AcceptError::BadHost)?;
    headers.remove(header::HOST);
    Ok(authority)
}

fn expects_continue(headers: &HeaderMap, version: Version) -> Result<bool, AcceptError> {
    let mut values = headers.get_all(header::EXPECT).iter();
    let Some(value) = values.next() else { return Ok(false) };
    // RFC 9110 section 10.1.1: from HTTP/1.0 it is ignored.
    if version == Version::HTTP_10 {
        return Ok(false);
    }
    let is_known = value.as_bytes().eq_ignore_ascii_case(b"100-continue") && values.next().is_none();
    if is_known { Ok(true) } else { Err(AcceptError::Expectation) }
}

/// RFC 9113 section 8.2.3: the crumbs of HTTP/2 are one field again.
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    if crumbs.next().is_none() || crumbs.next().is_none() {
        return;
    }
    let joined: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(value) = HeaderValue::from_bytes(&joined.join(&b"; "[..])) {
        headers.insert(header::COOKIE, value);
    }
}

/// A head that is shown by `Debug`, by accident or by a panic's message, shows no credentials.
fn hide_secrets(headers: &mut HeaderMap) {
    for name in [header::AUTHORIZATION, header::COOKIE] {
        if let header::Entry::Occupied(mut entry) = headers.entry(name) {
            entry.iter_mut().for_each(|value| value.set_sensitive(true));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn sanitise(request: request::Builder) -> Result<(Head, Trace), AcceptError> {
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let sanitiser = Sanitiser {
            guarded: GuardedNames::new([&HeaderName::from_static("remote-user")]),
            trusted_proxies: Vec::new(),
            target_bytes: 100,
            header_count: 10,
        };
        let peer = Peer { address: ([192, 0, 2, 1], 1).into(), is_tls: true, tls_version: None };
        let mut trace = Trace::new();
        sanitiser.sanitise(&mut parts, &peer, RequestId::new(1), &mut trace).map(|head| (head, trace))
    }

    fn get(target: &str) -> request::Builder {
        Request::builder().uri(target).header("host", "example.com")
    }

    #[test]
    fn forged_identities_are_set_aside_and_counted() {
        let request = get("/").header("Remote_User", "mallory").header("remote-user", "m").header("x-a", "1");
        let (head, trace) = sanitise(request).unwrap();
        assert_eq!(head.headers.len(), 1);
        assert_eq!(trace.headers_removed, 2);
        let name = HeaderName::from_static("remote-user");
        assert_eq!(head.claimed.values_from_checked_peer(&name).count(), 1);
    }

    #[test]
    fn exactly_one_valid_host_is_needed() {
        let bad = Some(AcceptError::BadHost);
        assert_eq!(sanitise(Request::builder().uri("/")).err(), bad);
        assert_eq!(sanitise(get("/").header("host", "example.com")).err(), bad);
        assert_eq!(sanitise(Request::builder().uri("/").header("host", "")).err(), bad);
        assert_eq!(sanitise(Request::builder().uri("/").header("host", "a b")).err(), bad);
    }

    #[test]
    fn authority_of_an_absolute_target_wins() {
        let (head, _) = sanitise(get("http://other.example:81/x")).unwrap();
        assert_eq!((head.authority.host(), head.target.path()), ("other.example", "/x"));
    }

    #[test]
    fn targets_that_are_no_path_of_http_are_refused() {
        for target in ["example.com", "example.com:443", "ftp://example.com/x", "*"] {
            let refused = sanitise(get(target)).err();
            assert_eq!(refused, Some(AcceptError::BadTarget(TargetError::NotAPath)), "{target}");
        }
    }

    #[test]
    fn over_http2_authority_and_host_must_agree() {
        let request = |host| {
            Request::builder().version(Version::HTTP_2).uri("https://example.com/x").header("host", host)
        };
        assert!(sanitise(request("example.com")).is_ok());
        assert_eq!(sanitise(request("evil.example")).err(), Some(AcceptError::BadHost));
        let alone = Request::builder().version(Version::HTTP_2).uri("https://example.com/x");
        assert_eq!(sanitise(alone).unwrap().0.authority.host(), "example.com");
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for request in [
            get("/").header("transfer-encoding", "chunked").header("content-length", "4"),
            get("/").header("transfer-encoding", "gzip, chunked"),
            get("/").header("transfer-encoding", "chunked").header("transfer-encoding", "chunked"),
            get("/").header("transfer-encoding", "chunked").version(Version::HTTP_10),
        ] {
            assert_eq!(sanitise(request).err(), Some(AcceptError::Framing));
        }
        assert!(sanitise(get("/").header("transfer-encoding", "chunked")).is_ok());
    }

    #[test]
    fn limits_and_expectations_are_kept() {
        let long = format!("/{}", "a".repeat(100));
        assert_eq!(sanitise(get(&long)).err(), Some(AcceptError::TargetTooLong));
        let many = (0..10).fold(get("/"), |request, i| request.header(format!("x-{i}"), "1"));
        assert_eq!(sanitise(many).err(), Some(AcceptError::TooManyHeaders));
        assert_eq!(sanitise(get("/").header("expect", "tea")).err(), Some(AcceptError::Expectation));
        assert!(sanitise(get("/").header("expect", "100-Continue")).unwrap().0.expects_continue);
        let connect = Request::builder().method("CONNECT").uri("example.com:443");
        assert_eq!(sanitise(connect).err(), Some(AcceptError::Connect));
    }

    #[test]
    fn names_that_are_no_tokens_are_refused() {
        // As h2 makes names.
        let name = HeaderName::from_lowercase(b"\"x\"").unwrap();
        assert_eq!(sanitise(get("/").header(name, "1")).err(), Some(AcceptError::BadName));
    }

    #[test]
    fn cookie_crumbs_become_one_field() {
        let request = get("/").header("cookie", "a=1").header("cookie", "b=2");
        assert_eq!(sanitise(request).unwrap().0.headers["cookie"], "a=1; b=2");
    }

    #[test]
    fn debug_shows_no_credentials() {
        let request = get("/").header("authorization", "Token hunter2").header("cookie", "a=hunter2");
        let shown = format!("{:?}", sanitise(request.header("cookie", "b=hunter2")).unwrap().0);
        assert!(shown.contains("authorization") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn request_ids_are_hex() {
        assert_eq!(RequestId::new(0xab).as_str(), format!("{:032x}", 0xab));
    }
}
