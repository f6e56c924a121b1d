//! `[authentication.schemes.NAME]`: what kind a scheme is, and the options of that kind.
//!
//! One table has the keys of all kinds, so that a key of another kind can be told from a misspelt one.

use std::collections::BTreeSet;
use std::ops::Range;

use http::HeaderName;
use ipnet::IpNet;
use toml::Spanned;

use crate::config::problem::{Fault, Problems, quote};
use crate::config::raw;
use crate::config::session::{SessionConfig, check_header};
use crate::config::value::{Entry, List, Written, is_token, one_of, unexpected};

/// What kind a scheme is, with the options of that kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemeConfig {
    /// Tokens as Django REST Framework's `TokenAuthentication` takes them.
    Token {
        /// The word before the token in `Authorization`; compared ignoring case.
        keyword: String,
        /// Where tokens are looked up, in this order; never empty, none twice.
        families: Vec<TokenFamily>,
    },
    /// Names and passwords (RFC 7617).
    Basic {
        /// What the challenge calls the place; fit for a quoted string as it is.
        realm: String,
    },
    /// Sessions in cookies, with protection against forged requests.
    Session(Box<SessionConfig>),
    /// A user whom a server in front has authenticated.
    RemoteUser {
        /// Carries the name of the user.
        header: HeaderName,
        /// Peers of the socket that are believed; never empty.
        peers: Vec<IpNet>,
        /// Whether a name that is not known becomes a user.
        create_users: bool,
    },
}

/// A kind of token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenFamily {
    /// Doorward's own, of which only digests are kept.
    Doorward,
    /// Django REST Framework's `authtoken_token`: one for each user, kept as it is; with Django's layout alone.
    Authtoken,
}

impl Written for TokenFamily {
    const EXPECTED: &'static str = "a family of tokens such as \"doorward\"";
    const WORDS: &'static [(&'static str, Self)] =
        &[("doorward", Self::Doorward), ("authtoken", Self::Authtoken)];

    fn from_text(text: &str) -> Result<Self, Fault> {
        one_of(text)
    }
}

impl TokenFamily {
    /// Notes a family that the store has no table for.
    pub(super) fn check(self, span: &Range<usize>, is_django: bool, problems: &mut Problems) {
        if self == Self::Authtoken && !is_django {
            let fault = Fault::new("there is no table of the family `authtoken` in this store");
            problems.error(span, fault.help("it is for layout = \"django\" in [store]; write \"doorward\""));
        }
    }
}

/// A kind of scheme that this version knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SchemeKind {
    /// DRF's tokens.
    Token,
    /// Names and passwords.
    Basic,
    /// Cookies.
    Session,
    /// A header of a server in front.
    RemoteUser,
}

impl Written for SchemeKind {
    const EXPECTED: &'static str = "a kind of scheme such as \"token\"";
    const WORDS: &'static [(&'static str, Self)] = &[
        ("token", Self::Token),
        ("basic", Self::Basic),
        ("session", Self::Session),
        ("remote-user", Self::RemoteUser),
    ];

    fn from_text(text: &str) -> Result<Self, Fault> {
        one_of(text)
    }
}

impl SchemeKind {
    /// As it is written.
    pub(super) fn name(self) -> &'static str {
        Self::WORDS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

impl SchemeConfig {
    /// The kind.
    pub(super) fn kind(&self) -> SchemeKind {
        match self {
            Self::Token { .. } => SchemeKind::Token,
            Self::Basic { .. } => SchemeKind::Basic,
            Self::Session(_) => SchemeKind::Session,
            Self::RemoteUser { .. } => SchemeKind::RemoteUser,
        }
    }

    /// As the file writes the kind.
    pub fn name(&self) -> &'static str {
        self.kind().name()
    }
}

/// What `realm` is by default: DRF's `BasicAuthentication.www_authenticate_realm`.
pub(super) const REALM: &str = "api";

/// The longest realm.
const REALM_BYTES_MAX: usize = 256;

/// What a challenge calls a place: goes into a quoted string as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Realm(pub(super) String);

impl Written for Realm {
    const EXPECTED: &'static str = "a realm such as \"api\"";
    const PATTERN: Option<&'static str> = Some("^[^\"\\\\\u{0}-\u{1f}\u{7f}]*$");

