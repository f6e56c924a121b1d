//! HTTP/1.1 as bytes, read strictly: what is shared by the upstream and the client of the tests.
//!
//! Strict on purpose: where the RFC lets a recipient be lenient, these readers are not, since what the gateway
//! writes has no excuse. A fault is a text, so that the caller can say whose it is.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Field lines in order, names as they were spelt.
pub(crate) type Fields = Vec<(String, Vec<u8>)>;

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    None,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The end of the connection.
    Close,
}

/// Start line and fields.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) start: String,
    pub(crate) fields: Fields,
}

/// Why reading stopped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The connection ended between messages.
    End,
    /// The connection ended within a message.
    Truncated,
    /// What came is not HTTP/1.1.
    Malformed(String),
}

/// All values of a field, by name without case.
pub(crate) fn values<'a>(fields: &'a Fields, name: &str) -> Vec<&'a [u8]> {
    fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice()).collect()
}

/// Buffered bytes of one direction of a connection.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    io: R,
    buffer: Vec<u8>,
    start: usize,
    /// Bytes that messages were made of, so far.
    pub(crate) consumed: usize,
    left: Left,
}

#[derive(Debug, Clone, Copy)]
enum Left {
    Length(u64),
    ChunkHead,
    Chunk(u64),
    Close,
    Done,
}

/// What `Reader::piece` found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Data(Vec<u8>),
    /// The body is complete; trailers, if any.
    End(Fields),
}

const TOKEN: &[u8] = b"!#$%&'*+-.^_`|~";

fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || TOKEN.contains(byte))
}

fn malformed<T>(what: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Malformed(what.into()))
}

impl<R: AsyncRead + Unpin + Send> Reader<R> {
    pub(crate) fn new(io: R) -> Self {
        Self { io, buffer: Vec::new(), start: 0, consumed: 0, left: Left::Done }
    }

    /// Bytes that came and belong to no message yet.
    pub(crate) fn surplus(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// `false`: the peer sends no more.
    pub(crate) async fn fill(&mut self) -> bool {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let mut space = vec![0; 64 << 10];
        // A reset and a TLS connection that ends without close_notify are ends like a FIN, but never clean ones:
        // whoever relies on the end asks `ended_cleanly`.
        let count = self.io.read(&mut space).await.unwrap_or(0);
        self.buffer.extend_from_slice(&space[..count]);
        count > 0
    }

    /// Waits for the end of the connection; nothing may come before it.
    pub(crate) async fn ended(&mut self) {
        while self.surplus().is_empty() && self.fill().await {}
        assert!(self.surplus().is_empty(), "{:?} came", String::from_utf8_lossy(self.surplus()));
    }

    /// Reads to the end of the connection; an error if it did not end cleanly.
    pub(crate) async fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = self.buffer.split_off(self.start);
        self.io.read_to_end(&mut rest).await?;
        Ok(rest)
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let bytes = self.buffer[self.start..self.start + count].to_vec();
        self.start += count;
        self.consumed += count;
        bytes
    }

    async fn line(&mut self, if_ended: Stop) -> Result<Vec<u8>, Stop> {
        let mut searched = 0;
        loop {
            if let Some(place) = self.surplus()[searched..].iter().position(|byte| *byte == b'\n') {
                let mut line = self.take(searched + place + 1);
                line.pop();
                if line.pop() != Some(b'\r') || line.contains(&b'\r') || line.contains(&0) {
                    return malformed(format!("bare LF, CR or NUL in {:?}", String::from_utf8_lossy(&line)));
                }
                return Ok(line);
            }
            searched = self.surplus().len();
            if searched > 1 << 20 {
                return malformed("a line of more than a MiB");
            }
            if !self.fill().await {
                return Err(if self.surplus().is_empty() { if_ended } else { Stop::Truncated });
            }
        }
    }

