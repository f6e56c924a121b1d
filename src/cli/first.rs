//! The first five minutes: from one's own backend to an answer through the gateway, and to a file to keep.

use crate::app::Running;
use crate::cli::act::load;
use crate::cli::tell::{Failure, output, say};
use crate::config::{Config, ConfigError, Loaded, Source, Starter};
use clap::Args;
use std::fs::Permissions;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The kind of scheme, unless another is named.
const SCHEME: &str = "token";

/// What a first file says besides the servers.
#[derive(Debug, Args)]
pub struct Beginning {
    /// Where to listen for HTTPS: `:8443`, `8443`, `127.0.0.1:8443` or `[::]:8443` [default: :8443].
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// What clients authenticate with: a kind of scheme.
    #[arg(long, value_name = "KIND", default_value = SCHEME)]
    pub scheme: String,
}

impl Beginning {
    fn starter(&self, to: &[String]) -> Result<Starter, String> {
        Starter::new(to, self.listen.as_deref(), &self.scheme)
    }
}

/// In front of what.
#[derive(Debug, Args)]
pub struct Proxy {
    /// A server of the backend: `http://127.0.0.1:9000`, `https://10.0.0.6` or `unix:/run/app.sock`; again for
    /// several.
    #[arg(long, value_name = "URL", required = true)]
    pub to: Vec<String>,
    /// The rest of the file.
    #[command(flatten)]
    pub beginning: Beginning,
}

/// What to write, and where.
#[derive(Debug, Args)]
pub struct Init {
    /// A server of the backend, as of `proxy`; again for several.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9000")]
    pub to: Vec<String>,
    /// The rest of the file.
    #[command(flatten)]
    pub beginning: Beginning,
    /// Replace a file that is there.
    #[arg(long)]
    pub force: bool,
    /// The file; `-`: standard output; without it, the one of `--config`.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Anybody may read it: it holds no secret.
const FILE_MODE: u32 = 0o644;

pub(in crate::cli) fn init(config: &Path, wanted: &Init) -> Result<(), Failure> {
    let starter = wanted.beginning.starter(&wanted.to)?;
    let path = wanted.file.as_deref().unwrap_or(config);
    let text = starter.commented();
    parse(&text, path)?;
    if path == Path::new("-") {
        return Ok(output()?.write_all(text.as_bytes())?);
    }
    write(path, &text, wanted.force).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => format!("{} is there already; --force replaces it", path.display()),
        _ => format!("cannot write {}: {error}", path.display()),
    })?;
    Ok(say(&format!("Wrote {}", path.display()))?)
}

/// Whole or not at all; over another file only if forced to.
fn write(path: &Path, text: &str, force: bool) -> io::Result<()> {
    let mode = Permissions::from_mode(FILE_MODE);
    let mut file = tempfile::Builder::new().permissions(mode).tempfile_in(directory(path))?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    let written = if force { file.persist(path) } else { file.persist_noclobber(path) };
    written.map(drop).map_err(|error| error.error)
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// The text as if it were this file.
fn parse(text: &str, path: &Path) -> Result<Loaded, ConfigError> {
    let name = path.display().to_string();
    // Nothing in it refers to the environment.
    Config::parse(text, &Source { name, directory: directory(path).to_owned(), environment: |_| None })
}

/// What `proxy` serves.
#[derive(Debug)]
pub(in crate::cli) struct First {
    pub(in crate::cli) config: Config,
    starter: Starter,
    path: PathBuf,
    /// Whether there is a file for the commands already.
    is_kept: bool,
}

impl First {
    /// Stands in for the file at `path`.
    pub(in crate::cli) fn new(path: &Path, wanted: &Proxy) -> Result<Self, Failure> {
        let starter = wanted.beginning.starter(&wanted.to)?;
        let config = parse(&starter.smallest(), path)?.config;
        let is_kept = path.exists();
        // The commands for users read the file that is there; they must not change another store.
        if is_kept && load(path)?.config.store != config.store {
            let what = "is there already and names another store: serve it with `doorward serve`";
            return Err(format!("{} {what}, or start in another directory", path.display()).into());
        }
        Ok(Self { config, starter, path: path.to_owned(), is_kept })
    }

    /// What is printed: the file, and what to do with it.
    pub(in crate::cli) fn steps(&self, running: &Running) -> String {
        let address = running.addresses().first().copied();
        let starter = self.starter.clone().listening_on(address);
        let port = address.map_or(0, |address| address.port());
        let url = format!("https://localhost:{port}");
        let doorward = self.doorward();
        let keep = if self.is_kept {
            format!("1. {} is there already; the next commands use it.\n", self.path.display())
        } else {
            let arguments = arguments(&starter);
            format!(
                "1. Keep it, with comments, as {}; the next commands read it:\n\n{doorward} init{arguments}\n",
                self.path.display()
            )
        };
        let curl = curl(running.certificate(), address);
        format!(
            "{url} leads to {}, for those who have a token. The same as a file:\n\n\
             {}\n\
             Next, in another terminal, in this directory:\n\n\
             {keep}\n\
             2. Add a user; it asks for a password:\n\n\
             {doorward} user add alice\n\n\
             3. Make a token:\n\n\
             TOKEN=$({doorward} token create alice | cut -d ' ' -f 3); echo \"$TOKEN\"\n\n\
             4. Call the backend with it; without it the answer is 401:\n\n\
             {curl} --header \"Authorization: Token $TOKEN\" {url}/\n\n\
             From then on: {doorward} serve. Ctrl-C stops.",
            starter.servers().join(", "),
            starter.smallest(),
        )
    }

    /// How the commands are called that read the same file.
    fn doorward(&self) -> String {
        if self.path == Path::new("doorward.toml") {
            return "doorward".to_owned();
        }
        format!("doorward --config {}", quoted(&self.path.to_string_lossy()))
    }
}

/// The arguments that this stands for.
fn arguments(starter: &Starter) -> String {
    let servers = starter.servers().iter().map(|server| format!(" --to {}", quoted(server)));
    let listen = starter.listen().map(|address| format!(" --listen {}", quoted(&address.to_string())));
    let scheme = Some(starter.scheme()).filter(|scheme| *scheme != SCHEME);
    let scheme = scheme.map(|scheme| format!(" --scheme {}", quoted(scheme)));
    servers.chain(listen).chain(scheme).collect()
}

/// `curl` for this certificate, which is for `localhost`, and for an address that may be another one.
fn curl(certificate: &Path, address: Option<SocketAddr>) -> String {
    let certificate = certificate.strip_prefix(".").unwrap_or(certificate);
    let cacert = format!("curl --cacert {}", quoted(&certificate.to_string_lossy()));
    match address {
        Some(address) if !address.ip().is_unspecified() => {
            let (ip, port) = (address.ip(), address.port());
            let ip = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
            format!("{cacert} --resolve {}", quoted(&format!("localhost:{port}:{ip}")))
        }
        _ => cacert,
    }
}

/// One word of a shell, whatever is in it.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/.:_-".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
