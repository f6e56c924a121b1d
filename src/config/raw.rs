//! Mirrors the file: every key, all optional, nothing checked but each value alone.
//!
//! This is the only list of keys. What a missing key means and which values fit together is said once, in the
//! section's own file.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, Method};
use ipnet::IpNet;
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use serde_json::json;
use toml::Spanned;

use crate::config::guard::{GuardDelay, GuardRate};
use crate::config::handler::{Handler, PagePath, Redirect};
use crate::config::host::HostPattern;
use crate::config::listen::AdminSocket;
use crate::config::log::{LogFormat, LogLevel};
use crate::config::origin::{Origin, TrustedOrigin};
use crate::config::problem::{Fault, quote};
use crate::config::redis::RedisPrefix;
use crate::config::route::{RoutePath, SimplePermission};
use crate::config::scheme::{Realm, SchemeKind, TokenFamily};
use crate::config::session::{CookieDomain, CookieName, SameSite};
use crate::config::share::Share;
use crate::config::sql_name::{MaybeSqlName, SqlName};
use crate::config::store::LayoutName;
use crate::config::throttle::{Rate, ThrottleBy};
use crate::config::tls::TlsVersion;
use crate::config::tokens::{OnExposedToken, TokenPrefix, TokenTtl};
use crate::config::traps::{BadCredentials, Preflight, Unauthenticated};
use crate::config::upstream::{Balance, ServerAddress, UpstreamHost};
use crate::config::value::{Count, Entry, List, Size, Written as _, expecting};

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct Raw {
    pub(super) listen: Listen,
    pub(super) tls: Tls,
    pub(super) deployment: Deployment,
    pub(super) store: Store,
    pub(super) redis: Option<Spanned<Redis>>,
    pub(super) cache: Cache,
    pub(super) authentication: Authentication,
    pub(super) tokens: Tokens,
    pub(super) identity: Identity,
    pub(super) clients: Clients,
    pub(super) limits: Limits,
    pub(super) throttles: BTreeMap<Spanned<String>, Throttle>,
    pub(super) upstreams: BTreeMap<Spanned<String>, Upstream>,
    pub(super) routes: BTreeMap<Spanned<String>, Route>,
    pub(super) cors: Cors,
    pub(super) log: Log,
    pub(super) traces: Option<Spanned<Traces>>,
}

/// `[listen]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as [listen]")]
pub(super) struct Listen {
    pub(super) https: Option<List<SocketAddr>>,
    pub(super) http: Option<List<SocketAddr>>,
    pub(super) https_port: Option<Entry<Count>>,
    pub(super) admin: Option<Entry<SocketAddr>>,
    pub(super) admin_socket: Option<Entry<AdminSocket>>,
    pub(super) workers: Option<Entry<Count>>,
}

/// `[tls]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as [tls]")]
pub(super) struct Tls {
    pub(super) certificates: Vec<Spanned<Certificate>>,
    pub(super) self_signed: Option<Entry<PathBuf>>,
    pub(super) min_version: Option<Entry<TlsVersion>>,
    pub(super) hsts: Option<Spanned<Hsts>>,
}

/// One of `certificates`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as { cert = \"a.pem\", key = \"a.key\" }")]
pub(super) struct Certificate {
    pub(super) cert: Option<Entry<PathBuf>>,
    pub(super) key: Option<Entry<PathBuf>>,
}

/// `[deployment]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as [deployment]")]
pub(super) struct Deployment {
    pub(super) key: Option<Spanned<Secret>>,
}

/// `[store]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as [store]")]
pub(super) struct Store {
    pub(super) url: Option<Spanned<Indirect>>,
    pub(super) layout: Option<Entry<LayoutName>>,
    pub(super) connections: Option<Entry<Count>>,
    pub(super) django: Option<Spanned<Django>>,
    pub(super) own: Option<Spanned<Own>>,
}

/// `[store.django]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as [store.django]")]
pub(super) struct Django {
    pub(super) secret_key: Option<Spanned<Secret>>,
    pub(super) secret_key_fallbacks: Option<Vec<Spanned<Secret>>>,
    pub(super) backends: Option<List<String>>,
    pub(super) md5: Option<Entry<bool>>,
    pub(super) rehash: Option<Entry<bool>>,
    pub(super) user: UserTable,
}

