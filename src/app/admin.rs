//! Starts the admin listeners.

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

/// Answers from now on, until the runtime ends.
pub(in crate::app) fn start(
    listen: &Listen,
    runtime: &Runtime,
    overview: &Arc<Overview>,
) -> Result<(Option<SocketAddr>, Option<AdminSocket>), AppError> {
    let answers = || Arc::clone(overview) as Arc<dyn Answers>;
    let address = match listen.admin {
        None => None,
        Some(address) => {
            let failed = |source| AppError::Listen { address, source };
            let listener = runtime.block_on(TcpListener::bind(address)).map_err(failed)?;
            let bound = listener.local_addr().map_err(failed)?;
            drop(runtime.spawn(admin::serve_address(listener, answers())));
            Some(bound)
        }
    };
    let socket = match &listen.admin_socket {
        AdminPath::Off => None,
        AdminPath::Given(path) => {
            let failed = |source| AppError::AdminSocket { path: path.clone(), source };
            Some(start_socket(path, runtime, answers()).map_err(failed)?)
        }
        AdminPath::Default(path) => match start_socket(path, runtime, answers()) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "no admin socket: `doorward status` has nobody to ask");
                None
            }
        },
    };
    Ok((address, socket))
}

fn start_socket(path: &Path, runtime: &Runtime, answers: Arc<dyn Answers>) -> io::Result<AdminSocket> {
    let (socket, listener) = AdminSocket::listen(path)?;
    let entered = runtime.enter();
    let listener = UnixListener::from_std(listener)?;
    drop(entered);
    drop(runtime.spawn(admin::serve_socket(listener, answers)));
    Ok(socket)
}
