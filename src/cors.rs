//! Cross-origin requests (WHATWG Fetch, "CORS protocol"): which pages may read doorward's own answers.
//!
//! Answers of upstreams are theirs to open.

use crate::accept::head::Head;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

/// Whose pages may read our answers.
#[derive(Debug, Clone, Default)]
pub struct Cors {
    origins: Vec<HeaderValue>,
    credentials: bool,
}

/// Fields of our answers that a page may read, besides those that it always may.
const EXPOSED: HeaderValue = HeaderValue::from_static("WWW-Authenticate, Retry-After, X-Request-Id");
/// What a page may send to our handlers.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, OPTIONS");
/// How long a browser need not ask again, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

impl Cors {
    /// Pages of these origins (scheme, host and port, exactly); `credentials`: also when the browser sends cookies.
    pub fn new(origins: &[String], credentials: bool) -> Self {
        // The configuration has checked them.
        let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()).collect();
        Self { origins, credentials }
    }

    /// Says in an own answer whether a page of this origin may read it.
    pub fn open(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        if self.origins.is_empty() {
            return;
        }
        // Caches must not hand one origin's answer to another.
        answer.append(header::VARY, HeaderValue::from_static("Origin"));
        let Some(origin) = origin.filter(|origin| self.origins.contains(origin)) else { return };
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        answer.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        if self.credentials {
            answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    /// The fields that answer a preflight for one of our handlers; `None`: it is none, or its page is not listed.
    pub fn preflight(&self, head: &Head) -> Option<HeaderMap> {
        let origin = head.headers.get(header::ORIGIN).filter(|origin| self.origins.contains(origin));
        if !is_preflight(head) || origin.is_none() {
            return None;
        }
        let mut answer = HeaderMap::new();
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        // Whatever it is, our handlers only read what they know.
        if let Some(wanted) = head.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
        answer.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        Some(answer)
    }
}

/// Whether a browser asks on its own behalf: a preflight never carries credentials.
pub fn is_preflight(head: &Head) -> bool {
    let has = |name: HeaderName| head.headers.contains_key(name);
    head.method == Method::OPTIONS
        && has(header::ORIGIN)
        && has(header::ACCESS_CONTROL_REQUEST_METHOD)
        && !has(header::AUTHORIZATION)
        && !has(header::COOKIE)
}
