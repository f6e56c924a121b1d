//! Bodies of answers: our own, and those that stream from an upstream.

use crate::forward::ForwardError;
use crate::forward::client::UpstreamBody;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};

/// The body of every answer.
#[derive(Debug)]
pub enum Body {
    /// Ours; `None` once it was sent.
    Own(Option<Bytes>),
    /// An upstream's.
    Upstream(UpstreamBody),
}

impl Body {
    /// Ours.
    pub fn own(bytes: Bytes) -> Self {
        Self::Own(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

/// DRF's ordinary error body, with DRF's separators: none.
pub fn detail_json(detail: &str) -> Bytes {
    let text = serde_json::Value::from(detail).to_string();
    Bytes::from(format!("{{\"detail\":{text}}}"))
}

/// DRF's body for a client that is over a rate (3.18, `Throttled`).
pub fn throttled_json(wait_seconds: Option<u64>) -> Bytes {
    let detail = match wait_seconds {
        None => "Request was throttled.".to_owned(),
        Some(1) => "Request was throttled. Expected available in 1 second.".to_owned(),
        Some(seconds) => format!("Request was throttled. Expected available in {seconds} seconds."),
    };
    detail_json(&detail)
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = ForwardError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ForwardError>>> {
        match self.get_mut() {
            Self::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Upstream(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Upstream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => {
                let length = bytes.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(u64::try_from(length).unwrap_or(u64::MAX))
            }
            Self::Upstream(body) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_compact_json() {
        assert_eq!(detail_json("a \"b\" ä"), r#"{"detail":"a \"b\" ä"}"#);
    }

    #[test]
    fn waits_are_worded_as_by_drf() {
        for (seconds, text) in [
            (None, ""),
            (Some(0), " Expected available in 0 seconds."),
            (Some(1), " Expected available in 1 second."),
            (Some(2), " Expected available in 2 seconds."),
            (Some(86_400), " Expected available in 86400 seconds."),
        ] {
            let body = format!("{{\"detail\":\"Request was throttled.{text}\"}}");
            assert_eq!(throttled_json(seconds), body);
        }
    }
}
