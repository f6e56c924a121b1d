//! `doorward demo`: the whole gateway on embedded defaults in a directory that goes away.

use crate::app::{AppError, Options, Running, echo};
use crate::config::{Config, ConfigError, Source};
use crate::credentials::{CredentialsError, NewAccount};
use crate::secret::{NoRandomness, Secret};
use std::io;
use std::io::ErrorKind::AddrInUse;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use tempfile::TempDir;

/// The port that the documentation names; another one if it is taken.
const PORT: u16 = 8443;
/// Random bytes of the demonstration user's password, shown in hex.
const PASSWORD_BYTES: usize = 12;

/// Why the demonstration cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// No temporary directory, or no port.
    #[error("cannot prepare the demonstration")]
    Prepare(#[from] io::Error),
    /// A bug: the built-in configuration is wrong.
    #[error("the built-in configuration is wrong")]
    Config(#[from] ConfigError),
    /// The gateway.
    #[error(transparent)]
    Start(#[from] AppError),
    /// The user.
    #[error("cannot add the demonstration user")]
    User(#[from] CredentialsError),
    /// The system gave no randomness.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

/// A demonstration that serves; its directory goes away with it.
#[derive(Debug)]
pub struct Demo {
    running: Running,
    directory: TempDir,
    password: Secret,
}

impl Demo {
    /// Starts it.
    ///
    /// # Errors
    /// If anything it needs cannot be had.
    pub fn start() -> Result<Self, DemoError> {
        let directory = tempfile::Builder::new().prefix("doorward-demo-").tempdir()?;
        let upstream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        upstream.set_nonblocking(true)?;
        let upstream_address = upstream.local_addr()?;
        let name = "demo".to_owned();
        let source = Source { name, directory: directory.path().to_owned(), environment: |_| None };
        let start = |port| {
            let text = configuration((Ipv4Addr::LOCALHOST, port).into(), upstream_address);
            let config = Config::parse(&text, &source)?.config;
            Running::start(&config, Options::default()).map_err(DemoError::Start)
        };
        // The usual port, or any other one if that is taken.
        let running = match start(PORT) {
            Err(DemoError::Start(AppError::Listen { source, .. })) if source.kind() == AddrInUse => start(0),
            other => other,
        }?;
        let password = Secret::random_hex::<PASSWORD_BYTES>("")?;
        let account = NewAccount {
            username: "demo".to_owned(),
            password: password.clone(),
            email: "demo@example.com".to_owned(),
            ..NewAccount::default()
        };
        let added = running.block_on(async {
            let listener = tokio::net::TcpListener::from_std(upstream)?;
            drop(tokio::spawn(echo::serve(listener)));
            running.credentials().add_user(account).await.map_err(DemoError::User)
        });
        added.transpose()?;
        Ok(Self { running, directory, password })
    }

    /// What is printed: three commands to paste.
    pub fn instructions(&self) -> String {
        let Self { running, directory: _, password } = self;
        let password = String::from_utf8_lossy(password.expose());
        let port = running.addresses().first().map_or(PORT, SocketAddr::port);
        let curl = format!("curl --silent --show-error --cacert {}", running.certificate().display());
        let url = format!("https://localhost:{port}");
        format!(
            "doorward guards a small built-in upstream at {url}\n\
             User demo, password {password} (made for this run, shown only here)\n\
             \n\
             1. Get a token for the password:\n\
             \n\
             TOKEN=$({curl} --json '{{\"username\": \"demo\", \"password\": \"{password}\"}}' {url}/api-token-auth/ \
             | cut -d '\"' -f 4); echo \"$TOKEN\"\n\
             \n\
             2. Call a protected path with it; see Remote-User: demo in what the upstream received:\n\
             \n\
             {curl} --header \"Authorization: Token $TOKEN\" {url}/hello\n\
             \n\
             3. The same without the token is refused with 401:\n\
             \n\
             {curl} --include {url}/hello\n\
             \n\
             Next: put doorward in front of your own backend, see \"Your own backend\" in README.md.\n\
             Ctrl-C stops the demonstration and removes its directory.\n"
        )
    }

    /// Where it keeps its files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Stops, and removes the directory.
    ///
    /// # Errors
    /// If the directory cannot be removed.
    pub fn stop(self) -> io::Result<()> {
        self.running.stop();
        self.directory.close()
    }
}

fn configuration(listen: SocketAddr, upstream: SocketAddr) -> String {
    format!(
        "[listen]\n\
         https = [\"{listen}\"]\n\
         [upstreams.echo]\n\
         servers = [\"http://{upstream}\"]\n\
         [routes.everything]\n\
         path = \"/\"\n\
         upstream = \"echo\"\n\
         schemes = [\"token\"]\n\
         [routes.obtain-token]\n\
         path = \"/api-token-auth/\"\n\
         handler = \"obtain-token\"\n"
    )
}
