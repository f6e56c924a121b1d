//! Listening sockets that were handed over: by systemd, or by whoever speaks its protocol (`sd_listen_fds(3)`).
//!
//! Such a socket outlives the process: connections that come while one gateway stops and the next one starts wait in
//! it, and none is lost. It also has ports that this process may not bind.
//!
//! A socket named `https` or `http` (`FileDescriptorName=`) belongs to that list of `[listen]`, and takes its place: whoever
//! writes the unit says where to listen, and nothing else is opened. Any other socket must have an address of the
//! file, and what the file names besides is bound as ever. A socket that neither claims stops the start: its
//! connections would wait for ever, or be spoken to in a protocol that nobody has chosen.

use crate::config::Listen;
use listenfd::ListenFd;
use socket2::SockRef;
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Names of sockets are those of the lists in `[listen]`.
const HTTPS: &str = "https";
const HTTP: &str = "http";

/// Sockets that were handed over, and nobody has claimed yet.
#[derive(Debug, Default)]
pub struct Inherited(Vec<Handed>);

/// One of them.
#[derive(Debug)]
struct Handed {
    /// As the service manager calls it; often the name of a unit.
    name: String,
    address: SocketAddr,
    listener: TcpListener,
}

/// Why the sockets that were handed over cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES` contradict themselves, or name descriptors that are not there.
    #[error("the sockets that were handed over cannot be told apart (LISTEN_FDS, LISTEN_FDNAMES)")]
    Protocol(#[source] io::Error),
    /// A descriptor is something else.
    #[error("descriptor {number} was handed over (named {name:?}) and is no listening TCP socket")]
    NoListener {
        /// Its number.
        number: usize,
        /// Its name.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// Nobody has chosen what is spoken there.
    #[error(
        "a socket for {address} was handed over (named {name:?}), and [listen] does not name it: write the address in \
         `https` or `http` there, or name the socket so (FileDescriptorName=)"
    )]
    Unclaimed {
        /// Where it listens.
        address: SocketAddr,
        /// Its name.
        name: String,
    },
}

/// Where one of the listeners comes from.
#[derive(Debug)]
pub enum Place {
    /// It is made.
    Bind(SocketAddr),
    /// It is there.
    Handed(SocketAddr, TcpListener),
}

/// Where to listen, by what is spoken there.
#[derive(Debug)]
pub struct Places {
    /// For HTTPS.
    pub https: Vec<Place>,
    /// For HTTP in clear.
    pub http: Vec<Place>,
}

impl Inherited {
    /// Takes what was handed to this process; nothing if that was somebody else.
    ///
    /// Call it before there are threads: it removes `LISTEN_FDS` from the environment, so that no child takes the
    /// sockets for its own.
    ///
    /// # Errors
    /// If something was handed over that is no listening TCP socket, or the environment contradicts itself.
    pub fn take() -> Result<Self, InheritError> {
        // Strict on LISTEN_PID, which listenfd is not: without one the sockets are somebody else's, and so are names.
        if sd_notify::listen_fds().map_err(InheritError::Protocol)?.len() == 0 {
            return Ok(Self::default());
        }
        let named: Vec<_> = sd_notify::listen_fds_with_names().map_err(InheritError::Protocol)?.collect();
        let mut sockets = ListenFd::from_env();
        let take = |(number, (descriptor, name)): (usize, (i32, String))| {
            let listener = sockets.take_tcp_listener(number).and_then(listening);
            let number = usize::try_from(descriptor).unwrap_or_default();
            let (address, listener) =
                listener.map_err(|source| InheritError::NoListener { number, name: name.clone(), source })?;
            Ok(Handed { name, address, listener })
        };
        named.into_iter().enumerate().map(take).collect::<Result<_, _>>().map(Self)
    }

    /// Whether nothing was handed over.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose the sockets are, and what is left to bind.
    ///
    /// # Errors
    /// If a socket is nobody's.
    pub fn claim(mut self, listen: &Listen) -> Result<Places, InheritError> {
        let https = self.places(HTTPS, &listen.https);
        let http = self.places(HTTP, &listen.http);
        match self.0.pop() {
            Some(Handed { name, address, .. }) => Err(InheritError::Unclaimed { address, name }),
            None => Ok(Places { https, http }),
        }
    }

    /// The places of one list.
    fn places(&mut self, name: &str, configured: &[SocketAddr]) -> Vec<Place> {
        let named: Vec<_> = self.0.extract_if(.., |handed| handed.name == name).collect();
        if !named.is_empty() {
            return named.into_iter().map(Handed::place).collect();
        }
        let place = |address: &SocketAddr| {
            let found = self.0.extract_if(.., |handed| handed.address == *address).next();
            found.map_or(Place::Bind(*address), Handed::place)
        };
        configured.iter().map(place).collect()
    }
}

