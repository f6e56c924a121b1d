//! The demonstration's upstream: answers with what it received.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::fmt::Write as _;
use tokio::net::TcpListener;

/// Serves connections for ever.
pub(in crate::app) async fn serve(listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(echo));
                drop(tokio::spawn(connection));
            }
            Err(error) => {
                tracing::warn!(%error, "the demonstration's upstream cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut text = format!("The upstream received:\n\n{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes());
        // Writing to a String cannot fail.
        writeln!(text, "{}: {value}", title_case(name.as_str())).unwrap_or_default();
    }
    let mut response = Response::new(Full::new(Bytes::from(text)));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    Ok(response)
}

/// `remote-user` → `Remote-User`, as people know it.
fn title_case(name: &str) -> String {
    let mut starts = true;
    let title = |character: char| {
        let shown = if starts { character.to_ascii_uppercase() } else { character };
        starts = character == '-';
        shown
    };
    name.chars().map(title).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_as_people_know_them() {
        assert_eq!(title_case("x-forwarded-for"), "X-Forwarded-For");
    }
}
