//! `[routes.NAME]`: which requests go where, and who may send them.
//!
//! Names are resolved here: a route holds indices of its upstream and its schemes. Rules between routes are in
//! `claims.rs`.

use std::ops::Range;
use std::time::Duration;

use http::Method;
use toml::Spanned;

use crate::config::authentication::{RouteDefaults, SchemeInstance, scheme_indices};
use crate::config::cache::STALE_MAX;
use crate::config::handler::{Handler, check_keys};
use crate::config::host::HostPattern;
use crate::config::problem::{Fault, Problems, quote, quote_all};
use crate::config::raw;
use crate::config::scheme::{SchemeConfig, TokenFamily};
use crate::config::suggest;
use crate::config::throttle::{Throttle, throttle_indices};
use crate::config::traps::{BadCredentials, Preflight, Unauthenticated};
use crate::config::upstream::Upstream;
use crate::config::value::{Entry, Size, Written, check_name, one_of, unexpected, within};

/// A rule matched by host, path and method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// What logs and metrics call it.
    pub name: String,
    /// Which hosts it serves.
    pub host: HostPattern,
    /// Prefix of whole segments: begins with a slash and ends with one only if it is the root.
    pub path: String,
    /// Which methods it serves; `None`: all.
    pub methods: Option<Vec<Method>>,
    /// What becomes of the request.
    pub action: Action,
    /// Indices into the schemes, in the order in which they are asked; the first decides 401 or 403.
    pub schemes: Vec<usize>,
    /// Who may pass.
    pub permission: Permission,
    /// Indices into the throttles, in the order in which they are asked.
    pub throttles: Vec<usize>,
    /// Bytes of a request's body at most.
    pub max_body: u64,
    /// Takes the path of the route away before forwarding.
    pub strip_prefix: bool,
    /// Leaves unverified credentials in the request.
    pub pass_unverified: bool,
    /// How long known credentials still pass while the store does not answer; zero: not at all.
    pub stale_while_unreachable: Duration,
    /// What the challenge of a basic scheme calls the place; `None`: what the scheme says.
    pub realm: Option<String>,
    /// Whether credentials in `Authorization` are asked before those that browsers send by themselves, whatever the
    /// order of the schemes.
    pub explicit_credentials_first: bool,
    /// What becomes of wrong credentials where none are needed.
    pub bad_credentials_on_public: BadCredentials,
    /// The status without credentials; `None`: the first scheme decides.
    pub unauthenticated_status: Option<Unauthenticated>,
    /// What becomes of CORS preflights.
    pub preflight: Preflight,
    /// Where browsers are sent that navigate here without credentials: a path of this host.
    pub login_page: Option<String>,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It goes to an upstream.
    Forward {
        /// Index into the upstreams.
        upstream: usize,
    },
    /// It is answered with a token for the right password.
    ObtainToken {
        /// What kind of token.
        family: TokenFamily,
    },
    /// It is answered with a page that asks for a password, or with a session for the right one.
    Login {
        /// Index into the schemes, of kind session.
        session: usize,
        /// Where a browser goes afterwards without `next`: a path of this host.
        redirect: String,
    },
    /// It ends the session.
    Logout {
        /// Index into the schemes, of kind session.
        session: usize,
        /// Where a browser goes afterwards without `next`: a path of this host.
        redirect: String,
    },
    /// It is answered with who the client is.
    WhoAmI,
}

/// Who may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permission {
    /// Everyone, with or without credentials.
    Anyone,
    /// Every user.
    Authenticated,
    /// Everyone with a safe method, every user with any.
    ReadOnly,
    /// Users marked as staff.
    Staff,
    /// Users in one of these groups.
    Groups(Vec<String>),
    /// These users.
    Users(Vec<String>),
}

/// The permissions that are one word.
#[derive(Debug, Clone, Copy)]
pub(super) enum SimplePermission {
    Anyone,
    Authenticated,
    ReadOnly,
    Staff,
}

impl Written for SimplePermission {
    const EXPECTED: &'static str = "a permission such as \"authenticated\" or { groups = [\"editors\"] }";
    const WORDS: &'static [(&'static str, Self)] = &[
        ("anyone", Self::Anyone),
        ("authenticated", Self::Authenticated),
        ("read-only", Self::ReadOnly),
        ("staff", Self::Staff),
    ];

    fn from_text(text: &str) -> Result<Self, Fault> {
        one_of(text)
    }
}

impl From<raw::Permission> for Permission {
    fn from(raw: raw::Permission) -> Self {
        match raw {
            raw::Permission::Simple(SimplePermission::Anyone) => Self::Anyone,
            raw::Permission::Simple(SimplePermission::Authenticated) => Self::Authenticated,
            raw::Permission::Simple(SimplePermission::ReadOnly) => Self::ReadOnly,
            raw::Permission::Simple(SimplePermission::Staff) => Self::Staff,
            raw::Permission::Groups(groups) => Self::Groups(groups),
            raw::Permission::Users(users) => Self::Users(users),
        }
    }
}

