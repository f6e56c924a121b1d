//! Starts the admin listeners.

use crate::accept::listener;
use crate::admin::{self, AdminSocket, Answers};
use crate::app::AppError;
use crate::app::overview::Overview;
use crate::config::{AdminPath, Listen};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;

/// Answers on the address from now on, until the runtime ends: also while the gateway starts.
pub(in crate::app) fn start_address(
    listen: &Listen,
    is_shared: bool,
    runtime: &Runtime,
    overview: &Arc<Overview>,
) -> Result<Option<SocketAddr>, AppError> {
    let Some(address) = listen.admin else { return Ok(None) };
    let failed = |source| AppError::Listen { address, source };
    // Whoever handed sockets over may do so to the next one before this one has ended.
    let listener = listener::bind_one(address, is_shared).map_err(failed)?;
    let entered = runtime.enter();
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    drop(entered);
    let bound = listener.local_addr().map_err(failed)?;
    drop(runtime.spawn(admin::serve_address(listener, answers(overview))));
    Ok(Some(bound))
}

/// Answers on the socket. Last of all: a gateway that cannot start must not take the socket from another.
pub(in crate::app) fn start_socket(
    listen: &Listen,
    takes_over: bool,
    runtime: &Runtime,
    overview: &Arc<Overview>,
) -> Result<Option<AdminSocket>, AppError> {
    let Some(path) = listen.admin_socket.path() else { return Ok(None) };
    match (start_at(path, takes_over, runtime, answers(overview)), &listen.admin_socket) {
        (Ok(socket), _) => Ok(Some(socket)),
        (Err(source), AdminPath::Given(path)) => Err(AppError::AdminSocket { path: path.clone(), source }),
        (Err(error), _) => {
            let path = path.display();
            tracing::warn!(%error, %path, "no admin socket: `doorward status` has nobody to ask");
            Ok(None)
        }
    }
}

fn answers(overview: &Arc<Overview>) -> Arc<dyn Answers> {
    Arc::clone(overview) as Arc<dyn Answers>
}

fn start_at(
    path: &Path,
    takes_over: bool,
    runtime: &Runtime,
    answers: Arc<dyn Answers>,
) -> io::Result<AdminSocket> {
    let (socket, listener) = AdminSocket::listen(path, takes_over)?;
    let entered = runtime.enter();
    let listener = UnixListener::from_std(listener)?;
    drop(entered);
    drop(runtime.spawn(admin::serve_socket(listener, answers)));
    Ok(socket)
}
