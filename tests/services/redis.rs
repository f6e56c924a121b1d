//! A Redis server: open, with a password or users, with TLS.

use super::authority::{Identity, certify};
use super::process::{Recipe, directory, program, unprivileged, write};
use super::refusing::RefusingPort;
use super::server::Server;
use super::until;
use std::fmt::Write as _;
use std::ops::{Deref, DerefMut};
use std::path::Path;

/// The user of gateways, where there are users.
pub(crate) const USER: &str = "doorward";
/// Of that user, and of a server with one password for all.
pub(crate) const PASSWORD: &str = "redis-password-of-the-gateway";
const ADMIN_PASSWORD: &str = "redis-password-of-the-test";

/// Who may connect, and how.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RedisOptions {
    pub(crate) access: Access,
    /// Over TLS alone, with a certificate of an authority that nobody knows; see [`Redis::authority`].
    pub(crate) has_tls: bool,
    /// Further lines of its configuration, as `maxmemory 2mb`.
    pub(crate) more: &'static str,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Access {
    /// Everybody.
    #[default]
    Open,
    /// Who knows [`PASSWORD`].
    Password,
    /// The user [`USER`], with what these rules allow (`acl` of redis.conf); [`RULES`] is what a gateway should need.
    User(&'static str),
}

/// What the gateway's user should need: its own keys and channels, nothing that is dangerous.
pub(crate) const RULES: &str = "~doorward:* &doorward:* -@all +@connection +@read +@write +@pubsub +@scripting \
     +@transaction -@dangerous +info +role +wait +time";

/// A running server; also one that was killed and can be started again.
#[derive(Debug)]
pub(crate) struct Redis {
    server: Server,
    options: RedisOptions,
    identity: Option<Identity>,
}

impl Redis {
    pub(crate) fn start() -> Self {
        Self::start_with(RedisOptions::default())
    }

    pub(crate) fn start_with(options: RedisOptions) -> Self {
        Self::start_at(RefusingPort::new(), options, "", &[])
    }

    /// With lines of configuration that are known only when it starts, and arguments.
    pub(super) fn start_at(
        port: RefusingPort,
        options: RedisOptions,
        lines: &str,
        arguments: &[&str],
    ) -> Self {
        let directory = directory();
        let identity = options.has_tls.then(|| certify(directory.path()));
        let path = directory.path().join("redis.conf");
        let text = config(directory.path(), port.address.port(), &options, identity.as_ref());
        write(&path, &[text.as_str(), lines].concat());
        let mut words = unprivileged(&program("redis-server", "redis-server"));
        words.push(path.into());
        words.extend(arguments.iter().map(Into::into));
        // What a Sentinel says.
        let is_sentinel = arguments.contains(&"--sentinel");
        let ready = if is_sentinel { "Sentinel ID is" } else { "Ready to accept connections" };
        let recipe =
            Recipe { words, directory: directory.path().to_owned(), ready, end: "KILL", has_disk: false };
        let mut server = Server::new(recipe, port, directory);
        server.launch();
        Self { server, options, identity }
    }

    /// On the same port, empty.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// The URL of a gateway, with its password if there is one.
    pub(crate) fn url(&self) -> String {
        let user = match self.options.access {
            Access::Open => String::new(),
            Access::Password => format!(":{PASSWORD}@"),
            Access::User(_) => format!("{USER}:{PASSWORD}@"),
        };
        self.url_of(&user)
    }

    /// The same without user and password.
    pub(crate) fn bare_url(&self) -> String {
        self.url_of("")
    }

    fn url_of(&self, user: &str) -> String {
        let scheme = if self.options.has_tls { "rediss" } else { "redis" };
        format!("{scheme}://{user}127.0.0.1:{}/", self.port())
    }

    /// The file with the authority that vouches for a server with TLS.
    pub(crate) fn authority(&self) -> &Path {
        &self.identity.as_ref().expect("this server has no TLS").authority
    }

    /// A connection that may do everything, to look into it and to meddle.
    pub(crate) fn connection(&self) -> redis::Connection {
        self.client().get_connection_with_timeout(super::PATIENCE).unwrap()
    }

    fn client(&self) -> redis::Client {
        let user = match self.options.access {
            Access::User(_) => format!("admin:{ADMIN_PASSWORD}@"),
            Access::Password => format!(":{PASSWORD}@"),
            Access::Open => String::new(),
        };
        let url = self.url_of(&user);
        let Some(identity) = &self.identity else { return redis::Client::open(url).unwrap() };
        let root_cert = Some(std::fs::read(&identity.authority).unwrap());
        let certificates = redis::TlsCertificates { client_tls: None, root_cert };
        redis::Client::build_with_tls(url, certificates).unwrap()
    }
}

impl Deref for Redis {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

impl DerefMut for Redis {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.server
    }
}

/// A value in the answer to `INFO`, or to another command with such an answer.
pub(super) fn info(redis: &Redis, command: &[&str], field: &str) -> Option<String> {
    let text: String = redis::cmd(command[0]).arg(&command[1..]).query(&mut redis.connection()).ok()?;
    text.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.to_owned()))
}

/// Whether `INFO` says this of the server's replication.
pub(super) fn replicates(redis: &Redis, field: &str, value: &str) -> bool {
    info(redis, &["INFO", "replication"], field).as_deref() == Some(value)
}

/// Waits until the replica has everything that was written until now.
pub(super) fn catch_up(primary: &Redis, replica: &Redis) {
    let offset = |redis, field| info(redis, &["INFO", "replication"], field)?.parse::<u64>().ok();
    let wanted = offset(primary, "master_repl_offset").unwrap();
    until("a replica in step", || offset(replica, "slave_repl_offset").filter(|offset| *offset >= wanted));
}

fn config(directory: &Path, port: u16, options: &RedisOptions, identity: Option<&Identity>) -> String {
    let directory = directory.display();
    let mut text = format!("bind 127.0.0.1\ndir {directory}\nsave \"\"\nappendonly no\n");
    match identity {
        None => writeln!(text, "port {port}").unwrap(),
        Some(Identity { authority, certificate, key }) => write!(
            text,
            "port 0\ntls-port {port}\ntls-ca-cert-file {}\ntls-cert-file {}\ntls-key-file {}\ntls-auth-clients no\n",
            authority.display(),
            certificate.display(),
            key.display()
        )
        .unwrap(),
    }
    match options.access {
        Access::Open => {}
        Access::Password => writeln!(text, "requirepass {PASSWORD}").unwrap(),
        Access::User(rules) => write!(
            text,
            "user default off\nuser admin on >{ADMIN_PASSWORD} ~* &* +@all\nuser {USER} on >{PASSWORD} {rules}\n"
        )
        .unwrap(),
    }
    text + options.more + "\n"
}
