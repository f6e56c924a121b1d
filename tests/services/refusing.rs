//! Addresses at which nobody answers: refused at once, or never.
//!
//! Both hold their port while they live, so that no other test can be given it.

use socket2::{Domain, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

fn bound(port: u16) -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// Bound, not listening: the kernel answers a connection attempt with RST.
#[derive(Debug)]
pub(crate) struct RefusingPort {
    _socket: Socket,
    pub(crate) address: SocketAddr,
}

impl RefusingPort {
    pub(crate) fn new() -> Self {
        Self::at(0)
    }

    pub(crate) fn at(port: u16) -> Self {
        let (socket, address) = bound(port);
        Self { _socket: socket, address }
    }
}

/// Listening with a full queue: the kernel drops a connection attempt, so that connecting takes for ever.
#[derive(Debug)]
pub(crate) struct FullListener {
    _socket: Socket,
    _waiting: Vec<TcpStream>,
    pub(crate) address: SocketAddr,
}

impl FullListener {
    pub(crate) fn new() -> Self {
        let (socket, address) = bound(0);
        socket.listen(0).unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            waiting.push(stream);
            assert!(waiting.len() < 100, "the queue of a listener with backlog 0 never fills");
        }
        Self { _socket: socket, _waiting: waiting, address }
    }
}