/// A body by default.
const MAX_BODY: Size = Size(10 << 20);

/// A body for a handler by default: a form with a name and a password.
const MAX_BODY_HANDLER: Size = Size(64 << 10);

/// What routes refer to.
#[derive(Debug)]
pub(super) struct Context<'a> {
    /// The upstreams, by name.
    pub(super) upstreams: &'a [Upstream],
    /// The schemes, by name.
    pub(super) schemes: &'a [SchemeInstance],
    /// The throttles, by name.
    pub(super) throttles: &'a [Throttle],
    /// What a route has unless it says otherwise.
    pub(super) defaults: &'a RouteDefaults,
    /// From `[cache]`.
    pub(super) stale_while_unreachable: Duration,
    /// Whether the store has Django's layout.
    pub(super) is_django: bool,
}

impl Route {
    /// Whether clients send passwords here: to a handler, or by a basic scheme.
    pub fn checks_passwords(&self, schemes: &[SchemeInstance]) -> bool {
        let is_basic = |index: &usize| {
            schemes.get(*index).is_some_and(|scheme| matches!(scheme.kind, SchemeConfig::Basic { .. }))
        };
        self.logs_in() || self.schemes.iter().any(is_basic)
    }

    /// Whether it is for logging in, and for nothing else.
    pub fn logs_in(&self) -> bool {
        matches!(self.action, Action::ObtainToken { .. } | Action::Login { .. })
    }

    /// The route; `None` if nothing is left of it but faults.
    pub(super) fn from_raw(
        name: &Spanned<String>,
        raw: raw::Route,
        context: &Context<'_>,
        problems: &mut Problems,
    ) -> Option<Self> {
        check_name(name, "a route", problems);
        let reach = Reach::from_raw(name, &raw, context, problems);
        let is_handler = raw.handler.is_some() && raw.upstream.is_none();
        let max_body_default = if is_handler { MAX_BODY_HANDLER } else { MAX_BODY };
        let sizes = Size(0)..=Size(1 << 40);
        let max_body = within(raw.max_body.as_ref(), max_body_default, sizes, "max_body", problems);
        let stale = within(
            raw.stale_while_unreachable.as_ref(),
            context.stale_while_unreachable,
            Duration::ZERO..=STALE_MAX,
            "stale_while_unreachable",
            problems,
        );
        let throttles =
            raw.throttles.as_ref().map(|names| throttle_indices(names, context.throttles, problems));
        check_keys(name, &raw, problems);
        let action = action(name, &raw, context, problems);
        let traps = context.defaults.traps.of_route(&raw);
        let handler = raw.handler.filter(|_| raw.upstream.is_none()).map(|handler| handler.value);
        let path = path(name, raw.path, handler, problems)?;
        Some(Self {
            name: name.get_ref().clone(),
            host: raw.host.map_or(HostPattern::Any, |host| host.value),
            path,
            methods: methods(raw.methods, problems),
            // What is missing has been reported, so the file is not used; its place is still claimed.
            action: action.unwrap_or(Action::Forward { upstream: usize::MAX }),
            schemes: reach.schemes,
            permission: reach.permission,
            throttles: throttles.unwrap_or_default(),
            max_body: max_body.0 as u64,
            strip_prefix: raw.strip_prefix.is_some_and(|entry| entry.value),
            pass_unverified: reach.pass_unverified,
            stale_while_unreachable: stale,
            realm: raw.realm.map(|realm| realm.value.0),
            explicit_credentials_first: traps.explicit_credentials_first,
            bad_credentials_on_public: traps.bad_credentials_on_public,
            unauthenticated_status: traps.unauthenticated_status,
            preflight: traps.preflight,
            login_page: raw.login_page.map(|page| page.value.0),
        })
    }
}

/// Who reaches a route, and how.
#[derive(Debug)]
struct Reach {
    schemes: Vec<usize>,
    permission: Permission,
    pass_unverified: bool,
}

