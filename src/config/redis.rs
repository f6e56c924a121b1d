//! `[redis]`: what replicas share besides the store.
//!
//! The URL is read here and not by the library: every fault has a place and a hint, nothing is passed over, and Sentinel
//! and Cluster are written alike.

use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;

use crate::config::Source;
use crate::config::deployment::{Deployment, DeploymentKey, inline};
use crate::config::host::host_and_port;
use crate::config::problem::{Fault, Problems, quote};
use crate::config::raw::{self, Indirect};
use crate::config::store::url_text;
use crate::config::tls::certificates_file;
use crate::config::value::{Written, unexpected, within};
use crate::secret::Secret;

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26_379;
/// Servers that a URL may name.
const SERVERS_MAX: usize = 64;
/// Databases that a server may have; Redis' own default is 16.
const DATABASE_MAX: u32 = 65_535;
const PREFIX_BYTES_MAX: usize = 64;

const EXAMPLE: &str = "write \"redis://host:6379\", \"redis+sentinel://host:26379,host:26379/service\" or \
     \"redis+cluster://host:6379,host:6379\"; with TLS they begin with rediss";

/// The shared cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redis {
    /// Which servers.
    pub servers: RedisServers,
    /// Whether they are spoken to over TLS.
    pub tls: bool,
    /// PEM file with the trust anchors for that; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// Who we are to them.
    pub login: RedisLogin,
    /// The database; 0 in a Cluster.
    pub database: u32,
    /// Begins every name in Redis.
    pub prefix: String,
    /// How long a value is believed after the store confirmed it.
    pub value_ttl: Duration,
    /// How long an answer is waited for.
    pub timeout: Duration,
}

/// A name or address, IPv6 without brackets, and a port.
pub type RedisAddress = (String, u16);

/// Which servers there are; at least one each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisServers {
    /// One.
    Single(RedisAddress),
    /// One that these sentinels name.
    Sentinel {
        /// The sentinels.
        sentinels: Vec<RedisAddress>,
        /// What they call it.
        service: String,
        /// Who we are to the sentinels.
        login: RedisLogin,
    },
    /// Some of a Cluster's.
    Cluster(Vec<RedisAddress>),
}

/// A user and a password.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RedisLogin {
    /// `None`: Redis' default user.
    pub user: Option<String>,
    /// `None`: none is sent.
    pub password: Option<Secret>,
}

/// What every name begins with.
#[derive(Debug, Clone)]
pub(super) struct RedisPrefix(pub(super) String);

impl Written for RedisPrefix {
    const EXPECTED: &'static str = "a prefix such as \"doorward:\"";
    const PATTERN: Option<&'static str> = Some("^[A-Za-z0-9:._/-]{1,64}$");

    fn from_text(text: &str) -> Result<Self, Fault> {
        // Braces would put all names into one slot of a Cluster, and `*` or `?` would say something else in an ACL.
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b":._/-".contains(&byte);
        if text.is_empty() || text.len() > PREFIX_BYTES_MAX || !text.bytes().all(is_good) {
            let help = format!("letters, digits and `:._/-`, {PREFIX_BYTES_MAX} at most");
            return Err(unexpected::<Self>(text).help(help));
        }
        Ok(Self(text.to_owned()))
    }
}

