//! `[upstreams.NAME]`: the servers behind doorward.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderValue;
use toml::Spanned;

use crate::config::host::{host_and_port, host_name};
use crate::config::problem::{Fault, Problems, quote};
use crate::config::raw;
use crate::config::suggest;
use crate::config::tls::certificates_file;
use crate::config::value::{Count, Written, check_name, one_of, unexpected, within};

/// Servers that answer alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// What routes call it.
    pub name: String,
    /// Never empty.
    pub servers: Vec<ServerAddress>,
    /// How a server is chosen.
    pub balance: Balance,
    /// How long it may take.
    pub timeout: Timeouts,
    /// What it is told as `Host`.
    pub host: UpstreamHost,
    /// Connections to each server at most.
    pub connections: usize,
    /// How long a request may wait for a free connection.
    pub queue_time: Duration,
    /// Whether it takes `/API` for `/api`.
    pub case_insensitive: bool,
    /// PEM file of trust anchors for `https` servers; `None`: the system's.
    pub ca: Option<PathBuf>,
}

/// Connections to one server by default.
const CONNECTIONS: usize = 512;

/// Wait for a free connection by default.
const QUEUE_TIME: Duration = Duration::from_secs(1);

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ServerAddress {
    /// In the clear.
    Http {
        /// A name or an address; IPv6 without brackets.
        host: String,
        /// 80 unless it says otherwise.
        port: u16,
    },
    /// Over TLS.
    Https {
        /// A name or an address; IPv6 without brackets.
        host: String,
        /// 443 unless it says otherwise.
        port: u16,
    },
    /// A unix socket.
    Unix(PathBuf),
}

/// As the file has it.
impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { host, port } => write!(f, "http://{host}:{port}"),
            Self::Https { host, port } => write!(f, "https://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl ServerAddress {
    /// What `Host` says to this server (RFC 9110 §7.2): no port if it is the default one. A unix socket has no name
    /// of its own and is `localhost`.
    pub fn authority(&self) -> String {
        let (host, port, default) = match self {
            Self::Http { host, port } => (host, *port, 80),
            Self::Https { host, port } => (host, *port, 443),
            Self::Unix(_) => return "localhost".to_owned(),
        };
        let mut authority = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        if port != default {
            // Writing to a String cannot fail.
            write!(authority, ":{port}").unwrap_or_default();
        }
        authority
    }
}

/// How a server is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// The one with the fewest requests under way.
    #[default]
    LeastRequests,
    /// One after the other.
    RoundRobin,
}

/// How long an upstream may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// To accept a connection.
    pub connect: Duration,
    /// From the end of the request to the head of the answer.
    pub response: Duration,
    /// Between two parts of a body.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minute = Duration::from_mins(1);
        Self { connect: Duration::from_secs(2), response: minute, idle: minute }
    }
}

/// What an upstream is told as `Host`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum UpstreamHost {
    /// What the client said.
    #[default]
    Preserve,
    /// The server's own [authority](ServerAddress::authority).
    Upstream,
    /// Always this.
    Fixed(HeaderValue),
}

impl Upstream {
    pub(super) fn from_raw(
        name: &Spanned<String>,
        raw: raw::Upstream,
        directory: &Path,
        problems: &mut Problems,
    ) -> Self {
        check_name(name, "an upstream", problems);
        let servers: Vec<_> = raw.servers.map(Spanned::into_inner).unwrap_or_default();
        let servers: Vec<_> = servers.into_iter().map(|server| server.value).collect();
        if servers.is_empty() && !problems.is_lost(&["upstreams", name.get_ref()]) {
            let fault = Fault::new(format!("upstream {} has no `servers`", quote(name.get_ref())));
            problems.error(&name.span(), fault.help("write servers = [\"http://127.0.0.1:9000\"]"));
        }
        if let Some(ca) = &raw.ca
            && !servers.iter().any(|server| matches!(server, ServerAddress::Https { .. }))
            && !problems.is_lost(&["upstreams", name.get_ref(), "servers"])
        {
            problems.warn(&ca.span, Fault::new("`ca` has no effect: no server of this upstream is https"));
        }
        let connections = Count(1)..=Count(100_000);
        let queue_times = Duration::ZERO..=Duration::from_mins(1);
        let most = within(raw.connections.as_ref(), Count(CONNECTIONS), connections, "connections", problems);
        Self {
            name: name.get_ref().clone(),
            servers,
            balance: raw.balance.map(|entry| entry.value).unwrap_or_default(),
            timeout: Timeouts::from_raw(&raw.timeout, problems),
            host: raw.host.map(|entry| entry.value).unwrap_or_default(),
            connections: most.0,
            queue_time: within(raw.queue_time.as_ref(), QUEUE_TIME, queue_times, "queue_time", problems),
            case_insensitive: raw.case_insensitive.is_some_and(|entry| entry.value),
            ca: raw.ca.map(|ca| certificates_file(&ca, directory, problems)),
        }
    }
}

impl Timeouts {
    fn from_raw(raw: &raw::Timeout, problems: &mut Problems) -> Self {
        let default = Self::default();
        let short = Duration::from_millis(10)..=Duration::from_mins(5);
        let long = Duration::from_millis(10)..=Duration::from_hours(24);
        Self {
            connect: within(raw.connect.as_ref(), default.connect, short, "connect", problems),
            response: within(raw.response.as_ref(), default.response, long.clone(), "response", problems),
            idle: within(raw.idle.as_ref(), default.idle, long, "idle", problems),
        }
    }
}

