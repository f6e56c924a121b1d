//! The head of an answer: parsed strictly, cleaned, and how its body is delimited (RFC 9112 section 6.3).
//!
//! What two parsers could read differently is not passed on: it becomes a 502 and the connection is closed.

use crate::forward::{ForwardError, HeadLimits};
use crate::header::{guarded, hop_by_hop};
use bytes::{Buf as _, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use smallvec::SmallVec;

/// Fields of one answer that there is room for on the stack; a higher configured limit is this one.
const FIELDS_MAX: usize = 256;

/// The head of an answer.
#[derive(Debug)]
pub(in crate::forward) struct ResponseHead {
    /// Status and end-to-end fields.
    pub(in crate::forward) response: Response<()>,
    /// How the body is delimited.
    pub(in crate::forward) left: Left,
    /// Whether the connection can serve another exchange once the body was read.
    pub(in crate::forward) is_reusable: bool,
}

/// What follows the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::forward) enum Left {
    /// Nothing, whatever the fields say.
    Nothing,
    /// This many bytes.
    Length(u64),
    /// A chunked body.
    Chunked,
    /// All up to the end of the connection.
    UntilClose,
}

/// Takes a head from the input; `None` if it is not complete.
pub(in crate::forward) fn parse(
    input: &mut BytesMut,
    method: &Method,
    limits: HeadLimits,
) -> Result<Option<ResponseHead>, ForwardError> {
    if input.is_empty() {
        return Ok(None);
    }
    let mut space = [const { std::mem::MaybeUninit::uninit() }; FIELDS_MAX];
    let space = space.get_mut(..limits.fields_max.min(FIELDS_MAX)).unwrap_or_default();
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut parsed, input, space) {
        Ok(httparse::Status::Complete(length)) if length <= limits.bytes_max => length,
        Ok(httparse::Status::Partial) if input.len() <= limits.bytes_max => return Ok(None),
        Ok(_) => return Err(ForwardError::Invalid("the head is too large")),
        Err(httparse::Error::TooManyHeaders) => return Err(ForwardError::Invalid("too many header fields")),
        Err(_) => return Err(ForwardError::Invalid("malformed head")),
    };
    let head = read(&parsed, method)?;
    input.advance(length);
    Ok(Some(head))
}

/// What the fields say of the body and the connection.
#[derive(Debug, Default)]
struct Said {
    length: Option<u64>,
    is_chunked: bool,
    closes: bool,
    keeps_alive: bool,
    nominated: SmallVec<[HeaderName; 4]>,
}

fn read(parsed: &httparse::Response<'_, '_>, method: &Method) -> Result<ResponseHead, ForwardError> {
    let code = parsed.code.unwrap_or_default();
    let status = StatusCode::from_u16(code).map_err(|_| ForwardError::Invalid("bad status"))?;
    if status == StatusCode::SWITCHING_PROTOCOLS || !(100..600).contains(&code) {
        // RFC 9110 section 15.2.2: only to an upgrade that was asked for, and none was.
        return Err(ForwardError::Invalid("unexpected status"));
    }
    let mut said = Said::default();
    let mut fields = HeaderMap::with_capacity(parsed.headers.len());
    for field in parsed.headers.iter() {
        let name =
            HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| ForwardError::Invalid("bad name"))?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| ForwardError::Invalid("bad value"))?;
        said.hear(&name, &value)?;
        if !hop_by_hop::is_hop_by_hop(&name) && !is_ours(&name) {
            fields.append(name, value);
        }
    }
    for name in &said.nominated {
        // RFC 9110 section 7.6.1 forbids to nominate what the answer needs.
        if *name != header::CONTENT_LENGTH && *name != header::CONTENT_TYPE {
            fields.remove(name);
        }
    }
    let is_http10 = parsed.version == Some(0);
    let left = said.left(status, method, is_http10)?;
    if left == Left::Chunked || status == StatusCode::NO_CONTENT {
        fields.remove(header::CONTENT_LENGTH);
    }
    let persists = if is_http10 { said.keeps_alive && !said.closes } else { !said.closes };
    // A 204 that announces a body may send one: RFC 9110 section 6.4.1 forbids it, some do it nevertheless.
    let is_contradictory =
        status == StatusCode::NO_CONTENT && (said.is_chunked || said.length.is_some_and(|l| l > 0));
    let is_reusable = persists && left != Left::UntilClose && !is_contradictory;
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    Ok(ResponseHead { response, left, is_reusable })
}

