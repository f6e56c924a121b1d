//! The client's side of a connection: TLS, watched, and closed so that the last answer arrives.

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

/// A TLS stream that lingers when it is closed: closing a socket with unread bytes in it resets the connection,
/// and the client loses the answer it was just sent (RFC 9112 section 9.6).
#[derive(Debug)]
pub struct ClientStream {
    tls: TlsStream<TcpStream>,
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
    pub fn new(tls: TlsStream<TcpStream>, activity: Arc<Activity>, time: Duration, bytes: usize) -> Self {
        Self { tls, activity, linger: Linger::Open, linger_time: time, linger_bytes: bytes }
    }

    /// Reads and throws away until the client has ended, or time or bytes are used up.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut space = [0; 8192];
        while self.linger_bytes > 0 {
            let mut read = ReadBuf::new(&mut space);
            // The socket below: what comes now needs no decryption to be thrown away.
            let polled = ready!(Pin::new(&mut self.tls.get_mut().0).poll_read(cx, &mut read));
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
        let polled = Pin::new(&mut self.tls).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.received();
        }
        polled
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.linger {
                Linger::Open => self.linger = Linger::Closing,
                Linger::Closing => {
                    ready!(Pin::new(&mut self.tls).poll_shutdown(cx))?;
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
