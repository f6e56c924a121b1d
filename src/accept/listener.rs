//! Listening sockets: one per core on the same address, or one that all cores share.

use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Connections that the kernel keeps for us at most.
pub(in crate::accept) const BACKLOG: u16 = 4096;

/// What is spoken at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// TLS, and in it HTTP/1.1 or HTTP/2.
    Https,
    /// HTTP/1.1 in clear. Not HTTP/2: nobody is to stay here.
    Http,
}

impl Speaks {
    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }
}

/// Binds the address once for each core.
///
/// # Errors
/// If it cannot be bound; also if another process listens there, which `SO_REUSEPORT` alone would hide: the two
/// would silently share the connections.
pub fn bind(address: SocketAddr, cores: usize) -> io::Result<Vec<TcpListener>> {
    if cores <= 1 {
        return Ok(vec![open(address, false)?]);
    }
    // The system chooses a port that nobody has, so there is nothing to probe, and given back it could be another's
    // before it is bound again.
    if address.port() != 0 {
        drop(open(address, false)?);
    }
    let first = open(address, true)?;
    let address = first.local_addr()?;
    let others = (1..cores).map(|_| open(address, true));
    std::iter::once(Ok(first)).chain(others).collect()
}

/// The same socket for each core: there is one queue, and whichever core is awake first accepts.
///
/// # Errors
/// If there are no descriptors left.
pub fn share(socket: TcpListener, cores: usize) -> io::Result<Vec<TcpListener>> {
    let others: Vec<_> = (1..cores).map(|_| socket.try_clone()).collect::<io::Result<_>>()?;
    Ok(std::iter::once(socket).chain(others).collect())
}

/// Binds the address once; beside another process of the same user, if both want it shared.
///
/// # Errors
/// If it cannot be bound.
pub fn bind_one(address: SocketAddr, is_shared: bool) -> io::Result<TcpListener> {
    open(address, is_shared)
}

fn open(address: SocketAddr, is_shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        // `[::]` takes IPv4 clients too.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_instance_is_an_error() {
        let first = bind(([127, 0, 0, 1], 0).into(), 2).unwrap();
        let address = first[0].local_addr().unwrap();
        assert_eq!(first.len(), 2);
        assert_eq!(bind(address, 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(bind(address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn ports_that_the_system_chooses_are_never_shared() {
        let bind_many = || (0..200).map(|_| bind(([127, 0, 0, 1], 0).into(), 2).unwrap()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(bind_many)).collect();
        // Nothing is closed before all are bound.
        let bound: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        let ports: Vec<_> = bound.iter().map(|sockets| sockets[0].local_addr().unwrap().port()).collect();
        let different: std::collections::HashSet<_> = ports.iter().collect();
        assert_eq!(different.len(), ports.len());
    }
}
