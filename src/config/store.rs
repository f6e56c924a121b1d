//! `[store]`: where users and tokens are kept.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;

use crate::config::Source;
use crate::config::deployment::{inline, not_in_environment};
use crate::config::django::Django;
use crate::config::problem::{Fault, Problems, quote};
use crate::config::raw::{self, Indirect};
use crate::config::server_url::ServerUrl;
use crate::config::tls::read_bounded;
use crate::config::value::{Count, Entry, Written, one_of, resolve, within};

/// A file that holds nothing but a URL is not longer than this.
const URL_BYTES_MAX: u64 = 4096;

/// Where users and tokens are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// Which database.
    pub url: StoreUrl,
    /// Whose tables are in it.
    pub layout: Layout,
    /// Connections to a database server that read.
    pub connections: NonZeroU32,
}

/// Whose tables a database has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// Doorward's own, made on first start.
    Doorward,
    /// Those of an existing Django project, which stay as they are.
    Django(Box<Django>),
}

impl Layout {
    /// Whether the tables are Django's.
    pub fn is_django(&self) -> bool {
        matches!(self, Self::Django(_))
    }
}

/// The same as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LayoutName {
    /// `"doorward"`
    Doorward,
    /// `"django"`
    Django,
}

impl Written for LayoutName {
    const EXPECTED: &'static str = "a layout, \"doorward\" or \"django\"";
    const WORDS: &'static [(&'static str, Self)] = &[("doorward", Self::Doorward), ("django", Self::Django)];

    fn from_text(text: &str) -> Result<Self, Fault> {
        one_of(text)
    }
}

/// A database that this version knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// `SQLite` in this file.
    Sqlite(PathBuf),
    /// A database server.
    Server(ServerUrl),
}

/// Without a password.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Server(server) => server.fmt(f),
        }
    }
}

impl StoreUrl {
    /// The file that holds it, if it is one of this machine.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) => Some(path),
            Self::Server(_) => None,
        }
    }
}

impl Store {
    pub(super) fn from_raw(raw: raw::Store, source: &Source, problems: &mut Problems) -> Self {
        let has_url = raw.url.is_some() || problems.is_lost(&["store", "url"]);
        let url_span = raw.url.as_ref().map(Spanned::span);
        let url = database(raw.url, source, problems);
        let layout = match raw.layout {
            Some(layout) if layout.value == LayoutName::Django => {
                if !has_url {
                    let fault = Fault::new("layout = \"django\" needs `url`");
                    let help = "name Django's database: url = \"sqlite:/path/to/db.sqlite3\"";
                    problems.error(&layout.span, fault.help(help));
                }
                let own_url = raw.own.and_then(|own| own.into_inner().url);
                let place = own_url.as_ref().map(Spanned::span).or(url_span);
                let own = database(own_url, source, problems);
                check_own(&url, &own, has_url.then_some(place).flatten(), problems);
                Layout::Django(Box::new(Django::from_raw(raw.django, own, &layout.span, source, problems)))
            }
            _ => {
                let spans =
                    [raw.django.map(|it| (it.span(), "django")), raw.own.map(|it| (it.span(), "own"))];
                check_no_django(spans.into_iter().flatten(), problems);
                Layout::Doorward
            }
        };
        let connections = read_connections(raw.connections.as_ref(), problems);
        Self { url, layout, connections }
    }

    /// The files that hold it.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let own = match &self.layout {
            Layout::Doorward => None,
            Layout::Django(django) => Some(&django.own),
        };
        [Some(&self.url), own].into_iter().flatten().filter_map(StoreUrl::file)
    }
}

/// How many connections read; more than a server has by default are of no use.
fn read_connections(entry: Option<&Entry<Count>>, problems: &mut Problems) -> NonZeroU32 {
    let count = within(entry, Count(8), Count(1)..=Count(1000), "connections", problems).0;
    u32::try_from(count).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
}

