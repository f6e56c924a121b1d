//! What doorward answers itself: the handlers, and the keys of a route that belong to one of them.

use std::ops::Range;

use toml::Spanned;

use crate::config::problem::{Fault, Problems, quote, quote_all};
use crate::config::raw;
use crate::config::route::{Action, Context};
use crate::config::scheme::{SchemeConfig, SchemeKind, TokenFamily};
use crate::config::suggest;
use crate::config::value::{Written, one_of, unexpected};

/// A handler that this version knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handler {
    /// DRF's `obtain_auth_token`.
    ObtainToken,
    /// Django's `LoginView`.
    Login,
    /// Django's `LogoutView`.
    Logout,
    /// Tells clients who they are.
    WhoAmI,
}

impl Written for Handler {
    const EXPECTED: &'static str = "a handler such as \"obtain-token\"";
    const WORDS: &'static [(&'static str, Self)] = &[
        ("obtain-token", Self::ObtainToken),
        ("login", Self::Login),
        ("logout", Self::Logout),
        ("whoami", Self::WhoAmI),
    ];

    fn from_text(text: &str) -> Result<Self, Fault> {
        one_of(text)
    }
}

impl Handler {
    /// As it is written.
    fn name(self) -> &'static str {
        Self::WORDS.iter().find(|(_, handler)| *handler == self).map_or("", |(name, _)| name)
    }

    /// Where it usually is.
    pub(super) fn usual_path(self) -> &'static str {
        match self {
            Self::ObtainToken => "/api-token-auth/",
            Self::Login => "/accounts/login/",
            Self::Logout => "/accounts/logout/",
            Self::WhoAmI => "/whoami/",
        }
    }

    /// Whether everybody reaches it, with or without credentials, unless the route says otherwise: it gives them
    /// out, or takes them back.
    pub(super) fn is_open(self) -> bool {
        self != Self::WhoAmI
    }

    /// What becomes of a request; faults in the keys of the handler are noted.
    pub(super) fn action(
        self,
        name: &Spanned<String>,
        raw: &raw::Route,
        context: &Context<'_>,
        problems: &mut Problems,
    ) -> Option<Action> {
        match self {
            Self::ObtainToken => Some(Action::ObtainToken { family: family(raw, context, problems) }),
            Self::Login => {
                let session = session(name, raw, context, problems)?;
                Some(Action::Login { session, redirect: redirect(raw) })
            }
            Self::Logout => {
                let session = session(name, raw, context, problems)?;
                Some(Action::Logout { session, redirect: redirect(raw) })
            }
            Self::WhoAmI => Some(Action::WhoAmI),
        }
    }
}

/// Notes keys that belong to another handler than the route's, if it has one.
pub(super) fn check_keys(name: &Spanned<String>, raw: &raw::Route, problems: &mut Problems) {
    if problems.is_lost(&["routes", name.get_ref(), "handler"]) {
        return;
    }
    let handler = raw.handler.as_ref().map(|handler| handler.value);
    let mut check = |key: &str, span: Option<&Range<usize>>, handlers: &[Handler]| {
        let Some(span) = span.filter(|_| !handler.is_some_and(|it| handlers.contains(&it))) else { return };
        let handlers: Vec<_> = handlers.iter().map(|it| format!("handler = \"{}\"", it.name())).collect();
        let fault = Fault::new(format!("{} is a key of routes with {}", quote(key), handlers.join(" or ")));
        problems.error(span, fault.help("leave it out here"));
    };
    let sessions = [Handler::Login, Handler::Logout];
    check("family", raw.family.as_ref().map(|it| &it.span), &[Handler::ObtainToken]);
    check("session", raw.session.as_ref().map(|it| &it.span), &sessions);
    check("redirect", raw.redirect.as_ref().map(|it| &it.span), &sessions);
}

fn family(raw: &raw::Route, context: &Context<'_>, problems: &mut Problems) -> TokenFamily {
    match &raw.family {
        Some(family) => {
            family.value.check(&family.span, context.is_django, problems);
            family.value
        }
        None if context.is_django => TokenFamily::Authtoken,
        None => TokenFamily::Doorward,
    }
}

