//! A `MariaDB` server: one for all tests of a process, with a database for each, or one of a test's own.

use super::authority::{AUTHORITY, certify};
use super::process::{Recipe, directory, feed, program, run, unprivileged, write};
use super::refusing::RefusingPort;
use super::server::Server;
use super::template::{self, Template};
use rustix::process::Signal;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// Has the databases of the tests; may log in with [`PASSWORD`].
pub(crate) const USER: &str = "doorward";
pub(crate) const PASSWORD: &str = "mariadb-password-of-the-gateway";

/// Of every server: small, and without a name server. What is promised to be on the disk is.
const SETTINGS: &[&str] = &[
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=8M",
    "--max-connections=200",
];

/// A running server; also one that was killed and can be started again.
#[derive(Debug)]
pub(crate) struct MariaDb {
    server: Server,
    databases: AtomicU32,
}

impl MariaDb {
    /// The server that the tests of this process share; each makes a [`Database`].
    pub(crate) fn shared() -> &'static Self {
        // What is static is never dropped: the guard ends it with the process.
        static SHARED: OnceLock<MariaDb> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A server of a test's own: to be paused, killed and restarted.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further arguments.
    pub(crate) fn start_with(more: &[&str]) -> Self {
        Self::start_in(directory(), more)
    }

    /// Talks to nobody but over TLS, with a certificate of an authority that nobody knows.
    pub(crate) fn start_with_tls() -> Self {
        let directory = directory();
        let made = certify(directory.path());
        let cert = format!("--ssl-cert={}", made.certificate.display());
        let key = format!("--ssl-key={}", made.key.display());
        Self::start_in(directory, &[&cert, &key, "--require-secure-transport=ON"])
    }

    /// The file with the authority that vouches for a server with TLS.
    pub(crate) fn authority(&self) -> PathBuf {
        self.directory().join(AUTHORITY)
    }

    fn start_in(directory: TempDir, more: &[&str]) -> Self {
        let data = template::copy(&TEMPLATE, directory.path());
        let port = RefusingPort::new();
        let mut words = unprivileged(&program("mariadbd", "mariadb-server-core"));
        let own = [
            "--no-defaults".to_owned(),
            format!("--datadir={}", data.display()),
            format!("--socket={}", directory.path().join("socket").display()),
            format!("--port={}", port.address.port()),
        ];
        words.extend(own.map(Into::into));
        words.extend(SETTINGS.iter().chain(more).map(Into::into));
        // Nothing that a clean end would leave is of use.
        let ready = "ready for connections";
        let recipe =
            Recipe { words, directory: directory.path().to_owned(), ready, end: "KILL", has_disk: false };
        let mut server = Server::new(recipe, port, directory);
        server.launch();
        Self { server, databases: AtomicU32::new(0) }
    }

    /// On the same port, with what was committed.
    pub(crate) fn restart(&mut self) {
        self.end(Signal::TERM);
        self.launch();
    }

    /// A new empty database of [`USER`]'s.
    pub(crate) fn database(&self) -> Database<'_> {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("", &format!("CREATE DATABASE {name} CHARACTER SET utf8mb4; {}", grant(&name)));
        Database { server: self, name }
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("mysql://{USER}:{PASSWORD}@127.0.0.1:{}/{database}", self.port())
    }

    /// Runs SQL as root, statement by statement; yields rows of values separated by tabs. Fails if one fails.
    pub(crate) fn sql(&self, database: &str, text: &str) -> String {
        // At the socket root needs no password; nobody else gets there.
        let mut command = Command::new(program("mariadb", "mariadb-client-core"));
        command.args(["--no-defaults", "--user=root", "--batch", "--skip-column-names", "--socket"]);
        command.arg(self.directory().join("socket")).arg(database);
        feed(&mut command, text)
    }
}

impl Deref for MariaDb {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for MariaDb {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}

/// A database of a test's own.
#[derive(Debug)]
pub(crate) struct Database<'a> {
    server: &'a MariaDb,
    pub(crate) name: String,
}

impl Database<'_> {
    /// For a gateway.
    pub(crate) fn url(&self) -> String {
        self.server.url(&self.name)
    }

    /// See [`MariaDb::sql`]; as root.
    pub(crate) fn sql(&self, text: &str) -> String {
        self.server.sql(&self.name, text)
    }
}

fn grant(database: &str) -> String {
    format!("GRANT ALL ON {database}.* TO {USER}@'127.0.0.1'")
}

const TEMPLATE: Template = Template {
    name: "mariadb-1",
    version: || run(vec![program("mariadbd", "mariadb-server-core").into()], &["--version"], Path::new("/")),
    make: |data| {
        let directory = data.parent().unwrap();
        // The installation knows root at every name of this machine, without a password.
        let more = directory.join("more.sql");
        write(
            &more,
            &format!(
                "DELETE FROM mysql.global_priv WHERE User = 'root' AND Host <> 'localhost';\nFLUSH PRIVILEGES;\n\
                 CREATE USER {USER}@'127.0.0.1' IDENTIFIED BY '{PASSWORD}';\n"
            ),
        );
        let (data, more) =
            (format!("--datadir={}", data.display()), format!("--extra-file={}", more.display()));
        let mut arguments = vec!["--no-defaults", &data, &more, "--skip-test-db", "--skip-name-resolve"];
        arguments.extend(["--auth-root-authentication-method=normal", "--innodb-log-file-size=8M"]);
        run(unprivileged(&program("mariadb-install-db", "mariadb-server-core")), &arguments, directory);
    },
};