    async fn fields(&mut self) -> Result<Fields, Stop> {
        let mut fields = Fields::new();
        loop {
            let line = self.line(Stop::Truncated).await?;
            if line.is_empty() {
                return Ok(fields);
            }
            let Some(colon) = line.iter().position(|byte| *byte == b':') else {
                return malformed(format!("no colon in {:?}", String::from_utf8_lossy(&line)));
            };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if !is_token(name) {
                return malformed(format!("field name {:?}", String::from_utf8_lossy(name)));
            }
            if value.iter().any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f) {
                return malformed(format!(
                    "control byte in the value of {:?}",
                    String::from_utf8_lossy(name)
                ));
            }
            fields.push((String::from_utf8(name.to_vec()).unwrap(), value.to_vec()));
        }
    }

    /// Reads a start line and fields.
    pub(crate) async fn head(&mut self) -> Result<Head, Stop> {
        let line = self.line(Stop::End).await?;
        let start = String::from_utf8_lossy(&line).into_owned();
        let fields = self.fields().await?;
        Ok(Head { start, fields })
    }

    /// What the fields say of the body; ambiguity is a fault.
    pub(crate) fn framing(head: &Head, without: Framing) -> Result<Framing, Stop> {
        let lengths = values(&head.fields, "content-length");
        let codings = values(&head.fields, "transfer-encoding");
        match (lengths.as_slice(), codings.as_slice()) {
            ([], []) => Ok(without),
            ([], [coding]) if *coding == b"chunked" => Ok(Framing::Chunked),
            ([length], []) if !length.is_empty() && length.iter().all(u8::is_ascii_digit) => {
                Ok(Framing::Length(std::str::from_utf8(length).unwrap().parse().unwrap()))
            }
            _ => malformed(format!("ambiguous framing: {:?}", head.fields)),
        }
    }

    /// What `piece` reads from now on.
    pub(crate) fn expect_body(&mut self, framing: Framing) {
        self.left = match framing {
            Framing::None | Framing::Length(0) => Left::Done,
            Framing::Length(length) => Left::Length(length),
            Framing::Chunked => Left::ChunkHead,
            Framing::Close => Left::Close,
        };
    }

    async fn some(&mut self, most: u64) -> Result<Vec<u8>, Stop> {
        if self.surplus().is_empty() && !self.fill().await {
            return Err(Stop::Truncated);
        }
        let count = usize::try_from(most).unwrap_or(usize::MAX).min(self.surplus().len());
        Ok(self.take(count))
    }

    /// The next piece of the body.
    pub(crate) async fn piece(&mut self) -> Result<Piece, Stop> {
        loop {
            match self.left {
                Left::Done => return Ok(Piece::End(Fields::new())),
                Left::Close => {
                    // Whether the end is clean is known only by an error of the socket.
                    let Ok(rest) = self.rest().await else { return Err(Stop::Truncated) };
                    self.left = Left::Done;
                    return Ok(Piece::Data(rest));
                }
                Left::Length(left) => {
                    let data = self.some(left).await?;
                    let left = left - data.len() as u64;
                    self.left = if left == 0 { Left::Done } else { Left::Length(left) };
                    return Ok(Piece::Data(data));
                }
                Left::ChunkHead => {
                    let line = self.line(Stop::Truncated).await?;
                    let digits = std::str::from_utf8(&line).unwrap_or("?");
                    // Extensions, too, are a fault: the gateway has no business writing or passing any.
                    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                        return malformed(format!("chunk size {digits:?}"));
                    }
                    match u64::from_str_radix(digits, 16) {
                        Ok(0) => {
                            let trailers = self.fields().await?;
                            self.left = Left::Done;
                            return Ok(Piece::End(trailers));
                        }
                        Ok(size) => self.left = Left::Chunk(size),
                        Err(_) => return malformed(format!("chunk size {digits:?}")),
                    }
                }
                Left::Chunk(left) => {
                    let data = self.some(left).await?;
                    let left = left - data.len() as u64;
                    if left > 0 {
                        self.left = Left::Chunk(left);
                    } else {
                        if !self.line(Stop::Truncated).await?.is_empty() {
                            return malformed("chunk does not end in CRLF");
                        }
                        self.left = Left::ChunkHead;
                    }
                    return Ok(Piece::Data(data));
                }
            }
        }
    }
}