impl Redis {
    /// `is_key_given`: the file says where the deployment key is.
    pub(super) fn from_raw(
        raw: Option<Spanned<raw::Redis>>,
        deployment: &Deployment,
        is_key_given: bool,
        source: &Source,
        problems: &mut Problems,
    ) -> Option<Self> {
        let raw = raw?;
        let span = raw.span();
        let raw = raw.into_inner();
        check_key(deployment, is_key_given, &span, problems);
        let sentinel = RedisLogin {
            user: raw.sentinel_user.as_ref().map(|entry| entry.value.clone()),
            password: raw.sentinel_password.and_then(|password| secret(password, source, problems)),
        };
        let Some(url) = raw.url else {
            if !problems.is_lost(&["redis", "url"]) {
                problems.error(&span, Fault::new("[redis] has no `url`").help(EXAMPLE));
            }
            return None;
        };
        let is_inline = matches!(url.get_ref(), Indirect::Inline(_));
        let (text, url_span) = url_text(url, source, problems)?;
        if is_inline && text.contains('@') {
            problems.mask(url_span.clone());
        }
        let url = match Url::read(&text) {
            Ok(url) => url,
            Err(fault) => {
                problems.error(&url_span, fault.help(EXAMPLE));
                return None;
            }
        };
        if is_inline && url.login.password.is_some() {
            problems.warn(&url_span, inline());
        }
        let (servers, tls) = (url.servers.with(sentinel), url.tls);
        if let Some(entry) = &raw.sentinel_user
            && !matches!(servers, RedisServers::Sentinel { .. })
        {
            problems
                .warn(&entry.span, Fault::new("`sentinel_user` has no effect: the URL names no sentinels"));
        }
        if let Some(entry) = &raw.ca
            && !tls
        {
            let fault = Fault::new("`ca` has no effect: Redis is spoken to in clear");
            problems.warn(&entry.span, fault.help("write rediss in the URL"));
        }
        Some(Self {
            servers,
            tls,
            ca: raw.ca.map(|ca| certificates_file(&ca, &source.directory, problems)),
            login: url.login,
            database: url.database,
            prefix: raw.prefix.map_or_else(|| "doorward:".to_owned(), |entry| entry.value.0),
            value_ttl: within(
                raw.value_ttl.as_ref(),
                Duration::from_mins(1),
                Duration::from_secs(1)..=Duration::from_hours(1),
                "value_ttl",
                problems,
            ),
            timeout: within(
                raw.timeout.as_ref(),
                Duration::from_millis(100),
                Duration::from_millis(10)..=Duration::from_secs(5),
                "timeout",
                problems,
            ),
        })
    }
}

/// A key of its own would make every replica refuse what the others share.
fn check_key(
    deployment: &Deployment,
    is_key_given: bool,
    span: &std::ops::Range<usize>,
    problems: &mut Problems,
) {
    let help = "make one with: openssl rand -base64 48 >doorward.key; copy it to all replicas, and write \
         key = { file = \"doorward.key\" } in [deployment]";
    if !is_key_given {
        let fault = Fault::new("[redis] needs `key` in [deployment], the same on all replicas");
        problems.error(span, fault.help(help));
    } else if let DeploymentKey::File(path) = &deployment.key
        && !path.exists()
    {
        let message =
            format!("[redis] needs the deployment key, and there is no {}", quote(&path.to_string_lossy()));
        problems.error(span, Fault::new(message).help(help));
    }
}

fn secret(password: Spanned<raw::Secret>, source: &Source, problems: &mut Problems) -> Option<Secret> {
    let span = password.span();
    let password = password.into_inner().0;
    if matches!(password, Indirect::Inline(_)) {
        problems.warn(&span, inline());
    }
    url_text(Spanned::new(span, password), source, problems).map(|(text, _)| Secret::new(text))
}

/// What a URL says. Faults do not quote it: it may hold a password.
#[derive(Debug)]
struct Url {
    servers: Servers,
    tls: bool,
    login: RedisLogin,
    database: u32,
}

#[derive(Debug)]
enum Servers {
    Single(RedisAddress),
    Sentinel(Vec<RedisAddress>, String),
    Cluster(Vec<RedisAddress>),
}