/// `[store.django.user]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as [store.django.user]")]
pub(super) struct UserTable {
    pub(super) table: Option<Entry<SqlName>>,
    pub(super) id: Option<Entry<SqlName>>,
    pub(super) username: Option<Entry<SqlName>>,
    pub(super) password: Option<Entry<SqlName>>,
    pub(super) is_active: Option<Entry<MaybeSqlName>>,
    pub(super) is_staff: Option<Entry<MaybeSqlName>>,
    pub(super) email: Option<Entry<MaybeSqlName>>,
    pub(super) last_login: Option<Entry<MaybeSqlName>>,
    pub(super) groups_table: Option<Entry<MaybeSqlName>>,
    pub(super) groups_column: Option<Entry<SqlName>>,
}

/// `[store.own]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as [store.own]")]
pub(super) struct Own {
    pub(super) url: Option<Spanned<Indirect>>,
}

/// `[redis]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as [redis]")]
pub(super) struct Redis {
    pub(super) url: Option<Spanned<Indirect>>,
    pub(super) ca: Option<Entry<PathBuf>>,
    pub(super) sentinel_user: Option<Entry<String>>,
    pub(super) sentinel_password: Option<Spanned<Secret>>,
    pub(super) prefix: Option<Entry<RedisPrefix>>,
    pub(super) value_ttl: Option<Entry<Duration>>,
    pub(super) timeout: Option<Entry<Duration>>,
}

/// `[cache]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as [cache]")]
pub(super) struct Cache {
    pub(super) capacity: Option<Entry<Size>>,
    pub(super) revocation_bound: Option<Entry<Duration>>,
    pub(super) negative_ttl: Option<Entry<Duration>>,
    pub(super) stale_while_unreachable: Option<Entry<Duration>>,
}

/// `[authentication]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as [authentication]")]
pub(super) struct Authentication {
    pub(super) schemes: Schemes,
    pub(super) permission: Option<Spanned<Permission>>,
    pub(super) realm: Option<Entry<Realm>>,
    pub(super) explicit_credentials_first: Option<Entry<bool>>,
    pub(super) bad_credentials_on_public: Option<Entry<BadCredentials>>,
    pub(super) unauthenticated_status: Option<Entry<Unauthenticated>>,
    pub(super) preflight: Option<Entry<Preflight>>,
    pub(super) guard: Option<Spanned<Guard>>,
}

/// `[authentication.schemes.NAME]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as [authentication.schemes.partner]")]
pub(super) struct Scheme {
    pub(super) kind: Option<Entry<SchemeKind>>,
    pub(super) keyword: Option<Entry<String>>,
    pub(super) families: Option<List<TokenFamily>>,
    pub(super) realm: Option<Entry<Realm>>,
    pub(super) cookie: Option<Entry<CookieName>>,
    pub(super) age: Option<Entry<Duration>>,
    pub(super) secure: Option<Entry<bool>>,
    pub(super) domain: Option<Entry<CookieDomain>>,
    pub(super) same_site: Option<Entry<SameSite>>,
    pub(super) csrf: Option<Spanned<Csrf>>,
    pub(super) header: Option<Entry<HeaderName>>,
    pub(super) peers: Option<List<IpNet>>,
    pub(super) create_users: Option<Entry<bool>>,
}

/// `csrf` of a scheme.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as { cookie = \"csrftoken\" }")]
pub(super) struct Csrf {
    pub(super) cookie: Option<Entry<CookieName>>,
    pub(super) header: Option<Entry<HeaderName>>,
    pub(super) trusted_origins: Option<List<TrustedOrigin>>,
    pub(super) domain: Option<Entry<CookieDomain>>,
    pub(super) in_session: Option<Entry<bool>>,
    pub(super) age: Option<Entry<Duration>>,
}

/// `[tokens]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as [tokens]")]
pub(super) struct Tokens {
    pub(super) ttl: Option<Entry<TokenTtl>>,
    pub(super) per_user: Option<Entry<Count>>,
    pub(super) prefix: Option<Entry<TokenPrefix>>,
    pub(super) on_exposed_token: Option<Entry<OnExposedToken>>,
}

