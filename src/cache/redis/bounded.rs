//! A socket that yields only so much before somebody says that it was used.
//!
//! The library buffers an answer until it is whole, whatever its length. Whoever can write to Redis could publish half a
//! gigabyte to every doorward; here that ends the connection instead.

use parking_lot::Mutex;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is left to be read.
#[derive(Debug, Clone)]
pub(super) struct Credit {
    left: Arc<Mutex<usize>>,
    whole: usize,
}

impl Credit {
    /// So many bytes.
    pub(super) fn new(whole: usize) -> Self {
        Self { left: Arc::new(Mutex::new(whole)), whole }
    }

    /// An answer was taken: as much may come again.
    pub(super) fn renew(&self) {
        *self.left.lock() = self.whole;
    }

    fn spend(&self, bytes: usize) -> io::Result<()> {
        let mut left = self.left.lock();
        *left = left.checked_sub(bytes).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the answer is larger than any that was asked for")
        })?;
        Ok(())
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Bounded<S> {
    socket: S,
    credit: Credit,
}

impl<S> Bounded<S> {
    /// Reads no more than the credit allows.
    pub(super) fn new(socket: S, credit: Credit) -> Self {
        Self { socket, credit }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bounded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(cx, buffer);
        if matches!(read, Poll::Ready(Ok(()))) {
            self.credit.spend(buffer.filled().len().saturating_sub(before))?;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bounded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn more_than_was_allowed_is_an_error() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let credit = Credit::new(10);
        let mut bounded = Bounded::new(ours, credit.clone());
        let mut buffer = [0; 8];
        for _ in 0..3 {
            theirs.write_all(&[0; 8]).await.unwrap();
            assert_eq!(bounded.read(&mut buffer).await.unwrap(), 8);
            credit.renew();
        }
        theirs.write_all(&[0; 16]).await.unwrap();
        assert_eq!(bounded.read(&mut buffer).await.unwrap(), 8);
        assert_eq!(bounded.read(&mut buffer).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
