//! `[store.django]` and `[store.django.user]`: what doorward must know of Django's settings and user model.
//!
//! Defaults are Django's own, so that a project with its user model needs no more than the secret key.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;

use crate::config::Source;
use crate::config::deployment::{inline, not_in_environment};
use crate::config::problem::{Fault, Problems, quote};
use crate::config::raw::{self, Indirect};
use crate::config::sql_name::{MaybeSqlName, SqlName};
use crate::config::store::StoreUrl;
use crate::config::tls::read_bounded;
use crate::config::value::{Entry, List, resolve};
use crate::secret::Secret;

/// A file that holds nothing but a secret key is not longer than this.
const KEY_BYTES_MAX: u64 = 4096;

/// The longest path of a Python class.
const CLASS_BYTES_MAX: usize = 256;

/// An existing Django database, and what Django's settings say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Django {
    /// `SECRET_KEY`: signs sessions.
    pub secret_key: Secret,
    /// `SECRET_KEY_FALLBACKS`: sessions signed with one of these are still good.
    pub secret_key_fallbacks: Vec<Secret>,
    /// `AUTHENTICATION_BACKENDS`: sessions name one of these; never empty. New sessions name the first.
    pub backends: Vec<String>,
    /// Whether `md5$` hashes match, too (`MD5PasswordHasher` of `PASSWORD_HASHERS`).
    pub md5: bool,
    /// Whether a login hashes the password anew as Django would. It ends the user's Django sessions: their
    /// authentication hash is made of the old one.
    pub rehash: bool,
    /// Where users are.
    pub user: UserTable,
    /// Where everything is kept that is doorward's and not Django's; never Django's database.
    pub own: StoreUrl,
}

/// Table and columns of the user model. Names are plain: `[A-Za-z_][A-Za-z0-9_]{0,62}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserTable {
    /// The table.
    pub table: String,
    /// Its primary key.
    pub id: String,
    /// `USERNAME_FIELD`.
    pub username: String,
    /// The encoded password.
    pub password: String,
    /// Who may log in; `None`: everybody.
    pub is_active: Option<String>,
    /// Who is staff; `None`: nobody.
    pub is_staff: Option<String>,
    /// The e-mail address; `None`: there is none.
    pub email: Option<String>,
    /// When the user last logged in; `None`: that is not kept.
    pub last_login: Option<String>,
    /// Which groups users are in; `None`: there are none.
    pub groups: Option<GroupTable>,
}

/// The table between users and groups. Its other column is `group_id`, of `auth_group`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupTable {
    /// The table.
    pub table: String,
    /// The column that refers to the user.
    pub user: String,
}

/// `django.contrib.auth.models.User`
impl Default for UserTable {
    fn default() -> Self {
        let column = |name: &str| Some(name.to_owned());
        Self {
            table: "auth_user".to_owned(),
            id: "id".to_owned(),
            username: "username".to_owned(),
            password: "password".to_owned(),
            is_active: column("is_active"),
            is_staff: column("is_staff"),
            email: column("email"),
            last_login: column("last_login"),
            groups: Some(GroupTable { table: "auth_user_groups".to_owned(), user: "user_id".to_owned() }),
        }
    }
}

impl Django {
    /// `layout` is where the file asks for it.
    pub(super) fn from_raw(
        raw: Option<Spanned<raw::Django>>,
        own: StoreUrl,
        layout: &Range<usize>,
        source: &Source,
        problems: &mut Problems,
    ) -> Self {
        let span = raw.as_ref().map_or_else(|| layout.clone(), Spanned::span);
        let raw = raw.map(Spanned::into_inner).unwrap_or_default();
        if raw.secret_key.is_none() && !problems.is_lost(&["store", "django", "secret_key"]) {
            let fault = Fault::new("layout = \"django\" needs `secret_key` in [store.django]");
            let help = "Django's SECRET_KEY: write secret_key = { env = \"DJANGO_SECRET_KEY\" }";
            problems.error(&span, fault.help(help));
        }
        let secret_key = raw.secret_key.and_then(|key| secret(key, source, problems));
        let fallbacks = raw.secret_key_fallbacks.unwrap_or_default().into_iter();
        Self {
            secret_key: secret_key.unwrap_or_default(),
            secret_key_fallbacks: fallbacks.filter_map(|key| secret(key, source, problems)).collect(),
            backends: raw.backends.map_or_else(default_backends, |names| backends(names, problems)),
            md5: raw.md5.is_some_and(|entry| entry.value),
            rehash: raw.rehash.is_some_and(|entry| entry.value),
            user: UserTable::from_raw(raw.user),
            own,
        }
    }
}