impl Handed {
    fn place(self) -> Place {
        let Self { address, listener, .. } = self;
        let is_any = address.ip().is_unspecified() && address.is_ipv6();
        // Told here and not where it is taken: the log is started after that.
        if is_any && SockRef::from(&listener).only_v6().unwrap_or_default() {
            tracing::warn!(%address, "the socket that was handed over takes no IPv4 clients (BindIPv6Only=)");
        }
        Place::Handed(address, listener)
    }
}

/// The socket, ready to be waited for.
fn listening(listener: Option<TcpListener>) -> io::Result<(SocketAddr, TcpListener)> {
    let listener = listener.ok_or(io::ErrorKind::NotFound)?;
    let socket = SockRef::from(&listener);
    if !socket.is_listener()? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not listen"));
    }
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    Ok((address, listener))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed(name: &str) -> Handed {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        Handed { name: name.to_owned(), address, listener }
    }

    fn listen(https: &[SocketAddr], http: &[SocketAddr]) -> Listen {
        Listen { https: https.to_vec(), http: http.to_vec(), ..Listen::default() }
    }

    /// Addresses, with whether they were handed over.
    fn shown(places: &[Place]) -> Vec<(SocketAddr, bool)> {
        let show = |place: &Place| match place {
            Place::Bind(address) => (*address, false),
            Place::Handed(address, listener) => {
                assert_eq!(listener.local_addr().unwrap(), *address);
                (*address, true)
            }
        };
        places.iter().map(show).collect()
    }

    const ELSEWHERE: ([u8; 4], u16) = ([192, 0, 2, 1], 8443);

    #[test]
    fn nothing_handed_over_leaves_everything_to_bind() {
        let (one, two) = (([192, 0, 2, 1], 1).into(), ([192, 0, 2, 1], 2).into());
        let places = Inherited::default().claim(&listen(&[one], &[two])).unwrap();
        assert_eq!((shown(&places.https), shown(&places.http)), (vec![(one, false)], vec![(two, false)]));
    }

    #[test]
    fn a_socket_is_claimed_by_its_address_and_the_rest_is_bound() {
        let socket = handed("doorward.socket");
        let (address, other) = (socket.address, ELSEWHERE.into());
        let places = Inherited(vec![socket]).claim(&listen(&[other, address], &[])).unwrap();
        assert_eq!(shown(&places.https), [(other, false), (address, true)]);
        let socket = handed("doorward.socket");
        let address = socket.address;
        let places = Inherited(vec![socket]).claim(&listen(&[other], &[address])).unwrap();
        assert_eq!(
            (shown(&places.https), shown(&places.http)),
            (vec![(other, false)], vec![(address, true)])
        );
    }

    #[test]
    fn a_named_socket_takes_the_place_of_its_list() {
        let sockets = [handed(HTTP), handed(HTTPS), handed(HTTPS)];
        let addresses = [0, 1, 2].map(|number: usize| sockets[number].address);
        let places = Inherited(sockets.into()).claim(&listen(&[ELSEWHERE.into()], &[])).unwrap();
        assert_eq!(shown(&places.https), [(addresses[1], true), (addresses[2], true)]);
        assert_eq!(shown(&places.http), [(addresses[0], true)]);
    }

    #[test]
    fn what_is_named_for_one_protocol_never_speaks_the_other() {
        let socket = handed(HTTP);
        let address = socket.address;
        let places = Inherited(vec![socket]).claim(&listen(&[ELSEWHERE.into()], &[])).unwrap();
        assert_eq!(shown(&places.https), [(ELSEWHERE.into(), false)]);
        assert_eq!(shown(&places.http), [(address, true)]);
    }

    #[test]
    fn a_socket_that_nobody_claims_is_an_error_that_names_it() {
        let socket = handed("stray");
        let address = socket.address;
        let error = Inherited(vec![handed(HTTPS), socket]).claim(&listen(&[], &[])).unwrap_err();
        let told = error.to_string();
        assert!(told.contains(&address.to_string()) && told.contains("\"stray\""), "{told}");
        assert!(matches!(error, InheritError::Unclaimed { .. }));
    }

    #[test]
    fn what_does_not_listen_is_refused() {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        assert!(listening(Some(socket.into())).is_err());
        assert!(listening(None).is_err());
    }

    #[test]
    fn nothing_is_taken_that_was_handed_to_somebody_else() {
        // This process was not started by a service manager with sockets.
        assert!(Inherited::take().unwrap().0.is_empty());
    }
}
