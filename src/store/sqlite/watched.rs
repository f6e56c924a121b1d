//! Whether the file is still the one that the connections have open: a backup that is put back takes its place, and
//! what was open before would be read for ever.

use parking_lot::Mutex;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// A file, and since when it is another one.
#[derive(Debug)]
pub(super) struct Watched {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    identity: Option<Identity>,
    replaced: Option<Instant>,
}

/// Device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity(u64, u64);

impl Identity {
    fn of(file: &Metadata) -> Self {
        Self(file.dev(), file.ino())
    }
}

impl Watched {
    /// The file as it is now.
    pub(super) fn new(path: &Path) -> Self {
        let identity = std::fs::metadata(path).ok().as_ref().map(Identity::of);
        Self { path: path.to_owned(), state: Mutex::new(State { identity, replaced: None }) }
    }

    /// Whether a connection of this age has the file of now open.
    pub(super) fn is_of_now(&self, age: Duration) -> bool {
        self.state.lock().replaced.is_none_or(|replaced| age < replaced.elapsed())
    }

    /// Looks at the file. Yields what it is; connections to another one are of no use any more.
    ///
    /// # Errors
    /// If it is not there, or may not be looked at.
    pub(super) async fn look(&self) -> io::Result<Identity> {
        let found = tokio::fs::metadata(&self.path).await;
        let identity = found.as_ref().ok().map(Identity::of);
        let mut state = self.state.lock();
        if state.identity != identity {
            let is_gone = identity.is_none();
            tracing::error!(file = %self.path.display(), is_gone, "the database file is another one now");
            (state.identity, state.replaced) = (identity, Some(Instant::now()));
        }
        drop(state);
        found.map(|file| Identity::of(&file))
    }
}
