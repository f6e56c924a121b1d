//! The gateway under test, started in this process; the only file that knows its API.
//!
//! Started in a directory of its own, so that certificate, key and database are new and go away.

use doorward::app::{Options, Running};
use doorward::config::{Config, Source};
use doorward::credentials::NewAccount;
use doorward::secret::Secret;
use doorward::store::TokenOrigin;
use std::net::SocketAddr;
use std::path::Path;
use tempfile::TempDir;

/// A running gateway; stopped when dropped.
pub(crate) struct TestGateway {
    running: Option<Running>,
    /// Certificate, key and database; goes away with this.
    directory: TempDir,
}

impl TestGateway {
    /// Starts with this configuration file; relative paths are of a new directory. Call it outside of a runtime.
    pub(crate) fn start_with(text: &str, options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let name = "doorward.toml".to_owned();
        let source = Source { name, directory: directory.path().to_owned(), environment: |_| None };
        let loaded = Config::parse(text, &source).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let running = Running::start(&loaded.config, options).unwrap();
        Self { running: Some(running), directory }
    }

    pub(crate) fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    /// Where its files are.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.running().addresses()[0]
    }

    /// Makes a user. Call it outside of a runtime, as all below.
    pub(crate) fn user(&self, username: &str, password: &str) {
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
        String::from_utf8(made.key.expose().to_vec()).unwrap()
    }

    /// Stores a token whose key is known.
    pub(crate) fn import_token(&self, username: &str, key: &str) {
        let running = self.running();
        running
            .block_on(running.credentials().import_any_token(username, Secret::new(key)))
            .unwrap()
            .unwrap();
    }
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
    }
}