    fn from_text(text: &str) -> Result<Self, Fault> {
        // RFC 9110 section 5.6.4: these two would need a backslash, which DRF does not write and few clients read.
        let is_bad = |c: char| c.is_control() || matches!(c, '"' | '\\');
        if text.len() <= REALM_BYTES_MAX && !text.contains(is_bad) {
            return Ok(Self(text.to_owned()));
        }
        let help = format!("no quotes, backslashes or controls; at most {REALM_BYTES_MAX} bytes");
        Err(unexpected::<Self>(text).help(help))
    }
}

/// What schemes take from other sections.
#[derive(Debug)]
pub(super) struct Around<'a> {
    /// `realm` of `[authentication]`.
    pub(super) realm: &'a str,
    /// Whether the store has Django's layout.
    pub(super) is_django: bool,
}

impl Around<'_> {
    /// The instances that there are without a table.
    pub(super) fn defaults(&self) -> [SchemeConfig; 3] {
        [
            SchemeConfig::Token { keyword: KEYWORD.to_owned(), families: self.families() },
            SchemeConfig::Basic { realm: self.realm.to_owned() },
            SchemeConfig::Session(Box::default()),
        ]
    }

    fn families(&self) -> Vec<TokenFamily> {
        if self.is_django {
            vec![TokenFamily::Doorward, TokenFamily::Authtoken]
        } else {
            vec![TokenFamily::Doorward]
        }
    }

    /// The scheme of a table; `None` if its kind cannot be known, which has been reported.
    pub(super) fn scheme(
        &self,
        name: &Spanned<String>,
        raw: raw::Scheme,
        problems: &mut Problems,
    ) -> Option<SchemeConfig> {
        let kind = kind(name, &raw, problems)?;
        check_keys(name, kind, &raw, problems);
        Some(match kind {
            SchemeKind::Token => SchemeConfig::Token {
                keyword: keyword(raw.keyword, problems),
                families: raw
                    .families
                    .map_or_else(|| self.families(), |list| self.listed(name, &list, problems)),
            },
            SchemeKind::Basic => SchemeConfig::Basic {
                realm: raw.realm.map_or_else(|| self.realm.to_owned(), |it| it.value.0),
            },
            SchemeKind::Session => {
                SchemeConfig::Session(Box::new(SessionConfig::from_raw(raw, self.is_django, problems)))
            }
            SchemeKind::RemoteUser => remote_user(name, raw, problems),
        })
    }

    fn listed(
        &self,
        name: &Spanned<String>,
        families: &List<TokenFamily>,
        problems: &mut Problems,
    ) -> Vec<TokenFamily> {
        let path = ["authentication", "schemes", name.get_ref(), "families"];
        if families.get_ref().is_empty() && !problems.is_lost(&path) {
            let fault = Fault::new("without a family no token is ever good");
            problems
                .error(&families.span(), fault.help("write families = [\"doorward\"], or leave the key out"));
        }
        let mut listed = Vec::new();
        for family in families.get_ref() {
            family.value.check(&family.span, self.is_django, problems);
            if listed.contains(&family.value) {
                problems.error(&family.span, Fault::new("this family is listed twice").help("keep one"));
            } else {
                listed.push(family.value);
            }
        }
        listed
    }
}

/// What is written, or what the name says.
fn kind(name: &Spanned<String>, raw: &raw::Scheme, problems: &mut Problems) -> Option<SchemeKind> {
    let named = SchemeKind::from_text(name.get_ref()).ok();
    match (&raw.kind, named) {
        (Some(written), Some(named)) if written.value != named => {
            let message = format!("scheme {} is of another kind than its name says", quote(name.get_ref()));
            problems.error(&written.span, Fault::new(message).help("give the scheme a name of its own"));
            None
        }
        (Some(written), _) => Some(written.value),
        (None, Some(named)) => Some(named),
        (None, None) => {
            if !problems.is_lost(&["authentication", "schemes", name.get_ref(), "kind"]) {
                let fault = Fault::new(format!("scheme {} has no `kind`", quote(name.get_ref())));
                let meant = keys(raw).into_iter().find(|(_, span, _)| span.is_some());
                let meant = meant.map_or(SchemeKind::Token, |(_, _, kind)| kind).name();
                problems.error(&name.span(), fault.help(format!("write kind = \"{meant}\"")));
            }
            None
        }
    }
}