impl Written for ServerAddress {
    const EXPECTED: &'static str =
        "a server such as \"http://127.0.0.1:9000\", \"https://10.0.0.6\" or \"unix:/run/app.sock\"";
    const PATTERN: Option<&'static str> = Some("^(https?://[^/?#@]+$|unix:)");

    fn from_text(text: &str) -> Result<Self, Fault> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix_socket(path);
        }
        if text.contains('@') {
            // Not quoted: what stands before the @ may be a password.
            return Err(
                Fault::new("a server has no user name or password").help("write the host and the port alone")
            );
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(unexpected::<Self>(text).help_if(missing_scheme(text)));
        };
        if rest.contains(['/', '?', '#']) {
            let fault = Fault::new(format!("{} has a path or a query", quote(text)));
            return Err(fault.help("write the host and the port alone; the request's own path is passed on"));
        }
        let (host, port) = host_and_port(rest)?;
        let host = host.trim_matches(['[', ']']).to_owned();
        match scheme {
            "http" => Ok(Self::Http { host, port: port.unwrap_or(80) }),
            "https" => Ok(Self::Https { host, port: port.unwrap_or(443) }),
            _ => Err(unexpected::<Self>(text).help("the schemes are http://, https:// and unix:")),
        }
    }
}

fn missing_scheme(text: &str) -> Option<String> {
    let port = text.strip_prefix(':').unwrap_or(text);
    if port.parse::<u16>().is_ok() {
        return Some(format!("did you mean \"http://127.0.0.1:{port}\"?"));
    }
    let is_server = host_and_port(text).is_ok();
    is_server.then(|| format!("did you mean \"http://{text}\"?"))
}

/// `sun_path` of a socket address holds 108 bytes, with a zero at the end.
const UNIX_PATH_BYTES_MAX: usize = 107;

fn unix_socket(path: &str) -> Result<ServerAddress, Fault> {
    let path = path.strip_prefix("//").unwrap_or(path);
    if !path.starts_with('/') || path.contains('\0') {
        let fault = Fault::new(format!("{} is not the path of a unix socket", quote(path)));
        return Err(fault.help("write the whole path, such as \"unix:/run/app.sock\""));
    }
    if path.len() > UNIX_PATH_BYTES_MAX {
        return Err(Fault::new(format!("the path of a unix socket has at most {UNIX_PATH_BYTES_MAX} bytes")));
    }
    Ok(ServerAddress::Unix(PathBuf::from(path)))
}

impl Written for Balance {
    const EXPECTED: &'static str = "a way of balancing such as \"least-requests\"";
    const WORDS: &'static [(&'static str, Self)] =
        &[("least-requests", Self::LeastRequests), ("round-robin", Self::RoundRobin)];

    fn from_text(text: &str) -> Result<Self, Fault> {
        one_of(text)
    }
}

impl Written for UpstreamHost {
    const EXPECTED: &'static str = "\"preserve\", \"upstream\" or a host such as \"app.internal\"";

    fn from_text(text: &str) -> Result<Self, Fault> {
        match text {
            "preserve" => return Ok(Self::Preserve),
            "upstream" => return Ok(Self::Upstream),
            _ => {}
        }
        // A misspelt word would pass as the name of a host.
        let is_word = text.bytes().all(|byte| byte.is_ascii_alphabetic());
        if is_word && let Some(help) = suggest::did_you_mean(text, ["preserve", "upstream"]) {
            return Err(unexpected::<Self>(text).help(help));
        }
        let is_host = host_name(text).is_ok() || host_and_port(text).is_ok();
        let value = HeaderValue::from_str(text).ok().filter(|_| is_host);
        value.map(Self::Fixed).ok_or_else(|| unexpected::<Self>(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(text: &str) -> ServerAddress {
        ServerAddress::from_text(text).unwrap()
    }

    #[test]
    fn servers_have_default_ports() {
        assert_eq!(server("http://a"), ServerAddress::Http { host: "a".into(), port: 80 });
        assert_eq!(server("https://[::1]"), ServerAddress::Https { host: "::1".into(), port: 443 });
        assert_eq!(server("unix:/run/x.sock"), ServerAddress::Unix("/run/x.sock".into()));
    }

    #[test]
    fn the_authority_leaves_the_default_port_out() {
        assert_eq!(server("http://a:80").authority(), "a");
        assert_eq!(server("https://a:80").authority(), "a:80");
        assert_eq!(server("http://[::1]:9000").authority(), "[::1]:9000");
        assert_eq!(server("unix:/x").authority(), "localhost");
    }

    #[test]
    fn servers_are_neither_paths_nor_people() {
        for text in [
            "",
            "a:80",
            "http://",
            "http://a/",
            "http://a?x",
            "http://u:p@a",
            "ftp://a",
            "http://a:0",
            "http://a:x",
            "http://a:99999",
            "unix:",
            "unix:x",
            "http://::1",
            "http://a:+1",
        ] {
            assert!(ServerAddress::from_text(text).is_err(), "{text}");
        }
        let fault = ServerAddress::from_text("127.0.0.1:9000").unwrap_err().to_string();
        assert!(fault.ends_with("did you mean \"http://127.0.0.1:9000\"?"), "{fault}");
    }

    #[test]
    fn passwords_of_servers_are_not_repeated() {
        for text in ["http://user:hunter2@a", "ftp://user:hunter2@a"] {
            assert!(!ServerAddress::from_text(text).unwrap_err().to_string().contains("hunter2"));
        }
    }
}
