//! HTTP/2 frame by frame (RFC 9113), for what no well-behaved client does.
//!
//! Headers are written without any compression (RFC 7541, section 6.2.2), so that no table has to be kept.

use super::client::{AUTHORITY, Stream, handshake, patiently, tls_config};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Types of frames (RFC 9113, section 6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
}

/// Flag of SETTINGS.
pub(crate) const ACK: u8 = 1;
/// Flag of DATA and HEADERS.
pub(crate) const END_STREAM: u8 = 1;
/// Flag of HEADERS.
pub(crate) const END_HEADERS: u8 = 4;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// HEADERS that begin with `:status: 200`: the static table has it (RFC 7541, appendix A).
    pub(crate) fn is_ok(&self) -> bool {
        self.kind == kind::HEADERS && self.payload.first() == Some(&0x88)
    }

    /// The error code of `RST_STREAM`.
    pub(crate) fn error(&self) -> u32 {
        u32::from_be_bytes(*self.payload.first_chunk().unwrap())
    }

    /// The parameters of SETTINGS.
    pub(crate) fn settings(&self) -> Vec<(u16, u32)> {
        let read = |bytes: &[u8]| {
            let (id, value) = bytes.split_at(2);
            (u16::from_be_bytes(id.try_into().unwrap()), u32::from_be_bytes(value.try_into().unwrap()))
        };
        self.payload.chunks(6).map(read).collect()
    }
}

/// A connection on which the test writes frames as it likes. Nothing is answered by itself.
pub(crate) struct Frames(Stream);

impl Frames {
    /// Only the TLS handshake.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).await.unwrap();
        let config = Arc::new(tls_config(rustls::ALL_VERSIONS, &[b"h2"]));
        Self(handshake(&config, "localhost", tcp).await.unwrap())
    }

    /// With preface and SETTINGS.
    pub(crate) async fn start(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
            .await
            .expect("the gateway takes the connection")
    }

    /// The same over this connection; `None` if the handshake fails.
    pub(crate) async fn over(tcp: TcpStream) -> Option<Self> {
        let config = Arc::new(tls_config(rustls::ALL_VERSIONS, &[b"h2"]));
        let mut frames = Self(handshake(&config, "localhost", tcp).await.ok()?);
        frames.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.ok()?;
        frames.write(kind::SETTINGS, 0, 0, &[]).await;
        Some(frames)
    }

    /// Writes a frame; whether the gateway still takes it shows in what comes back.
    pub(crate) async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend_from_slice(payload);
        drop(self.0.write_all(&frame).await);
        drop(self.0.flush().await);
    }

    /// A GET without a body.
    pub(crate) async fn get(&mut self, stream: u32, target: &str, token: &str) {
        self.write(kind::HEADERS, END_STREAM | END_HEADERS, stream, &get_block(target, token)).await;
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        patiently("a frame", async {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let [a, b, c, kind, flags, rest @ ..] = head;
            let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap()];
            self.0.read_exact(&mut payload).await.ok()?;
            Some(Frame { kind, flags, stream: u32::from_be_bytes(rest) & !(1 << 31), payload })
        })
        .await
    }

    /// All frames until this one is among them, or the connection ends.
    pub(crate) async fn until(&mut self, condition: impl Fn(&Frame) -> bool + Send) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            let is_last = condition(&frame);
            frames.push(frame);
            if is_last {
                break;
            }
        }
        frames
    }
}

/// The header block of a GET.
pub(crate) fn get_block(target: &str, token: &str) -> Vec<u8> {
    let authorization = format!("Token {token}");
    block(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", AUTHORITY),
        (":path", target),
        ("authorization", &authorization),
    ])
}

/// A header block of literals without indexing; names and values shorter than 127 bytes.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}
