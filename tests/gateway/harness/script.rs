//! What the upstream does with a request: a list of steps.
//!
//! A list and not a closure, so that a test reads like the transcript of a conversation and every oddity of a real
//! upstream (early, late, half, too much, nothing) is one line.

use super::gate::Gate;
use super::upstream::Recorded;
use std::time::Duration;

/// One act of the upstream after it has read the head of a request.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Reads the body to its end.
    ReadBody,
    /// Reads until so many bytes of the body have come.
    ReadSome(usize),
    /// Sends bytes as they are.
    Send(Vec<u8>),
    /// Sends so many bytes of `pattern`.
    Stream(usize),
    /// Sends so many bytes of `pattern` in chunks of the second number, without the last chunk.
    StreamChunks(usize, usize),
    /// Answers with what is read, chunk by chunk while it is being read.
    Echo,
    /// An ordinary 200 with the body `ok`; without it if the method is HEAD.
    Ok,
    /// Sends what is made of the request.
    Answer(fn(&Recorded) -> Vec<u8>),
    /// Lets time pass: only for tests that are about time.
    Delay(Duration),
    /// Goes on when the test says so.
    Hold(Gate),
    /// Ends the sending side, goes on reading.
    FinishSending,
    /// Reads and discards until the peer closes; answers nothing.
    Silence,
    /// Closes the connection at once, whatever has not been read.
    Close,
    /// Closes with RST.
    Reset,
}

/// What to do with one request. Whatever is left of its body is read afterwards, unless the connection was closed.
pub(crate) type Script = Vec<Step>;

/// Reads the body, then sends these bytes.
pub(crate) fn respond(answer: impl Into<Vec<u8>>) -> Script {
    vec![Step::ReadBody, Step::Send(answer.into())]
}

/// Reads the body, sends these bytes, closes.
pub(crate) fn respond_and_close(answer: impl Into<Vec<u8>>) -> Script {
    vec![Step::ReadBody, Step::Send(answer.into()), Step::Close]
}

/// An answer with a `Content-Length` and these fields.
pub(crate) fn answer(status: &str, fields: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in fields {
        text.extend([name, ": ", value, "\r\n"]);
    }
    text.push_str("\r\n");
    text.push_str(body);
    text.into_bytes()
}