/// `[identity]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as [identity]")]
pub(super) struct Identity {
    pub(super) user: Option<Entry<HeaderName>>,
    pub(super) groups: Option<Entry<HeaderName>>,
    pub(super) email: Option<Entry<HeaderName>>,
    pub(super) auth_type: Option<Entry<HeaderName>>,
    pub(super) forward_credentials: Option<Entry<bool>>,
}

/// `[clients]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as [clients]")]
pub(super) struct Clients {
    pub(super) trusted_proxies: Option<List<IpNet>>,
}

/// `[cors]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as [cors]")]
pub(super) struct Cors {
    pub(super) origins: Option<List<Origin>>,
    pub(super) credentials: Option<Entry<bool>>,
}

/// `[limits]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as [limits]")]
pub(super) struct Limits {
    pub(super) header_bytes: Option<Entry<Size>>,
    pub(super) header_count: Option<Entry<Count>>,
    pub(super) target_bytes: Option<Entry<Size>>,
    pub(super) header_time: Option<Entry<Duration>>,
    pub(super) handshake_time: Option<Entry<Duration>>,
    pub(super) body_idle: Option<Entry<Duration>>,
    pub(super) body_rate: Option<Entry<Size>>,
    pub(super) send_idle: Option<Entry<Duration>>,
    pub(super) keep_alive: Option<Entry<Duration>>,
    pub(super) connections: Option<Entry<Count>>,
    pub(super) connections_per_address: Option<Entry<Count>>,
    pub(super) streams_per_connection: Option<Entry<Count>>,
    pub(super) upstream_header_bytes: Option<Entry<Size>>,
    pub(super) unread_body: Option<Entry<Size>>,
    pub(super) unread_body_time: Option<Entry<Duration>>,
    pub(super) store_pending: Option<Entry<Count>>,
    pub(super) store_time: Option<Entry<Duration>>,
    pub(super) password_queue: Option<Entry<Count>>,
    pub(super) throttle_bytes: Option<Entry<Size>>,
    pub(super) drain_time: Option<Entry<Duration>>,
}

/// `[throttles.NAME]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as [throttles.login]")]
pub(super) struct Throttle {
    pub(super) rate: Option<Entry<Rate>>,
    pub(super) by: Option<Entry<ThrottleBy>>,
    pub(super) shared: Option<Entry<bool>>,
}

/// `[upstreams.NAME]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as [upstreams.legacy]")]
pub(super) struct Upstream {
    pub(super) servers: Option<List<ServerAddress>>,
    pub(super) balance: Option<Entry<Balance>>,
    pub(super) timeout: Timeout,
    pub(super) host: Option<Entry<UpstreamHost>>,
    pub(super) connections: Option<Entry<Count>>,
    pub(super) queue_time: Option<Entry<Duration>>,
    pub(super) case_insensitive: Option<Entry<bool>>,
    pub(super) ca: Option<Entry<PathBuf>>,
}

/// `timeout` of an upstream.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as { connect = \"2s\", response = \"60s\" }")]
pub(super) struct Timeout {
    pub(super) connect: Option<Entry<Duration>>,
    pub(super) response: Option<Entry<Duration>>,
    pub(super) idle: Option<Entry<Duration>>,
}

/// `[routes.NAME]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as [routes.api]")]
pub(super) struct Route {
    pub(super) host: Option<Entry<HostPattern>>,
    pub(super) path: Option<Entry<RoutePath>>,
    pub(super) methods: Option<List<Method>>,
    pub(super) upstream: Option<Entry<String>>,
    pub(super) handler: Option<Entry<Handler>>,
    pub(super) schemes: Option<List<String>>,
    pub(super) permission: Option<Spanned<Permission>>,
    pub(super) throttles: Option<List<String>>,
    pub(super) max_body: Option<Entry<Size>>,
    pub(super) strip_prefix: Option<Entry<bool>>,
    pub(super) pass_unverified: Option<Entry<bool>>,
    pub(super) stale_while_unreachable: Option<Entry<Duration>>,
    pub(super) realm: Option<Entry<Realm>>,
    pub(super) explicit_credentials_first: Option<Entry<bool>>,
    pub(super) bad_credentials_on_public: Option<Entry<BadCredentials>>,
    pub(super) unauthenticated_status: Option<Entry<Unauthenticated>>,
    pub(super) preflight: Option<Entry<Preflight>>,
    pub(super) login_page: Option<Entry<PagePath>>,
    pub(super) family: Option<Entry<TokenFamily>>,
    pub(super) session: Option<Entry<String>>,
    pub(super) redirect: Option<Entry<Redirect>>,
}

