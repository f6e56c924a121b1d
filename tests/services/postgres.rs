//! A PostgreSQL server: one for all tests of a process, with a database for each, or one of a test's own.

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

/// Owns the databases; may log in with [`PASSWORD`], and is no superuser.
pub(crate) const USER: &str = "doorward";
pub(crate) const PASSWORD: &str = "postgres-password-of-the-gateway";

/// Of every server. What is promised to be on the disk is (`fsync`), since that is what a commit costs.
const SETTINGS: &str = "listen_addresses = '127.0.0.1'
max_connections = 200
shared_buffers = 32MB
max_wal_size = 256MB
timezone = 'UTC'
lc_messages = 'C'
log_line_prefix = '%m [%p] %d '
";

/// Written anew when it has started.
const SYNC: &str = "include 'sync.conf'\n";

/// A running server; also one that was killed and can be started again.
#[derive(Debug)]
pub(crate) struct Postgres {
    server: Server,
    databases: AtomicU32,
}

impl Postgres {
    /// The server that the tests of this process share; each makes a [`Database`].
    pub(crate) fn shared() -> &'static Self {
        // What is static is never dropped: the guard ends it with the process.
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// A server of a test's own: to be paused, killed and restarted.
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// With further lines of its configuration.
    pub(crate) fn start_with(more: &str) -> Self {
        Self::start_on(directory(), more, false)
    }

    /// With a second disk, that is soon full; see [`Postgres::database_on_small_disk`]. Only where [`may_mount`].
    pub(crate) fn start_with_small_disk() -> Self {
        let directory = directory();
        std::fs::create_dir(directory.path().join("disk")).unwrap();
        // It would make room again where a write has failed halfway.
        let server = Self::start_on(directory, "autovacuum = off\n", true);
        let disk = server.directory().join("disk");
        server
            .psql("postgres", &format!("CREATE TABLESPACE small OWNER {USER} LOCATION '{}'", disk.display()));
        server
    }

    /// Takes no passwords but over TLS, with a certificate of an authority that nobody knows.
    pub(crate) fn start_with_tls() -> Self {
        let directory = directory();
        let made = certify(directory.path());
        let more = format!(
            "ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\nhba_file = '{}'\n",
            made.certificate.display(),
            made.key.display(),
            directory.path().join("hba.conf").display()
        );
        write(
            &directory.path().join("hba.conf"),
            "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n",
        );
        Self::start_on(directory, &more, false)
    }

    /// The file with the authority that vouches for a server with TLS.
    pub(crate) fn authority(&self) -> PathBuf {
        self.directory().join(AUTHORITY)
    }

    fn start_on(directory: TempDir, more: &str, has_disk: bool) -> Self {
        let data = template::copy(&TEMPLATE, directory.path());
        let port = RefusingPort::new();
        let sockets = directory.path().display();
        let own = format!("port = {}\nunix_socket_directories = '{sockets}'\n", port.address.port());
        write(&data.join("postgresql.conf"), &[SETTINGS, own.as_str(), more, "\n", SYNC].concat());
        let mut words = unprivileged(&binary("postgres"));
        words.extend(["-D".into(), data.into_os_string()]);
        let ready = "database system is ready to accept connections";
        let recipe = Recipe { words, directory: directory.path().to_owned(), ready, end: "QUIT", has_disk };
        let server = Server::new(recipe, port, directory);
        let mut server = Self { server, databases: AtomicU32::new(0) };
        server.begin();
        server
    }

    fn begin(&mut self) {
        let sync = self.directory().join("data/sync.conf");
        // After a kill every file would be brought to the disk, which takes seconds; only a power cut needs that.
        write(&sync, "fsync = off\n");
        self.launch();
        write(&sync, "fsync = on\n");
        self.process().signal(Signal::HUP);
    }

    /// See [`Server::kill`].
    pub(crate) fn kill(&mut self) {
        self.server.kill();
        // The seventh line ends with the number of its shared memory, which outlives it: a machine has room for 4,096.
        let left = std::fs::read_to_string(self.directory().join("data/postmaster.pid")).unwrap_or_default();
        let memory = left.lines().nth(6).and_then(|line| line.split_whitespace().last());
        if let Some(memory) = memory {
            let status = Command::new("ipcrm").args(["-m", memory]).status().unwrap();
            assert!(status.success());
        }
    }

    /// Ends it in good order: it says good-bye to whoever is connected. From now on its port refuses.
    pub(crate) fn stop(&mut self) {
        self.end(Signal::INT);
    }

