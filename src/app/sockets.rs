//! Where clients connect: sockets that were handed over, and those that are bound; for every core.

use crate::accept::inherited::{Inherited, Place};
use crate::accept::listener::{self, Speaks};
use crate::app::AppError;
use crate::config::Listen;
use std::net::{SocketAddr, TcpListener};

/// A listening socket, and what is spoken there.
pub(in crate::app) type Listener = (TcpListener, Speaks);

/// Where is listened.
pub(in crate::app) struct Sockets {
    /// Addresses for HTTPS; a port 0 of the file is the real one here.
    pub(in crate::app) https: Vec<SocketAddr>,
    /// The same for HTTP in clear.
    pub(in crate::app) http: Vec<SocketAddr>,
    /// The sockets of each core.
    pub(in crate::app) by_core: Vec<Vec<Listener>>,
}

impl Sockets {
    /// Takes the sockets that were handed over, and binds all other addresses.
    ///
    /// # Errors
    /// If an address cannot be bound, or what was handed over is nobody's.
    pub(in crate::app) fn open(
        listen: &Listen,
        inherited: Inherited,
        cores: usize,
    ) -> Result<Self, AppError> {
        let places = inherited.claim(listen)?;
        let mut by_core = (0..cores).map(|_| Vec::new()).collect::<Vec<_>>();
        let https = place_all(places.https, Speaks::Https, &mut by_core)?;
        let http = place_all(places.http, Speaks::Http, &mut by_core)?;
        Ok(Self { https, http, by_core })
    }
}

fn place_all(
    places: Vec<Place>,
    speaks: Speaks,
    by_core: &mut [Vec<Listener>],
) -> Result<Vec<SocketAddr>, AppError> {
    let mut addresses = Vec::new();
    for place in places {
        let (Place::Bind(address) | Place::Handed(address, _)) = place;
        let failed = |source| AppError::Listen { address, source };
        let sockets = match place {
            Place::Bind(address) => listener::bind(address, by_core.len()).map_err(failed)?,
            Place::Handed(_, socket) => {
                tracing::info!(server.address = %address, "a listening socket was handed over");
                listener::share(socket, by_core.len()).map_err(failed)?
            }
        };
        if let Some(first) = sockets.first() {
            addresses.push(first.local_addr().map_err(failed)?);
        }
        for (core, socket) in by_core.iter_mut().zip(sockets) {
            core.push((socket, speaks));
        }
    }
    Ok(addresses)
}
