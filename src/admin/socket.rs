//! The unix socket: its file is its owner's alone, and the newest process has it.

use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 16;

/// A listening unix socket, whose file goes away with it.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
    /// Device and inode: another process may have put its own in this place.
    identity: (u64, u64),
}

impl AdminSocket {
    /// Listens; a file that an earlier process left behind gives way. One where somebody answers does so only if `takes_over`:
    /// it may be another program's.
    ///
    /// # Errors
    /// If the socket cannot be made there, or there is something that is no socket, or somebody answers there.
    pub fn listen(path: &Path, takes_over: bool) -> io::Result<(Self, UnixListener)> {
        if std::fs::symlink_metadata(path).is_ok_and(|found| !is_socket(&found)) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        if !takes_over && UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers there"));
        }
        // Made aside and put in place: an earlier process that is still at its last requests loses nothing, and who
        // asks from now on asks this one.
        let aside = path.with_file_name(format!(".{}", std::process::id()));
        let made = listen_at(&aside);
        let placed = made.and_then(|made| std::fs::rename(&aside, path).map(|()| made));
        if placed.is_err() {
            // It may never have been made.
            std::fs::remove_file(&aside).unwrap_or_default();
        }
        let listener = placed?;
        let found = std::fs::symlink_metadata(path)?;
        Ok((Self { path: path.to_owned(), identity: (found.dev(), found.ino()) }, listener))
    }
}

fn listen_at(path: &Path) -> io::Result<UnixListener> {
    std::fs::remove_file(path)
        .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Before it listens: nobody else can have connected.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn is_socket(found: &std::fs::Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_socket(&found.file_type())
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        let is_mine = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if is_mine && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(%error, "the admin socket's file stays");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_file_is_its_owners_alone_and_the_newest_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("doorward.sock");
        let (first, _listener) = AdminSocket::listen(&path, false).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(AdminSocket::listen(&path, false).is_err(), "somebody answers there");
        let (second, listener) = AdminSocket::listen(&path, true).unwrap();
        drop(first);
        listener.set_nonblocking(false).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        assert!(listener.accept().is_ok(), "who connects reaches the second");
        drop((client, second));
        assert!(!path.exists());
    }

    #[test]
    fn what_a_dead_process_left_gives_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("doorward.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        AdminSocket::listen(&path, false).unwrap();
    }

    #[test]
    fn what_is_no_socket_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes.txt");
        std::fs::write(&path, "mine").unwrap();
        AdminSocket::listen(&path, true).unwrap_err();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