impl UserTable {
    fn from_raw(raw: raw::UserTable) -> Self {
        let default = Self::default();
        let name = |written: Option<Entry<SqlName>>, default| written.map_or(default, |entry| entry.value.0);
        let maybe =
            |written: Option<Entry<MaybeSqlName>>, default| written.map_or(default, |entry| entry.value.0);
        let groups = match (
            maybe(raw.groups_table, default.groups.as_ref().map(|it| it.table.clone())),
            default.groups,
        ) {
            (Some(table), Some(default)) => {
                Some(GroupTable { table, user: name(raw.groups_column, default.user) })
            }
            _ => None,
        };
        Self {
            table: name(raw.table, default.table),
            id: name(raw.id, default.id),
            username: name(raw.username, default.username),
            password: name(raw.password, default.password),
            is_active: maybe(raw.is_active, default.is_active),
            is_staff: maybe(raw.is_staff, default.is_staff),
            email: maybe(raw.email, default.email),
            last_login: maybe(raw.last_login, default.last_login),
            groups,
        }
    }
}

/// Django's own default.
fn default_backends() -> Vec<String> {
    vec!["django.contrib.auth.backends.ModelBackend".to_owned()]
}

fn backends(names: List<String>, problems: &mut Problems) -> Vec<String> {
    if names.get_ref().is_empty() && !problems.is_lost(&["store", "django", "backends"]) {
        let fault = Fault::new("without backends no session is ever good");
        problems.error(&names.span(), fault.help("leave the key out for Django's default"));
    }
    let mut seen = BTreeSet::new();
    for name in names.get_ref() {
        if !is_class(&name.value) {
            let fault = Fault::new(format!("expected the path of a class, found {}", quote(&name.value)));
            problems.error(&name.span, fault.help("such as \"django.contrib.auth.backends.ModelBackend\""));
        } else if !seen.insert(name.value.clone()) {
            let fault = Fault::new(format!("backend {} is listed twice", quote(&name.value)));
            problems.error(&name.span, fault.help("keep one"));
        }
    }
    names.into_inner().into_iter().map(|name| name.value).collect()
}

/// Whether Python could import it: names with dots between.
fn is_class(text: &str) -> bool {
    let is_name = |part: &str| {
        let begins_well = part.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_');
        begins_well && part.chars().all(|c| c.is_alphanumeric() || c == '_')
    };
    text.len() <= CLASS_BYTES_MAX && text.contains('.') && text.split('.').all(is_name)
}

/// The secret, wherever it is written.
fn secret(key: Spanned<raw::Secret>, source: &Source, problems: &mut Problems) -> Option<Secret> {
    let span = key.span();
    let (secret, span, is_inline) = match key.into_inner().0 {
        Indirect::Inline(text) => (Secret::new(text), span, true),
        Indirect::Environment(name) => {
            let Some(value) = (source.environment)(&name.value) else {
                problems.error(&name.span, not_in_environment(&name.value));
                return None;
            };
            (Secret::new(value.into_encoded_bytes()), name.span, false)
        }
        Indirect::File(path) => (of_file(&path, source, problems)?, path.span, false),
    };
    if secret.expose().is_empty() {
        let fault = Fault::new("the secret key is empty");
        problems.error(&span, fault.help("it must be what SECRET_KEY is in Django's settings"));
        return None;
    }
    if is_inline {
        problems.warn(&span, inline());
    }
    Some(secret)
}

/// The content without the line break that editors leave at the end.
fn of_file(path: &Entry<std::path::PathBuf>, source: &Source, problems: &mut Problems) -> Option<Secret> {
    let file = resolve(&source.directory, &path.value);
    match read_bounded(&file, KEY_BYTES_MAX) {
        Ok(mut bytes) => {
            while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                bytes.pop();
            }
            Some(Secret::new(bytes))
        }
        Err(error) => {
            let message = format!("cannot read {}: {error}", quote(&file.to_string_lossy()));
            problems.error(&path.span, Fault::new(message).help("it must hold Django's SECRET_KEY"));
            None
        }
    }
}