impl Servers {
    fn with(self, login: RedisLogin) -> RedisServers {
        match self {
            Self::Single(address) => RedisServers::Single(address),
            Self::Sentinel(sentinels, service) => RedisServers::Sentinel { sentinels, service, login },
            Self::Cluster(nodes) => RedisServers::Cluster(nodes),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Single,
    Sentinel,
    Cluster,
}

impl Url {
    fn read(text: &str) -> Result<Self, Fault> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(Fault::new("expected the URL of a Redis"));
        };
        let (kind, tls) = match scheme {
            "redis" => (Kind::Single, false),
            "rediss" => (Kind::Single, true),
            "redis+sentinel" => (Kind::Sentinel, false),
            "rediss+sentinel" => (Kind::Sentinel, true),
            "redis+cluster" => (Kind::Cluster, false),
            "rediss+cluster" => (Kind::Cluster, true),
            // It stands before any password.
            _ => return Err(Fault::new(format!("{} is not the scheme of a Redis", quote(scheme)))),
        };
        let escape = "write %40 for `@`, %2F for `/`, %3F for `?`, %23 for `#` in a user or password";
        let (userinfo, rest) = match rest.rsplit_once('@') {
            Some((userinfo, rest)) if userinfo.contains(['@', '/', '?', '#']) || rest.is_empty() => {
                return Err(Fault::new(format!("the URL cannot be taken apart: {escape}")));
            }
            Some((userinfo, rest)) => (userinfo, rest),
            None => ("", rest),
        };
        if rest.contains(['?', '#']) {
            return Err(Fault::new(format!("the URL of a Redis has no parameters; {escape}")));
        }
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let mut addresses = addresses(hosts, if kind == Kind::Sentinel { SENTINEL_PORT } else { PORT })?;
        let (servers, database) = match (kind, addresses.as_mut_slice()) {
            (Kind::Single, [address]) => (Servers::Single(std::mem::take(address)), database(path)?),
            (Kind::Single, _) => {
                let message = "the URL names several hosts: are they sentinels, or a Cluster's?";
                return Err(Fault::new(message));
            }
            (Kind::Sentinel, _) => {
                let (service, number) = path.split_once('/').unwrap_or((path, ""));
                if service.is_empty() {
                    return Err(Fault::new("the URL does not say what the sentinels call the service"));
                }
                (Servers::Sentinel(addresses, decoded(service)?), database(number)?)
            }
            (Kind::Cluster, _) if database(path)? != 0 => {
                return Err(Fault::new("a Cluster has no databases but 0"));
            }
            (Kind::Cluster, _) => (Servers::Cluster(addresses), 0),
        };
        Ok(Self { servers, tls, login: login(userinfo)?, database })
    }
}

fn login(userinfo: &str) -> Result<RedisLogin, Fault> {
    let (user, password) =
        userinfo.split_once(':').map_or((userinfo, ""), |(user, password)| (user, password));
    let some = |text: &str| if text.is_empty() { Ok(None) } else { decoded(text).map(Some) };
    Ok(RedisLogin { user: some(user)?, password: some(password)?.map(Secret::new) })
}

fn addresses(hosts: &str, port: u16) -> Result<Vec<RedisAddress>, Fault> {
    let all: Result<Vec<_>, Fault> = hosts
        .split(',')
        .map(|text| {
            let (host, own) = host_and_port(text)?;
            Ok((host.trim_matches(['[', ']']).to_owned(), own.unwrap_or(port)))
        })
        .collect();
    let all = all?;
    if all.len() > SERVERS_MAX {
        return Err(Fault::new(format!("the URL names more than {SERVERS_MAX} hosts")));
    }
    Ok(all)
}

fn database(text: &str) -> Result<u32, Fault> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if text.is_empty() { Some(0) } else { text.parse().ok().filter(|_| is_digits) };
    let number = number.filter(|number| *number <= DATABASE_MAX);
    number.ok_or_else(|| Fault::new(format!("{} is not the number of a database", quote(text))))
}