type Key = (&'static str, Option<Range<usize>>, SchemeKind);

/// Every key but `kind`: where it stands, and the kind that it belongs to.
fn keys(raw: &raw::Scheme) -> [Key; 12] {
    let span = |span: Option<&Range<usize>>| span.cloned();
    [
        ("keyword", span(raw.keyword.as_ref().map(|it| &it.span)), SchemeKind::Token),
        ("families", raw.families.as_ref().map(Spanned::span), SchemeKind::Token),
        ("realm", span(raw.realm.as_ref().map(|it| &it.span)), SchemeKind::Basic),
        ("cookie", span(raw.cookie.as_ref().map(|it| &it.span)), SchemeKind::Session),
        ("age", span(raw.age.as_ref().map(|it| &it.span)), SchemeKind::Session),
        ("secure", span(raw.secure.as_ref().map(|it| &it.span)), SchemeKind::Session),
        ("domain", span(raw.domain.as_ref().map(|it| &it.span)), SchemeKind::Session),
        ("same_site", span(raw.same_site.as_ref().map(|it| &it.span)), SchemeKind::Session),
        ("csrf", raw.csrf.as_ref().map(Spanned::span), SchemeKind::Session),
        ("header", span(raw.header.as_ref().map(|it| &it.span)), SchemeKind::RemoteUser),
        ("peers", raw.peers.as_ref().map(Spanned::span), SchemeKind::RemoteUser),
        ("create_users", span(raw.create_users.as_ref().map(|it| &it.span)), SchemeKind::RemoteUser),
    ]
}

/// Notes keys that belong to another kind.
fn check_keys(name: &Spanned<String>, kind: SchemeKind, raw: &raw::Scheme, problems: &mut Problems) {
    let keys = keys(raw);
    for (key, span, of) in &keys {
        if let Some(span) = span
            && *of != kind
        {
            let message = format!("{} is a key of schemes of kind {}", quote(key), quote(of.name()));
            let own: Vec<_> =
                keys.iter().filter(|(_, _, of)| *of == kind).map(|(key, ..)| quote(key)).collect();
            let help = format!(
                "{} is of kind {}, which has {}",
                quote(name.get_ref()),
                quote(kind.name()),
                own.join(", ")
            );
            problems.error(span, Fault::new(message).help(help));
        }
    }
}

const KEYWORD: &str = "Token";

/// The longest keyword.
const KEYWORD_BYTES_MAX: usize = 64;

fn keyword(written: Option<Entry<String>>, problems: &mut Problems) -> String {
    let Some(keyword) = written else { return KEYWORD.to_owned() };
    // RFC 9110 §11.1: auth-scheme is a token.
    if !is_token(&keyword.value) || keyword.value.len() > KEYWORD_BYTES_MAX {
        let fault =
            Fault::new(format!("expected a keyword such as \"Token\", found {}", quote(&keyword.value)));
        let help = format!("one word of letters and digits, at most {KEYWORD_BYTES_MAX}");
        problems.error(&keyword.span, fault.help(help));
    }
    keyword.value
}

fn remote_user(name: &Spanned<String>, raw: raw::Scheme, problems: &mut Problems) -> SchemeConfig {
    let has_peers = raw.peers.as_ref().is_some_and(|peers| !peers.get_ref().is_empty());
    if !has_peers && !problems.is_lost(&["authentication", "schemes", name.get_ref(), "peers"]) {
        let span = raw.peers.as_ref().map_or_else(|| name.span(), Spanned::span);
        let fault = Fault::new(format!("scheme {} has no `peers`", quote(name.get_ref())));
        let help = "name the servers whose word is believed: peers = [\"127.0.0.1\"]";
        problems.error(&span, fault.help(help));
    }
    if let Some(header) = &raw.header {
        check_header(header, "Remote-User", problems);
    }
    let peers = raw.peers.map(Spanned::into_inner).unwrap_or_default();
    let mut seen = BTreeSet::new();
    for peer in &peers {
        if peer.value.prefix_len() == 0 {
            let fault = Fault::new("every peer is believed, so any client can be any user");
            problems.warn(&peer.span, fault.help("list the addresses of your own servers"));
        }
        if !seen.insert(peer.value) {
            problems.error(&peer.span, Fault::new("this network is listed twice").help("keep one"));
        }
    }
    SchemeConfig::RemoteUser {
        header: raw.header.map_or(HeaderName::from_static("remote-user"), |header| header.value),
        peers: peers.into_iter().map(|peer| peer.value).collect(),
        create_users: raw.create_users.is_some_and(|entry| entry.value),
    }
}
