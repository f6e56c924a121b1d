//! `[listen]`: where clients connect, and how many cores serve them.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use crate::config::problem::{Fault, Problems, quote};
use crate::config::raw;
use crate::config::value::{Count, Entry, List, Written, resolve, unexpected, within};

/// Where to listen.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Addresses for HTTPS; never empty.
    pub https: Vec<SocketAddr>,
    /// Addresses for HTTP in clear, where nobody is served but sent to HTTPS; none by default.
    pub http: Vec<SocketAddr>,
    /// The port that clients reach HTTPS by; `None`: that of the first HTTPS address.
    pub https_port: Option<u16>,
    /// Where `/livez`, `/readyz` and `/metrics` are answered, in clear; none by default.
    pub admin: Option<SocketAddr>,
    /// The unix socket where these are answered, and how the gateway stands.
    pub admin_socket: AdminPath,
    /// Number of cores that serve; `workers = 0` of the file is resolved.
    pub workers: NonZeroUsize,
}

/// Where the admin socket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminPath {
    /// Nowhere.
    Off,
    /// The file does not say: if it cannot be made there, the gateway goes on without.
    Default(PathBuf),
    /// The file says so: if it cannot be made there, the gateway does not start.
    Given(PathBuf),
}

impl AdminPath {
    /// The path, wherever it comes from.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Off => None,
            Self::Default(path) | Self::Given(path) => Some(path),
        }
    }
}

/// The same as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AdminSocket {
    /// `"off"`
    Off,
    /// A path.
    Path(PathBuf),
}

impl Written for AdminSocket {
    const EXPECTED: &'static str = "a path such as \"doorward.sock\", or \"off\"";

    fn from_text(text: &str) -> Result<Self, Fault> {
        match text {
            "" => Err(unexpected::<Self>(text)),
            "off" => Ok(Self::Off),
            path => Ok(Self::Path(PathBuf::from(path))),
        }
    }
}

/// The system takes 107 bytes (unix(7)); the name that it has while it is made may be longer.
const SOCKET_PATH_BYTES_MAX: usize = 100;

fn admin_socket(written: Option<Entry<AdminSocket>>, directory: &Path, problems: &mut Problems) -> AdminPath {
    let Some(Entry { value, span }) = written else {
        return AdminPath::Default(resolve(directory, Path::new("doorward.sock")));
    };
    let AdminSocket::Path(path) = value else { return AdminPath::Off };
    let path = resolve(directory, &path);
    if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        let message = format!("{} is too long for a socket", quote(&path.to_string_lossy()));
        let help = format!("at most {SOCKET_PATH_BYTES_MAX} bytes, such as \"/run/doorward.sock\"");
        problems.error(&span, Fault::new(message).help(help));
    }
    AdminPath::Given(path)
}

/// Whoever reaches it may read what it tells.
fn admin_address(
    admin: &Entry<SocketAddr>,
    seen: &BTreeSet<SocketAddr>,
    problems: &mut Problems,
) -> SocketAddr {
    let address = admin.value;
    if seen.contains(&address) && address.port() != 0 {
        problems.error(&admin.span, Fault::new("this address is listed twice"));
    } else if !address.ip().is_loopback() {
        let fault =
            Fault::new("whoever reaches this address can read the metrics: nobody is asked for credentials");
        problems.warn(&admin.span, fault.help("better an address of loopback, or of a network of your own"));
    }
    address
}

/// The port 8443 on every address, so that no privilege is needed.
impl Default for Listen {
    fn default() -> Self {
        Self {
            https: vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8443))],
            http: Vec::new(),
            https_port: None,
            admin: None,
            admin_socket: AdminPath::Off,
            workers: cores(),
        }
    }
}

fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

impl Listen {
    pub(super) fn from_raw(raw: raw::Listen, directory: &Path, problems: &mut Problems) -> Self {
        let default = Self::default();
        let workers = within(raw.workers.as_ref(), Count(0), Count(0)..=Count(1024), "workers", problems);
        let workers = NonZeroUsize::new(workers.0).unwrap_or(default.workers);
        if let Some(https) = raw.https.as_ref().filter(|https| https.get_ref().is_empty())
            && !problems.is_lost(&["listen", "https"])
        {
            let fault = Fault::new("no address to listen on").help("write one, such as \"[::]:8443\"");
            problems.error(&https.span(), fault);
        }
        let mut seen = BTreeSet::new();
        let https = raw.https.map_or(default.https, |https| addresses(https, &mut seen, problems));
        // The default too: an address speaks one of the two.
        seen.extend(&https);
        let http = raw.http.map(|http| addresses(http, &mut seen, problems)).unwrap_or_default();
        let admin = raw.admin.map(|admin| admin_address(&admin, &seen, problems));
        let admin_socket = admin_socket(raw.admin_socket, directory, problems);
        let port = raw.https_port.map(|port| within(Some(&port), Count(1), PORTS, "https_port", problems));
        let https_port = port.and_then(|port| u16::try_from(port.0).ok());
        Self { https, http, https_port, admin, admin_socket, workers }
    }
}

const PORTS: RangeInclusive<Count> = Count(1)..=Count(65535);

/// The addresses of one list; none may be listed twice, in whichever list.
fn addresses(
    list: List<SocketAddr>,
    seen: &mut BTreeSet<SocketAddr>,
    problems: &mut Problems,
) -> Vec<SocketAddr> {
    let list = list.into_inner();
    for address in &list {
        // Port 0 is a new port each time.
        if address.value.port() != 0 && !seen.insert(address.value) {
            problems.error(&address.span, Fault::new("this address is listed twice"));
        }
    }
    list.into_iter().map(|address| address.value).collect()
}

impl Written for SocketAddr {
    const EXPECTED: &'static str = "an address with a port such as \"[::]:8443\"";
    const PATTERN: Option<&'static str> = Some("^[^:]+:[0-9]+$|^\\[.+\\]:[0-9]+$");

    fn from_text(text: &str) -> Result<Self, Fault> {
        text.parse().map_err(|_| unexpected::<Self>(text).help_if(address_help(text)))
    }
}

fn address_help(text: &str) -> Option<String> {
    let port = text.strip_prefix(':').or_else(|| text.strip_prefix("*:")).unwrap_or(text);
    if let Ok(port) = port.parse::<u16>() {
        return Some(format!("did you mean \"[::]:{port}\", all addresses?"));
    }
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Some(format!("did you mean \"{}\"?", SocketAddr::from((address, 8443))));
    }
    let is_name = text.contains(|c: char| c.is_ascii_alphabetic()) && !text.contains('[');
    is_name.then(|| "names are not looked up; write the address".to_owned())
}