impl Reach {
    fn from_raw(
        name: &Spanned<String>,
        raw: &raw::Route,
        context: &Context<'_>,
        problems: &mut Problems,
    ) -> Self {
        let is_open = raw.handler.as_ref().is_some_and(|handler| handler.value.is_open());
        let permission = match &raw.permission {
            Some(permission) => permission.get_ref().clone().into(),
            None if is_open => Permission::Anyone,
            None => context.defaults.permission.clone(),
        };
        let schemes = match &raw.schemes {
            Some(names) => scheme_indices(names, context.schemes, problems),
            None if is_open => Vec::new(),
            None => context.defaults.schemes.clone(),
        };
        let pass_unverified = raw.pass_unverified.as_ref().filter(|entry| entry.value);
        let reach = Self { schemes, permission, pass_unverified: pass_unverified.is_some() };
        reach.check_passable(name, raw, problems);
        reach.check_login_page(name, raw, context, problems);
        if let Some(entry) = pass_unverified
            && reach.permission != Permission::Anyone
            && !problems.is_lost(&["routes", name.get_ref(), "permission"])
        {
            let fault = Fault::new("`pass_unverified` is only for routes with permission = \"anyone\"");
            problems.error(
                &entry.span,
                fault.help("elsewhere credentials are verified, and refused if they are wrong"),
            );
        }
        reach
    }

    /// What a login makes is a session.
    fn check_login_page(
        &self,
        name: &Spanned<String>,
        raw: &raw::Route,
        context: &Context<'_>,
        problems: &mut Problems,
    ) {
        let Some(page) = &raw.login_page else { return };
        let is_session = |index: &usize| {
            context.schemes.get(*index).is_some_and(|scheme| matches!(scheme.kind, SchemeConfig::Session(_)))
        };
        let route = name.get_ref().as_str();
        let is_lost = problems.is_lost(&["routes", route, "schemes"])
            || problems.is_lost(&["authentication", "schemes"])
            || raw.schemes.as_ref().is_some_and(|names| names.get_ref().len() != self.schemes.len());
        if is_lost || self.schemes.iter().any(is_session) {
            return;
        }
        let fault =
            Fault::new("whoever has logged in is led to the login page again: the route takes no sessions");
        problems.warn(&page.span, fault.help("write \"session\" among its schemes"));
    }

    /// Without a scheme nobody is ever known.
    fn check_passable(&self, name: &Spanned<String>, raw: &raw::Route, problems: &mut Problems) {
        // Names that are not known have been reported.
        let names_none = raw.schemes.as_ref().is_none_or(|names| names.get_ref().is_empty());
        let may_be_passed = self.permission == Permission::Anyone || !self.schemes.is_empty() || !names_none;
        let is_lost = |problems: &Problems| {
            let route = name.get_ref().as_str();
            let paths: [&[&str]; 3] = [
                &["routes", route, "schemes"],
                &["routes", route, "permission"],
                &["authentication", "schemes"],
            ];
            paths.into_iter().any(|path| problems.is_lost(path))
        };
        if may_be_passed || is_lost(problems) {
            return;
        }
        let schemes = raw.schemes.as_ref().map(Spanned::span);
        let permission = raw.permission.as_ref().map(Spanned::span);
        let span = schemes.or(permission).unwrap_or_else(|| name.span());
        let fault = Fault::new(format!("nobody can pass route {}: it has no schemes", quote(name.get_ref())));
        let fault = fault.help("write schemes = [\"token\"], or permission = \"anyone\"");
        // Whoever wrote that there are none may mean it: DRF answers 403 there.
        if raw.schemes.is_some() { problems.warn(&span, fault) } else { problems.error(&span, fault) }
    }
}

fn action(
    name: &Spanned<String>,
    raw: &raw::Route,
    context: &Context<'_>,
    problems: &mut Problems,
) -> Option<Action> {
    match (&raw.upstream, &raw.handler) {
        (Some(upstream), None) => {
            upstream_index(upstream, context, problems).map(|upstream| Action::Forward { upstream })
        }
        (None, Some(handler)) => handler.value.action(name, raw, context, problems),
        (Some(_), Some(handler)) => {
            let fault =
                Fault::new(format!("route {} has both `upstream` and `handler`", quote(name.get_ref())));
            problems.error(&handler.span, fault.help("keep one: a request is forwarded, or answered here"));
            None
        }
        (None, None) => {
            if !problems.is_lost(&["routes", name.get_ref()]) {
                let fault = Fault::new(format!(
                    "route {} has neither `upstream` nor `handler`",
                    quote(name.get_ref())
                ));
                let known = context.upstreams.first().map_or("legacy", |upstream| &upstream.name);
                problems.error(&name.span(), fault.help(format!("write upstream = \"{known}\"")));
            }
            None
        }
    }
}

fn upstream_index(name: &Entry<String>, context: &Context<'_>, problems: &mut Problems) -> Option<usize> {
    let found = context.upstreams.iter().position(|upstream| upstream.name == name.value);
    if found.is_none() && !problems.is_full() && !problems.is_lost(&["upstreams", &name.value]) {
        let known = || context.upstreams.iter().map(|upstream| upstream.name.as_str());
        let help = suggest::did_you_mean(&name.value, known());
        let help = help.unwrap_or_else(|| match known().next() {
            Some(_) => format!("known here are {}", quote_all(known())),
            None => "define it: [upstreams.NAME] with servers = [\"http://127.0.0.1:9000\"]".to_owned(),
        });
        problems
            .error(&name.span, Fault::new(format!("there is no upstream {}", quote(&name.value))).help(help));
    }
    found
}

