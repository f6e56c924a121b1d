//! One connection to a server: TCP, TLS or a Unix socket, with what was read and not yet used.

use crate::forward::deadline::Deadline;
use crate::forward::upstream::Server;
use bytes::BytesMut;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::client::TlsStream;

/// Bytes asked for in one read of a body; a head fits in the first.
const READ_BYTES: usize = 64 * 1024;
/// Bytes asked for in the first read: most answers are small.
const FIRST_READ_BYTES: usize = 8 * 1024;

/// The socket.
#[derive(Debug)]
pub(in crate::forward) enum Io {
    /// `http://`
    Tcp(TcpStream),
    /// `https://`
    Tls(Box<TlsStream<TcpStream>>),
    /// `unix:`
    Unix(UnixStream),
}

/// A connection and its place among the server's connections.
pub(in crate::forward) struct Connection {
    io: Io,
    /// Read and not yet used.
    pub(in crate::forward) input: BytesMut,
    /// Where it leads.
    pub(in crate::forward) server: Arc<Server>,
    /// Whether an exchange went over it before.
    pub(in crate::forward) is_reused: bool,
    /// For the waits of its exchanges, one after the other: to move a timer costs less than to make one.
    pub(in crate::forward) deadline: Deadline,
    _place: OwnedSemaphorePermit,
}

/// What was read may hold secrets, so it is not shown.
impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("io", &self.io)
            .field("is_reused", &self.is_reused)
            .finish_non_exhaustive()
    }
}

impl Connection {
    pub(in crate::forward) fn new(io: Io, server: Arc<Server>, place: OwnedSemaphorePermit) -> Self {
        Self {
            io,
            input: BytesMut::new(),
            server,
            is_reused: false,
            deadline: Deadline::default(),
            _place: place,
        }
    }

    /// Reads some more; 0: the other side has ended.
    pub(in crate::forward) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() == self.input.len() {
            self.input.reserve(if self.input.is_empty() { FIRST_READ_BYTES } else { READ_BYTES });
        }
        tokio_util::io::poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input)
    }

    /// The next reads are of a large body.
    pub(in crate::forward) fn expect_body(&mut self, bytes: u64) {
        let bytes = usize::try_from(bytes).unwrap_or(READ_BYTES).min(READ_BYTES);
        if bytes > FIRST_READ_BYTES && self.input.is_empty() {
            self.input.reserve(bytes);
        }
    }

    /// Writes some of `first`, then of `second`, in one system call.
    pub(in crate::forward) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        first: &[u8],
        second: &[u8],
    ) -> Poll<io::Result<usize>> {
        let socket = Pin::new(&mut self.io);
        let written = if second.is_empty() {
            socket.poll_write(cx, first)
        } else {
            socket.poll_write_vectored(cx, &[io::IoSlice::new(first), io::IoSlice::new(second)])
        };
        match ready!(written) {
            Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            other => Poll::Ready(other),
        }
    }

    /// Flushes what TLS may hold back.
    pub(in crate::forward) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Whether an idle connection is as it was left: neither ended nor with bytes nobody asked for.
    ///
    /// Without such an event this costs no system call: the socket is known not to be readable.
    pub(in crate::forward) fn is_quiet(&mut self) -> bool {
        if !self.input.is_empty() {
            return false;
        }
        let mut space = [0];
        let mut read = ReadBuf::new(&mut space);
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(&mut self.io).poll_read(&mut cx, &mut read).is_pending()
    }

    /// Gives the buffer back while nobody needs it.
    pub(in crate::forward) fn rest(&mut self) {
        self.input = BytesMut::new();
        self.is_reused = true;
        self.deadline.progress();
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
            Self::Unix(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
            Self::Unix(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Unix(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
            Self::Unix(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
            Self::Unix(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