/// Percent escapes undone; what is left must be text.
fn decoded(text: &str) -> Result<String, Fault> {
    let wrong = || Fault::new("the URL has a `%` that is no escape; write %25 for `%`");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = after.split_first_chunk::<2>().ok_or_else(wrong)?;
        let digit = |byte: u8| char::from(byte).to_digit(16).ok_or_else(wrong);
        let [high, low] = *digits;
        let value = digit(high)? << 4 | digit(low)?;
        bytes.push(u8::try_from(value).map_err(|_| wrong())?);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(host: &str, port: u16) -> RedisAddress {
        (host.to_owned(), port)
    }

    #[test]
    fn urls_say_which_servers() {
        let single = |text: &str| match Url::read(text).unwrap() {
            Url { servers: Servers::Single(address), tls, login, database } => {
                (address, tls, login, database)
            }
            other => panic!("{other:?}"),
        };
        let nobody = RedisLogin::default;
        assert_eq!(single("redis://a"), (address("a", 6379), false, nobody(), 0));
        assert_eq!(single("rediss://A:1/"), (address("a", 1), true, nobody(), 0));
        assert_eq!(single("redis://[::1]:7/15"), (address("::1", 7), false, nobody(), 15));
        let password = |text: &str| Some(Secret::new(text));
        let login = RedisLogin { user: None, password: password("p:w") };
        assert_eq!(single("redis://:p:w@a"), (address("a", 6379), false, login, 0));
        let login = RedisLogin { user: Some("u@".into()), password: password("/?#%ä") };
        assert_eq!(single("redis://u%40:%2F%3f%23%25%C3%A4@a/1"), (address("a", 6379), false, login, 1));
        assert!(matches!(
            Url::read("rediss+cluster://u:p@a,b:2,[::1]:3").unwrap(),
            Url { servers: Servers::Cluster(nodes), tls: true, database: 0, .. }
                if nodes == [address("a", 6379), address("b", 2), address("::1", 3)]
        ));
        assert!(matches!(
            Url::read("redis+sentinel://a,b:2/my%20service/3").unwrap(),
            Url { servers: Servers::Sentinel(sentinels, service), tls: false, database: 3, .. }
                if sentinels == [address("a", 26_379), address("b", 2)] && service == "my service"
        ));
    }

    #[test]
    fn wrong_urls_are_refused_and_not_quoted() {
        for (text, why) in [
            ("", "the URL of a Redis"),
            ("127.0.0.1:6379", "the URL of a Redis"),
            ("http://a", "`http` is not the scheme"),
            ("redis://", "is not the name of a host"),
            ("redis://a:0", "is not a port"),
            ("redis://a,b", "sentinels, or a Cluster's?"),
            ("redis://a/x", "not the number of a database"),
            ("redis://a/+1", "not the number of a database"),
            ("redis://a/65536", "not the number of a database"),
            ("redis://a?protocol=resp2", "no parameters"),
            ("redis://u:hunter2@", "cannot be taken apart"),
            ("redis://u:hun/ter2@a", "cannot be taken apart"),
            ("redis://u:hun@ter2@a", "cannot be taken apart"),
            ("redis://u:hunter2%@a", "no escape"),
            ("redis://u:hunter2%zz@a", "no escape"),
            ("redis://u:hunter2%ff@a", "no escape"),
            ("redis+sentinel://a", "what the sentinels call the service"),
            ("redis+sentinel://a//0", "what the sentinels call the service"),
            ("redis+cluster://a/1", "no databases but 0"),
        ] {
            let said = format!("{:?}", Url::read(text).unwrap_err());
            assert!(said.contains(why), "{text}: {said}");
            assert!(!said.contains("hun") && !said.contains("ter2"), "{said}");
        }
        let many = vec!["a"; SERVERS_MAX + 1].join(",");
        assert!(Url::read(&format!("redis+cluster://{many}")).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String, rest: String) {
            drop(Url::read(&text));
            drop(Url::read(&format!("redis://{rest}")));
            drop(Url::read(&format!("redis+sentinel://{rest}")));
        }

        #[test]
        fn every_password_can_be_written(user in "[^:]{1,20}", password in ".{1,20}") {
            let escaped = |text: &str| {
                text.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat()
            };
            let url = Url::read(&format!("redis://{}:{}@a", escaped(&user), escaped(&password))).unwrap();
            prop_assert_eq!(url.login, RedisLogin { user: Some(user), password: Some(Secret::new(password)) });
        }
    }
}
