//! The URL of a database server: what is shown of it, and what is wrong with it.
//!
//! It is read by the driver; here is made sure that the driver overlooks nothing, since it passes over parameters that
//! it does not know.

use std::fmt;

use crate::config::problem::{Fault, quote};
use crate::config::suggest::did_you_mean;
use crate::secret::Secret;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerKind {
    /// `PostgreSQL`.
    Postgres,
    /// `MySQL` or `MariaDB`.
    MySql,
}

/// A database on a server. Shown without its password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    /// Which server.
    pub kind: ServerKind,
    /// The whole URL, with the password.
    pub url: Secret,
    /// Whether it names trust anchors of its own.
    pub names_roots: bool,
    pub(super) has_password: bool,
    shown: String,
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

/// Parameters, and the values that they may have; none: any.
type Parameters = &'static [(&'static str, &'static [&'static str])];

const POSTGRES: Parameters = &[
    // "allow" of libpq would be no TLS at all here.
    ("sslmode", &["disable", "prefer", "require", "verify-ca", "verify-full"]),
    ("sslrootcert", &[]),
    ("sslcert", &[]),
    ("sslkey", &[]),
    ("host", &[]),
    ("options", &[]),
];
const MYSQL: Parameters = &[
    ("ssl-mode", &["disabled", "preferred", "required", "verify_ca", "verify_identity"]),
    ("ssl-ca", &[]),
    ("ssl-cert", &[]),
    ("ssl-key", &[]),
    ("socket", &[]),
];

impl ServerKind {
    fn parameters(self) -> Parameters {
        match self {
            Self::Postgres => POSTGRES,
            Self::MySql => MYSQL,
        }
    }

    fn example(self) -> &'static str {
        match self {
            Self::Postgres => "postgres://user:password@host:5432/database?sslmode=verify-full",
            Self::MySql => "mysql://user:password@host:3306/database?ssl-mode=verify_identity",
        }
    }
}

impl ServerUrl {
    /// A whole URL. `None`: it is none of a server, or something is wrong with it.
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once(':')?;
        Self::new(scheme, rest)?.ok()
    }

    /// The name of the database.
    pub fn database(&self) -> &str {
        self.shown.rsplit_once('/').map_or("", |(_, database)| database)
    }

    /// Of a scheme and what follows its colon. Faults do not quote it: it may hold a password.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn new(scheme: &str, rest: &str) -> Option<Result<Self, Fault>> {
        let kind = match scheme {
            "postgres" | "postgresql" => ServerKind::Postgres,
            "mysql" | "mariadb" => ServerKind::MySql,
            _ => return None,
        };
        let help = |fault: Fault| fault.help(format!("write \"{}\"", kind.example()));
        Some(Self::read(kind, scheme, rest).map_err(help))
    }

    fn read(kind: ServerKind, scheme: &str, rest: &str) -> Result<Self, Fault> {
        let rest_of =
            rest.strip_prefix("//").ok_or_else(|| Fault::new("`//` is missing after the scheme"))?;
        if rest.contains(['\0', '\n', '#', ' ']) {
            return Err(Fault::new("write %23 for `#` and %20 for a blank in a URL"));
        }
        let (before, query) = rest_of.split_once('?').unwrap_or((rest_of, ""));
        let (authority, database) = before.split_once('/').unwrap_or((before, ""));
        if database.is_empty() || database.contains('/') {
            return Err(Fault::new("the URL names no database after the host"));
        }
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        if user.contains('@') || database.contains('@') || query.contains('@') || !is_host(host) {
            // What is shown of it must not be a part of the password.
            let message =
                "the URL cannot be taken apart: write %40 for `@`, %2F for `/`, %3F for `?` in a password";
            return Err(Fault::new(message));
        }
        let (name, password) = user.split_once(':').map_or((user, None), |(name, it)| (name, Some(it)));
        let names = query.split('&').filter(|pair| !pair.is_empty());
        let mut names_roots = false;
        for pair in names {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            check(kind, name, value)?;
            names_roots |= matches!(name, "sslrootcert" | "ssl-ca");
        }
        let at = if name.is_empty() { "" } else { "@" };
        Ok(Self {
            kind,
            url: Secret::new(format!("{scheme}:{rest}")),
            names_roots,
            has_password: password.is_some_and(|password| !password.is_empty()),
            shown: format!("{scheme}://{name}{at}{host}/{database}"),
        })
    }
}

fn check(kind: ServerKind, name: &str, value: &str) -> Result<(), Fault> {
    let known = kind.parameters();
    let Some((_, values)) = known.iter().find(|(known, _)| *known == name) else {
        let near = did_you_mean(name, known.iter().map(|(name, _)| *name)).unwrap_or_default();
        return Err(Fault::new(
            format!("the parameter {} is not known {near}", quote(name)).trim_end().to_owned(),
        ));
    };
    if values.is_empty() || values.iter().any(|known| known.eq_ignore_ascii_case(value)) {
        return Ok(());
    }
    Err(Fault::new(format!("{name} is one of {}, not {}", values.join(", "), quote(value))))
}

/// A name or address with or without a port, or nothing, where a parameter says which socket.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address, port.strip_prefix(':').unwrap_or(port)),
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let is_port = port.is_empty() || port.parse::<u16>().is_ok();
    is_port && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_%:".contains(&byte))
}
