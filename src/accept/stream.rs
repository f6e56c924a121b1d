//! The client's side of a connection: TLS or in clear, watched, and closed so that the last answer arrives.

use crate::accept::activity::Activity;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;

/// What a client is connected by.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are TLS, and a box would cost each of them an allocation"
)]
pub enum Socket {
    /// By TLS.
    Tls(TlsStream<TcpStream>),
    /// In clear.
    Plain(TcpStream),
}

impl Socket {
    /// The socket below.
    fn tcp(&mut self) -> &mut TcpStream {
        match self {
            Self::Tls(tls) => tls.get_mut().0,
            Self::Plain(tcp) => tcp,
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tls(tls) => tls.is_write_vectored(),
            Self::Plain(tcp) => tcp.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
        }
    }
}

/// A stream that lingers when it is closed: closing a socket with unread bytes in it resets the connection,
/// and the client loses the answer it was just sent (RFC 9112 section 9.6).
#[derive(Debug)]
pub struct ClientStream {
    socket: Socket,
    activity: Arc<Activity>,
    linger: Linger,
    linger_time: Duration,
    /// Bytes still read and thrown away after the end.
    linger_bytes: usize,
}

#[derive(Debug)]
enum Linger {
    Open,
    Closing,
    Reading(Pin<Box<Sleep>>),
    Closed,
}

impl ClientStream {
    /// Wraps an accepted connection.
    pub fn new(socket: Socket, activity: Arc<Activity>, time: Duration, bytes: usize) -> Self {
        Self { socket, activity, linger: Linger::Open, linger_time: time, linger_bytes: bytes }
    }

    /// Reads and throws away until the client has ended, or time or bytes are used up.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut space = [0; 8192];
        while self.linger_bytes > 0 {
            let mut read = ReadBuf::new(&mut space);
            // The socket below: what comes now needs no decryption to be thrown away.
            let polled = ready!(Pin::new(self.socket.tcp()).poll_read(cx, &mut read));
            if polled.is_err() || read.filled().is_empty() {
                break;
            }
            self.linger_bytes = self.linger_bytes.saturating_sub(read.filled().len());
        }
        Poll::Ready(())
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.received();
        }
        polled
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.linger {
                Linger::Open => self.linger = Linger::Closing,
                Linger::Closing => {
                    ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
                    let time = self.linger_time;
                    self.linger = Linger::Reading(Box::pin(tokio::time::sleep(time)));
                }
                Linger::Reading(sleep) => {
                    let is_late = sleep.as_mut().poll(cx).is_ready();
                    if !is_late {
                        ready!(self.poll_discard(cx));
                    }
                    self.linger = Linger::Closed;
                }
                Linger::Closed => return Poll::Ready(Ok(())),
            }
        }
    }
}