/// `[log]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as [log]")]
pub(super) struct Log {
    pub(super) format: Option<Entry<LogFormat>>,
    pub(super) level: Option<Entry<LogLevel>>,
    pub(super) file: Option<Entry<PathBuf>>,
    pub(super) passes: Option<Entry<Share>>,
}

/// `[traces]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table such as [traces]")]
pub(super) struct Traces {
    pub(super) endpoint: Option<Entry<ServerAddress>>,
    pub(super) sample: Option<Entry<Share>>,
    pub(super) service_name: Option<Entry<String>>,
}

/// `schemes` of `[authentication]`: TOML lets one key be a list or a table, not both.
#[derive(Debug)]
pub(super) enum Schemes {
    /// `schemes = ["token"]`: what a route has unless it says otherwise.
    Names(List<String>),
    /// `[authentication.schemes.NAME]`: named instances.
    Instances(BTreeMap<Spanned<String>, Scheme>),
}

impl Default for Schemes {
    fn default() -> Self {
        Self::Instances(BTreeMap::new())
    }
}

impl<'de> Deserialize<'de> for Schemes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SchemesVisitor)
    }
}

struct SchemesVisitor;

impl<'de> Visitor<'de> for SchemesVisitor {
    type Value = Schemes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = "a list such as [\"token\"] or a table such as [authentication.schemes.partner]";
        expecting(f, words, || json!({ "type": "array", "items": String::schema() }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Schemes, A::Error> {
        let names = Vec::<Entry<String>>::deserialize(SeqAccessDeserializer::new(list))?;
        let start = names.first().map_or(0, |name| name.span.start);
        let end = names.last().map_or(start, |name| name.span.end);
        Ok(Schemes::Names(Spanned::new(start..end, names)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Schemes, A::Error> {
        BTreeMap::deserialize(MapAccessDeserializer::new(map)).map(Schemes::Instances)
    }
}

/// A permission as written: a word, or a table with one key.
#[derive(Debug, Clone)]
pub(super) enum Permission {
    /// `"authenticated"` and its like.
    Simple(SimplePermission),
    /// `{ groups = [...] }`
    Groups(Vec<String>),
    /// `{ users = [...] }`
    Users(Vec<String>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PermissionTable {
    groups: Option<Vec<Entry<String>>>,
    users: Option<Vec<Entry<String>>>,
}

impl<'de> Deserialize<'de> for Permission {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct("Permission", &["groups", "users"], PermissionVisitor)
    }
}

struct PermissionVisitor;

impl<'de> Visitor<'de> for PermissionVisitor {
    type Value = Permission;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        expecting(f, SimplePermission::EXPECTED, SimplePermission::schema)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Permission, E> {
        SimplePermission::from_text(text).map(Permission::Simple).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Permission, A::Error> {
        let table = PermissionTable::deserialize(MapAccessDeserializer::new(map))?;
        let values = |list: Vec<Entry<String>>| list.into_iter().map(|entry| entry.value).collect::<Vec<_>>();
        let (permission, is_empty) = match (table.groups, table.users) {
            (Some(groups), None) => (Permission::Groups(values(groups.clone())), groups.is_empty()),
            (None, Some(users)) => (Permission::Users(values(users.clone())), users.is_empty()),
            _ => {
                return Err(A::Error::custom(Fault::new(
                    "a permission needs `groups` or `users`, and one of them",
                )));
            }
        };
        if is_empty {
            return Err(A::Error::custom(Fault::new("the list is empty, so nobody could ever pass")));
        }
        Ok(permission)
    }
}

/// `hsts` as written: a word, or a table.
#[derive(Debug)]
pub(super) enum Hsts {
    /// `"off"`
    Off,
    /// `{ max_age = "365d", ... }`
    On(HstsTable),
}

/// `hsts = { ... }`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HstsTable {
    pub(super) max_age: Option<Entry<Duration>>,
    pub(super) include_subdomains: Option<Entry<bool>>,
    pub(super) preload: Option<Entry<bool>>,
}

impl<'de> Deserialize<'de> for Hsts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let keys = &["max_age", "include_subdomains", "preload"];
        deserializer.deserialize_struct("Hsts", keys, HstsVisitor)
    }
}

struct HstsVisitor;

impl<'de> Visitor<'de> for HstsVisitor {
    type Value = Hsts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        expecting(f, "\"off\" or a table such as { max_age = \"365d\" }", || json!({ "const": "off" }))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Hsts, E> {
        if text == "off" {
            return Ok(Hsts::Off);
        }
        let message =
            format!("expected \"off\" or a table such as {{ max_age = \"365d\" }}, found {}", quote(text));
        Err(E::custom(Fault::new(message)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Hsts, A::Error> {
        HstsTable::deserialize(MapAccessDeserializer::new(map)).map(Hsts::On)
    }
}

/// `[authentication.guard]`, or `guard = "off"`.
#[derive(Debug)]
pub(super) enum Guard {
    /// Nothing is guarded.
    Off,
    /// `[authentication.guard]`
    Table(GuardTable),
}

/// The keys of `[authentication.guard]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct GuardTable {
    pub(super) address: Option<Entry<GuardRate>>,
    pub(super) address_and_user: Option<Entry<GuardRate>>,
    pub(super) user_delay: Option<Entry<GuardDelay>>,
}

impl<'de> Deserialize<'de> for Guard {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let keys = &["address", "address_and_user", "user_delay"];
        deserializer.deserialize_struct("Guard", keys, GuardVisitor)
    }
}

struct GuardVisitor;

impl<'de> Visitor<'de> for GuardVisitor {
    type Value = Guard;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        expecting(f, "a table such as [authentication.guard], or \"off\"", || json!({ "const": "off" }))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Guard, E> {
        if text == "off" { Ok(Guard::Off) } else { Err(E::invalid_value(Unexpected::Str(text), &self)) }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Guard, A::Error> {
        GuardTable::deserialize(MapAccessDeserializer::new(map)).map(Guard::Table)
    }
}

/// A value that is written here or found elsewhere.
#[derive(Debug)]
pub(super) enum Indirect {
    /// Written in the file.
    Inline(String),
    /// `{ env = "NAME" }`
    Environment(Entry<String>),
    /// `{ file = "path" }`
    File(Entry<PathBuf>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct IndirectTable {
    env: Option<Entry<String>>,
    file: Option<Entry<PathBuf>>,
}

impl<'de> Deserialize<'de> for Indirect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct("Indirect", &["env", "file"], IndirectVisitor)
    }
}

/// An [`Indirect`] that is never shown when it stands in the file itself.
#[derive(Debug)]
pub(super) struct Secret(pub(super) Indirect);

impl Secret {
    /// How the shape of the file marks what must be masked.
    pub(super) const NAME: &'static str = "Secret";
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct(Self::NAME, &["env", "file"], IndirectVisitor).map(Self)
    }
}

struct IndirectVisitor;

impl<'de> Visitor<'de> for IndirectVisitor {
    type Value = Indirect;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        expecting(f, "a string, { env = \"NAME\" } or { file = \"path\" }", String::schema)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Indirect, E> {
        Ok(Indirect::Inline(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Indirect, A::Error> {
        let table = IndirectTable::deserialize(MapAccessDeserializer::new(map))?;
        match (table.env, table.file) {
            (Some(env), None) => Ok(Indirect::Environment(env)),
            (None, Some(file)) => Ok(Indirect::File(file)),
            _ => Err(A::Error::custom(Fault::new("this needs `env` or `file`, and one of them"))),
        }
    }
}