/// The database of this URL; by default a file beside the configuration.
fn database(url: Option<Spanned<Indirect>>, source: &Source, problems: &mut Problems) -> StoreUrl {
    let is_inline = url.as_ref().is_some_and(|url| matches!(url.get_ref(), Indirect::Inline(_)));
    let written = url.and_then(|url| url_text(url, source, problems));
    let url = written.and_then(|(text, span)| match store_url(&text, &source.directory) {
        Ok(url) => {
            if is_inline && matches!(&url, StoreUrl::Server(server) if server.has_password) {
                problems.warn(&span, inline());
            }
            Some(url)
        }
        Err(fault) => {
            problems.error(&span, fault);
            None
        }
    });
    url.unwrap_or_else(|| StoreUrl::Sqlite(resolve(&source.directory, Path::new("doorward.db"))))
}

/// Doorward makes tables in its own database; Django's gets none.
fn check_own(url: &StoreUrl, own: &StoreUrl, place: Option<Range<usize>>, problems: &mut Problems) {
    let is_same = match (url, own) {
        (StoreUrl::Sqlite(django), StoreUrl::Sqlite(doorward)) => is_same_file(django, doorward),
        (django, doorward) => django == doorward,
    };
    if let Some(place) = place
        && !problems.has_error_in(&place)
        && is_same
    {
        let fault = Fault::new("doorward's own database is Django's, too");
        let help = "name another file in [store.own]: url = \"sqlite:doorward-own.db\"";
        problems.error(&place, fault.help(help));
    }
}

/// Whether both paths lead to one file, also by links; a file that is not there yet is told by its path alone.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    one == other || real(one).is_some_and(|one| real(other) == Some(one))
}

fn check_no_django(tables: impl Iterator<Item = (Range<usize>, &'static str)>, problems: &mut Problems) {
    if problems.is_lost(&["store", "layout"]) {
        return;
    }
    for (span, name) in tables {
        let fault = Fault::new(format!("`[store.{name}]` is for layout = \"django\" alone"));
        problems.error(&span, fault.help("write layout = \"django\" in [store], or leave this out"));
    }
}

/// The URL, wherever it is written, and the place to blame for it.
pub(super) fn url_text(
    url: Spanned<Indirect>,
    source: &Source,
    problems: &mut Problems,
) -> Option<(String, Range<usize>)> {
    let span = url.span();
    match url.into_inner() {
        Indirect::Inline(text) => Some((text, span)),
        Indirect::Environment(name) => {
            let text = (source.environment)(&name.value).and_then(|value| value.into_string().ok());
            if text.is_none() {
                problems.error(&name.span, not_in_environment(&name.value));
            }
            Some((text?, name.span))
        }
        Indirect::File(path) => {
            let file = resolve(&source.directory, &path.value);
            let text = read_bounded(&file, URL_BYTES_MAX)
                .and_then(|bytes| String::from_utf8(bytes).map_err(std::io::Error::other));
            match text {
                Ok(text) => Some((text.trim_end().to_owned(), path.span)),
                Err(error) => {
                    let message = format!("cannot read {}: {error}", quote(&file.to_string_lossy()));
                    problems.error(&path.span, Fault::new(message));
                    None
                }
            }
        }
    }
}

/// The text is not quoted in faults: it may hold a password.
fn store_url(text: &str, directory: &Path) -> Result<StoreUrl, Fault> {
    let example = "write \"sqlite:doorward.db\"";
    let Some((scheme, rest)) = text.split_once(':') else {
        return Err(Fault::new("expected a database URL such as \"sqlite:doorward.db\"").help(example));
    };
    if let Some(server) = ServerUrl::new(scheme, rest) {
        return server.map(StoreUrl::Server);
    }
    if scheme != "sqlite" {
        let message = format!("the database {} is not supported", quote(scheme));
        let help = format!("there are sqlite, postgres, mysql and mariadb: {example}");
        return Err(Fault::new(message).help(help));
    }
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.is_empty() || path.contains(['\0', '?', '#']) {
        return Err(Fault::new("the URL of a SQLite database is `sqlite:` and a path").help(example));
    }
    if path.starts_with(':') {
        return Err(Fault::new("a database in memory would be lost at every stop").help(example));
    }
    Ok(StoreUrl::Sqlite(resolve(directory, Path::new(path))))
}
