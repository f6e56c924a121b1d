//! The gateway under test, started in this process; the only file that knows its API.
//!
//! Started in a directory of its own, so that certificate, key and database are new and go away.

use super::gate::Gate;
use super::secrets;
use doorward::accept::head::Head;
use doorward::app::{AppError, Options, Running};
use doorward::authenticate::scheme::{Context, Effects, Recall, Scheme, Verdict};
use doorward::clock::{ManualClock, UnixSeconds};
use doorward::config::{Config, Source};
use doorward::credentials::NewAccount;
use doorward::identity::SchemeKind;
use doorward::secret::Secret;
use doorward::store::TokenOrigin;
use http::HeaderValue;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// A running gateway; stopped when dropped.
pub(crate) struct TestGateway {
    running: Option<Running>,
    /// Certificate, key and database; goes away with this, unless it is the test's own.
    directory: Option<TempDir>,
}

impl TestGateway {
    /// Starts with this configuration file; relative paths are of a new directory. Call it outside of a runtime.
    pub(crate) fn start_with(text: &str, options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let running = run(directory.path(), text, options).unwrap();
        Self { running: Some(running), directory: Some(directory) }
    }

    /// Starts in a directory that is there already.
    pub(crate) fn start_in(directory: &Path, text: &str, options: Options) -> Result<Self, AppError> {
        Ok(Self { running: Some(run(directory, text, options)?), directory: None })
    }

    /// Stops accepting, does not wait.
    pub(crate) fn ask_to_stop(&self) {
        self.running().ask_to_stop();
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// Where its files are.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.as_ref().expect("a directory of its own").path()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running().addresses()[0]
    }

    /// The first address for HTTP in clear.
    pub(crate) fn http_address(&self) -> SocketAddr {
        self.running().http_addresses()[0]
    }

    /// Makes a user. Call it outside of a runtime, as all below.
    pub(crate) fn user(&self, username: &str, password: &str) {
        secrets::used(password);
        self.account(NewAccount {
            username: username.to_owned(),
            password: Secret::new(password),
            email: String::new(),
            is_staff: false,
            groups: Vec::new(),
        });
    }

    /// Makes a user with groups and an e-mail address.
    pub(crate) fn member(&self, username: &str, groups: &[&str], email: &str) {
        self.account(NewAccount {
            username: username.to_owned(),
            password: Secret::new("correct horse battery staple"),
            email: email.to_owned(),
            is_staff: false,
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        });
    }

    fn account(&self, account: NewAccount) {
        let running = self.running();
        running.block_on(running.credentials().add_user(account)).unwrap().unwrap();
    }

    pub(crate) fn deactivate(&self, username: &str) {
        let running = self.running();
        running.block_on(running.credentials().set_active(username, false)).unwrap().unwrap();
    }

    /// Makes a token for a user.
    pub(crate) fn token(&self, username: &str) -> String {
        let running = self.running();
        let made = running
            .block_on(running.credentials().create_token(username, "test", TokenOrigin::Command))
            .unwrap()
            .unwrap();
        let token = String::from_utf8(made.key.expose().to_vec()).unwrap();
        secrets::used(&token);
        token
    }

    /// Logs a user in; the key of the session.
    pub(crate) fn session(&self, username: &str, password: &str) -> String {
        let running = self.running();
        let credentials = Arc::clone(running.credentials());
        let (username, password) = (username.to_owned(), Secret::new(password));
        let log_in = async move {
            let user = credentials.login(&username, password).await.unwrap().unwrap();
            credentials.log_in(&user, None, None, Duration::from_hours(1)).await.unwrap().unwrap()
        };
        let made = running.block_on(log_in).unwrap();
        let key = String::from_utf8(made.key.expose().to_vec()).unwrap();
        secrets::used(&key);
        key
    }

    /// Stores a token whose key is known.
    pub(crate) fn import_token(&self, username: &str, key: &str) {
        secrets::used(key);
        let running = self.running();
        running
            .block_on(running.credentials().import_any_token(username, Secret::new(key)))
            .unwrap()
            .unwrap();
    }
}

fn run(directory: &Path, text: &str, options: Options) -> Result<Running, AppError> {
    secrets::record_log();
    let name = "doorward.toml".to_owned();
    let source = Source { name, directory: directory.to_owned(), environment: |_| None };
    let loaded = Config::parse(text, &source).unwrap_or_else(|error| panic!("{error}\n{text}"));
    Running::start(&loaded.config, options)
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
        if let Some(directory) = &self.directory
            && !std::thread::panicking()
        {
            secrets::assert_none_written(directory.path());
        }
    }
}

/// Time that only the test moves, and a gateway's options with it.
pub(crate) fn manual_clock() -> (Arc<ManualClock>, Options) {
    let clock = Arc::new(ManualClock::new(UnixSeconds(1_800_000_000)));
    (Arc::clone(&clock), Options { clock, ..Options::default() })
}

/// Options with a scheme in place of the instance of this name: it takes requests with `X-Slow`, and the look-up lasts
/// until the gate is open.
pub(crate) fn slow_scheme(name: &str, gate: &Gate) -> Options {
    let scheme: Arc<dyn Scheme> = Arc::new(SlowScheme(gate.clone()));
    Options { schemes: vec![(name.to_owned(), scheme)], ..Options::default() }
}

/// A scheme whose store is as slow as a gate.
#[derive(Debug)]
struct SlowScheme(Gate);

impl Scheme for SlowScheme {
    fn kind(&self) -> SchemeKind {
        SchemeKind::Token
    }

    fn challenge(&self, _: Option<&str>) -> Option<HeaderValue> {
        None
    }

    fn recall(&self, head: &Head, _: &Context, _: &mut Effects) -> Recall {
        if !head.headers.contains_key("x-slow") {
            return Recall::NotMine;
        }
        let gate = self.0.clone();
        Recall::Ask(Box::pin(async move {
            gate.wait().await;
            Ok((Verdict::NotMine, Effects::default()))
        }))
    }
}

/// The system's error if an address could not be listened on.
pub(crate) fn listen_error(error: &AppError) -> Option<io::ErrorKind> {
    if let AppError::Listen { source, .. } = error { Some(source.kind()) } else { None }
}