/// A handler at the root would be a slip, everything else begins there.
fn path(
    name: &Spanned<String>,
    path: Option<Entry<RoutePath>>,
    handler: Option<Handler>,
    problems: &mut Problems,
) -> Option<String> {
    match (path, handler) {
        (Some(path), _) => Some(path.value.0),
        (None, _) if problems.is_lost(&["routes", name.get_ref(), "path"]) => None,
        (None, Some(handler)) => {
            let fault = Fault::new(format!("route {} has no `path`", quote(name.get_ref())));
            let help = format!("write path = \"{}\"", handler.usual_path());
            problems.error(&name.span(), fault.help(help));
            None
        }
        (None, None) => Some("/".to_owned()),
    }
}

fn methods(methods: Option<Spanned<Vec<Entry<Method>>>>, problems: &mut Problems) -> Option<Vec<Method>> {
    let methods = methods?;
    let span: Range<usize> = methods.span();
    let mut found: Vec<Method> = Vec::new();
    for method in methods.into_inner() {
        if !found.contains(&method.value) {
            found.push(method.value);
        }
    }
    // RFC 9110 §9.3.8: TRACE is answered here. CONNECT is for proxies.
    if found.iter().all(|method| matches!(*method, Method::TRACE | Method::CONNECT)) {
        let fault = Fault::new("this route can never match: none of its methods is ever forwarded");
        problems.warn(&span, fault.help("leave `methods` out for all of them"));
    }
    Some(found)
}

impl Written for Method {
    const EXPECTED: &'static str = "a method such as \"GET\"";
    const PATTERN: Option<&'static str> = Some("^[^a-z]+$");

    fn from_text(text: &str) -> Result<Self, Fault> {
        let capitals = text.to_ascii_uppercase();
        let method = Self::from_bytes(text.as_bytes()).ok().filter(|_| text.len() <= 32);
        match method {
            // RFC 9110 §9.1: methods are case-sensitive.
            Some(_) if capitals != text => {
                Err(unexpected::<Self>(text).help(format!("did you mean \"{capitals}\"?")))
            }
            Some(method) => Ok(method),
            None => Err(unexpected::<Self>(text)),
        }
    }
}

/// The longest path of a route.
const PATH_BYTES_MAX: usize = 1024;

/// A path in normal form.
#[derive(Debug, Clone)]
pub(super) struct RoutePath(pub(super) String);

impl Written for RoutePath {
    const EXPECTED: &'static str = "a path such as \"/api/\"";
    const PATTERN: Option<&'static str> = Some("^/");

    fn from_text(text: &str) -> Result<Self, Fault> {
        let refuse = |help: &str| Err(unexpected::<Self>(text).help(help));
        let Some(rest) = text.strip_prefix('/') else {
            return Err(unexpected::<Self>(text).help("it must begin with a slash"));
        };
        if text.len() > PATH_BYTES_MAX {
            return refuse(&format!("it has more than {PATH_BYTES_MAX} bytes"));
        }
        if let Some(c) = text.chars().find(|&c| "%?#;\\".contains(c) || c.is_control()) {
            return refuse(&format!("it must not contain {c:?}: paths are compared decoded, without query"));
        }
        let trimmed = rest.strip_suffix('/').unwrap_or(rest);
        let is_normal = |segment: &str| !matches!(segment, "" | "." | "..");
        if !(rest.is_empty() || trimmed.split('/').all(is_normal)) {
            return refuse("it must not have empty segments, `.` or `..`");
        }
        Ok(Self(format!("/{trimmed}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normal_or_refused() {
        for (text, path) in
            [("/", "/"), ("/api", "/api"), ("/api/", "/api"), ("/a/b.c/", "/a/b.c"), ("/é", "/é")]
        {
            assert_eq!(RoutePath::from_text(text).unwrap().0, path);
        }
        for text in [
            "", "api", "//", "/a//b", "/./a", "/a/..", "/a%2fb", "/a?b", "/a#b", "/a;b", "/a\\b", "/a\n",
            "/a//",
        ] {
            assert!(RoutePath::from_text(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn methods_are_in_capitals() {
        assert_eq!(Method::from_text("PROPFIND").unwrap().as_str(), "PROPFIND");
        let fault = Method::from_text("get").unwrap_err().to_string();
        assert!(fault.ends_with("did you mean \"GET\"?"), "{fault}");
        assert!(Method::from_text("G T").is_err());
    }
}