/// The session scheme that users log in to.
fn session(
    route: &Spanned<String>,
    raw: &raw::Route,
    context: &Context<'_>,
    problems: &mut Problems,
) -> Option<usize> {
    let (name, span) = match &raw.session {
        Some(entry) => (entry.value.as_str(), entry.span.clone()),
        None => (SchemeKind::Session.name(), route.span()),
    };
    let found = context.schemes.iter().position(|scheme| scheme.name == name);
    let is_session = |index: &usize| {
        context.schemes.get(*index).is_some_and(|scheme| matches!(scheme.kind, SchemeConfig::Session(_)))
    };
    if let Some(index) = found.filter(is_session) {
        return Some(index);
    }
    if problems.is_full() || problems.is_lost(&["authentication", "schemes", name]) {
        return None;
    }
    let sessions = || {
        let all = context.schemes.iter().filter(|scheme| matches!(scheme.kind, SchemeConfig::Session(_)));
        all.map(|scheme| scheme.name.as_str())
    };
    let message = match found {
        Some(_) => format!("scheme {} is not of kind `session`", quote(name)),
        None => format!("there is no scheme {}", quote(name)),
    };
    let help = suggest::did_you_mean(name, sessions());
    let help = help.unwrap_or_else(|| format!("of kind `session` are {}", quote_all(sessions())));
    problems.error(&span, Fault::new(message).help(help));
    None
}

fn redirect(raw: &raw::Route) -> String {
    raw.redirect.as_ref().map_or_else(|| "/".to_owned(), |entry| entry.value.0.clone())
}

/// The longest path that a browser is sent to.
const PATH_BYTES_MAX: usize = 1024;

/// A path of this host that browsers are sent to, with a query if need be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Redirect(pub(super) String);

impl Written for Redirect {
    const EXPECTED: &'static str = "a path of this host such as \"/welcome/\"";
    const PATTERN: Option<&'static str> = Some("^/([^/\\\\ ]+/)*[^/\\\\ ]*$");

    fn from_text(text: &str) -> Result<Self, Fault> {
        check_local(text).map_err(|help| unexpected::<Self>(text).help(help))?;
        Ok(Self(text.to_owned()))
    }
}

/// A page of this host; `next` is added to it, so it has no query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PagePath(pub(super) String);

impl Written for PagePath {
    const EXPECTED: &'static str = "a path of this host such as \"/accounts/login/\"";
    const PATTERN: Option<&'static str> = Some("^/([^/\\\\?# ]+/)*[^/\\\\?# ]*$");

    fn from_text(text: &str) -> Result<Self, Fault> {
        check_local(text).map_err(|help| unexpected::<Self>(text).help(help))?;
        if text.contains(['?', '#']) {
            return Err(unexpected::<Self>(text).help("without a query: `next` is added to it"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// What browsers would take for another host is refused: to them a backslash is a slash, and they drop tabs and line
/// breaks (URL standard, section 4.4).
fn check_local(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err("it must begin with a slash".to_owned());
    }
    if text.contains("//") {
        return Err("`//` would be another host".to_owned());
    }
    if let Some(c) = text.chars().find(|c| *c == '\\' || !c.is_ascii_graphic()) {
        return Err(format!("it must not contain {c:?}; other letters are written as %XX"));
    }
    if text.len() > PATH_BYTES_MAX {
        return Err(format!("it has more than {PATH_BYTES_MAX} bytes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_are_sent_to_this_host_alone() {
        for text in ["/", "/accounts/login/", "/a%20b", "/a-b_c.d~e"] {
            assert_eq!(PagePath::from_text(text).unwrap().0, text);
            assert_eq!(Redirect::from_text(text).unwrap().0, text);
        }
        for text in
            ["", "a", "//evil", "/\\evil", "/a\tb", "/a\n", "/a b", "/é", "https://evil", "/a//b", "/?n=//b"]
        {
            assert!(PagePath::from_text(text).is_err() && Redirect::from_text(text).is_err(), "{text:?}");
        }
        assert_eq!(Redirect::from_text("/?a=b#c").unwrap().0, "/?a=b#c");
        assert!(PagePath::from_text("/login?a=b").unwrap_err().to_string().contains("`next`"));
    }
}