impl Said {
    fn hear(&mut self, name: &HeaderName, value: &HeaderValue) -> Result<(), ForwardError> {
        if *name == header::CONTENT_LENGTH {
            // RFC 9112 section 6.3: several are one at best and an attack at worst.
            if self.length.is_some() {
                return Err(ForwardError::Invalid("several Content-Length"));
            }
            self.length = Some(length(value.as_bytes()).ok_or(ForwardError::Invalid("bad Content-Length"))?);
        } else if *name == header::TRANSFER_ENCODING {
            if self.is_chunked || !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Err(ForwardError::Invalid("bad Transfer-Encoding"));
            }
            self.is_chunked = true;
        } else if *name == header::CONNECTION {
            for option in hop_by_hop::list(value.as_bytes()) {
                self.closes |= option.eq_ignore_ascii_case(b"close");
                self.keeps_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                self.nominated.extend(HeaderName::from_bytes(option));
            }
        }
        Ok(())
    }

    /// RFC 9112 section 6.3.
    fn left(&self, status: StatusCode, method: &Method, is_http10: bool) -> Result<Left, ForwardError> {
        if self.is_chunked && (self.length.is_some() || is_http10) {
            return Err(ForwardError::Invalid("contradictory framing"));
        }
        let has_none = status.is_informational()
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED
            || *method == Method::HEAD;
        Ok(match (has_none, self.is_chunked, self.length) {
            (true, ..) => Left::Nothing,
            (false, true, _) => Left::Chunked,
            (false, false, Some(length)) => Left::Length(length),
            (false, false, None) => Left::UntilClose,
        })
    }
}

/// RFC 9110 section 8.6: `1*DIGIT`, and no more than 64 bits.
fn length(value: &[u8]) -> Option<u64> {
    let is_digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| is_digits)?.parse().ok()
}

/// Fields that only a gateway may act on: never passed to clients.
fn is_ours(name: &HeaderName) -> bool {
    if !name.as_str().starts_with('x') {
        return false;
    }
    let folded = guarded::fold(name.as_str());
    folded.starts_with(b"x_accel_")
        || [&b"x_sendfile"[..], b"x_lighttpd_send_file", b"x_litespeed_location", b"x_reproxy_url"]
            .contains(&folded.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: HeadLimits = HeadLimits { bytes_max: 1000, fields_max: 20 };

    fn read_with(method: &Method, text: &str) -> Result<Option<ResponseHead>, ForwardError> {
        parse(&mut BytesMut::from(text.as_bytes()), method, LIMITS)
    }

    fn read(text: &str) -> ResponseHead {
        read_with(&Method::GET, text).unwrap().unwrap()
    }

    fn is_invalid(text: &str) -> bool {
        matches!(read_with(&Method::GET, text), Err(ForwardError::Invalid(_)))
    }

    #[test]
    fn bodies_are_delimited_as_the_rfc_says() {
        for (text, left, is_reusable) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", Left::Length(5), true),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n", Left::Chunked, true),
            ("HTTP/1.1 200 OK\r\n\r\n", Left::UntilClose, false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", Left::Length(5), false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n", Left::Length(5), true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, Close\r\n\r\n", Left::Length(5), false),
            ("HTTP/1.1 204 No\r\n\r\n", Left::Nothing, true),
            ("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", Left::Nothing, false),
            ("HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", Left::Nothing, true),
        ] {
            let head = read(text);
            assert_eq!((head.left, head.is_reusable), (left, is_reusable), "{text}");
        }
        let head = read_with(&Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").unwrap().unwrap();
        assert_eq!(head.left, Left::Nothing);
        assert_eq!(head.response.headers()["content-length"], "5");
    }

    #[test]
    fn ambiguous_heads_are_refused() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 101 Switching\r\n\r\n",
            "HTTP/1.1 999 X\r\n\r\n",
            "HTTP/1.1 20 X\r\n\r\n",
            "HTTP/2 200 OK\r\n\r\n",
            "garbage\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n",
        ] {
            assert!(is_invalid(text), "{text}");
        }
    }

    #[test]
    fn large_heads_are_refused() {
        assert!(is_invalid(&format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(1000))));
        assert!(is_invalid(&format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(21))));
        assert!(read_with(&Method::GET, "HTTP/1.1 200 OK\r\nX: y\r\n").unwrap().is_none());
    }

    #[test]
    fn hop_by_hop_fields_end_here() {
        let head = read(
            "HTTP/1.1 200 OK\r\nConnection: X-Secret, content-length\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\n\
             X-Accel-Redirect: /x\r\nContent-Length: 0\r\nX-Kept: 1\r\n\r\n",
        );
        let mut names: Vec<_> = head.response.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "x-kept"]);
    }

    proptest! {
        #[test]
        fn any_input_is_read_without_panic(input: Vec<u8>) {
            drop(parse(&mut BytesMut::from(&input[..]), &Method::GET, LIMITS));
            let text = [b"HTTP/1.1 200 OK\r\n", &input[..], b"\r\n\r\n"].concat();
            drop(parse(&mut BytesMut::from(&text[..]), &Method::GET, LIMITS));
        }
    }
}
