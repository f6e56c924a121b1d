//! One act on the store: the configuration is read, the store opened, and closed again.

use crate::app::Backing;
use crate::cli::tell::{Failure, chain, tell_plain};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, ConfigError, Loaded, nearest};
use crate::credentials::{Credentials, CredentialsError};
use crate::identity::UserId;
use std::collections::HashMap;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

/// A file that may not grow (`ulimit -f`) is a write that fails, and told of: not the end of the process.
pub(in crate::cli) fn outlive_file_limit() -> io::Result<()> {
    signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw())).map(drop)
}

/// Does something with the store that the configuration names.
pub(in crate::cli) fn act<T>(
    path: &Path,
    act: impl AsyncFnOnce(&Credentials) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let config = load(path)?.config;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        outlive_file_limit()?;
        let backing = Backing::open(&config, &clock).await?;
        let done = act(&backing.credentials).await;
        // Puts the file in order if nobody else has it open. What was done is durable without.
        backing.store.close().await.unwrap_or_default();
        done
    });
    // Nobody waits for a thread that still resolves the name of a server that was not needed.
    runtime.shutdown_background();
    done
}

pub(in crate::cli) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Loads the file and shows its warnings.
pub(in crate::cli) fn load(path: &Path) -> Result<Loaded, Failure> {
    match Config::load(path) {
        Ok(loaded) => {
            let warnings = loaded.render_warnings(io::stderr().is_terminal());
            if !warnings.is_empty() {
                tell_plain(&warnings);
            }
            Ok(loaded)
        }
        Err(ConfigError::Problems(faulty)) => {
            tell_plain(&faulty.render(io::stderr().is_terminal()));
            Err(format!("{} cannot be used", path.display()).into())
        }
        Err(error @ ConfigError::Unreadable { .. }) => {
            let hint = "write one with `doorward init` (README.md says more) or name another with --config";
            Err(format!("{}; {hint}", chain(&error)).into())
        }
    }
}

/// An error of an act on this user, in words.
pub(in crate::cli) async fn explain(
    credentials: &Credentials,
    username: &str,
    error: CredentialsError,
) -> Failure {
    if matches!(error, CredentialsError::NoSuchUser) {
        no_such_user(credentials, username).await.into()
    } else {
        error.into()
    }
}

/// Says that there is no such user, and who may have been meant.
pub(in crate::cli) async fn no_such_user(credentials: &Credentials, username: &str) -> String {
    let near = similar_user(credentials, username).await;
    let meant = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
    format!("there is no user {username}{meant}")
}

/// The user whose name is nearest to one that is not there.
pub(in crate::cli) async fn similar_user(credentials: &Credentials, username: &str) -> Option<String> {
    // Only a suggestion: not worth another error.
    let users = credentials.list_users().await.unwrap_or_default();
    nearest(username, users.iter().map(|account| &*account.user.username)).map(str::to_owned)
}

/// Looks users up; tells of all who are not there.
pub(in crate::cli) async fn resolve(
    credentials: &Credentials,
    usernames: &[String],
) -> Result<Vec<UserId>, Failure> {
    let found: HashMap<String, UserId> =
        credentials.user_ids(usernames.to_vec()).await?.into_iter().collect();
    let mut faults = Vec::new();
    for name in usernames.iter().filter(|name| !found.contains_key(*name)) {
        faults.push(no_such_user(credentials, name).await);
    }
    if faults.is_empty() {
        Ok(usernames.iter().filter_map(|name| found.get(name).copied()).collect())
    } else {
        Err(faults.join("\nerror: ").into())
    }
}