    /// On the same port, with what was committed.
    pub(crate) fn restart(&mut self) {
        self.end(Signal::INT);
        self.begin();
    }

    /// A new empty database, owned by [`USER`].
    pub(crate) fn database(&self) -> Database<'_> {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("CREATE DATABASE {name} OWNER {USER}"));
        Database { server: self, name }
    }

    /// The same on the small disk, where it has a few MB left. What it logs, and promises, is on the large one.
    pub(crate) fn database_on_small_disk(&self) -> Database<'_> {
        let database = self.database();
        self.psql("postgres", &format!("ALTER DATABASE {} SET TABLESPACE small", database.name));
        database
    }

    /// One that was made before.
    pub(crate) fn known_database(&self, name: &str) -> Database<'_> {
        Database { server: self, name: name.to_owned() }
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}/{database}", self.port())
    }

    /// Runs SQL as a superuser, statement by statement; yields rows of values separated by `|`. Fails if one fails.
    pub(crate) fn psql(&self, database: &str, text: &str) -> String {
        self.psql_as("postgres", database, text)
    }

    fn psql_as(&self, user: &str, database: &str, text: &str) -> String {
        // The socket lets everybody be anybody. Debian's own psql looks for clusters first, and takes its time.
        let mut command = Command::new(binary("psql"));
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", user, "-d", database, "-h"]);
        command.arg(self.directory()).args(["-p", &self.port().to_string()]);
        feed(&mut command, text)
    }
}

impl Deref for Postgres {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for Postgres {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}

/// A database of a test's own.
#[derive(Debug)]
pub(crate) struct Database<'a> {
    server: &'a Postgres,
    pub(crate) name: String,
}

impl Database<'_> {
    /// For a gateway.
    pub(crate) fn url(&self) -> String {
        self.server.url(&self.name)
    }

    /// See [`Postgres::psql`]; as a superuser.
    pub(crate) fn psql(&self, text: &str) -> String {
        self.server.psql(&self.name, text)
    }

    /// Fills the small disk to the last page, in pieces that become smaller; [`Database::make_room`] undoes it.
    pub(crate) fn fill(&self) {
        self.psql(
            "CREATE TABLE filler (x text);
             ALTER TABLE filler ALTER x SET STORAGE PLAIN;
             DO $$ BEGIN
                 FOR size IN REVERSE 10..0 LOOP
                     LOOP
                         BEGIN
                             INSERT INTO filler SELECT repeat('x', 7000) FROM generate_series(1, 1 << size);
                         EXCEPTION WHEN disk_full THEN EXIT;
                         END;
                     END LOOP;
                 END LOOP;
             END $$",
        );
    }

    pub(crate) fn make_room(&self) {
        self.psql("DROP TABLE filler");
    }

    /// Runs a file, as a dump of `pg_dump`, as the database's owner.
    pub(crate) fn load(&self, path: &Path) {
        self.server.psql_as(USER, &self.name, &std::fs::read_to_string(path).unwrap());
    }
}

/// A program of the newest PostgreSQL here: Debian has them where no PATH leads.
pub(crate) fn binary(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let numbered =
        versions.filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())));
    let newest = numbered.map(|(number, path)| (number, path.join("bin").join(name)));
    let newest = newest.filter(|(_, path)| path.exists()).max();
    newest.map_or_else(|| program(name, "postgresql"), |(_, path)| path)
}

const TEMPLATE: Template = Template {
    name: "postgres-1",
    version: || run(vec![binary("postgres").into()], &["--version"], Path::new("/")),
    make: |data| {
        let directory = data.parent().unwrap();
        // Small segments: a copy is 25 MB instead of 40.
        let arguments = "--username=postgres --auth-local=trust --auth-host=scram-sha-256 --encoding=UTF8 \
             --locale=C.UTF-8 --wal-segsize=1 --no-sync --no-instructions";
        let arguments: Vec<&str> =
            arguments.split_whitespace().chain(["-D", data.to_str().unwrap()]).collect();
        run(unprivileged(&binary("initdb")), &arguments, directory);
        let role = directory.join("role.sql");
        write(&role, &format!("CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'\n"));
        // A server for one user, who is standard input; no process has to be waited for.
        let mut single = unprivileged(Path::new("sh"));
        single.extend(["-c", "exec \"$0\" --single -D \"$1\" postgres <role.sql"].map(Into::into));
        run(single, &[binary("postgres").to_str().unwrap(), data.to_str().unwrap()], directory);
    },
};
